// SPDX-License-Identifier: Apache-2.0
//
// Lets system calls of a child fail: it is traced, and a policy says which call is not made but
// answered with an error. The child is real, not rebuilt for it; x86-64 only.
#pragma once

#include <sys/types.h>

#include <array>
#include <atomic>
#include <cstdint>
#include <functional>
#include <thread>

namespace shmq::testing {

struct SystemCall {
  long number;
  std::array<std::uint64_t, 6> arguments;
};

class SyscallInjector {
 public:
  /// An errno to fail the call with, or 0. Called on the tracer's thread, for each call from the
  /// exec on.
  using Policy = std::function<int(const SystemCall& call)>;

  /// False: not on this machine.
  static bool is_possible() noexcept;
  /// To be called in the child before its exec.
  static void ask_to_be_traced() noexcept;

  /// `start` forks and execs the child and gives its pid; it runs on the tracer's thread. Returns
  /// once the child has been started.
  SyscallInjector(const std::function<pid_t()>& start, Policy policy);
  SyscallInjector(const SyscallInjector&) = delete;
  SyscallInjector& operator=(const SyscallInjector&) = delete;
  ~SyscallInjector() { await_end(); }
  /// Until the child has ended. Before who started it waits for it: the tracer would not hear of it.
  void await_end() {
    if (thread_.joinable()) thread_.join();
  }

 private:
  void run(pid_t child);

  Policy policy_;
  std::thread thread_;
};

}  // namespace shmq::testing
