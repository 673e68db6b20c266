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
#include <array>
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

struct Child {
  pid_t pid = -1;
  bool leads_group = false;
};

/// In a process group of its own, so that what the shell has started hears a stop signal, too;
/// unless we are in the foreground of a terminal: a command may want to ask there, and Ctrl-C
/// reaches it without our help.
Child spawn(const ExecOptions& options, int input, std::vector<std::string>& environment,
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
  Child child;
  child.leads_group = ::tcgetpgrp(STDERR_FILENO) != ::getpgrp();
  ::posix_spawnattr_setpgroup(&attributes, 0);
  ::posix_spawnattr_setflags(
      &attributes,
      static_cast<short>(POSIX_SPAWN_SETSIGDEF | (child.leads_group ? POSIX_SPAWN_SETPGROUP : 0)));
  std::string shell = "sh", flag = "-c", command = options.command;
  char* arguments[] = {shell.data(), flag.data(), command.data(), nullptr};
  std::vector<char*> entries;
  for (std::string& entry : environment) entries.push_back(entry.data());
  entries.push_back(nullptr);
  const int error =
      ::posix_spawn(&child.pid, "/bin/sh", &actions, &attributes, arguments, entries.data());
  ::posix_spawnattr_destroy(&attributes);
  ::posix_spawn_file_actions_destroy(&actions);
  if (error != 0) throw failure_of_errno(error, what);
  return child;
}

/// Waits for the child, and keeps the lease meanwhile.
int wait_for(const Child& child, const ExecOptions& options, const StopSignals& stop) {
  using namespace std::chrono;
  const FileDescriptor handle(static_cast<int>(::syscall(SYS_pidfd_open, child.pid, 0)));
  // Without a pidfd (an old kernel, a sandbox) the child is looked at now and then.
  const milliseconds longest_wait{handle.get() >= 0 ? 3'600'000 : 20};
  const auto half = std::max(options.lease / 2, nanoseconds{1ms});
  auto keep_at = steady_clock::now() + half;
  bool told = false;
  int status = 0;
  for (;;) {
    const pid_t ended = ::waitpid(child.pid, &status, WNOHANG);
    if (ended == child.pid || (ended < 0 && errno != EINTR)) return status;
    if (!told && stop.signal() != 0) {
      ::kill(child.leads_group ? -child.pid : child.pid, stop.signal());
      told = true;
    }
    milliseconds wait = longest_wait;
    if (options.lease.count() > 0) {
      if (steady_clock::now() >= keep_at) {
        options.keep_lease();
        keep_at = steady_clock::now() + half;
      }
      wait = std::clamp(ceil<milliseconds>(keep_at - steady_clock::now()), milliseconds{0}, wait);
    }
    std::array<pollfd, 2> items{{{handle.get(), POLLIN, 0}, {told ? -1 : stop.fd(), POLLIN, 0}}};
    ::poll(items.data(), items.size(), static_cast<int>(wait.count()));
  }
}

}  // namespace

CommandEnd run_for(shmq::Delivery& delivery, const ExecOptions& options, const StopSignals& stop) {
  const std::string what = "run '" + options.command + "'";
  const FileDescriptor input(memory_file(delivery.text(), what));
  std::vector<std::string> environment = environment_of(delivery, options);
  const Child child = spawn(options, input.get(), environment, what);
  const int status = wait_for(child, options, stop);
  if (!WIFEXITED(status)) return CommandEnd::failure;
  switch (WEXITSTATUS(status)) {
    case 0: return CommandEnd::success;
    case 126:
    case 127: return CommandEnd::not_run;
    default: return CommandEnd::failure;
  }
}

}  // namespace shmqctl
