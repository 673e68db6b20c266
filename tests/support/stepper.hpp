// SPDX-License-Identifier: Apache-2.0
//
// Runs an operation in a child, one instruction at a time, and stops it at any distinct state.
//
// A state is what others can see: the bytes of the queue's segment, the names in /dev/shm, and what
// the kernel holds (counted as a new state after each system call). A recording finds the
// states; further runs stop a fresh child at one of them, to be killed, resumed or left standing.
// x86-64 and ptrace; where ptrace is refused, available() is false.
#pragma once

#include <sys/types.h>

#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <unordered_map>
#include <vector>

namespace shmq::testing {

class Stepper {
 public:
  /// `segment`: the object's name in /dev/shm; it need not exist yet.
  /// `prepare` runs in the child at full speed and gives the operation, which is stepped.
  using Operation = std::function<void()>;
  Stepper(std::string segment, std::function<Operation()> prepare);
  ~Stepper();
  Stepper(const Stepper&) = delete;
  Stepper& operator=(const Stepper&) = delete;

  static bool available();

  /// Steps to the end and gives, for each distinct state, the number of instructions before it.
  std::vector<std::uint64_t> record();
  /// Steps that many instructions, or to the end. True: stopped there. A forked child has its
  /// parent's addresses, so the numbers of a recording hold for the next run.
  bool run_for(std::uint64_t instructions);
  /// SIGKILL, and waits for the death.
  void kill();
  /// Lets it run to its end; true if it ended well (exit 0).
  bool resume();

  [[nodiscard]] std::uint64_t instructions() const noexcept { return instructions_; }

 private:
  void start();
  bool step();
  bool next_is_system_call();
  bool look_for_change();

  std::string path_;
  std::function<Operation()> prepare_;
  pid_t child_ = -1;
  std::vector<unsigned char> image_;
  const unsigned char* mapped_ = nullptr;
  std::size_t mapped_bytes_ = 0;
  std::uint64_t mapped_inode_ = 0;
  std::uint64_t instructions_ = 0;
  std::unordered_map<std::uint64_t, bool> system_call_at_;
};

}  // namespace shmq::testing
