// SPDX-License-Identifier: Apache-2.0
//
// One blocked call: spins, then sleeps, until the caller's condition holds.
//
//   Blocking blocking{…};
//   while (!condition()) { switch (blocking.step(word, limit)) { … } }
//
// The condition is looked at again after the sleeper was announced and before it sleeps, so no
// wake-up is missed (see sync/event.hpp).
#pragma once

#include <sched.h>

#include <atomic>
#include <chrono>
#include <cstdint>
#include <stop_token>

#include "base/clock.hpp"
#include "base/mutant.hpp"
#include "sync/backoff.hpp"
#include "sync/call_gate.hpp"
#include "sync/event.hpp"

namespace shmq::detail {

class Blocking {
 public:
  enum class Step : std::uint8_t { look_again, timed_out, interrupted };

  Blocking(std::chrono::nanoseconds timeout, const std::stop_token& stop,
           std::atomic<bool>& interrupted, const sync::CallGate& gate,
           std::uint64_t& asleep_since_ms) noexcept
      : timeout_(timeout),
        stop_(stop),
        interrupted_(interrupted),
        gate_(gate),
        asleep_since_ms_(asleep_since_ms) {}
  Blocking(const Blocking&) = delete;
  Blocking& operator=(const Blocking&) = delete;
  ~Blocking() {
    if (slept_) sync::store_relaxed(asleep_since_ms_, 0);
  }

  /// Spins for a while first; then announces itself on `word`; then sleeps on it, at most `limit`.
  Step step(std::uint32_t& word, sync::Backoff* backoff, std::chrono::nanoseconds limit) noexcept {
    if (is_interrupted()) return Step::interrupted;
    if (timeout_.count() <= 0) return Step::timed_out;
    if (backoff != nullptr && pauses_ < spin_pauses) {
      pauses_ += backoff->wait();
      return Step::look_again;
    }
    const std::chrono::nanoseconds left = time_left();
    if (left.count() <= 0) return Step::timed_out;
    if (announced_ != &word) {
      announced_ = &word;
      ticket_ = sync::event_prepare(word);
      return Step::look_again;
    }
    announced_ = nullptr;
    // For people who look; the clock is read only by who goes to sleep anyway, once a call.
    if (!slept_) sync::store_relaxed(asleep_since_ms_, base::clock->coarse_ns() / 1'000'000);
    sync::event_sleep(word, ticket_, limit < left ? limit : left);
    slept_ = true;
    return Step::look_again;
  }

  /// On a word that cannot be written from here, so that its owner wakes in any case: `ticket` was
  /// read before the condition was looked at. Spins for `spin` first. Whoever interrupts moves
  /// `own_word`, of this process, and wakes who sleeps on it.
  Step watch(const std::uint32_t& word, std::uint32_t ticket, const std::uint32_t& own_word,
             std::chrono::nanoseconds spin) noexcept {
    // [B1] acquire, before the look whether there is an interrupt, pairs with B2: it is seen, or
    // the word has moved by the time of the sleep, which then is none.
    const std::uint32_t own_ticket = sync::load_acquire(own_word);
    if (is_interrupted()) return Step::interrupted;
    if (timeout_.count() <= 0) return Step::timed_out;
    if (may_spin(spin)) {
      for (int pause = 0; pause < pauses_per_look; ++pause) sync::cpu_pause();
      // With more waiters than cores, the daemon may be waiting for this one.
      ::sched_yield();
      const std::uint64_t now = base::clock->monotonic_ns();
      if (spin_began_ns_ == 0) spin_began_ns_ = now;
      if (began_ns_ == 0) began_ns_ = now;
      spun_ = std::chrono::nanoseconds{now - spin_began_ns_};
      return Step::look_again;
    }
    const std::chrono::nanoseconds left = time_left();
    if (left.count() <= 0) return Step::timed_out;
    SHMQ_CRASH_POINT("confirms.before_sleep");
    sync::event_sleep_interruptibly(word, ticket, own_word, own_ticket, left);
    slept_ = true;
    return Step::look_again;
  }
  /// Will watch() spin?
  [[nodiscard]] bool may_spin(std::chrono::nanoseconds spin) const noexcept {
    return spun_ < spin && !slept_ && timeout_.count() > 0;
  }
  [[nodiscard]] bool slept() const noexcept { return slept_; }
  /// About to sleep, or just woken.
  [[nodiscard]] bool sleeps() const noexcept { return slept_ || announced_ != nullptr; }

 private:
  // About 100 us of pauses: longer than a wake-up takes (25 us here), short against a time slice.
  static constexpr std::uint64_t spin_pauses = 4096;
  static constexpr int pauses_per_look = 16;

  // relaxed: a first look that costs nothing. acq_rel: what was done before interrupt() is seen,
  // and one interrupt ends one call.
  bool is_interrupted() noexcept {
    return gate_.closing() || stop_.stop_requested() ||
           (interrupted_.load(std::memory_order_relaxed) &&
            interrupted_.exchange(false, std::memory_order_acq_rel));
  }
  // Counted from the first time that it is asked for: who need not wait reads no clock.
  std::chrono::nanoseconds time_left() noexcept {
    if (timeout_ == std::chrono::nanoseconds::max()) return timeout_;
    const std::uint64_t now = base::clock->monotonic_ns();
    if (began_ns_ == 0) began_ns_ = now;
    return timeout_ - std::chrono::nanoseconds{now - began_ns_};
  }

  std::chrono::nanoseconds timeout_;
  const std::stop_token& stop_;
  std::atomic<bool>& interrupted_;
  const sync::CallGate& gate_;
  std::uint64_t& asleep_since_ms_;  // of the participant's entry
  std::uint64_t pauses_ = 0;
  std::uint64_t began_ns_ = 0;
  std::uint64_t spin_began_ns_ = 0;
  std::chrono::nanoseconds spun_{0};
  std::uint32_t* announced_ = nullptr;
  std::uint32_t ticket_ = 0;
  bool slept_ = false;
};

}  // namespace shmq::detail
