// SPDX-License-Identifier: Apache-2.0
#include "children.hpp"

#include <sched.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include <csignal>

#include "contender.hpp"

namespace shmq_bench {
namespace {

constexpr int children_max = 16;
pid_t children[children_max];
int children_count = 0;

void end_at_once(int signal) {
  static const char text[] = "shmq-bench: ended by a failed or hung run, or by a signal\n";
  if (write(2, text, sizeof(text) - 1) < 0) { /* nobody reads it */
  }
  for (int i = 0; i < children_count; ++i) {
    // One of them may be gone, and its number in use by another: only those who are still ours.
    if (signal != SIGCHLD || waitpid(children[i], nullptr, WNOHANG) == 0) {
      kill(children[i], SIGKILL);
    }
  }
  remove_shmq_queues();
  _exit(1);
}

}  // namespace

bool fork_child() {
  if (children_count == children_max) fail("too many children");
  const pid_t parent = getpid();
  const pid_t pid = fork();
  if (pid < 0) fail("cannot fork");
  if (pid != 0) {
    children[children_count++] = pid;
    return false;
  }
  prctl(PR_SET_PDEATHSIG, SIGKILL);
  if (getppid() != parent) _exit(1);
  std::signal(SIGINT, SIG_IGN);
  return true;
}

void watch_children() {
  for (const int signal : {SIGCHLD, SIGALRM, SIGINT, SIGTERM}) std::signal(signal, end_at_once);
}

void let_children_end() { std::signal(SIGCHLD, SIG_DFL); }

void await_children() {
  while (children_count > 0) waitpid(children[--children_count], nullptr, 0);
}

void limit_run(unsigned seconds) { alarm(seconds); }

void pin_to(std::size_t cpu) {
  cpu_set_t set;
  CPU_ZERO(&set);
  CPU_SET(cpu, &set);
  if (sched_setaffinity(0, sizeof(set), &set) != 0) {
    std::fprintf(stderr, "shmq-bench: cannot pin to CPU %zu; the figures may be worthless\n", cpu);
  }
}

void unpin() {
  cpu_set_t set;
  CPU_ZERO(&set);
  for (int cpu = 0; cpu < CPU_SETSIZE; ++cpu) CPU_SET(cpu, &set);
  sched_setaffinity(0, sizeof(set), &set);
}

}  // namespace shmq_bench
