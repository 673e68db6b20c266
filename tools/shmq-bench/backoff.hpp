// SPDX-License-Identifier: Apache-2.0
//
// The adaptive back-off of libshmq, written again for the peers that are compared with it, so that
// a ratio shows the queue and not the waiting. Also time, pause and copying, which all share.
#pragma once

#include <algorithm>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <cstring>

namespace shmq_bench {

inline std::uint64_t now_ns() noexcept {
  return static_cast<std::uint64_t>(std::chrono::duration_cast<std::chrono::nanoseconds>(
                                        std::chrono::steady_clock::now().time_since_epoch())
                                        .count());
}

inline void cpu_pause() noexcept {
#if defined(__x86_64__)
  __builtin_ia32_pause();
#elif defined(__aarch64__)
  __asm__ __volatile__("isb" ::: "memory");
#endif
}

/// In line for small payloads, where a call of libc would be most of the cost.
inline void copy_payload(std::byte* to, const std::byte* from, std::size_t bytes) noexcept {
  if (bytes > 1024) {
    std::memcpy(to, from, bytes);
    return;
  }
  for (; bytes >= 64; bytes -= 64, to += 64, from += 64) std::memcpy(to, from, 64);
  for (; bytes >= 8; bytes -= 8, to += 8, from += 8) std::memcpy(to, from, 8);
  for (; bytes > 0; --bytes) *to++ = *from++;
}

class Backoff {
 public:
  // A pause takes about 25 ns on the machines of the measurements; 2,048 of them about 51 us.
  static constexpr std::uint32_t wait_max_pauses = 2048;

  void made_progress() noexcept { ++burst_; }
  void wait() noexcept {
    if (burst_ <= 2) {
      wait_ /= 2;
    } else if (burst_ < 4096) {
      wait_ = std::min(wait_ * 2 + 4, wait_max_pauses);
    } else if (burst_ > 8192) {
      wait_ -= wait_ / 4;
    }
    burst_ = 0;
    const std::uint32_t pauses = std::max(wait_, 1U);
    for (std::uint32_t i = 0; i < pauses; ++i) cpu_pause();
  }

 private:
  std::uint64_t burst_ = 0;
  std::uint32_t wait_ = 0;
};

/// Polls at once, as textbook queues do.
class NoBackoff {
 public:
  void made_progress() noexcept {}
  void wait() noexcept {}
};

}  // namespace shmq_bench
