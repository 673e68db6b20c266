// SPDX-License-Identifier: Apache-2.0
//
// Seeded defects, to prove that the tests can fail. Built only with SHMQ_MUTANTS (never in a
// release); the environment variable SHMQ_MUTANT=n then chooses one at run time. Each mutant has a
// line in tests/mutants/mutants.tsv that names the test that must kill it.
#pragma once

namespace shmq::base {

#ifdef SHMQ_MUTANTS
int chosen_mutant() noexcept;
inline bool mutant(int number) noexcept { return chosen_mutant() == number; }
#else
constexpr bool mutant(int) noexcept { return false; }
#endif

}  // namespace shmq::base

// Named points for fault injection; nothing in a release.
#ifdef SHMQ_CRASH_POINTS
namespace shmq::base {
using CrashHook = void (*)(const char* point);
extern CrashHook crash_hook;
}  // namespace shmq::base
#define SHMQ_CRASH_POINT(point) \
  (::shmq::base::crash_hook != nullptr ? ::shmq::base::crash_hook(point) : static_cast<void>(0))
#else
#define SHMQ_CRASH_POINT(point) static_cast<void>(0)
#endif
