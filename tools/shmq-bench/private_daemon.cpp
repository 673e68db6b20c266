// SPDX-License-Identifier: Apache-2.0
#include "private_daemon.hpp"

#include <signal.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include <chrono>
#include <cstdlib>
#include <filesystem>
#include <thread>

#include "contender.hpp"
#include "runner.hpp"

namespace shmq_bench {

using namespace std::chrono_literals;

PrivateDaemon::PrivateDaemon(const std::string& shmqd, const std::string& name_space,
                             const std::string& directory) {
  const std::string data = directory + "/data", run = directory + "/run";
  std::filesystem::create_directory(run);
  setenv("SHMQ_RUNTIME_DIR", run.c_str(), 1);
  pid_ = fork();
  if (pid_ < 0) fail("cannot fork");
  if (pid_ == 0) {
    prctl(PR_SET_PDEATHSIG, SIGTERM);
    execl(shmqd.c_str(), "shmqd", "--foreground", "--namespace", name_space.c_str(), "--data-dir",
          data.c_str(), "--runtime-dir", run.c_str(), "--log-level", "warning", nullptr);
    _exit(127);
  }
}

PrivateDaemon::~PrivateDaemon() {
  kill(pid_, SIGTERM);
  waitpid(pid_, nullptr, 0);
}

bool PrivateDaemon::runs() const { return waitpid(pid_, nullptr, WNOHANG) == 0; }

double PrivateDaemon::cpu_seconds() const {
  // What its threads used that have ended is in it: io_uring has workers that come and go.
  clockid_t clock{};
  timespec used{};
  if (clock_getcpuclockid(pid_, &clock) != 0 || clock_gettime(clock, &used) != 0) {
    fail("the daemon has ended");
  }
  return static_cast<double>(used.tv_sec) + static_cast<double>(used.tv_nsec) / 1e9;
}

shmq::Queue make_queue(const PrivateDaemon& daemon, const std::string& name,
                       const shmq::QueueOptions& options) {
  note_shmq_queue(options.name_space, name);
  for (int attempt = 0;; ++attempt) {
    auto queue = shmq::Queue::create(name, options);
    if (queue) return std::move(*queue);
    // The daemon may not be ready yet.
    if (attempt == 200 || !daemon.runs()) fail(queue.error().message());
    std::this_thread::sleep_for(20ms);
  }
}

}  // namespace shmq_bench
