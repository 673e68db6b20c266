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
/// Wakes everybody who sleeps on `word`.
void futex_wake_all(const std::uint32_t& word) noexcept;

}  // namespace shmq::sync
