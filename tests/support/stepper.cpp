// SPDX-License-Identifier: Apache-2.0
#include "support/stepper.hpp"

#include <fcntl.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/ptrace.h>
#include <sys/stat.h>
#include <sys/user.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cstring>
#include <stdexcept>

namespace shmq::testing {

Stepper::Stepper(std::string segment, std::function<Operation()> prepare)
    : path_("/dev/shm/" + std::move(segment)), prepare_(std::move(prepare)) {}

Stepper::~Stepper() {
  kill();
  if (mapped_ != nullptr) munmap(const_cast<unsigned char*>(mapped_), mapped_bytes_);
}

bool Stepper::available() {
  const pid_t child = fork();
  if (child == 0) _exit(ptrace(PTRACE_TRACEME, 0, nullptr, nullptr) == 0 ? 0 : 1);
  int status = 0;
  waitpid(child, &status, 0);
  return WIFEXITED(status) && WEXITSTATUS(status) == 0;
}

void Stepper::start() {
  child_ = fork();
  if (child_ < 0) throw std::runtime_error{"fork failed"};
  if (child_ == 0) {
    const Operation operation = prepare_();
    ptrace(PTRACE_TRACEME, 0, nullptr, nullptr);
    raise(SIGSTOP);
    operation();
    raise(SIGSTOP);
    _exit(0);  // no destructors: who ends here is as good as gone
  }
  int status = 0;
  if (waitpid(child_, &status, 0) != child_ || !WIFSTOPPED(status)) {
    child_ = -1;
    throw std::runtime_error{"the child ended in its preparation"};
  }
  instructions_ = 0;
  look_for_change();
}

// The segment may come (create), go (remove) or change.
bool Stepper::look_for_change() {
  struct stat status {};
  if (mapped_ == nullptr) {
    const int descriptor = open(path_.c_str(), O_RDONLY | O_CLOEXEC);
    if (descriptor < 0) return false;
    fstat(descriptor, &status);
    mapped_bytes_ = static_cast<std::size_t>(status.st_size);
    mapped_inode_ = status.st_ino;
    void* mapped = mmap(nullptr, mapped_bytes_, PROT_READ, MAP_SHARED, descriptor, 0);
    close(descriptor);
    if (mapped == MAP_FAILED) throw std::runtime_error{"mmap failed"};
    mapped_ = static_cast<const unsigned char*>(mapped);
    image_.assign(mapped_, mapped_ + mapped_bytes_);
    return true;
  }
  if (std::memcmp(mapped_, image_.data(), mapped_bytes_) == 0) return false;
  std::memcpy(image_.data(), mapped_, mapped_bytes_);
  return true;
}

// One instruction; false: the operation is over (its second SIGSTOP, or an exit).
bool Stepper::step() {
  ptrace(PTRACE_SINGLESTEP, child_, nullptr, nullptr);
  int status = 0;
  if (waitpid(child_, &status, 0) != child_ || !WIFSTOPPED(status)) {
    child_ = -1;
    return false;
  }
  if (WSTOPSIG(status) != SIGTRAP) return false;
  ++instructions_;
  return true;
}

bool Stepper::next_is_system_call() {
  const auto at = static_cast<std::uint64_t>(
      ptrace(PTRACE_PEEKUSER, child_, offsetof(user_regs_struct, rip), nullptr));
  const auto known = system_call_at_.find(at);
  if (known != system_call_at_.end()) return known->second;
  const long code = ptrace(PTRACE_PEEKTEXT, child_, reinterpret_cast<void*>(at), nullptr);
  return system_call_at_[at] = (code & 0xffff) == 0x050f;
}

std::vector<std::uint64_t> Stepper::record() {
  std::vector<std::uint64_t> states;
  if (child_ < 0) start();
  for (;;) {
    // After a system call what the kernel holds has changed, too.
    const bool system_call = next_is_system_call();
    if (!step()) return states;
    // A segment that is not there yet comes by a system call.
    const bool changed = (mapped_ != nullptr || system_call) && look_for_change();
    if (changed || system_call) states.push_back(instructions_);
  }
}

bool Stepper::run_for(std::uint64_t instructions) {
  if (child_ < 0) start();
  while (instructions_ < instructions) {
    if (!step()) return false;
  }
  return true;
}

void Stepper::kill() {
  if (child_ <= 0) return;
  ::kill(child_, SIGKILL);
  waitpid(child_, nullptr, 0);
  child_ = -1;
}

bool Stepper::resume() {
  if (child_ <= 0) return false;
  int status = 0;
  // Through the second SIGSTOP, then to the exit.
  ptrace(PTRACE_CONT, child_, nullptr, nullptr);
  while (waitpid(child_, &status, 0) == child_ && WIFSTOPPED(status)) {
    const int signal = WSTOPSIG(status);
    const bool forwarded = signal != SIGSTOP && signal != SIGTRAP;
    ptrace(PTRACE_CONT, child_, nullptr, forwarded ? signal : 0);
  }
  child_ = -1;
  return WIFEXITED(status) && WEXITSTATUS(status) == 0;
}

}  // namespace shmq::testing
