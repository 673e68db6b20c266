// SPDX-License-Identifier: Apache-2.0
//
// The real shmqd as a child of the test, with data and sockets in a directory of its own.
#pragma once

#include <sys/types.h>

#include <filesystem>
#include <string>

#include "support/scratch.hpp"

namespace shmq::testing {

class RealDaemon {
 public:
  /// Makes the directories and points SHMQ_NAMESPACE and SHMQ_RUNTIME_DIR at them; starts nothing.
  RealDaemon();
  RealDaemon(const RealDaemon&) = delete;
  RealDaemon& operator=(const RealDaemon&) = delete;
  ~RealDaemon();

  void start();
  /// SIGKILL, and waits for its end.
  void kill();
  /// SIGTERM, and waits for its end; gives the exit status.
  int drain();
  /// A power loss as far as memory goes: every object of the namespace in /dev/shm is removed.
  void forget_memory() const;
  [[nodiscard]] bool runs() const;
  [[nodiscard]] const std::string& name_space() const noexcept { return scratch_.name_space; }
  [[nodiscard]] std::filesystem::path journal_of(const std::string& queue) const;
  /// The last lines of what it logged, for failures.
  [[nodiscard]] std::string log() const;

 private:
  int wait_for_end();

  Scratch scratch_;
  std::filesystem::path directory_;
  pid_t pid_ = -1;
};

}  // namespace shmq::testing
