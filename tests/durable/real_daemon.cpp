// SPDX-License-Identifier: Apache-2.0
#include "durable/real_daemon.hpp"

#include <fcntl.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cstddef>
#include <cstdlib>
#include <fstream>
#include <iterator>
#include <sstream>
#include <stdexcept>

namespace shmq::testing {

namespace fs = std::filesystem;

namespace {

// io_uring_setup fails with EPERM from here on, also in what is executed.
bool deny() {
  sock_filter filter[] = {
      BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(seccomp_data, nr)),
      BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_io_uring_setup, 0, 1),
      BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | EPERM),
      BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
  };
  const sock_fprog program{.len = std::size(filter), .filter = filter};
  return ::prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == 0 &&
         ::prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &program) == 0;
}

}  // namespace

RealDaemon::RealDaemon() {
  std::string pattern = (fs::temp_directory_path() / "shmq-durable.XXXXXX").string();
  if (::mkdtemp(pattern.data()) == nullptr) throw std::runtime_error{"mkdtemp failed"};
  directory_ = pattern;
  fs::create_directory(directory_ / "run");
  ::setenv("SHMQ_NAMESPACE", name_space().c_str(), 1);
  ::setenv("SHMQ_RUNTIME_DIR", (directory_ / "run").c_str(), 1);
}

RealDaemon::~RealDaemon() {
  if (pid_ > 0) kill();
  std::error_code ignored;
  fs::remove_all(directory_, ignored);
}

void RealDaemon::start() {
  const std::string data = directory_ / "data", run = directory_ / "run", log = directory_ / "log";
  pid_ = ::fork();
  if (pid_ < 0) throw std::runtime_error{"fork failed"};
  if (pid_ > 0) return;
  ::prctl(PR_SET_PDEATHSIG, SIGKILL);
  const int out = ::open(log.c_str(), O_CREAT | O_APPEND | O_WRONLY | O_CLOEXEC, 0600);
  ::dup2(out, STDOUT_FILENO);
  ::dup2(out, STDERR_FILENO);
  if (is_io_uring_denied_ && !deny()) ::_exit(126);
  std::vector<std::string> words{"shmqd", "--foreground", "--data-dir", data, "--runtime-dir", run};
  words.insert(words.end(), arguments_.begin(), arguments_.end());
  std::vector<char*> pointers;
  for (std::string& word : words) pointers.push_back(word.data());
  pointers.push_back(nullptr);
  if (before_exec_ != nullptr) before_exec_();
  ::execv(SHMQD, pointers.data());
  ::_exit(127);
}

int RealDaemon::wait_for_end() {
  int status = -1;
  while (::waitpid(pid_, &status, 0) < 0 && errno == EINTR) {
  }
  pid_ = -1;
  return status;
}

void RealDaemon::kill() {
  ::kill(pid_, SIGKILL);
  wait_for_end();
}

int RealDaemon::drain() {
  ::kill(pid_, SIGTERM);
  const int status = wait_for_end();
  return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
}

bool RealDaemon::runs() const {
  if (pid_ <= 0) return false;
  siginfo_t info{};
  return ::waitid(P_PID, static_cast<id_t>(pid_), &info, WEXITED | WNOHANG | WNOWAIT) == 0 &&
         (info.si_pid == 0 || info.si_code == CLD_TRAPPED);  // in a tracer's hands
}

void RealDaemon::forget_memory() const {
  for (const auto& entry : fs::directory_iterator{"/dev/shm"}) {
    if (entry.path().filename().string().starts_with("shmq." + name_space() + ".")) {
      fs::remove(entry.path());
    }
  }
}

std::string RealDaemon::control_socket() const {
  return directory_ / "run" / name_space() / "control";
}

fs::path RealDaemon::journal_of(const std::string& queue) const {
  return directory_ / "data" / name_space() / queue;
}

std::string RealDaemon::log() const {
  std::ifstream file{directory_ / "log"};
  std::ostringstream text;
  text << file.rdbuf();
  const std::string all = text.str();
  return all.size() > 2000 ? all.substr(all.size() - 2000) : all;
}

}  // namespace shmq::testing
