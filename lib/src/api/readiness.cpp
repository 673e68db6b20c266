// SPDX-License-Identifier: Apache-2.0
#include "api/readiness.hpp"

#include <linux/futex.h>
#include <pthread.h>
#include <sys/eventfd.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <ctime>
#include <mutex>
#include <thread>
#include <vector>

#include "queue/head.hpp"
#include "queue/shared_group.hpp"
#include "sync/event.hpp"
#include "sync/ofd_lock.hpp"

namespace shmq::queue {

// Consumers of shared groups move the floor now and then only, and a publish moves it, so what
// counts is how far it could be moved. Nothing is changed here: this runs on a thread of its own.
bool has_room_for_one(const shm::Segment& segment) noexcept {
  std::uint64_t head = refresh_head(segment);
  std::uint64_t reachable = find_tail(segment);
  const std::uint64_t tail = reachable;
  if (segment.limits().overflow == static_cast<std::uint32_t>(Overflow::spill)) {
    return tail - std::max(head, std::min(tail, bound_of_head(segment))) < segment.limits().slots;
  }
  for (std::uint32_t i = 0; i < segment.limits().max_groups; ++i) {
    const std::uint64_t word = sync::load_acquire(segment.group(i).word);
    if (!counts_for_head(word)) continue;
    const std::uint64_t floor = is_active_shared(word)
                                    ? SharedGroup{segment, i}.reachable_floor()
                                    : sync::load_acquire(segment.group(i).progress.low);
    reachable = std::min(reachable, floor);
  }
  head = std::max(head, reachable);
  return tail - head < segment.limits().slots;
}

}  // namespace shmq::queue

namespace shmq::detail {
namespace {

// The helper thread: sleeps on all words at once (futex_waitv takes 128), looks at every source
// when it wakes. Deaths and due times change no word, so each sleep is short.
class Helper {
 public:
  void add(ReadinessSource* source) {
    const std::lock_guard guard{mutex_};
    if (born_ != sync::fork_generation()) {  // in a forked child: its parent's thread is not here
      sources_.clear();
      running_ = false;
      born_ = sync::fork_generation();
    }
    sources_.push_back(source);
    if (!running_) {
      running_ = true;
      std::thread{[this] { run(); }}.detach();
    }
    poke();
  }
  void remove(ReadinessSource* source) {
    const std::lock_guard guard{mutex_};
    std::erase(sources_, source);
    poke();
  }

 private:
  static constexpr std::size_t words_max = 127;  // and the helper's own

  void poke() noexcept {
    __atomic_fetch_add(&changes_, 1, __ATOMIC_SEQ_CST);
    sync::futex_wake_all(changes_);
  }

  void run() noexcept {
    futex_waitv words[words_max + 1];
    for (;;) {
      unsigned count = 0;
      {
        const std::lock_guard guard{mutex_};
        if (sources_.empty()) {
          running_ = false;
          return;
        }
        const auto add = [&](std::uint32_t& word, std::uint32_t value) {
          words[count++] = {.val = value,
                            .uaddr = reinterpret_cast<std::uint64_t>(&word),
                            .flags = FUTEX_32,
                            .__reserved = 0};
        };
        add(changes_, __atomic_load_n(&changes_, __ATOMIC_SEQ_CST));
        for (ReadinessSource* source : sources_) {
          // Announced, then looked: as every sleeper does.
          const std::uint32_t ticket = sync::event_prepare(source->event());
          if (count <= words_max) add(source->event(), ticket);
          source->look();
        }
      }
      timespec limit{};
      clock_gettime(CLOCK_MONOTONIC, &limit);
      limit.tv_nsec += 50'000'000;
      if (limit.tv_nsec >= 1'000'000'000) {
        limit.tv_nsec -= 1'000'000'000;
        ++limit.tv_sec;
      }
      syscall(SYS_futex_waitv, words, count, 0, &limit, CLOCK_MONOTONIC);
    }
  }

  std::mutex mutex_;
  std::vector<ReadinessSource*> sources_;
  std::uint32_t changes_ = 0;
  bool running_ = false;
  std::uint64_t born_ = sync::fork_generation();
};

Helper& helper() {
  static auto* const instance = new Helper;  // outlives every static handle
  return *instance;
}

}  // namespace

ReadinessSource::ReadinessSource(std::shared_ptr<shm::Segment> segment, std::uint32_t& event,
                                 std::function<bool()> ready, int descriptor)
    : segment_(std::move(segment)),
      event_(event),
      ready_(std::move(ready)),
      descriptor_(descriptor) {}

Result<std::unique_ptr<ReadinessSource>> ReadinessSource::make(
    std::shared_ptr<shm::Segment> segment, std::uint32_t& event, std::function<bool()> ready) {
  const int descriptor = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
  if (descriptor < 0) {
    return tl::unexpected(Error{{errno, std::generic_category()},
                                segment->describe("make a descriptor for"),
                                std::strerror(errno),
                                "raise the limit on open files"});
  }
  std::unique_ptr<ReadinessSource> source{
      new ReadinessSource{std::move(segment), event, std::move(ready), descriptor}};
  helper().add(source.get());
  return source;
}

ReadinessSource::~ReadinessSource() {
  helper().remove(this);
  ::close(descriptor_);
}

void ReadinessSource::look() noexcept {
  if (ready_()) {
    const std::uint64_t one = 1;
    if (::write(descriptor_, &one, sizeof(one)) < 0) return;  // readable already
  } else {
    clear();
  }
}

void ReadinessSource::refresh() noexcept {
  clear();
  if (ready_()) look();
}

void ReadinessSource::clear() noexcept {
  std::uint64_t value = 0;
  if (::read(descriptor_, &value, sizeof(value)) < 0) return;  // quiet already
}

}  // namespace shmq::detail
