// SPDX-License-Identifier: Apache-2.0
//
// What stands behind a Producer.
#pragma once

#include <array>
#include <atomic>
#include <shmq/producer.hpp>

#include "api/confirms.hpp"
#include "queue/participants.hpp"
#include "queue/publisher.hpp"

namespace shmq::detail {

class ReadinessSource;

class ProducerCore {
 public:
  ProducerCore(std::shared_ptr<shm::Segment> segment, queue::Participation participation,
               std::byte* arena, const ProducerOptions& options);
  ~ProducerCore();

  /// With default options; the fast path.
  PublishResult publish(std::span<const std::byte> payload) noexcept;
  PublishResult publish(std::span<const std::byte> payload, const PublishOptions& options) noexcept;
  Producer::BatchResult publish_batch(std::span<const std::span<const std::byte>> payloads,
                                      const PublishOptions& options) noexcept;
  Errc loan(std::size_t payload_bytes, const PublishOptions& options, std::span<std::byte>& bytes,
            std::uint32_t& ticket) noexcept;
  PublishResult commit(std::uint32_t ticket, std::size_t payload_bytes,
                       const PublishOptions& options) noexcept;
  void abandon(std::uint32_t ticket) noexcept;

  Errc wait_synced(Seq seq, std::chrono::nanoseconds timeout, const std::stop_token& stop) noexcept;
  [[nodiscard]] Seq synced_end() const noexcept { return {confirms_.watermark()}; }

  Result<int> fd();
  void interrupt() noexcept;
  void close() noexcept;

 private:
  static constexpr std::uint32_t loans_max = 64;
  struct LoanEntry {
    std::byte* place = nullptr;  // null: free
    queue::RecordShape shape{};
    std::uint32_t chunk = 0;
  };

  Errc check(const PublishOptions& options) noexcept;
  Errc shape(std::size_t payload_bytes, std::span<const Attribute> attributes,
             queue::RecordShape& shape) const noexcept;
  Errc allocate(std::uint64_t bytes, const PublishOptions& options, std::byte*& place) noexcept;
  template <auto copy>
  bool publish_fast(std::span<const std::byte> payload) noexcept;
  PublishResult after_publish() noexcept;
  PublishResult publish_large(std::span<const std::byte> payload) noexcept;
  PublishResult publish_slowly(std::span<const std::byte> payload,
                               const PublishOptions& options) noexcept;
  PublishResult publish_one(std::span<const std::byte> payload,
                            const PublishOptions& options) noexcept;
  PublishResult publish_record(std::byte* place, std::uint32_t chunk,
                               const PublishOptions& options) noexcept;
  Errc make_room(bool for_arena, const PublishOptions& options, Blocking& blocking,
                 int& attempts) noexcept;
  Errc confirm(Seq seq, const PublishOptions& options, std::chrono::nanoseconds left) noexcept;
  void move_hint() noexcept;
  void count(std::uint64_t messages, std::uint64_t bytes) noexcept;

  std::shared_ptr<shm::Segment> segment_;
  queue::Participation participation_;
  queue::Publisher publisher_;
  const Confirms confirms_;
  const Overflow overflow_;
  const std::uint64_t max_message_bytes_;
  const bool publish_time_;
  const std::uint64_t fast_end_bytes_;   // shorter payloads can be usual messages
  const std::uint64_t small_end_bytes_;  // and still shorter ones are published without a call
  shm::Participant& entry_;
  std::uint64_t messages_at_last_wait_ = 0;
  std::uint64_t bytes_at_last_wait_ = 0;
  sync::Backoff backoff_;
  sync::CallGate gate_;
  std::atomic<bool> interrupted_{false};
  std::array<LoanEntry, loans_max> loans_{};
  std::unique_ptr<ReadinessSource> readiness_;
};

}  // namespace shmq::detail
