// SPDX-License-Identifier: Apache-2.0
//
// The real shmqd whose system calls fail: each of them once, with each error that it may well give,
// while a queue is created, written, acked, removed, and the daemon drained; and a disk that fails
// for a while. It may refuse to start, with a line that says why. Once it serves it must not end
// before it is told to, and what it confirmed must be there after a restart from disk.
//
// SHMQ_SEED chooses which of the cases are run; SHMQ_LONG=1 runs all.
#include <fcntl.h>
#include <gtest/gtest.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/wait.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <cstdlib>
#include <fstream>
#include <map>
#include <random>
#include <set>
#include <shmq/shmq.hpp>
#include <string>
#include <thread>

#include "durable/told_and_kept.hpp"
#include "support/syscall_injector.hpp"

namespace {

using namespace shmq;
using namespace shmq::testing;
using namespace std::chrono_literals;

// What each call may say, of what the daemon makes; others are let through.
const std::map<long, std::vector<int>>& plausible_errors() {
  static const std::map<long, std::vector<int>> errors{
      {SYS_openat, {EMFILE, EIO}},
      {SYS_close, {EINTR}},
      {SYS_pwrite64, {EIO, ENOSPC, EINTR, EAGAIN}},
      {SYS_pread64, {EIO, EINTR}},
      {SYS_fdatasync, {EIO, EINTR}},
      {SYS_fsync, {EIO}},
      {SYS_fallocate, {ENOSPC, EOPNOTSUPP, EINTR}},
      {SYS_ftruncate, {ENOSPC}},
      {SYS_renameat2, {EIO, EINVAL}},
      {SYS_rename, {EIO}},
      {SYS_unlinkat, {EIO}},
      {SYS_unlink, {EIO}},
      {SYS_mkdir, {ENOSPC}},
      {SYS_rmdir, {EIO}},
      {SYS_linkat, {ENOSPC}},
      {SYS_getdents64, {EIO}},
      {SYS_fstat, {EIO}},
      {SYS_newfstatat, {ENOMEM}},
      {SYS_statx, {ENOMEM}},
      {SYS_fchmod, {EPERM}},
      {SYS_fchown, {EPERM}},
      {SYS_flock, {EINTR, ENOLCK}},
      {SYS_fcntl, {ENOLCK}},
      {SYS_mmap, {ENOMEM}},
      {SYS_socket, {EMFILE}},
      {SYS_bind, {EADDRINUSE}},
      {SYS_listen, {EADDRINUSE}},
      {SYS_accept4, {EMFILE, ECONNABORTED, EINTR}},
      {SYS_getsockopt, {EINVAL}},
      {SYS_recvfrom, {EINTR, ECONNRESET}},
      {SYS_recvmsg, {EINTR, ECONNRESET}},
      {SYS_read, {EINTR}},
      {SYS_sendto, {EPIPE, EINTR, EAGAIN}},
      {SYS_sendmsg, {EPIPE, EINTR}},
      {SYS_epoll_create1, {EMFILE}},
      {SYS_epoll_ctl, {ENOMEM}},
      {SYS_epoll_wait, {EINTR}},
      {SYS_poll, {EINTR, ENOMEM}},
      {SYS_eventfd2, {EMFILE}},
      {SYS_signalfd4, {EMFILE}},
      {SYS_pidfd_open, {EMFILE, ESRCH}},
      {SYS_io_uring_setup, {ENOMEM}},
      {SYS_io_uring_enter, {EINTR, EAGAIN, EBUSY}},
  };
  return errors;
}

// Those that count: of its own main(), and of files, not of memory.
class Counter {
 public:
  // How often this one was made up to now; 0: it does not count.
  std::uint64_t count(const SystemCall& call) {
    // The first thing that main() does after its command line was read.
    if (call.number == SYS_signalfd4) has_begun_ = true;
    if (!has_begun_ || !plausible_errors().contains(call.number)) return 0;
    if (call.number == SYS_mmap && static_cast<int>(call.arguments[4]) < 0) return 0;
    return ++counts_[call.number];
  }
  [[nodiscard]] const std::map<long, std::uint64_t>& counts() const noexcept { return counts_; }

