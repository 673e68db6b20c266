// SPDX-License-Identifier: Apache-2.0
//
// KILL on shared groups: three producers and two groups with four consumers under random SIGKILL,
// short SIGSTOPs, and stops that outlast the lease. Every process writes down what it begins and
// what it has done; the checker reads it when all is over.
#include <gtest/gtest.h>

#include "kill/actors.hpp"
#include "kill/checker.hpp"
#include "support/shared_look.hpp"
#include "support/small_queue.hpp"

namespace {

using namespace shmq;
using namespace shmq::testing;
using namespace std::chrono_literals;

constexpr auto lease = 60ms;
// Leases are counted from CLOCK_MONOTONIC_COARSE, which is at most a jiffy behind.
constexpr auto coarse_clock_step = 10ms;

struct Plan {
  std::vector<GroupOptions> groups;
  std::vector<std::uint8_t> consumers;  // the group of each
  std::size_t may_stop_from;            // actors from this number on may be stopped past the lease
};

void run_plan(const Plan& plan, int kills_wanted) {
  const std::uint64_t seed = campaign_seed();
  QueueOptions options = SmallQueue::options(Overflow::block, plan.groups);
  options.slots = 64;
  options.window_entries = 64;
  options.straggler_entries = 64;
  options.max_participants = 32;
  options.arena_bytes = 128 * 4096;
  SmallQueue small{options};
  const std::string& name_space = small.scratch.name_space;

  Supervisor supervisor{seed};
  for (int i = 0; i < 3; ++i) {
    supervisor.add([&name_space](Log& log) { produce(name_space, log); });
  }
  for (const std::uint8_t group : plan.consumers) {
    const bool gives_back = plan.groups[group].mode == GroupMode::shared;
    supervisor.add([&name_space, group, gives_back](Log& log) {
      consume(name_space, log, group, gives_back);
    });
  }
  int inside = 0;
  for (int kill = 0; kill < kills_wanted; ++kill) {
    if (kill % 3 == 0) supervisor.stop_one_for_a_while();
    supervisor.keep_one_stopped(plan.may_stop_from, 2 * lease);
    inside += supervisor.kill_one() ? 1 : 0;
  }
  supervisor.end_all();
  // What is left is consumed here, and written down as well.
  ASSERT_TRUE(small.queue->reclaim());
  Log& rest = supervisor.new_log();
  for (std::uint8_t group = 0; group < plan.groups.size(); ++group) {
    auto consumer = small.consumer(group_name(group));
    while (small.group(group_name(group)).floor < small.queue->stats().tail ||
           small.group(group_name(group)).stragglers != 0) {
      const std::uint64_t begin_ns = now_ns();
      auto delivery = consumer.receive(100ms);
      ASSERT_TRUE(delivery) << delivery.error().message();
      if (delivery->empty()) {  // the idle look moved the floor; or something was lost
        ASSERT_EQ(small.group(group_name(group)).floor, small.queue->stats().tail)
            << "group " << int{group} << " does not end";
        continue;
      }
      Event event = event_of(*delivery, group);
      event.begin_ns = begin_ns;
      event.end_ns = now_ns();
      rest.add(event);
      ASSERT_EQ(delivery->ack(), Settlement::settled);
      event.what = What::ack_end;
      rest.add(event);
    }
  }
  std::vector<GroupRule> rules;
  for (const GroupOptions& group : plan.groups) {
    rules.push_back({.shared = group.mode == GroupMode::shared,
                     .lease_ns = static_cast<std::uint64_t>(
                         std::chrono::nanoseconds{lease - coarse_clock_step}.count()),
                     .batch_max = 4});
  }
  const Verdict verdict =
      check_histories(supervisor.histories(), rules, small.queue->stats().tail.value);
  for (const std::string& broken : verdict.broken) ADD_FAILURE() << broken;
  std::printf(
      "%d kills, %d inside an operation; %d stops past the lease, %llu settlements refused; %llu "
      "published, %llu deliveries, %llu again, %llu taken along by the dead; %llu checks\n",
      kills_wanted, inside, supervisor.long_stops(),
      static_cast<unsigned long long>(verdict.refused),
      static_cast<unsigned long long>(verdict.published),
      static_cast<unsigned long long>(verdict.deliveries),
      static_cast<unsigned long long>(verdict.redeliveries),
      static_cast<unsigned long long>(verdict.unseen),
      static_cast<unsigned long long>(verdict.checks));
  EXPECT_GE(inside * 10, kills_wanted * 3) << "too few kills hit inside an operation";
  EXPECT_GT(verdict.published, 1000U);
  EXPECT_GT(verdict.redeliveries, 100U);
  EXPECT_GT(supervisor.long_stops(), 3);
  EXPECT_GT(verdict.refused, 3U) << "hardly a lease was ever lost";
  EXPECT_TRUE(small.queue->participants().empty());
  EXPECT_EQ(small.queue->stats().chunks_open, 0U);
  const auto segment = segment_of(small);
  for (std::uint8_t group = 0; group < plan.groups.size(); ++group) {
    if (plan.groups[group].mode != GroupMode::shared) continue;
    EXPECT_EQ(small.group(group_name(group)).dead, 0U) << "past the delivery limit: not meant here";
    const SharedLook look = look_at_group(*segment, group);
    EXPECT_EQ(look.leased + look.reserved + look.in_table + look.twice, 0U);
  }
  if (::testing::Test::HasFailure()) supervisor.keep_files();
}

GroupOptions shared_group(const char* name) {
  return {.name = name, .mode = GroupMode::shared, .lease = lease, .delivery_limit = 63};
}

TEST(KillShared, a_shared_and_an_exclusive_group) {
  // The stand-by of the exclusive one comes on top of the four.
  run_plan({.groups = {{.name = "g0"}, shared_group("g1")},
            .consumers = {0, 0, 1, 1, 1},
            .may_stop_from = 5},
           by_length(1000, 20000));
}

TEST(KillShared, two_shared_groups) {
  run_plan({.groups = {shared_group("g0"), shared_group("g1")},
            .consumers = {0, 0, 1, 1},
            .may_stop_from = 3},
           by_length(300, 20000));
}

}  // namespace
