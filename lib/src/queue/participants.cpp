// SPDX-License-Identifier: Apache-2.0
#include "queue/participants.hpp"

#include <sys/stat.h>
#include <unistd.h>

#include <cstdio>
#include <cstring>
#include <utility>

#include "base/clock.hpp"
#include "base/mutant.hpp"
#include "queue/groups.hpp"
#include "queue/head.hpp"
#include "queue/shared_group.hpp"
#include "sync/event.hpp"

namespace shmq::queue {
namespace {

using shm::ParticipantState;

std::uint64_t read_start_time_ticks() noexcept {
  std::FILE* file = std::fopen("/proc/self/stat", "re");
  if (file == nullptr) return 0;
  char text[1024];
  const std::size_t bytes = std::fread(text, 1, sizeof(text) - 1, file);
  std::fclose(file);
  text[bytes] = '\0';
  const char* field = std::strrchr(text, ')');  // the command may hold anything, even ')'
  unsigned long long start_time = 0;
  if (field != nullptr) {
    std::sscanf(field + 1,
                " %*c %*d %*d %*d %*d %*d %*u %*u %*u %*u %*u %*u %*u %*d %*d %*d %*d %*d %*d %llu",
                &start_time);
  }
  return start_time;
}

std::uint64_t read_pid_namespace_inode() noexcept {
  struct stat status {};
  return stat("/proc/self/ns/pid", &status) == 0 ? status.st_ino : 0;
}

void describe_self(shm::Participant& entry, const std::string& name, std::uint64_t group_word) {
  for (std::uint64_t& pin : entry.pins) sync::store_relaxed(pin, 0);
  sync::store_relaxed(entry.messages_total, 0);
  sync::store_relaxed(entry.bytes_total, 0);
  sync::store_relaxed(entry.asleep_since_ms, 0);
  sync::store_relaxed(entry.pid, static_cast<std::uint32_t>(getpid()));
  sync::store_relaxed(entry.uid, geteuid());
  sync::store_relaxed(entry.start_time_ticks, read_start_time_ticks());
  sync::store_relaxed(entry.pid_namespace_inode, read_pid_namespace_inode());
  sync::store_relaxed(entry.attached_realtime_ns, base::clock->realtime_ns());
  char padded[shm::name_field_bytes] = {};
  name.copy(padded, sizeof(padded) - 1);
  std::memcpy(entry.name, padded, sizeof(padded));
  sync::store_relaxed(entry.visiting, 0);
  // [A2] release: who finds the group's name here finds an entry that is ours.
  sync::store_release(entry.group_word, group_word);
}

// A consumer that died as the active one: nobody is, until a successor comes.
void give_up_groups_of(const shm::Segment& segment, std::uint32_t number, std::uint64_t dead_word) {
  for (std::uint32_t i = 0; i < segment.limits().max_groups; ++i) {
    shm::Group& group = segment.group(i);
    for (int attempt = 0; attempt < 64; ++attempt) {
      const sync::Word16 seen = sync::read_halves(group.progress);
      if (shm::owner_of(seen.high) != number + 1) break;
      // The word first, then the entry: a participant that came since would have another word.
      if (sync::load_acquire(segment.participant(number).word) != dead_word) return;
      // [R2] seq_cst: fenced; the generation stays, since no act of the dead can follow.
      if (sync::compare_and_swap(
              group.progress, seen,
              {seen.low,
               shm::ownership(shm::owner_none, shm::ownership_generation(seen.high), 0)})) {
        break;
      }
    }
  }
}

// What it had leased in a shared group, and what it was moving in one that it visited.
void give_up_leases_of(const shm::Segment& segment, std::uint32_t number, std::uint64_t dead_word) {
  const shm::Participant& entry = segment.participant(number);
  for (const std::uint64_t* place : {&entry.group_word, &entry.visiting}) {
    if (base::mutant(62) && place == &entry.visiting) continue;
    const std::uint64_t named = sync::load_acquire(*place);
    const std::uint64_t index = (named & 0xffff) - 1;
    if (named == 0 || index >= segment.limits().max_groups) continue;
    // The entry is not used again while the dead one names it: a retired group is reclaimed in
    // vain.
    const std::uint64_t word =
        sync::load_acquire(segment.group(static_cast<std::uint32_t>(index)).word);
    if (shm::group_incarnation(word) != named >> 16 ||
        shm::group_mode(word) != static_cast<std::uint8_t>(GroupMode::shared)) {
      continue;
    }
    SharedGroup{segment, static_cast<std::uint32_t>(index)}.reclaim(number, dead_word);
  }
}

}  // namespace

void seal_chunks_of(const shm::Segment& segment, std::uint32_t owner,
                    std::uint64_t generation) noexcept {
  bool tail_known = false;
  std::uint64_t tail = 0;
  for (std::uint32_t i = 0; i < segment.limits().chunks; ++i) {
    sync::Word16& chunk = segment.chunk(i);
    const sync::Word16 seen = sync::read_halves(chunk);
    const shm::ChunkState state = shm::chunk_state(seen.high);
    const bool gathering = state == shm::ChunkState::gathering;
    if ((state != shm::ChunkState::open && !gathering) || shm::chunk_owner(seen.high) != owner ||
        shm::chunk_generation(seen.high) != (generation & shm::chunk_generation_mask)) {
      continue;
    }
    if (!tail_known) {
      // The real tail, after the death: the hint may lie below what the dead published last.
      tail = base::mutant(3) ? sync::load_acquire(segment.control().tail_hint) : find_tail(segment);
      tail_known = true;
    }
    const std::uint64_t last = gathering ? tail : tail - 1;
    const sync::Word16 sealed =
        tail == 0 ? sync::Word16{0, shm::chunk_word(shm::ChunkState::free, 0, 0)}
                  : sync::Word16{last, shm::chunk_word(shm::ChunkState::sealed, owner, generation)};
    // [R1] seq_cst: only from exactly that owner's open chunk.
    sync::compare_and_swap(chunk, seen, sealed);
  }
}

// --- Attach and detach -------------------------------------------------------------------------

Participation::Participation(Participation&& other) noexcept { *this = std::move(other); }

Participation& Participation::operator=(Participation&& other) noexcept {
  std::swap(segment_, other.segment_);
  std::swap(lock_, other.lock_);
  std::swap(number_, other.number_);
  std::swap(generation_, other.generation_);
  std::swap(role_, other.role_);
  std::swap(born_, other.born_);
  return *this;
}

Result<Participation> Participation::attach(std::shared_ptr<shm::Segment> segment, Role role,
                                            const std::string& name, std::uint64_t group_word) {
  auto lock = segment->open_lock_file();
  if (!lock) return tl::unexpected(lock.error());
  const std::uint32_t entries = segment->limits().max_participants;
  const auto role_bits = static_cast<std::uint8_t>(role);
  for (int round = 0; round < 2; ++round) {
    for (std::uint32_t i = 0; i < entries; ++i) {
      shm::Participant& entry = segment->participant(i);
      const std::uint64_t seen = sync::load_acquire(entry.word);
      if (shm::participant_state(seen) != ParticipantState::free) continue;
      // The lock first, the entry second: whoever sees alive without a lock held sees a death.
      if (!lock->try_lock(shm::lock_byte_participant_0 + i)) continue;
      SHMQ_CRASH_POINT("attach.locked");
      // [A0] seq_cst: before the entry is alive, so that who looks at pins looks at it.
      std::uint32_t& used = segment->control().participants_used;
      for (std::uint32_t seen_used = sync::load_relaxed(used);
           seen_used < i + 1 && !sync::compare_and_swap(used, seen_used, i + 1);
           seen_used = sync::load_relaxed(used)) {
      }
      const std::uint64_t generation = shm::participant_generation(seen) + 1;
      // [A1] seq_cst: this entry, this life.
      if (!sync::compare_and_swap(
              entry.word, seen,
              shm::participant_word(generation, role_bits, ParticipantState::alive))) {
        lock->unlock(shm::lock_byte_participant_0 + i);
        continue;
      }
      describe_self(entry, name, group_word);
      Participation participation;
      participation.segment_ = std::move(segment);
      participation.lock_ = std::move(*lock);
      participation.number_ = i;
      participation.generation_ = generation;
      participation.role_ = role_bits;
      participation.born_ = sync::fork_generation();
      return participation;
    }
    if (round == 0 && reclaim_all(*segment) == 0) break;
  }
  return tl::unexpected(Error{make_error_code(Errc::too_many_participants),
                              segment->describe("attach to"),
                              "all " + std::to_string(entries) + " participant entries are in use",
                              "see who: shmqctl consumer ls " + segment->queue()});
}

void Participation::detach() noexcept {
  if (segment_ == nullptr) return;
  if (!in_forked_child()) {
    shm::Participant& entry = segment_->participant(number_);
    for (std::uint64_t& pin : entry.pins) sync::store_relaxed(pin, 0);
    sync::store_relaxed(entry.group_word, 0);
    // [A3] seq_cst: free while the lock is still held; who takes the entry next needs the lock.
    sync::compare_and_swap(entry.word,
                           shm::participant_word(generation_, static_cast<std::uint8_t>(role_),
                                                 ParticipantState::alive),
                           shm::participant_word(generation_, static_cast<std::uint8_t>(role_),
                                                 ParticipantState::free));
  }
  lock_.close();
  segment_.reset();
}

// --- Reclaim -----------------------------------------------------------------------------------

bool reclaim_participant(const shm::Segment& segment, std::uint32_t number) noexcept {
  shm::Participant& entry = segment.participant(number);
  // The entry first, then the lock: the other way round, a lock taken before somebody attached
  // would "prove" the death of the living.
  const std::uint64_t seen = sync::load_acquire(entry.word);
  if (shm::participant_state(seen) == ParticipantState::free) return false;
  auto probe = segment.open_lock_file();
  if (!probe) return false;
  const std::uint64_t generation = shm::participant_generation(seen);
  const std::uint8_t role = shm::participant_role(seen);
  const std::uint64_t dead = shm::participant_word(generation, role, ParticipantState::dead);
  const bool locked = probe->try_lock(shm::lock_byte_participant_0 + number) || base::mutant(5);
  // Without the lock: alive, or dead by the word of a reclaimer that may be stopped in the middle.
  // Its work can be done beside it: each step is a CAS from exactly what the dead left. Only the
  // entry itself waits for the lock.
  if (!locked && seen != dead) return false;
  // [R0] seq_cst: proven, and said. It fails if the owner detached between the two looks.
  if (seen != dead && !sync::compare_and_swap(entry.word, seen, dead)) return false;
  SHMQ_CRASH_POINT("reclaim.declared_dead");
  if (!base::mutant(9)) seal_chunks_of(segment, number + 1, generation);
  SHMQ_CRASH_POINT("reclaim.sealed");
  give_up_groups_of(segment, number, dead);
  SHMQ_CRASH_POINT("reclaim.gave_up");
  if (!base::mutant(13)) give_up_leases_of(segment, number, dead);
  SHMQ_CRASH_POINT("reclaim.gave_up_leases");
  if (locked) {
    sync::store_relaxed(entry.group_word, 0);
    sync::store_relaxed(entry.visiting, 0);
    // [R3] seq_cst: last, so that a reclaimer killed before leaves a dead entry to the next one.
    sync::compare_and_swap(
        entry.word, dead,
        shm::participant_word(generation, role | shm::participant_died, ParticipantState::free));
  }
  shm::Control& control = segment.control();
  for (std::uint32_t* event :
       {&control.ownership_event, &control.room_event, &control.message_event}) {
    sync::event_notify(*event);
  }
  return true;
}

std::size_t reclaim_all(const shm::Segment& segment) noexcept {
  std::size_t reclaimed = 0;
  for (std::uint32_t i = 0; i < segment.limits().max_participants; ++i) {
    if (reclaim_participant(segment, i)) ++reclaimed;
  }
  heal_administration(segment);
  return reclaimed;
}

void reclaim_in_passing(const shm::Segment& segment) noexcept {
  constexpr std::uint64_t interval_ms = 50;
  std::uint64_t& last = segment.control().last_reap_ms;
  const std::uint64_t now = base::clock->coarse_ns() / 1'000'000;
  const std::uint64_t seen = sync::load_relaxed(last);
  // Unsigned: a time from the future (a corrupt word) is taken over as well.
  if (now - seen < interval_ms) return;
  // [R4] seq_cst, though nothing hangs on it: it only chooses who looks.
  if (sync::compare_and_swap(last, seen, now)) reclaim_all(segment);
}

}  // namespace shmq::queue
