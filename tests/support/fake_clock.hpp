// SPDX-License-Identifier: Apache-2.0
//
// A clock that a test moves. Make it before any handle; the system's is back when it goes. Waiting
// (CLOCK_MONOTONIC) stays real.
#pragma once

#include <atomic>
#include <chrono>

#include "base/clock.hpp"

namespace shmq::testing {

class FakeClock {
 public:
  FakeClock() {
    now_ns_ = base::system_clock.coarse_ns();
    fake_ = {[]() noexcept { return now_ns_.load(); }, base::system_clock.monotonic_ns,
             base::system_clock.realtime_ns};
    base::clock = &fake_;
  }
  FakeClock(const FakeClock&) = delete;
  FakeClock& operator=(const FakeClock&) = delete;
  ~FakeClock() { base::clock = &base::system_clock; }

  void advance(std::chrono::nanoseconds time) {
    now_ns_ += static_cast<std::uint64_t>(time.count());
  }

 private:
  static inline std::atomic<std::uint64_t> now_ns_{0};
  base::Clock fake_{};
};

}  // namespace shmq::testing
