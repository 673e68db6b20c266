// SPDX-License-Identifier: Apache-2.0
#include "api/confirms.hpp"

#include <cstring>

#include "base/mutant.hpp"
#include "sync/doorbell.hpp"
#include "sync/futex.hpp"

namespace shmq::detail {

Errc Confirms::look() const noexcept {
  if (sync::load_acquire(segment_.control().queue_state) !=
      static_cast<std::uint32_t>(shm::QueueState::active)) {
    return Errc::removed;
  }
  // The lock first: a killed daemon leaves its state as it was.
  if (!participation_.daemon_lives() && !base::mutant(80)) return Errc::daemon_away;
  const auto state = static_cast<shm::DaemonState>(sync::load_acquire(mark_->daemon_state));
  if (state == shm::DaemonState::degraded) return Errc::degraded;
  if (state == shm::DaemonState::stopped) return Errc::daemon_away;
  return Errc::ok;
}

Errc Confirms::look_for(Durability durability) const noexcept {
  switch (durability) {
    case Durability::memory: return Errc::ok;
    case Durability::flushed:
    case Durability::synced: return durable() ? look() : Errc::not_durable;
  }
  return Errc::invalid_argument;
}

void Confirms::ring() const noexcept {
  // [D1] A full fence, pairs with that of the daemon between "asleep" and its last look: it sees
  // what was done before, or we see that it sleeps.
  sync::full_fence();
  if (sync::load_relaxed(segment_.control().daemon_asleep) == 0 || base::mutant(81)) return;
  std::uint64_t words[shm::mark_path_words + 1] = {};
  for (std::size_t i = 0; i < shm::mark_path_words; ++i) {
    words[i] = sync::load_relaxed(mark_->doorbell_path[i]);
  }
  const auto* path = reinterpret_cast<const char*>(words);
  sync::ring_doorbell({path, ::strnlen(path, sizeof(words))}, segment_.queue());
}

template <typename Reached>
Errc Confirms::wait(Reached reached, Blocking& blocking) const noexcept {
  if (SHMQ_LIKELY(reached())) return Errc::ok;
  ring();
  for (;;) {
    // [D2] acquire: the ticket before the look; what moves after it ends the sleep at once.
    const std::uint32_t ticket = sync::load_acquire(mark_->progress_event);
    if (reached()) return Errc::ok;
    if (!blocking.may_spin(spin_)) {
      if (const Errc code = look(); code != Errc::ok) return reached() ? Errc::ok : code;
      // The datagram may have been lost, or the daemon fallen asleep again.
      if (blocking.slept()) ring();
    }
    switch (blocking.watch(mark_->progress_event, ticket, interrupts_, spin_)) {
      case Blocking::Step::timed_out: return Errc::timed_out;
      case Blocking::Step::interrupted: return Errc::interrupted;
      case Blocking::Step::look_again: break;
    }
  }
}

Errc Confirms::wait_synced(std::uint64_t seq, Blocking& blocking) const noexcept {
  // [D3] acquire, pairs with M1: the barrier has completed.
  return wait(
      [&] { return sync::load_acquire(mark_->watermark) > seq - (base::mutant(82) ? 1 : 0); },
      blocking);
}

Errc Confirms::wait_acks_synced(Blocking& blocking) const noexcept {
  // [D4] A full fence between the settlement and this look, pairs with M2: who still reads a lower
  // number than that of a look is seen by it. The look that is under way may have passed our group.
  sync::full_fence();
  const std::uint64_t looked = sync::load_acquire(mark_->acks_looked);
  return wait(
      [&] { return sync::load_acquire(mark_->acks_synced) + (base::mutant(83) ? 1 : 0) > looked; },
      blocking);
}

void Confirms::wake() const noexcept {
  if (mark_ == nullptr) return;
  // [B2] seq_cst, pairs with B1: who reads the new count sees why. The mark's own word cannot be
  // moved, it is mapped read-only; its sleepers are woken for kernels that wait for one word only,
  // where this may come just before a sleep, which then lasts its 100 ms.
  __atomic_fetch_add(&interrupts_, 1, __ATOMIC_SEQ_CST);
  sync::futex_wake_own(interrupts_);
  sync::futex_wake_all(mark_->progress_event);
}

}  // namespace shmq::detail
