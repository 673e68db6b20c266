// SPDX-License-Identifier: Apache-2.0
//
// Receiving: a group hands its messages to its consumers; each message stays until it is
// acknowledged.
//
// A Consumer and its deliveries belong to one thread at a time. close() and interrupt() may be
// called from any thread. In an exclusive group one consumer is the active one, gets everything in
// order, and the others stand by. In a shared group each message is leased to one of the consumers.
// When a consumer's process dies, the others get what it had in flight at once (within 200 ms,
// without a daemon).
#pragma once

#include <chrono>
#include <cstddef>
#include <memory>
#include <optional>
#include <shmq/error.hpp>
#include <shmq/options.hpp>
#include <span>
#include <stop_token>
#include <utility>
#include <vector>

namespace shmq {

namespace detail {
class ConsumerCore;
}

struct ConsumerOptions {
  std::string name{};  ///< shown by `shmqctl consumer ls`; at most 63 bytes, cut beyond
  std::optional<GroupMode> expect_mode{};  ///< wrong_group_mode if the group's is another
  /// How long a wait for stable storage spins before it sleeps; see ProducerOptions.
  std::chrono::nanoseconds confirm_spin = std::chrono::microseconds{50};
};

/// What became of an ack, nack, release or extend.
enum class [[nodiscard]] Settlement : std::uint8_t{
    settled,     ///< done
    lease_lost,  ///< refused, nothing changed: the message belongs to another consumer by now, was
                 ///< dropped or settled already, or the handle is closed
    settled_unconfirmed,  ///< done, and not undone while the host is up; that it is on stable
                          ///< storage was not confirmed: the time was over, the call was
                          ///< interrupted, or the daemon is away or cannot write to its disk. After
                          ///< a loss of power the message may be delivered again.
    not_durable,          ///< refused, nothing changed: such a durability needs a durable queue
};

struct AckOptions {
  /// memory: no wait. flushed: the daemon is told to begin with its batch now; no wait. synced:
  /// waits until the ack is on stable storage. The last two need a durable queue.
  Durability durability = Durability::memory;
  /// How long to wait for stable storage. Zero: do not wait.
  std::chrono::nanoseconds timeout = forever;
  std::stop_token stop{};
};

/// Fences writes to other systems: of two tokens for one seq, the one with the higher number was
/// given later.
struct FencingToken {
  Seq seq{};
  std::uint64_t number = 0;
  friend constexpr auto operator<=>(const FencingToken&, const FencingToken&) = default;
};

/// One hand-out of a message. payload() and attributes stay readable and unchanged as long as this
/// object lives, whatever happens to the lease. Going out of scope unsettled counts as a nack with
/// back-off. Must not outlive its consumer.
class SHMQ_API Delivery {
 public:
  Delivery() noexcept = default;
  Delivery(Delivery&& other) noexcept { swap(other); }
  Delivery& operator=(Delivery&& other) noexcept {
    if (this != &other) {
      if (core_ != nullptr) drop();
      core_ = nullptr;
      swap(other);
    }
    return *this;
  }
  ~Delivery() {
    if (core_ != nullptr) drop();
  }

  /// True when nothing came in time; then nothing else may be asked.
  [[nodiscard]] bool empty() const noexcept { return core_ == nullptr; }
  [[nodiscard]] std::span<const std::byte> payload() const noexcept {
    return {payload_, payload_bytes_};
  }
  [[nodiscard]] std::string_view text() const noexcept {
    return {reinterpret_cast<const char*>(payload_), payload_bytes_};
  }
  [[nodiscard]] Seq seq() const noexcept { return seq_; }
  /// How often this message was handed out in this group, this time included.
  [[nodiscard]] std::uint32_t hand_outs() const noexcept { return hand_outs_; }
  /// How often it failed before: nacked, or its lease expired (shared groups).
  [[nodiscard]] std::uint32_t failures() const noexcept { return failures_; }
  [[nodiscard]] FencingToken fencing_token() const noexcept { return {seq_, token_}; }
  /// CLOCK_REALTIME at publish, if the producer asked for it.
  [[nodiscard]] std::optional<std::chrono::system_clock::time_point> publish_time() const noexcept;
  /// The attributes, as views into the message.
  [[nodiscard]] std::vector<Attribute> attributes() const;

