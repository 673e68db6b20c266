// SPDX-License-Identifier: Apache-2.0
#include "daemon/loop/loop.hpp"

#include <fcntl.h>
#include <poll.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <utility>

#include "base/clock.hpp"
#include "daemon/io/ring.hpp"

namespace shmq::loop {
namespace {

constexpr int events_per_turn = 64;
constexpr int completions_per_turn = 256;

tl::unexpected<Error> system_failure(const char* what) {
  return tl::unexpected{Error{{errno, std::generic_category()}, what, "", ""}};
}

}  // namespace

Result<std::unique_ptr<Loop>> Loop::create(const io::Backend& backend) {
  std::unique_ptr<Loop> loop{new Loop};
  loop->ring_ = backend.ring();
  loop->epoll_ = ::epoll_create1(EPOLL_CLOEXEC);
  if (loop->epoll_ < 0) return system_failure("make an epoll instance");
  return loop;
}

Loop::~Loop() {
  if (ring_ != nullptr && poll_is_armed_) {
    // The ring waits for what is outstanding when it goes, and this operation would never end: an
    // event that is always there ends it.
    const int pipe_end = [] {
      int ends[2] = {-1, -1};
      if (::pipe2(ends, O_CLOEXEC) != 0) return -1;
      ::close(ends[1]);  // the other end is readable from now on: end of file
      return ends[0];
    }();
    epoll_event event{};
    event.events = EPOLLIN;
    ::epoll_ctl(epoll_, EPOLL_CTL_ADD, pipe_end, &event);
    while (poll_is_armed_ && ring_->poll(true)) {
    }
    ::close(pipe_end);
  }
  if (epoll_ >= 0) ::close(epoll_);
}

Result<void> Loop::watch(int descriptor, std::uint32_t events, Ready ready) {
  const std::uint64_t id = next_id_++;
  epoll_event event{};
  event.events = events;
  event.data.u64 = id;
  if (::epoll_ctl(epoll_, EPOLL_CTL_ADD, descriptor, &event) != 0) {
    return system_failure("watch a descriptor");
  }
  watches_.emplace(id, std::make_shared<Watch>(Watch{descriptor, std::move(ready)}));
  ids_[descriptor] = id;
  return {};
}

void Loop::change(int descriptor, std::uint32_t events) noexcept {
  const auto id = ids_.find(descriptor);
  if (id == ids_.end()) return;
  epoll_event event{};
  event.events = events;
  event.data.u64 = id->second;
  ::epoll_ctl(epoll_, EPOLL_CTL_MOD, descriptor, &event);
}

void Loop::unwatch(int descriptor) noexcept {
  const auto id = ids_.find(descriptor);
  if (id == ids_.end()) return;
  ::epoll_ctl(epoll_, EPOLL_CTL_DEL, descriptor, nullptr);
  watches_.erase(id->second);
  ids_.erase(id);
}

void Loop::sleep(std::uint64_t timeout_ns) {
  if (ring_ == nullptr) {
    // epoll_pwait2 would sleep to the nanosecond, but a container's filter may not know it. Rounded
    // up: a deadline that is not reached yet would make the next turn begin at once.
    const std::uint64_t milliseconds = (timeout_ns + 999'999) / 1'000'000;
    pollfd waiting{.fd = epoll_, .events = POLLIN, .revents = 0};
    ::poll(&waiting, 1, static_cast<int>(std::min<std::uint64_t>(milliseconds, 60'000)));
    return;
  }
  if (!poll_is_armed_) {
    poll_is_armed_ = true;
    auto operation = std::make_unique<io::Ring::Operation>();
    operation->done = [this](std::int64_t) { poll_is_armed_ = false; };  // see the destructor
    ring_->start(std::move(operation), [this](io_uring_sqe* entry, io::Ring::Operation&) {
      io_uring_prep_poll_add(entry, epoll_, POLLIN);
    });
  }
  ring_->sleep(std::min<std::uint64_t>(timeout_ns, 60'000'000'000));
}

void Loop::deliver_events() {
  std::array<epoll_event, events_per_turn> events;
  const int count = ::epoll_wait(epoll_, events.data(), events_per_turn, 0);
  for (int i = 0; i < count; ++i) {
    const auto found = watches_.find(events.at(static_cast<std::size_t>(i)).data.u64);
    if (found == watches_.end()) continue;               // unwatched by a callback before it
    const std::shared_ptr<Watch> watch = found->second;  // it may unwatch itself
    watch->ready(events.at(static_cast<std::size_t>(i)).events);
  }
}

void Loop::turn(std::uint64_t deadline_ns) {
  bool has_completions = false;
  if (ring_ != nullptr) has_completions = ring_->poll(false);
  if (!has_completions && deadline_ns != 0) {
    const std::uint64_t now_ns = base::clock->monotonic_ns();
    if (deadline_ns > now_ns) sleep(deadline_ns - now_ns);
  }
  if (ring_ != nullptr) {
    for (int i = 0; i < completions_per_turn && ring_->poll(false); ++i) {
    }
  }
  deliver_events();
}

}  // namespace shmq::loop
