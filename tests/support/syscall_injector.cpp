// SPDX-License-Identifier: Apache-2.0
#include "support/syscall_injector.hpp"

#include <signal.h>
#include <sys/ptrace.h>
#include <sys/user.h>
#include <sys/wait.h>

#include <cerrno>
#include <future>
#include <utility>

namespace shmq::testing {

#if defined(__x86_64__)

bool SyscallInjector::is_possible() noexcept { return true; }

void SyscallInjector::ask_to_be_traced() noexcept { ::ptrace(PTRACE_TRACEME, 0, nullptr, nullptr); }

SyscallInjector::SyscallInjector(const std::function<pid_t()>& start, Policy policy)
    : policy_(std::move(policy)) {
  std::promise<void> started;
  thread_ = std::thread{[&, this] {
    const pid_t child = start();
    started.set_value();
    run(child);
  }};
  started.get_future().wait();
}

void SyscallInjector::run(pid_t child) {
  bool is_exit = false;
  int injected = 0;
  bool is_first = true;
  for (;;) {
    // Its end is not ours to collect: who started it waits for that.
    siginfo_t info{};
    if (::waitid(P_PID, static_cast<id_t>(child), &info, WSTOPPED | WEXITED | WNOWAIT | __WALL) !=
        0) {
      if (errno == EINTR) continue;
      return;
    }
    if (info.si_code == CLD_EXITED || info.si_code == CLD_KILLED || info.si_code == CLD_DUMPED)
      return;
    int status = 0;
    if (::waitpid(child, &status, WNOHANG | __WALL) != child || !WIFSTOPPED(status)) return;
    int signal = WSTOPSIG(status);
    if (signal == SIGTRAP && is_first) {  // of the exec
      is_first = false;
      ::ptrace(PTRACE_SETOPTIONS, child, nullptr, PTRACE_O_TRACESYSGOOD | PTRACE_O_EXITKILL);
      signal = 0;
    } else if (signal == (SIGTRAP | 0x80)) {
      signal = 0;
      user_regs_struct registers{};
      if (::ptrace(PTRACE_GETREGS, child, nullptr, &registers) == 0) {
        if (!is_exit) {
          injected = policy_({.number = static_cast<long>(registers.orig_rax),
                              .arguments = {registers.rdi, registers.rsi, registers.rdx,
                                            registers.r10, registers.r8, registers.r9}});
          if (injected != 0) registers.orig_rax = ~0ULL;
        } else if (injected != 0) {
          registers.rax = static_cast<unsigned long long>(-static_cast<long long>(injected));
        }
        if (injected != 0) ::ptrace(PTRACE_SETREGS, child, nullptr, &registers);
      }
      is_exit = !is_exit;
    }
    ::ptrace(PTRACE_SYSCALL, child, nullptr, signal);
  }
}

#else

bool SyscallInjector::is_possible() noexcept { return false; }
void SyscallInjector::ask_to_be_traced() noexcept {}
SyscallInjector::SyscallInjector(const std::function<pid_t()>&, Policy) {}
void SyscallInjector::run(pid_t) {}

#endif

}  // namespace shmq::testing
