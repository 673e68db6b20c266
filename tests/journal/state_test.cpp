// SPDX-License-Identifier: Apache-2.0
//
// The checkpoint state against the plainest possible model: a set of settled seqs.
#include "journal/state.hpp"

#include <gtest/gtest.h>

#include <cstdlib>
#include <random>
#include <set>

namespace {

using namespace shmq::journal;

std::uint64_t seed() {
  const char* text = std::getenv("SHMQ_SEED");
  const std::uint64_t value = text == nullptr ? 1 : std::strtoull(text, nullptr, 10);
  std::printf("SHMQ_SEED=%llu\n", static_cast<unsigned long long>(value));
  return value;
}

TEST(State, settled_ranges_are_those_of_a_plain_set) {
  std::mt19937_64 random{seed()};
  std::uint64_t checks = 0;
  for (int round = 0; round < 300; ++round) {
    GroupState group;
    std::set<std::uint64_t> settled;
    for (int step = 0; step < 40; ++step) {
      const std::uint64_t first = random() % 60;
      const std::uint64_t end = first + random() % 6;
      if (random() % 8 == 0) {
        group.raise_floor(first);
        for (std::uint64_t seq = 0; seq < first; ++seq) settled.insert(seq);
      } else {
        group.settle(first, end);
        for (std::uint64_t seq = first; seq < end; ++seq) settled.insert(seq);
      }
      for (std::uint64_t seq = 0; seq < 70; ++seq, ++checks) {
        ASSERT_EQ(group.is_settled(seq), settled.contains(seq)) << seq;
      }
      std::uint64_t before = group.floor;
      for (const auto& [from, to] : group.settled) {
        ASSERT_GT(from, before) << "neither overlapping nor adjacent, and above the floor";
        ASSERT_GT(to, from);
        before = to;
      }
    }
  }
  EXPECT_GT(checks, 100'000U);
}

TEST(State, an_entry_goes_when_its_seq_is_settled_and_does_not_come_back) {
  GroupState group;
  EntryState entry{};
  entry.seq = 5;
  entry.hand_outs = 2;
  group.set_entry(entry);
  EXPECT_EQ(group.entries.size(), 1U);
  group.settle(4, 6);
  EXPECT_TRUE(group.entries.empty());
  group.set_entry(entry);
  EXPECT_TRUE(group.entries.empty());
}

TEST(State, a_former_incarnation_changes_nothing_and_a_new_one_starts_over) {
  CheckpointState state;
  GroupChange change;
  change.group = Uuid{1};
  change.incarnation = 2;
  change.floor = 10;
  state.apply(change);
  change.incarnation = 1;
  change.floor = 50;
  state.apply(change);
  EXPECT_EQ(state.groups.at(Uuid{1}).floor, 10U);
  change.incarnation = 3;
  change.floor = 4;
  state.apply(change);
  EXPECT_EQ(state.groups.at(Uuid{1}).floor, 4U) << "a seek goes back";
  state.remove(Uuid{1}, 2);
  EXPECT_EQ(state.groups.size(), 1U);
  state.remove(Uuid{1}, 3);
  EXPECT_TRUE(state.groups.empty());
  EXPECT_EQ(state.least_floor(77), 77U);
}

TEST(State, a_gap_holds_no_group_up) {
  CheckpointState state;
  state.groups[Uuid{1}].floor = 3;
  state.groups[Uuid{2}].floor = 1;
  state.settle_gap(3, 9);
  EXPECT_EQ(state.groups[Uuid{1}].floor, 9U);
  EXPECT_EQ(state.groups[Uuid{2}].floor, 1U);
  EXPECT_TRUE(state.groups[Uuid{2}].is_settled(8));
}

}  // namespace
