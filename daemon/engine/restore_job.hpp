// SPDX-License-Identifier: Apache-2.0
//
// Makes a queue's directory from a backup, on a thread of its own: it may take minutes, and the
// daemon's other queues go on meanwhile.
//
// Invariants:
//  1. Nothing is written before the whole backup was read once and found sound.
//  2. The directory is at a place that recovery takes for nothing of its own, and is complete and
//  on
//     stable storage when the job is done. Whoever has it removes it, or gives it the queue's name.
//  3. The journal in it has a uuid of its own: the queue that the backup was made of may live, and
//     give its seqs other payloads.
#pragma once

#include <atomic>
#include <functional>
#include <shmq/error.hpp>
#include <shmq/options.hpp>
#include <string>
#include <thread>

namespace shmq::engine {

struct RestoreRequest {
  std::string name_space;
  std::string name;
  std::string directory;  ///< to be made
  int backup = -1;        ///< descriptor, the job's from here on
  /// Whose the restored queue will be; may say no. Called on the job's thread.
  std::function<Result<void>(QueueOptions&)> adjust;
};

class RestoreJob {
 public:
  /// `on_end` is called on the job's thread, once done() is true.
  RestoreJob(RestoreRequest request, std::function<void()> on_end);
  RestoreJob(const RestoreJob&) = delete;
  RestoreJob& operator=(const RestoreJob&) = delete;
  /// Stops it, and waits for it.
  ~RestoreJob();

  [[nodiscard]] const RestoreRequest& request() const noexcept { return request_; }
  [[nodiscard]] bool is_done() const noexcept { return is_done_.load(std::memory_order_acquire); }
  /// Once done.
  [[nodiscard]] const Result<void>& outcome() const noexcept { return outcome_; }
  /// 0 to 100, of both passes.
  [[nodiscard]] unsigned percent() const noexcept {
    return percent_.load(std::memory_order_relaxed);
  }

 private:
  Result<void> run();
  bool go_on(std::uint64_t done, std::uint64_t total, unsigned base) noexcept;

  RestoreRequest request_;
  std::atomic<bool> must_stop_{false};
  std::atomic<bool> is_done_{false};
  std::atomic<unsigned> percent_{0};
  Result<void> outcome_;
  std::thread thread_;
};

}  // namespace shmq::engine
