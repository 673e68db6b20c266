// SPDX-License-Identifier: Apache-2.0
//
// The few functions of base that need a body.
#include <cstdio>
#include <cstdlib>

#include "base/assert.hpp"
#include "base/mutant.hpp"

namespace shmq::base {

void assertion_failed(const char* expression, const char* file, int line) noexcept {
  std::fprintf(stderr, "libshmq: internal error: %s (%s:%d)\n", expression, file, line);
  std::abort();
}

#ifdef SHMQ_MUTANTS
int chosen_mutant() noexcept {
  static const int number = [] {
    const char* text = std::getenv("SHMQ_MUTANT");
    return text == nullptr ? 0 : std::atoi(text);
  }();
  return number;
}
#endif

#ifdef SHMQ_CRASH_POINTS
CrashHook crash_hook = nullptr;
#endif

}  // namespace shmq::base
