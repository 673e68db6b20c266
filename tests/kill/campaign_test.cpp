// SPDX-License-Identifier: Apache-2.0
//
// KILL: two producers and two groups (each with a stand-by) under random SIGKILL and SIGSTOP. Every
// process writes down what it begins and what it has done; the checker reads it when all is over.
#include <gtest/gtest.h>

#include "kill/actors.hpp"
#include "kill/checker.hpp"
#include "support/small_queue.hpp"

namespace {

using namespace shmq;
using namespace shmq::testing;
using namespace std::chrono_literals;

TEST(Kill, nothing_is_lost_nothing_comes_twice_whoever_dies) {
  const std::uint64_t seed = campaign_seed();
  const int kills_wanted = by_length(300, 20000);
  QueueOptions options = SmallQueue::options(Overflow::block, {{.name = "g0"}, {.name = "g1"}});
  options.slots = 64;
  options.max_participants = 32;
  options.arena_bytes = 64 * 4096;
  SmallQueue small{options};
  const std::string& name_space = small.scratch.name_space;

  int inside = 0;
  std::vector<History> histories;
  {
    Supervisor supervisor{seed};
    // Each life of a producer is a producer of its own to the checker, named by its number.
    for (int i = 0; i < 2; ++i) {
      supervisor.add([&name_space](Log& log) { produce(name_space, log); });
    }
    for (std::uint8_t group = 0; group < 2; ++group) {
      for (int i = 0; i < 2; ++i) {
        supervisor.add([&name_space, group](Log& log) { consume(name_space, log, group, false); });
      }
    }
    for (int kill = 0; kill < kills_wanted; ++kill) {
      if (kill % 3 == 0) supervisor.stop_one_for_a_while();
      inside += supervisor.kill_one() ? 1 : 0;
    }
    supervisor.end_all();
    // What is left is consumed here, and written down as well.
    ASSERT_TRUE(small.queue->reclaim());
    Log& rest = supervisor.new_log();
    for (std::uint8_t group = 0; group < 2; ++group) {
      auto consumer = small.consumer(group_name(group));
      while (small.group(group_name(group)).floor < small.queue->stats().tail) {
        auto delivery = consumer.receive(10s);
        ASSERT_TRUE(delivery && !delivery->empty());
        Event event = event_of(*delivery, group);
        rest.add(event);
        ASSERT_EQ(delivery->ack(), Settlement::settled);
        event.what = What::ack_end;
        rest.add(event);
      }
    }
    histories = supervisor.histories();
  }
  const Verdict verdict =
      check_histories(histories, {GroupRule{}, GroupRule{}}, small.queue->stats().tail.value);
  for (const std::string& broken : verdict.broken) ADD_FAILURE() << broken;
  std::printf(
      "%d kills, %d inside an operation; %llu published, %llu deliveries, %llu again, %llu "
      "checks\n",
      kills_wanted, inside, static_cast<unsigned long long>(verdict.published),
      static_cast<unsigned long long>(verdict.deliveries),
      static_cast<unsigned long long>(verdict.redeliveries),
      static_cast<unsigned long long>(verdict.checks));
  EXPECT_GE(inside * 10, kills_wanted * 3) << "too few kills hit inside an operation";
  EXPECT_GT(verdict.published, 1000U);
  EXPECT_GT(verdict.redeliveries, 0U);
  EXPECT_TRUE(small.queue->participants().empty());
  EXPECT_EQ(small.queue->stats().chunks_open, 0U);
}

}  // namespace