 private:
  bool has_begun_ = false;
  std::map<long, std::uint64_t> counts_;
};

std::string text_of(std::uint64_t i) { return "message " + std::to_string(i); }

// As far as it goes: what fails is not part of the story. Not one call waits for long.
Story live(RealDaemon& daemon) {
  Story story;
  constexpr auto patience = 1s;
  if (!Queue::create("q", small_queue())) {
    // The connection may have been the victim; it may be there all the same.
    if (!daemon.runs() || !Queue::create("q", small_queue())) {
      if (!Queue::open("q")) return story;
    }
  }
  story.is_created = true;
  auto queue = open_patiently();
  if (!queue) return story;
  {
    auto producer = queue->producer();
    auto consumer = queue->consumer("default");
    if (!producer || !consumer) return story;
    for (std::uint64_t i = 0; i < 4; ++i) {
      const std::string text = text_of(i);
      const auto seq = producer->publish(std::as_bytes(std::span{text}),
                                         {.durability = Durability::synced, .timeout = patience});
      if (seq) story.confirmed[(*seq).value] = text;
    }
    auto delivery = consumer->receive(0s);
    if (delivery && !delivery->empty()) {
      const std::uint64_t end = delivery->seq().value + 1;
      if (delivery->ack() == Settlement::settled && consumer->wait_acks_synced(patience)) {
        story.acked_end = end;
      }
    }
  }
  (void)daemon_status();
  (void)daemon_reload();
  auto other = small_queue();
  if (Queue::create("other", other)) (void)Queue::remove("other");
  return story;
}

struct Case {
  long number;
  std::uint64_t which;
  int error;
};

class Syscalls : public ::testing::TestWithParam<const char*> {
 protected:
  void SetUp() override {
    if (!SyscallInjector::is_possible()) GTEST_SKIP() << "not on this machine";
  }
};

// Starts a traced daemon, lives, drains; false: it did not start. Sets `story`.
bool run_traced(RealDaemon& daemon, SyscallInjector::Policy policy, Story& story, int& status) {
  daemon.set_before_exec(&SyscallInjector::ask_to_be_traced);
  SyscallInjector injector{[&] {
                             daemon.start();
                             return daemon.pid();
                           },
                           std::move(policy)};
  const bool serves = await([&] { return !daemon.runs() || daemon_status({.timeout = 1s}); });
  EXPECT_TRUE(serves) << "it neither serves nor ends";
  if (!daemon.runs()) {
    injector.await_end();
    status = daemon.wait_for_end();
    return false;
  }
  story = live(daemon);
  if (!daemon.runs()) {
    injector.await_end();
    status = daemon.wait_for_end();
    ADD_FAILURE() << "it ended while it served, status " << status << ": " << daemon.log();
    return true;
  }
  ::kill(daemon.pid(), SIGTERM);
  // A signal's read may be the victim: then it is asked again.
  if (!await([&] {
        if (!daemon.runs()) return true;
        ::kill(daemon.pid(), SIGTERM);
        std::this_thread::sleep_for(1ms);
        return false;
      })) {
    ADD_FAILURE() << "it does not drain: " << daemon.log();
    ::kill(daemon.pid(), SIGKILL);
  }
  injector.await_end();
  status = daemon.wait_for_end();
  return true;
}

TEST_P(Syscalls, each_of_them_may_fail) {
  Counter all;
  Story whole;
  int status = -1;
  {
    RealDaemon daemon;
    daemon.set_arguments(arguments_of(daemon, GetParam()));
    ASSERT_TRUE(run_traced(
        daemon,
        [&](const SystemCall& call) {
          all.count(call);
          return 0;
        },
        whole, status))
        << daemon.log();
    ASSERT_EQ(status, 0) << daemon.log();
    ASSERT_EQ(whole.confirmed.size(), 4U);
    ASSERT_EQ(whole.acked_end, 1U);
    EXPECT_GT(check_disk(daemon, whole), 4);
  }
  std::vector<Case> cases;
  constexpr std::uint64_t of_one_call_max = 40;
  for (const auto& [number, count] : all.counts()) {
    for (std::uint64_t which = 1; which <= std::min(count, of_one_call_max); ++which) {
      for (const int error : plausible_errors().at(number)) cases.push_back({number, which, error});
    }
  }
  const char* const given = std::getenv("SHMQ_SEED");
  const auto seed =
      given != nullptr ? static_cast<unsigned>(std::atoi(given)) : std::random_device{}() % 100000;
  const std::size_t found = cases.size();
  const bool is_long = std::getenv("SHMQ_LONG") != nullptr;
  if (!is_long) {
    std::mt19937 random{seed};
    std::shuffle(cases.begin(), cases.end(), random);
    cases.resize(std::min<std::size_t>(cases.size(), 20));
  }
  int hit = 0;
  int refused = 0;
  int checks = 0;
  for (const Case& each : cases) {
    SCOPED_TRACE("seed " + std::to_string(seed) + ", call " + std::to_string(each.number) +
                 ", the " + std::to_string(each.which) + "th time, error " +
                 std::to_string(each.error));
    const auto began = std::chrono::steady_clock::now();
    RealDaemon daemon;
    daemon.set_arguments(arguments_of(daemon, GetParam()));
    Counter counter;
    std::atomic<bool> was_hit{false};
    Story story;
    const bool served = run_traced(
        daemon,
        [&](const SystemCall& call) {
          const std::uint64_t count = counter.count(call);
          if (count != each.which || call.number != each.number) return 0;
          was_hit = true;
          return each.error;
        },
        story, status);
    hit += was_hit ? 1 : 0;
    if (!served) {
      ++refused;
      EXPECT_TRUE(WIFEXITED(status) && WEXITSTATUS(status) != 0) << "status " << status;
      EXPECT_NE(daemon.log().find("shmqd: "), std::string::npos) << "it does not say why";
    } else {
      EXPECT_EQ(status, 0) << daemon.log();
    }
    checks += check_disk(daemon, story);
    if (std::getenv("SHMQ_VERBOSE") != nullptr) {
      std::printf(
          "call %ld, the %llu. time, error %d: %s, %s, %zu confirmed, %.0f ms\n", each.number,
          static_cast<unsigned long long>(each.which), each.error, was_hit ? "hit" : "not met",
          served ? "served" : "refused to start", story.confirmed.size(),
          std::chrono::duration<double, std::milli>(std::chrono::steady_clock::now() - began)
              .count());
      std::fflush(stdout);
    }
    if (HasFailure()) break;
  }
  std::printf("seed %u: %zu of %zu cases, %d hit, %d refused to start, %d checks\n", seed,
              cases.size(), found, hit, refused, checks);
  EXPECT_GT(hit, static_cast<int>(cases.size() / 2));
  EXPECT_GT(checks, hit);
}

INSTANTIATE_TEST_SUITE_P(Backends, Syscalls, ::testing::Values("plain", "io_uring"),
                         [](const auto& choice) { return std::string{choice.param}; });

}  // namespace
