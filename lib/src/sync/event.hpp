// SPDX-License-Identifier: Apache-2.0
//
// Sleep and wake over one shared 32-bit word {count 31 bits, somebody sleeps 1 bit}.
//
//   sleeper:  ticket = event_prepare(word);  look again;  event_sleep(word, ticket, limit)
//   waker:    make it true (a full barrier);  event_notify(word)
//
// Why nothing is missed: the sleeper sets the bit (S1, full barrier) and then looks; the waker
// makes it true (full barrier) and then looks for the bit (W1). One of the two sees the other. The
// waker that sees the bit changes the word (W2), so a sleeper that has not yet slept does not. A
// killed sleeper leaves the bit set and costs one wake-up; a waker killed between W2 and the system
// call takes a wake-up with it, which is why each sleep has a limit (100 ms). Both sides are
// lock-free; nobody waits for another here but by event_sleep.
#pragma once

#include <chrono>
#include <cstdint>

#include "base/assert.hpp"
#include "base/mutant.hpp"
#include "sync/atomic16.hpp"
#include "sync/futex.hpp"

namespace shmq::sync {

inline constexpr std::uint32_t event_sleeper_bit = 1;
inline constexpr std::uint32_t event_count_unit = 2;
inline constexpr std::chrono::milliseconds sleep_limit{100};

/// [S1] seq_cst, pairs with W1: announces the sleeper before it looks again.
inline std::uint32_t event_prepare(std::uint32_t& word) noexcept {
  if (base::mutant(10)) return load_relaxed(word);  // looks without announcing itself
  return __atomic_fetch_or(&word, event_sleeper_bit, __ATOMIC_SEQ_CST) | event_sleeper_bit;
}

inline void event_sleep(const std::uint32_t& word, std::uint32_t ticket,
                        std::chrono::nanoseconds limit) noexcept {
  futex_wait(word, ticket, limit < sleep_limit ? limit : std::chrono::nanoseconds{sleep_limit});
}

/// The same, and ends when `own_word`, of this process, is not `own_expected` any more.
inline void event_sleep_interruptibly(const std::uint32_t& word, std::uint32_t ticket,
                                      const std::uint32_t& own_word, std::uint32_t own_expected,
                                      std::chrono::nanoseconds limit) noexcept {
  futex_wait_either(word, ticket, own_word, own_expected,
                    limit < sleep_limit ? limit : std::chrono::nanoseconds{sleep_limit});
}

/// The slow half of event_notify, and what an interruption uses: wakes whoever sleeps.
inline void event_wake(std::uint32_t& word) noexcept {
  std::uint32_t seen = load_relaxed(word);
  // [W2] seq_cst: the count moves, so a sleeper between S1 and its system call does not sleep. A
  // failed CAS means that another waker moved it, or a sleeper came: look again, bounded by what
  // others do (lock-free); whoever moved it wakes all.
  while ((seen & event_sleeper_bit) != 0) {
    if (compare_and_swap(word, seen, (seen + event_count_unit) & ~event_sleeper_bit)) {
      futex_wake_all(word);
      return;
    }
    seen = load_relaxed(word);
  }
}

/// Is event_notify needed? The same rule: after a full barrier that follows what was made true.
inline bool event_has_sleeper(const std::uint32_t& word) noexcept {
  // [W1] relaxed, pairs with S1: the caller's full barrier orders it after the change.
  return (load_relaxed(word) & event_sleeper_bit) != 0;
}

/// Call after a full barrier that follows what was made true. One relaxed load when nobody sleeps.
inline void event_notify(std::uint32_t& word) noexcept {
  if (SHMQ_UNLIKELY(event_has_sleeper(word))) {
    if (base::mutant(4)) return;  // wake-up dropped
    event_wake(word);
  }
}

/// For interruptions: changes the word and wakes, whether or not the bit is set, so that a thread
/// just before its sleep does not sleep.
inline void event_wake_unconditionally(std::uint32_t& word) noexcept {
  __atomic_fetch_add(&word, event_count_unit, __ATOMIC_SEQ_CST);
  futex_wake_all(word);
}

}  // namespace shmq::sync
