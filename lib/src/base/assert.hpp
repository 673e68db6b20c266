// SPDX-License-Identifier: Apache-2.0
//
// SHMQ_ASSERT: a promise of our own code. On in release. Never about shared bytes: those are
// others' and a bad one is an error result.
#pragma once

namespace shmq::base {
[[noreturn]] void assertion_failed(const char* expression, const char* file, int line) noexcept;
}

#define SHMQ_ASSERT(expression)                       \
  (__builtin_expect(static_cast<bool>(expression), 1) \
       ? static_cast<void>(0)                         \
       : ::shmq::base::assertion_failed(#expression, __FILE__, __LINE__))

#define SHMQ_LIKELY(x) __builtin_expect(static_cast<bool>(x), 1)
#define SHMQ_UNLIKELY(x) __builtin_expect(static_cast<bool>(x), 0)
