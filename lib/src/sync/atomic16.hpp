// SPDX-License-Identifier: Apache-2.0
//
// Words of 16 bytes that change by one compare-and-swap, and plain-old-memory atomics.
//
// Rules:
//  1. A Word16 is aligned to 16 bytes; its low half is the half that versions it (seq, stamp,
//     floor, head), so that a reader who loads the low half with acquire is ordered after the CAS.
//  2. Reading is two 8-byte loads: {old low, new high} can be seen. Who needs the pair intact looks
//     at the low half again, or CASes with what it read.
//  3. A 16-byte std::atomic calls into libatomic with g++ 12, which may lock; the builtin below is
//     one `lock cmpxchg16b` (or a casp), and ThreadSanitizer knows it.
#pragma once

#include <atomic>
#include <cstdint>
#include <type_traits>

namespace shmq::sync {

struct alignas(16) Word16 {
  std::uint64_t low;
  std::uint64_t high;
  friend bool operator==(const Word16&, const Word16&) = default;
};
static_assert(sizeof(Word16) == 16);

__extension__ typedef unsigned __int128 Wide;

/// One atomic instruction: full barrier on success and on failure (x86: a locked instruction;
/// elsewhere the __sync builtins are sequentially consistent). Wait-free.
inline bool compare_and_swap(Word16& word, Word16 expected, Word16 desired) noexcept {
  const Wide from = (static_cast<Wide>(expected.high) << 64) | expected.low;
  const Wide to = (static_cast<Wide>(desired.high) << 64) | desired.low;
  return __sync_bool_compare_and_swap(reinterpret_cast<Wide*>(&word), from, to);
}

template <typename T>
inline T load_relaxed(const T& place) noexcept {
  return __atomic_load_n(&place, __ATOMIC_RELAXED);
}
template <typename T>
inline T load_acquire(const T& place) noexcept {
  return __atomic_load_n(&place, __ATOMIC_ACQUIRE);
}
template <typename T>
inline void store_relaxed(T& place, std::type_identity_t<T> value) noexcept {
  __atomic_store_n(&place, value, __ATOMIC_RELAXED);
}
template <typename T>
inline void store_release(T& place, std::type_identity_t<T> value) noexcept {
  __atomic_store_n(&place, value, __ATOMIC_RELEASE);
}
/// Sequentially consistent, and so a full barrier.
template <typename T>
inline bool compare_and_swap(T& place, std::type_identity_t<T> expected,
                             std::type_identity_t<T> desired) noexcept {
  return __atomic_compare_exchange_n(&place, &expected, desired, false, __ATOMIC_SEQ_CST,
                                     __ATOMIC_SEQ_CST);
}
template <typename T>
inline T fetch_add(T& place, std::type_identity_t<T> amount) noexcept {
  return __atomic_fetch_add(&place, amount, __ATOMIC_RELAXED);
}

/// Orders earlier stores before later loads, which nothing less does.
inline void full_fence() noexcept {
#if defined(__SANITIZE_THREAD__)
  // ThreadSanitizer does not model fences; a locked operation on a word of the thread's own keeps
  // the instruction, and the races it would report are on atomics only.
  static thread_local std::atomic<int> word{0};
  word.fetch_add(1, std::memory_order_seq_cst);
#elif defined(__x86_64__)
  // Cheaper than mfence, same effect for ordinary memory.
  __asm__ __volatile__("lock; orl $0, (%%rsp)" ::: "memory", "cc");
#else
  std::atomic_thread_fence(std::memory_order_seq_cst);
#endif
}

/// Two loads, low first with acquire: see rule 2.
inline Word16 read_halves(const Word16& word) noexcept {
  Word16 value;
  value.low = load_acquire(word.low);
  value.high = load_acquire(word.high);
  return value;
}

inline void cpu_pause() noexcept {
#if defined(__x86_64__)
  __builtin_ia32_pause();
#elif defined(__aarch64__)
  __asm__ __volatile__("isb" ::: "memory");
#endif
}

}  // namespace shmq::sync
