// SPDX-License-Identifier: Apache-2.0
//
// The payload goes to the command in a memory file, not a pipe: a command that does not read its
// input, or reads it slowly, cannot block the consumer, and it can seek.
#include "exec.hpp"

#include <poll.h>
#include <spawn.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <cctype>
#include <csignal>
#include <cstring>
#include <vector>

#include "failure.hpp"
#include "output.hpp"

extern char** environ;

namespace shmqctl {
namespace {

class FileDescriptor {
 public:
  explicit FileDescriptor(int fd) : fd_(fd) {}
  ~FileDescriptor() {
    if (fd_ >= 0) ::close(fd_);
  }
  FileDescriptor(const FileDescriptor&) = delete;
  FileDescriptor& operator=(const FileDescriptor&) = delete;
  [[nodiscard]] int get() const { return fd_; }

 private:
  int fd_;
};

int memory_file(std::string_view payload, const std::string& what) {
  const int fd = ::memfd_create("shmqctl-message", MFD_CLOEXEC);
  if (fd < 0) throw failure_of_errno(errno, what);
  write_all(fd, payload, nullptr, what);
  ::lseek(fd, 0, SEEK_SET);
  return fd;
}

std::vector<std::string> environment_of(const shmq::Delivery& delivery,
                                        const ExecOptions& options) {
  std::vector<std::string> entries;
  for (char** entry = environ; *entry != nullptr; ++entry) {
    // Attributes of another message (a consume inside --exec) must not show through.
    if (std::strncmp(*entry, "SHMQ_ATTR_", 10) != 0) entries.emplace_back(*entry);
  }
  entries.push_back("SHMQ_QUEUE=" + options.queue);
  entries.push_back("SHMQ_GROUP=" + options.group);
  entries.push_back("SHMQ_SEQ=" + std::to_string(delivery.seq().value));
  entries.push_back("SHMQ_HAND_OUTS=" + std::to_string(delivery.hand_outs()));
  for (const shmq::Attribute& attribute : delivery.attributes()) {
    if (attribute.value.find('\0') != std::string_view::npos) continue;  // no environment holds it
    std::string entry = "SHMQ_ATTR_";
    for (const char c : attribute.key) {
      const auto byte = static_cast<unsigned char>(c);
      const bool plain = byte < 0x80 && std::isalnum(byte) != 0;
      entry += plain ? static_cast<char>(std::toupper(byte)) : '_';
    }
    entries.push_back(entry + "=" + std::string{attribute.value});
  }
  return entries;
}

pid_t spawn(const ExecOptions& options, int input, std::vector<std::string>& environment,
            const std::string& what) {
  posix_spawn_file_actions_t actions;
  posix_spawnattr_t attributes;
  ::posix_spawn_file_actions_init(&actions);
  ::posix_spawn_file_actions_adddup2(&actions, input, STDIN_FILENO);
  ::posix_spawnattr_init(&attributes);
  // We ignore SIGPIPE; the command shall find it as usual.
  sigset_t defaults;
  ::sigemptyset(&defaults);
  ::sigaddset(&defaults, SIGPIPE);
  ::posix_spawnattr_setsigdefault(&attributes, &defaults);
  ::posix_spawnattr_setflags(&attributes, POSIX_SPAWN_SETSIGDEF);
  std::string shell = "sh", flag = "-c", command = options.command;
  char* arguments[] = {shell.data(), flag.data(), command.data(), nullptr};
  std::vector<char*> entries;
  for (std::string& entry : environment) entries.push_back(entry.data());
  entries.push_back(nullptr);
  pid_t child = -1;
  const int error =
      ::posix_spawn(&child, "/bin/sh", &actions, &attributes, arguments, entries.data());
  ::posix_spawnattr_destroy(&attributes);
  ::posix_spawn_file_actions_destroy(&actions);
  if (error != 0) throw failure_of_errno(error, what);
  return child;
}

/// Waits for the child and keeps the lease meanwhile. A stop signal does not end the wait: the
/// command's work shall be settled as it turns out.
int wait_for(pid_t child, shmq::Delivery& delivery, std::chrono::nanoseconds lease) {
  const FileDescriptor handle(static_cast<int>(::syscall(SYS_pidfd_open, child, 0)));
  if (handle.get() >= 0 && lease.count() > 0) {
    const auto third = std::chrono::ceil<std::chrono::milliseconds>(lease / 3).count();
    pollfd item{handle.get(), POLLIN, 0};
    while (::poll(&item, 1, static_cast<int>(std::max<long long>(third, 10))) <= 0) {
      // A lost lease is no reason to kill the command; the ack after it will be refused.
      static_cast<void>(delivery.extend());
    }
  }
  int status = 0;
  while (::waitpid(child, &status, 0) < 0 && errno == EINTR) {
  }
  return status;
}

}  // namespace

bool run_for(shmq::Delivery& delivery, const ExecOptions& options) {
  const std::string what = "run '" + options.command + "'";
  const FileDescriptor input(memory_file(delivery.text(), what));
  std::vector<std::string> environment = environment_of(delivery, options);
  const pid_t child = spawn(options, input.get(), environment, what);
  const int status = wait_for(child, delivery, options.lease);
  return WIFEXITED(status) && WEXITSTATUS(status) == 0;
}

}  // namespace shmqctl
