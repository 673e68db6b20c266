// SPDX-License-Identifier: Apache-2.0
//
// shmqd as a child of a benchmark, with its data in a directory of its own.
#pragma once

#include <sys/types.h>

#include <shmq/shmq.hpp>
#include <string>

namespace shmq_bench {

class PrivateDaemon {
 public:
  /// Its sockets go below `directory`, too, and SHMQ_RUNTIME_DIR says so from now on.
  PrivateDaemon(const std::string& shmqd, const std::string& name_space,
                const std::string& directory);
  PrivateDaemon(const PrivateDaemon&) = delete;
  PrivateDaemon& operator=(const PrivateDaemon&) = delete;
  /// Drains it.
  ~PrivateDaemon();
  [[nodiscard]] bool runs() const;
  [[nodiscard]] pid_t pid() const noexcept { return pid_; }
  /// User and system time of all its threads up to now.
  [[nodiscard]] double cpu_seconds() const;

 private:
  pid_t pid_ = -1;
};

/// Waits until the daemon can make it.
shmq::Queue make_queue(const PrivateDaemon& daemon, const std::string& name,
                       const shmq::QueueOptions& options);

}  // namespace shmq_bench
