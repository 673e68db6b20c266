// SPDX-License-Identifier: Apache-2.0
//
// The futex system call, shared between processes (not FUTEX_PRIVATE_FLAG).
#pragma once

#include <chrono>
#include <cstdint>

namespace shmq::sync {

/// Sleeps while `word == expected`, at most `limit`. May return early for any reason.
void futex_wait(const std::uint32_t& word, std::uint32_t expected,
                std::chrono::nanoseconds limit) noexcept;
/// The same on two words at once: the second one is this process's own. Where the kernel
/// (before 5.16, or a container's filter) has no such call, it sleeps on the first alone.
void futex_wait_either(const std::uint32_t& word, std::uint32_t expected,
                       const std::uint32_t& own_word, std::uint32_t own_expected,
                       std::chrono::nanoseconds limit) noexcept;
/// Wakes those of this process who sleep on an own word.
void futex_wake_own(const std::uint32_t& own_word) noexcept;
/// Wakes everybody who sleeps on `word`.
void futex_wake_all(const std::uint32_t& word) noexcept;

}  // namespace shmq::sync
