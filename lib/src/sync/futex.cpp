// SPDX-License-Identifier: Apache-2.0
#include "sync/futex.hpp"

#include <linux/futex.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <atomic>
#include <cerrno>
#include <climits>
#include <ctime>

#include "base/mutant.hpp"

namespace shmq::sync {

void futex_wait(const std::uint32_t& word, std::uint32_t expected,
                std::chrono::nanoseconds limit) noexcept {
  if (limit.count() <= 0) return;
  timespec time{};
  time.tv_sec = limit.count() / 1'000'000'000;
  time.tv_nsec = limit.count() % 1'000'000'000;
  syscall(SYS_futex, &word, FUTEX_WAIT, expected, &time, nullptr, 0);
}

void futex_wait_either(const std::uint32_t& word, std::uint32_t expected,
                       const std::uint32_t& own_word, std::uint32_t own_expected,
                       std::chrono::nanoseconds limit) noexcept {
  if (limit.count() <= 0) return;
#ifdef SYS_futex_waitv
  // relaxed: whoever does not know it yet finds out for itself.
  static std::atomic<bool> is_missing{false};
  if (!is_missing.load(std::memory_order_relaxed) && !base::mutant(132)) {
    ::futex_waitv words[2] = {};
    words[0].val = expected;
    words[0].uaddr = reinterpret_cast<std::uintptr_t>(&word);
    words[0].flags = FUTEX_32;
    words[1].val = own_expected;
    words[1].uaddr = reinterpret_cast<std::uintptr_t>(&own_word);
    words[1].flags = FUTEX_32 | FUTEX_PRIVATE_FLAG;
    timespec until{};
    clock_gettime(CLOCK_MONOTONIC, &until);
    const auto nanoseconds = until.tv_nsec + limit.count();
    until.tv_sec += nanoseconds / 1'000'000'000;
    until.tv_nsec = nanoseconds % 1'000'000'000;
    if (syscall(SYS_futex_waitv, words, 2, 0, &until, CLOCK_MONOTONIC) >= 0) return;
    if (errno != ENOSYS && errno != EPERM && errno != EINVAL) return;
    // relaxed: a hint that spares the next call; nothing hangs on it.
    is_missing.store(true, std::memory_order_relaxed);
  }
#endif
  futex_wait(word, expected, limit);
}

void futex_wake_own(const std::uint32_t& own_word) noexcept {
  syscall(SYS_futex, &own_word, FUTEX_WAKE_PRIVATE, INT_MAX, nullptr, nullptr, 0);
}

void futex_wake_all(const std::uint32_t& word) noexcept {
  syscall(SYS_futex, &word, FUTEX_WAKE, INT_MAX, nullptr, nullptr, 0);
}

}  // namespace shmq::sync
