// SPDX-License-Identifier: Apache-2.0
//
// Publishing: by copy, or zero-copy by a loan.
//
// A Producer belongs to one thread at a time; several producers of one queue in a process are
// fine. close(), interrupt() may be called from any thread. A producer that dies or is stopped at
// any instruction delays nobody.
#pragma once

#include <chrono>
#include <cstddef>
#include <memory>
#include <shmq/error.hpp>
#include <shmq/options.hpp>
#include <span>
#include <stop_token>

namespace shmq {

namespace detail {
class ProducerCore;
}

struct ProducerOptions {
  std::string name{};         ///< shown by `shmqctl consumer ls`; at most 63 bytes, cut beyond
  bool publish_time = false;  ///< stamp each message with CLOCK_REALTIME (one clock read each)
};

struct PublishOptions {
  Durability durability = Durability::memory;
  /// How long to wait for room with Overflow::block. Zero: do not wait.
  std::chrono::nanoseconds timeout = forever;
  std::span<const Attribute> attributes{};
  std::stop_token stop{};
};

/// A seq, or the reason why there is none. Two words; never allocates.
class [[nodiscard]] PublishResult {
 public:
  constexpr PublishResult(Seq seq) noexcept : seq_(seq) {}   // NOLINT(google-explicit-constructor)
  constexpr PublishResult(Errc code, Seq seq = {}) noexcept  // NOLINT(google-explicit-constructor)
      : seq_(seq), code_(code) {}

  [[nodiscard]] constexpr bool has_value() const noexcept { return code_ == Errc::ok; }
  constexpr explicit operator bool() const noexcept { return has_value(); }
  /// Valid when has_value(), and with Errc::published_unconfirmed.
  [[nodiscard]] constexpr Seq operator*() const noexcept { return seq_; }
  [[nodiscard]] constexpr Seq seq() const noexcept { return seq_; }
  [[nodiscard]] constexpr Errc code() const noexcept { return code_; }
  [[nodiscard]] Error error() const { return {code_}; }

 private:
  Seq seq_{};
  Errc code_ = Errc::ok;
};

/// Room for one message, written in place. Dropped without commit(), it is abandoned and nobody
/// ever sees it. Must not outlive its producer. A loan that is held for long delays nobody; it
/// costs the queue the chunk that it lies in.
class SHMQ_API Loan {
 public:
  Loan() noexcept = default;
  Loan(Loan&& other) noexcept;
  Loan& operator=(Loan&& other) noexcept;
  ~Loan();

  /// The payload, uninitialised (it may show bytes of old messages).
  [[nodiscard]] std::span<std::byte> bytes() const noexcept { return bytes_; }
  /// Publishes the first `payload_bytes` bytes (default: all). On full, timed_out and interrupted
  /// the loan stays valid and may be committed again; after success it is empty.
  PublishResult commit() noexcept { return commit(bytes_.size(), {}); }
  PublishResult commit(std::size_t payload_bytes, const PublishOptions& options) noexcept;
  /// Gives the room back unpublished.
  void abandon() noexcept;

 private:
  friend class Producer;
  detail::ProducerCore* core_ = nullptr;
  std::span<std::byte> bytes_{};
  std::uint32_t ticket_ = 0;
};

class SHMQ_API Producer {
 public:
  Producer(Producer&&) noexcept;
  Producer& operator=(Producer&&) noexcept;
  ~Producer();

  /// Copies `payload` into the queue. Lock-free; waits only for room, as PublishOptions says.
  /// Errors: full, timed_out, interrupted, message_too_large, removed, closed, forked, corrupt,
  /// daemon_away (a durability that this queue cannot give: nothing is published).
  PublishResult publish(std::span<const std::byte> payload) noexcept;
  PublishResult publish(std::span<const std::byte> payload, const PublishOptions& options) noexcept;
  PublishResult publish(std::string_view text) noexcept {
    return publish(std::as_bytes(std::span{text.data(), text.size()}));
  }
  PublishResult publish(std::string_view text, const PublishOptions& options) noexcept {
    return publish(std::as_bytes(std::span{text.data(), text.size()}), options);
  }

  /// Publishes several messages with one look for sleepers. Not atomic: messages of others may lie
  /// between, and `published` of them are in the queue, in order, when it ends early.
  struct [[nodiscard]] BatchResult {
    std::size_t published = 0;
    Seq last{};            ///< of the last one published; meaningless if published == 0
    Errc code = Errc::ok;  ///< why it ended early, or ok
  };
  BatchResult publish_batch(std::span<const std::span<const std::byte>> payloads,
                            const PublishOptions& options = {}) noexcept;

  /// Borrows room for a message of up to `payload_bytes`. Attributes are copied now. Waits for
  /// room in the arena as PublishOptions says. At most 64 loans of a producer at once.
  Result<Loan> loan(std::size_t payload_bytes, const PublishOptions& options = {}) noexcept;

  /// A descriptor for epoll: level-triggered readable while there is (probably) room. Owned by the
  /// producer. Costs a helper thread per process and a system call when the queue gets full.
  Result<int> fd();

  /// Ends a blocked call of this handle with Errc::interrupted, or the next one that would block.
  /// Any thread.
  void interrupt() noexcept;
  /// Detaches. A call blocked in another thread ends with Errc::interrupted first. Idempotent.
  void close() noexcept;

 private:
  friend class Queue;
  explicit Producer(std::unique_ptr<detail::ProducerCore> core) noexcept;
  std::unique_ptr<detail::ProducerCore> core_;
};

}  // namespace shmq
