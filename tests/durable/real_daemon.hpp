// SPDX-License-Identifier: Apache-2.0
//
// The real shmqd as a child of the test, with data and sockets in a directory of its own.
#pragma once

#include <sys/types.h>

#include <filesystem>
#include <string>
#include <vector>

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
  /// For the next start: io_uring is denied by a seccomp filter, as in a container.
  void deny_io_uring() { is_io_uring_denied_ = true; }
  /// For the next start: more of the command line.
  void set_arguments(std::vector<std::string> arguments) { arguments_ = std::move(arguments); }
  /// For the next start: called in the child before its exec.
  void set_before_exec(void (*before_exec)() noexcept) { before_exec_ = before_exec; }
  /// SIGKILL, and waits for its end.
  void kill();
  /// SIGTERM, and waits for its end; gives the exit status.
  int drain();
  /// Its wait status.
  int wait_for_end();
  /// A power loss as far as memory goes: every object of the namespace in /dev/shm is removed.
  void forget_memory() const;
  [[nodiscard]] bool runs() const;
  [[nodiscard]] const std::string& name_space() const noexcept { return scratch_.name_space; }
  [[nodiscard]] pid_t pid() const noexcept { return pid_; }
  [[nodiscard]] std::string control_socket() const;
  [[nodiscard]] const std::filesystem::path& directory() const noexcept { return directory_; }
  [[nodiscard]] std::filesystem::path journal_of(const std::string& queue) const;
  /// The last lines of what it logged, for failures.
  [[nodiscard]] std::string log() const;

 private:
  Scratch scratch_;
  std::filesystem::path directory_;
  pid_t pid_ = -1;
  bool is_io_uring_denied_ = false;
  std::vector<std::string> arguments_;
  void (*before_exec_)() noexcept = nullptr;
};

}  // namespace shmq::testing
