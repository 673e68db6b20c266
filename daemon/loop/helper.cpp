// SPDX-License-Identifier: Apache-2.0
#include "daemon/loop/helper.hpp"

#include <sys/eventfd.h>
#include <unistd.h>

#include <cerrno>
#include <csignal>
#include <utility>

namespace shmq::loop {

Result<std::unique_ptr<Helper>> Helper::create(Loop& loop) {
  const int event = ::eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
  if (event < 0) {
    return tl::unexpected{Error{{errno, std::generic_category()}, "make an eventfd", "", ""}};
  }
  std::unique_ptr<Helper> helper{new Helper(loop, event)};
  auto watched =
      loop.watch(event, EPOLLIN, [self = helper.get()](std::uint32_t) { self->deliver(); });
  if (!watched) return tl::unexpected{watched.error()};
  return helper;
}

Helper::~Helper() {
  {
    const std::scoped_lock lock{mutex_};
    // relaxed: the mutex orders it for who waits; a job that looks at it may be late.
    is_stopping_.store(true, std::memory_order_relaxed);
    jobs_.clear();
  }
  changed_.notify_all();
  if (thread_.joinable()) thread_.join();
  loop_.unwatch(event_);
  ::close(event_);
}

void Helper::run(Job job) {
  ++outstanding_;
  {
    const std::scoped_lock lock{mutex_};
    jobs_.push_back(std::move(job));
  }
  changed_.notify_all();
  if (thread_.joinable()) return;
  sigset_t all;
  sigset_t before;
  sigfillset(&all);
  ::pthread_sigmask(SIG_BLOCK, &all, &before);
  thread_ = std::thread{[this] { work(); }};
  ::pthread_sigmask(SIG_SETMASK, &before, nullptr);
}

void Helper::work() {
  std::unique_lock lock{mutex_};
  for (;;) {
    changed_.wait(lock, [this] { return is_stopping() || !jobs_.empty(); });
    if (is_stopping()) return;
    const Job job = std::move(jobs_.front());
    jobs_.pop_front();
    lock.unlock();
    Finish finish = job();
    lock.lock();
    finished_.push_back(std::move(finish));
    const std::uint64_t one = 1;
    // The counter cannot be full: it is read before so much is written.
    if (::write(event_, &one, sizeof(one)) < 0) continue;
  }
}

void Helper::deliver() {
  std::uint64_t count = 0;
  if (::read(event_, &count, sizeof(count)) < 0) return;
  std::deque<Finish> finished;
  {
    const std::scoped_lock lock{mutex_};
    finished.swap(finished_);
  }
  for (const Finish& finish : finished) {
    --outstanding_;
    finish();
  }
}

}  // namespace shmq::loop
