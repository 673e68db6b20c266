// SPDX-License-Identifier: Apache-2.0
//
// Copying bytes that another process may be writing at that moment. The copy is worth something
// only if the caller finds out afterwards, by an atomic word, that nobody was. Word by word and
// volatile, so that the compiler makes no more of it; ThreadSanitizer is told not to look, since
// what it would report is what the caller checks.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstring>

namespace shmq::sync {

#if defined(__SANITIZE_THREAD__)
__attribute__((no_sanitize("thread"), noinline))
#endif
inline void
racy_copy(std::byte* to, const std::byte* from, std::size_t bytes) noexcept {
  const auto address = reinterpret_cast<std::uintptr_t>(from);
  if (address % sizeof(std::uint64_t) == 0) {
    for (; bytes >= sizeof(std::uint64_t); bytes -= 8, from += 8, to += 8) {
      const std::uint64_t word = *reinterpret_cast<const volatile std::uint64_t*>(from);
      __builtin_memcpy(to, &word, sizeof(word));
    }
  }
  for (; bytes != 0; --bytes) *to++ = *const_cast<const volatile std::byte*>(from++);
}

}  // namespace shmq::sync
