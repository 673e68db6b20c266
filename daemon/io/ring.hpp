// SPDX-License-Identifier: Apache-2.0
//
// One io_uring, with a callback for each operation. Shared by the disks of all queues and by the
// daemon's loop, which sleeps in it.
//
// Invariants:
//  1. Callbacks run in poll() only.
//  2. An operation's memory is kept until its completion, even if whoever asked is gone.
//  3. A full submission queue is submitted, a full completion queue is reaped; nothing is dropped.
#pragma once

#include <liburing.h>

#include <functional>
#include <memory>
#include <shmq/error.hpp>
#include <string>

#include "daemon/io/disk.hpp"

namespace shmq::io {

class Ring {
 public:
  static constexpr unsigned default_entries = 256;

  /// Fails where the kernel denies io_uring or lacks an operation that the disks need.
  static Result<std::unique_ptr<Ring>> create(unsigned entries = default_entries);
  Ring(const Ring&) = delete;
  Ring& operator=(const Ring&) = delete;
  /// Waits for what is outstanding, and calls nobody.
  ~Ring();

  /// What an operation refers to until it is submitted and done.
  struct Operation {
    Done done;
    std::string name, to;
  };
  /// Queues one operation; `prepare` fills the entry in, and may point into the Operation.
  void start(std::unique_ptr<Operation> operation,
             const std::function<void(io_uring_sqe*, Operation&)>& prepare);
  /// Hands what is queued to the kernel.
  void submit();
  bool poll(bool wait);
  /// Sleeps until something has completed, for at most `timeout_ns`, and delivers nothing.
  void sleep(std::uint64_t timeout_ns);
  [[nodiscard]] std::uint64_t outstanding() const noexcept { return outstanding_; }

 private:
  Ring() = default;
  bool deliver(bool calls);

  io_uring ring_{};
  bool is_open_ = false;
  std::uint64_t outstanding_ = 0;
};

}  // namespace shmq::io
