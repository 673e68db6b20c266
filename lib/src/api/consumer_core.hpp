// SPDX-License-Identifier: Apache-2.0
//
// What stands behind a Consumer and its deliveries.
#pragma once

#include <array>
#include <atomic>
#include <memory>
#include <optional>
#include <shmq/consumer.hpp>

#include "api/confirms.hpp"
#include "queue/exclusive.hpp"
#include "queue/participants.hpp"
#include "queue/shared.hpp"

namespace shmq::detail {

class ReadinessSource;

// Delivery::pin_: the pin, and above it the bytes from the record to the payload.
inline constexpr std::uint32_t pin_bits = 8;

class ConsumerCore {
 public:
  ConsumerCore(std::shared_ptr<shm::Segment> segment, queue::Participation participation,
               std::uint32_t group, std::uint64_t group_word,
               std::chrono::nanoseconds confirm_spin);
  ConsumerCore(const ConsumerCore&) = delete;
  ~ConsumerCore();

  /// `code` ok and 0: nothing came in time.
  bool receive_fast(Delivery& delivery) noexcept;
  std::size_t receive(std::span<Delivery> deliveries, std::chrono::nanoseconds timeout,
                      const std::stop_token& stop, Errc& code) noexcept;

  /// What a receive that failed with `code` has to say.
  Error error_of(Errc code) {
    if (code == Errc::corrupt) {
      if (auto error = reader_.take_past_error()) return std::move(*error);
    }
    return Error{code};
  }

  Settlement ack(Delivery& delivery) noexcept;
  Settlement ack(Delivery& delivery, const AckOptions& options) noexcept;
  Settlement ack_through(Seq seq) noexcept;
  Settlement ack_through(Seq seq, const AckOptions& options) noexcept;
  Errc wait_acks_synced(std::chrono::nanoseconds timeout, const std::stop_token& stop) noexcept;
  Settlement give_back(Delivery& delivery, std::chrono::nanoseconds delay, bool failed) noexcept;
  Settlement reject(Delivery& delivery) noexcept;
  Settlement extend(const Delivery& delivery, std::chrono::nanoseconds lease) noexcept;
  /// The delivery object goes: nacks if unsettled, lets go of the bytes.
  void drop(Delivery& delivery) noexcept;

  [[nodiscard]] bool active() const noexcept { return shared_ || exclusive_->active(); }
  Result<int> fd();
  void interrupt() noexcept;
  void close() noexcept;

 private:
  [[nodiscard]] bool is_open_here() noexcept;
  [[nodiscard]] bool is_lost(const Delivery& delivery) const noexcept;
  template <typename Settle>
  Settlement settle(const AckOptions& options, Settle settle_it) noexcept;
  void keep_lease() noexcept;
  void wake_own_waits() noexcept;
  static std::uint64_t record_bytes(const Delivery& delivery) noexcept;
  void release_bytes(const Delivery& delivery) noexcept;
  void fill(Delivery& delivery, const queue::HandOut& hand_out) noexcept;
  void note_received(std::uint64_t messages, std::uint64_t bytes) noexcept;
  /// Nothing is left to settle: settled, or the lease is lost. May err towards no.
  [[nodiscard]] bool is_over(const Delivery& delivery) noexcept;
  static std::uint32_t pin_of(const Delivery& delivery) noexcept {
    return delivery.pin_ & ((1U << pin_bits) - 1);
  }
  static void forget(Delivery& delivery) noexcept {
    delivery.core_ = nullptr;
    delivery.payload_ = nullptr;
    delivery.payload_bytes_ = 0;
  }
  void clear(std::span<Delivery> deliveries) noexcept;
  void let_go(const Delivery& delivery) noexcept;
  bool receive_next(Delivery& delivery) noexcept;
  bool settle_voids(std::size_t& count) noexcept;
  queue::Fetch try_receive(std::span<Delivery> deliveries, std::size_t& count) noexcept;
  Errc wait(queue::Fetch why, Blocking& blocking) noexcept;
  Errc hurry_the_daemon(const Blocking& blocking) noexcept;
  void look_for_the_dead() noexcept;
  void reap() noexcept;
  void note_burst() noexcept;

  static constexpr std::size_t batch_max = 256;

  std::shared_ptr<shm::Segment> segment_;
  queue::Participation participation_;
  // One of the two, as the group's mode says.
  std::optional<queue::ExclusiveConsumer> exclusive_;
  std::optional<queue::SharedConsumer> shared_;
  const Confirms confirms_;
  queue::Reader& reader_;
  shm::Participant& entry_;
  const std::byte* const arena_;
  const bool sees_synced_only_;
  std::uint64_t messages_at_last_wait_ = 0;
  std::uint64_t bytes_at_last_wait_ = 0;
  std::uint32_t last_reap_tick_ = 0;
  std::uint32_t empty_looks_ = 0;
  std::uint64_t away_since_ns_ = 0;            // as looks have found it; 0: it is there
  std::uint64_t rung_at_ = ~std::uint64_t{0};  // the watermark then
  bool reached_the_end_ = false;               // the last batch was cut short by the tail
  sync::Backoff backoff_;
  sync::CallGate gate_;
  std::atomic<bool> interrupted_{false};
  std::unique_ptr<ReadinessSource> readiness_;
  std::array<queue::HandOut, batch_max> hand_outs_;
};

}  // namespace shmq::detail
