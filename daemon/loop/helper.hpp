// SPDX-License-Identifier: Apache-2.0
//
// A thread beside the loop for work that waits or takes long, one job after the other: the queues
// that are served do not wait for one that is being rebuilt.
//
// Invariants:
//  1. A job runs on the helper's thread and shares nothing with the loop; what it gives back is
//     called on the loop's thread, in turn().
//  2. After the destructor no job runs, and none of their results is called any more.
//  3. The thread takes no signal: those are the loop's.
#pragma once

#include <atomic>
#include <condition_variable>
#include <deque>
#include <functional>
#include <mutex>
#include <thread>

#include "daemon/loop/loop.hpp"

namespace shmq::loop {

class Helper {
 public:
  using Finish = std::function<void()>;
  using Job = std::function<Finish()>;

  /// The thread begins with the first job.
  static Result<std::unique_ptr<Helper>> create(Loop& loop);
  Helper(const Helper&) = delete;
  Helper& operator=(const Helper&) = delete;
  /// Waits for the job that runs; those that have not begun are dropped.
  ~Helper();

  void run(Job job);
  /// Jobs whose result was not called yet. For the loop's thread.
  [[nodiscard]] std::size_t outstanding() const noexcept { return outstanding_; }
  /// For long jobs: the helper is about to end, and waits for them.
  [[nodiscard]] bool is_stopping() const noexcept {
    // relaxed: a job that sees it late ends late.
    return is_stopping_.load(std::memory_order_relaxed);
  }

 private:
  Helper(Loop& loop, int event) : loop_(loop), event_(event) {}
  void work();
  void deliver();

  Loop& loop_;
  const int event_;
  std::size_t outstanding_ = 0;
  std::mutex mutex_;
  std::condition_variable changed_;
  std::deque<Job> jobs_;         // under mutex_
  std::deque<Finish> finished_;  // under mutex_
  std::atomic<bool> is_stopping_{false};
  std::thread thread_;
};

}  // namespace shmq::loop