  Settlement ack() noexcept;
  /// The same, and waits as `options` say. settled: as durable as was asked for.
  Settlement ack(const AckOptions& options) noexcept;
  /// Failed: deliver again after `delay` (at most 8 hours, longer is cut). Counts. An exclusive
  /// group holds the successors back until then; in a shared group they go on.
  Settlement nack(std::chrono::nanoseconds delay = {}) noexcept;
  /// Give back: deliver again at once, does not count as a failure.
  Settlement release() noexcept;
  /// Never again: in a shared group the message becomes dead, kept but no longer handed out, as
  /// long as its dead messages have room (see GroupOptions::delivery_limit); else, and in an
  /// exclusive group, it is settled. Counted in either case.
  Settlement reject() noexcept;
  /// Prolongs the lease: `lease` from now (at most 1 hour), the group's when zero. In an exclusive
  /// group the lease is the consumer's, not the delivery's, and is never longer than the group's.
  Settlement extend(std::chrono::nanoseconds lease = {}) noexcept;

 private:
  friend class detail::ConsumerCore;
  friend class Consumer;
  void drop() noexcept;
  void swap(Delivery& other) noexcept {
    std::swap(core_, other.core_);
    std::swap(payload_, other.payload_);
    std::swap(seq_, other.seq_);
    std::swap(payload_bytes_, other.payload_bytes_);
    std::swap(token_, other.token_);
    std::swap(hand_outs_, other.hand_outs_);
    std::swap(failures_, other.failures_);
    std::swap(pin_, other.pin_);
    std::swap(settled_, other.settled_);
  }

  detail::ConsumerCore* core_ = nullptr;
  const std::byte* payload_ = nullptr;
  Seq seq_{};
  std::uint32_t payload_bytes_ = 0;
  std::uint32_t token_ = 0;
  std::uint16_t hand_outs_ = 0;
  std::uint8_t failures_ = 0;
  bool settled_ = false;
  std::uint32_t pin_ = 0;
};

class SHMQ_API Consumer {
 public:
  Consumer(Consumer&&) noexcept;
  Consumer& operator=(Consumer&&) noexcept;
  ~Consumer();

  /// Waits up to `timeout` for a message; an empty delivery when none came. Errors: interrupted,
  /// in_flight_limit, removed, corrupt, closed, forked: not the same as "nothing came"; and, on a
  /// queue with Visible::synced, daemon_away: there are messages, but nobody makes them durable.
  /// Then it may be called again, and goes on when the daemon is back.
  Result<Delivery> receive(std::chrono::nanoseconds timeout = forever,
                           std::stop_token stop = {}) noexcept;
  /// Never waits.
  Result<Delivery> try_receive() noexcept { return receive(std::chrono::nanoseconds::zero()); }
  /// Fills `deliveries` from the front with what is there, waiting only for the first; gives their
  /// number, 0 when none came in time. What the array held before is dropped first.
  Result<std::size_t> receive_batch(std::span<Delivery> deliveries,
                                    std::chrono::nanoseconds timeout = forever,
                                    std::stop_token stop = {}) noexcept;

  /// Settles all own deliveries up to and including `seq`: in an exclusive group one atomic step
  /// when they are in order, in a shared one a step each. lease_lost: at least one was not ours any
  /// more.
  Settlement ack_through(Seq seq) noexcept;
  /// The same, and waits once for all of them, as `options` say.
  Settlement ack_through(Seq seq, const AckOptions& options) noexcept;
  /// Waits until everything that this consumer settled so far (acks, nacks, rejects) is on stable
  /// storage: one wait for many acks. Errors as Producer::wait_synced.
  Result<void> wait_acks_synced(std::chrono::nanoseconds timeout = forever,
                                std::stop_token stop = {}) noexcept;

  /// True while this consumer is the active one of its exclusive group, as of the last call; always
  /// in a shared group.
  [[nodiscard]] bool active() const noexcept;

  /// A descriptor for epoll: level-triggered readable while there is (probably) something to
  /// receive; call try_receive until it gives nothing. Owned by the consumer.
  Result<int> fd();

  /// Ends a blocked call of this handle with Errc::interrupted, or the next one that would block.
  /// Any thread.
  void interrupt() noexcept;
  /// Gives what is in flight back and detaches. Deliveries must be gone before. Idempotent.
  void close() noexcept;

 private:
  friend class Queue;
  explicit Consumer(std::unique_ptr<detail::ConsumerCore> core) noexcept;
  std::unique_ptr<detail::ConsumerCore> core_;
};

}  // namespace shmq
