// SPDX-License-Identifier: Apache-2.0
//
// Time that moves when the test says so, in all clocks; support/fake_clock.hpp leaves waiting real.
#pragma once

#include "base/clock.hpp"

namespace shmq::testing {

class StandstillClock {
 public:
  StandstillClock() : before_(base::clock) {
    now_ns_ = 1'000'000'000;
    base::clock = &fake_;
  }
  StandstillClock(const StandstillClock&) = delete;
  StandstillClock& operator=(const StandstillClock&) = delete;
  ~StandstillClock() { base::clock = before_; }

  static void advance(std::uint64_t ns) { now_ns_ += ns; }

 private:
  static std::uint64_t now() noexcept { return now_ns_; }

  static inline std::uint64_t now_ns_ = 0;
  static constexpr base::Clock fake_{now, now, now};
  const base::Clock* before_;
};

}  // namespace shmq::testing
