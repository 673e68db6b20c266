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
  /// How long a wait for stable storage spins before it sleeps. Longer than a sync takes saves the
  /// time of a wake-up, and costs a core.
  std::chrono::nanoseconds confirm_spin = std::chrono::microseconds{50};
};

struct PublishOptions {
  /// memory: no wait. flushed: the daemon is told to begin with its batch now; no wait. synced:
  /// waits until the message is on stable storage. The last two need a durable queue.
  Durability durability = Durability::memory;
  /// How long to wait for room with Overflow::block and for stable storage, together. Zero: do not
  /// wait.
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
  /// the loan stays valid and may be committed again, with not_published, too; after success and
  /// published_unconfirmed it is empty.
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
  ///
  /// Errors after which nothing was published: full, timed_out, interrupted, message_too_large,
  /// removed, closed, forked, corrupt; not_durable (a durability other than memory on a transient
  /// queue); not_published (on a durable one whose daemon is away or cannot write to its disk).
  /// published_unconfirmed, with the seq: the message is in the queue and will be delivered, but
  /// that it is on stable storage was not confirmed, since the time was over, the call was
  /// interrupted, or the daemon went away (noticed within 200 ms). Publishing again would publish a
  /// second message; wait_synced goes on waiting for this one.
  PublishResult publish(std::span<const std::byte> payload) noexcept;
  PublishResult publish(std::span<const std::byte> payload, const PublishOptions& options) noexcept;
  PublishResult publish(std::string_view text) noexcept {
    return publish(std::as_bytes(std::span{text.data(), text.size()}));
  }
  PublishResult publish(std::string_view text, const PublishOptions& options) noexcept {
    return publish(std::as_bytes(std::span{text.data(), text.size()}), options);
  }

  /// Publishes several messages with one look for sleepers. Not atomic: messages of others may lie
  /// between, and `published` of them are in the queue, in order, when it ends early. With
  /// Durability::synced it waits once, for the last of them; published_unconfirmed then means that
  /// the last ones may not be on stable storage yet.
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

  /// Waits until the message `seq` of this queue, and with it every earlier one, is on stable
  /// storage, whoever published it. Many messages can be published and awaited by their last.
  /// Errors: timed_out, interrupted, daemon_away (told within 200 ms of its end), degraded (its
  /// disk fails: at once), not_durable, removed, closed, forked. All but the last four can be tried
  /// again: the message stays in the queue, and is synced when the daemon is back.
  Result<void> wait_synced(Seq seq, std::chrono::nanoseconds timeout = forever,
                           std::stop_token stop = {}) noexcept;
  /// All messages with lower seqs are on stable storage. One load, never waits; 0 on a transient
  /// queue.
  [[nodiscard]] Seq synced_end() const noexcept;

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
