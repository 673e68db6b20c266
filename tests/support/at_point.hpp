// SPDX-License-Identifier: Apache-2.0
//
// A race made certain: at a named point of one operation another one runs to its end. Only in
// builds with crash points.
#pragma once

#ifdef SHMQ_CRASH_POINTS
#include <cstring>
#include <functional>
#include <utility>

#include "base/mutant.hpp"

namespace shmq::testing {

inline std::function<void()> then;
inline const char* wanted = nullptr;
inline int hits = 0;  // of the point that was asked for last

// Runs `action` once, at the next passage of `point`.
inline void at_point(const char* point, std::function<void()> action) {
  wanted = point;
  then = std::move(action);
  hits = 0;
  base::crash_hook = [](const char* reached) {
    if (wanted == nullptr || std::strcmp(reached, wanted) != 0) return;
    wanted = nullptr;  // first, so that the action itself is not hooked
    ++hits;
    const auto now = std::move(then);  // the action may ask for a next one
    now();
  };
}

}  // namespace shmq::testing
#endif
