// SPDX-License-Identifier: Apache-2.0
//
// The real shmqd on a disk that fails for a while.
#include <gtest/gtest.h>
#include <signal.h>
#include <sys/syscall.h>

#include <atomic>
#include <chrono>
#include <cstdlib>

#include "durable/told_and_kept.hpp"
#include "support/syscall_injector.hpp"

namespace {

using namespace shmq;
using namespace shmq::testing;
using namespace std::chrono_literals;

// Each write and sync of a journal fails from one moment on, as with a disk that is pulled: after
// the second failure the queue is DEGRADED, synced publishes fail at once, nothing is confirmed,
// memory goes on. Once the disk is back a reload is enough, and what was in memory gets there.
TEST(FailingDisk, degraded_after_the_second_failure_and_back_at_reload) {
  if (!SyscallInjector::is_possible()) GTEST_SKIP() << "not on this machine";
  RealDaemon daemon;
  daemon.set_arguments(arguments_of(daemon, "plain"));
  std::atomic<bool> fails{false};
  std::atomic<int> failed{0};
  daemon.set_before_exec(&SyscallInjector::ask_to_be_traced);
  SyscallInjector injector{[&] {
                             daemon.start();
                             return daemon.pid();
                           },
                           [&](const SystemCall& call) {
                             const bool is_disk =
                                 call.number == SYS_pwrite64 || call.number == SYS_fdatasync;
                             if (!is_disk || !fails) return 0;
                             ++failed;
                             return EIO;
                           }};
  ASSERT_TRUE(await([] { return daemon_status().has_value(); })) << daemon.log();
  const auto state = [] {
    const auto status = daemon_status();
    if (!status) return std::string{"no answer"};
    for (const char* each : {"degraded", "no_space", "ok"}) {
      if (status->find(std::string{R"("state":")"} + each + "\"") != std::string::npos)
        return std::string{each};
    }
    return *status;
  };
  auto queue = Queue::create("q", small_queue());
  ASSERT_TRUE(queue) << queue.error().message();
  auto producer = queue->producer();
  ASSERT_TRUE(producer);
  const PublishOptions synced{.durability = Durability::synced, .timeout = 30s};
  ASSERT_TRUE(producer->publish("before", synced));
  EXPECT_EQ(state(), "ok");

  fails = true;
  std::map<std::uint64_t, std::string> confirmed;
  const auto first = producer->publish("while it fails", synced);
  ASSERT_FALSE(first) << "confirmed by a disk that takes nothing";
  EXPECT_TRUE(first.error() == Errc::published_unconfirmed) << first.error().message();
  EXPECT_EQ(state(), "degraded") << daemon.log();
  EXPECT_GE(failed.load(), 2);
  const int tries = failed;
  const auto began = std::chrono::steady_clock::now();
  const auto second = producer->publish("at once", synced);
  ASSERT_FALSE(second);
  EXPECT_TRUE(second.error() == Errc::not_published) << second.error().message();
  EXPECT_LT(std::chrono::steady_clock::now() - began, 15s) << "of 30 s that it could have waited";
  const auto in_memory = producer->publish("in memory");
  ASSERT_TRUE(in_memory) << in_memory.error().message();
  EXPECT_LE(producer->synced_end(), Seq{1}) << "the watermark passed what is on disk";
  // Told to, it tries again, and fails again.
  ASSERT_TRUE(daemon_reload());
  EXPECT_TRUE(await([&] { return failed > tries; })) << daemon.log();
  EXPECT_EQ(state(), "degraded");

  fails = false;
  ASSERT_TRUE(daemon_reload());
  const auto waited = producer->wait_synced(*in_memory, 30s);
  EXPECT_TRUE(waited) << waited.error().message() << daemon.log();
  EXPECT_EQ(state(), "ok");
  EXPECT_TRUE(producer->publish("after", synced));

  ::kill(daemon.pid(), SIGKILL);
  injector.await_end();
  daemon.wait_for_end();
  Story story;
  story.is_created = true;
  story.confirmed = {{0, "before"}, {1, "while it fails"}, {2, "in memory"}, {3, "after"}};
  EXPECT_GT(check_disk(daemon, story), 4);
}

}  // namespace
