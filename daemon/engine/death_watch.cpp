// SPDX-License-Identifier: Apache-2.0
#include "daemon/engine/death_watch.hpp"

#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <algorithm>

#include "queue/participants.hpp"

namespace shmq::engine {
namespace {

std::uint64_t read_pid_namespace_inode() {
  struct stat status {};
  return ::stat("/proc/self/ns/pid", &status) == 0 ? status.st_ino : 0;
}

int open_pidfd(std::uint32_t pid) {
  // libc of Debian 12 has no wrapper in a header that C++ can use beside <sys/wait.h>.
  return static_cast<int>(::syscall(SYS_pidfd_open, static_cast<pid_t>(pid), 0));
}

}  // namespace

DeathWatch::DeathWatch(loop::Loop& loop, const shm::Segment& segment)
    : loop_(loop), segment_(segment), own_pid_namespace_(read_pid_namespace_inode()) {}

DeathWatch::~DeathWatch() {
  while (!watched_.empty()) forget(watched_.begin()->first);
}

void DeathWatch::look() {
  const std::uint32_t used = std::min(sync::load_acquire(segment_.control().participants_used),
                                      segment_.limits().max_participants);
  for (std::uint32_t number = 0; number < used; ++number) {
    const std::uint64_t word = sync::load_acquire(segment_.participant(number).word);
    const auto known = watched_.find(number);
    if (known != watched_.end() && known->second.word == word &&
        known->second.pid == sync::load_relaxed(segment_.participant(number).pid)) {
      continue;
    }
    if (known != watched_.end()) forget(number);
    if (shm::participant_state(word) == shm::ParticipantState::alive) watch(number, word);
  }
}

void DeathWatch::watch(std::uint32_t number, std::uint64_t word) {
  const shm::Participant& entry = segment_.participant(number);
  const std::uint32_t pid = sync::load_relaxed(entry.pid);
  const bool is_here = sync::load_relaxed(entry.pid_namespace_inode) == own_pid_namespace_;
  // It has not described itself yet: the next look will see it.
  if (pid == 0) return;
  int descriptor = is_here && pid <= 0x7fffffff ? open_pidfd(pid) : -1;
  if (descriptor < 0 && is_here) {
    reclaim(number);  // it died before it could be watched, perhaps
  }
  if (descriptor >= 0 &&
      !loop_.watch(descriptor, EPOLLIN, [this, number](auto) { on_death(number); })) {
    ::close(descriptor);
    descriptor = -1;
  }
  watched_[number] = Life{.word = word, .pid = pid, .descriptor = descriptor};
}

void DeathWatch::on_death(std::uint32_t number) {
  forget(number);
  reclaim(number);
}

std::uint64_t DeathWatch::redelivered_by_death() const noexcept {
  std::uint64_t sum = 0;
  for (std::uint32_t index = 0; index < segment_.limits().max_groups; ++index) {
    sum += sync::load_relaxed(segment_.group(index).redelivered_death_total);
  }
  return sum;
}

void DeathWatch::reclaim(std::uint32_t number) {
  const std::uint64_t before = redelivered_by_death();
  if (!queue::reclaim_participant(segment_, number)) return;
  const std::uint64_t after = redelivered_by_death();
  // Less: a group was removed meanwhile, or somebody writes nonsense.
  if (after > before) reclaimed_ += after - before;
}

void DeathWatch::forget(std::uint32_t number) {
  const auto found = watched_.find(number);
  if (found == watched_.end()) return;
  if (found->second.descriptor >= 0) {
    loop_.unwatch(found->second.descriptor);
    ::close(found->second.descriptor);
  }
  watched_.erase(found);
}

}  // namespace shmq::engine
