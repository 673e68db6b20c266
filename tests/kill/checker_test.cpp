// SPDX-License-Identifier: Apache-2.0
//
// The checker is given forged histories: a good one passes, each bad one is named.
#include "kill/checker.hpp"

#include <gtest/gtest.h>

namespace {

using namespace shmq::testing;

// One producer, one group, two messages; the first consumer dies with seq 1, its successor goes on.
std::vector<History> good() {
  return {
      {0,
       {{.what = What::publish_begin, .message = 0},
        {.what = What::publish_end, .message = 0, .seq = 0},
        {.what = What::publish_begin, .message = 1},
        {.what = What::publish_end, .message = 1, .seq = 1}}},
      {1,
       {{.what = What::receive, .hand_outs = 1, .message = 0, .seq = 0, .token = 1},
        {.what = What::receive, .hand_outs = 1, .message = 1, .seq = 1, .token = 1},
        {.what = What::ack_begin, .seq = 0, .token = 1},
        {.what = What::ack_end, .seq = 0, .token = 1}}},
      {2,
       {{.what = What::receive, .hand_outs = 2, .message = 1, .seq = 1, .token = 2},
        {.what = What::ack_begin, .seq = 1, .token = 2},
        {.what = What::ack_end, .seq = 1, .token = 2}}},
  };
}

std::string verdict_on(const std::vector<History>& histories, std::uint64_t tail = 2) {
  const Verdict verdict = check_histories(histories, {GroupRule{}}, tail);
  return verdict.broken.empty() ? "" : verdict.broken.front();
}

TEST(Checker, a_good_history_passes) {
  const Verdict verdict = check_histories(good(), {GroupRule{}}, 2);
  EXPECT_TRUE(verdict.broken.empty()) << verdict.broken.front();
  EXPECT_EQ(verdict.redeliveries, 1U);
  EXPECT_GT(verdict.checks, 10U);
}

TEST(Checker, a_lost_message_is_found) {
  auto histories = good();
  histories[2].events.clear();
  histories[1].events.erase(histories[1].events.begin() + 1);
  EXPECT_NE(verdict_on(histories).find("lost"), std::string::npos);
}

TEST(Checker, a_message_that_is_never_acked_is_found) {
  auto histories = good();
  histories[2].events.resize(1);
  EXPECT_NE(verdict_on(histories).find("never acked"), std::string::npos);
}

TEST(Checker, a_gap_is_found) { EXPECT_NE(verdict_on(good(), 3).find("gap"), std::string::npos); }

TEST(Checker, a_delivery_after_the_ack_is_found) {
  auto histories = good();
  histories[2].events.insert(
      histories[2].events.begin(),
      {.what = What::receive, .hand_outs = 2, .message = 0, .seq = 0, .token = 2});
  EXPECT_NE(verdict_on(histories).find("after its ack"), std::string::npos);
}

TEST(Checker, two_payloads_of_a_seq_are_found) {
  auto histories = good();
  histories[2].events[0].message = 0;
  EXPECT_NE(verdict_on(histories).find("two"), std::string::npos);
}

TEST(Checker, a_swapped_order_is_found) {
  auto histories = good();
  std::swap(histories[1].events[0], histories[1].events[1]);
  EXPECT_NE(verdict_on(histories).find("came after"), std::string::npos);
}

TEST(Checker, a_message_that_nobody_published_is_found) {
  auto histories = good();
  histories[0].events.resize(2);
  EXPECT_NE(verdict_on(histories).find("never published"), std::string::npos);
}

TEST(Checker, damage_is_found) {
  auto histories = good();
  histories[1].events[0].damaged = 1;
  EXPECT_NE(verdict_on(histories).find("damaged"), std::string::npos);
}

TEST(Checker, two_hand_outs_in_one_ownership_are_found) {
  auto histories = good();
  histories[2].events[0].token = 1;
  EXPECT_NE(verdict_on(histories).find("twice in one ownership"), std::string::npos);
}

TEST(Checker, hand_outs_that_do_not_grow_are_found) {
  auto histories = good();
  histories[2].events[0].hand_outs = 1;
  EXPECT_NE(verdict_on(histories).find("do not grow"), std::string::npos);
}

TEST(Checker, a_producers_messages_out_of_order_are_found) {
  auto histories = good();
  histories[0].events[1].seq = 1;
  histories[0].events[3].seq = 0;
  for (auto& history : {1, 2}) {
    for (auto& event : histories[static_cast<std::size_t>(history)].events) {
      if (event.what == What::receive) event.message = 1 - event.seq;
    }
  }
  EXPECT_NE(verdict_on(histories).find("order"), std::string::npos);
}

// --- Shared groups -----------------------------------------------------------------------------

constexpr std::uint64_t lease_ns = 100;

// One producer, three messages. 0: acked. 1: leased to one that is killed, then to another. 2:
// leased to one that is late and is refused, then to another.
std::vector<History> good_shared() {
  return {
      {0,
       {{.what = What::publish_begin, .message = 0},
        {.what = What::publish_end, .message = 0, .seq = 0},
        {.what = What::publish_begin, .message = 1},
        {.what = What::publish_end, .message = 1, .seq = 1},
        {.what = What::publish_begin, .message = 2},
        {.what = What::publish_end, .message = 2, .seq = 2}}},
      {1,
       {{.what = What::receive,
         .hand_outs = 1,
         .message = 0,
         .seq = 0,
         .token = 1,
         .begin_ns = 1,
         .end_ns = 2},
        {.what = What::ack_begin, .seq = 0, .token = 1, .begin_ns = 3},
        {.what = What::ack_end, .seq = 0, .token = 1, .begin_ns = 3, .end_ns = 4},
        {.what = What::receive,
         .hand_outs = 1,
         .message = 1,
         .seq = 1,
         .token = 1,
         .begin_ns = 5,
         .end_ns = 6}},
       20},
      {2,
       {{.what = What::receive,
         .hand_outs = 1,
         .message = 2,
         .seq = 2,
         .token = 1,
         .begin_ns = 7,
         .end_ns = 8},
        {.what = What::give_back_begin, .seq = 2, .token = 1, .begin_ns = 150},
        {.what = What::refused, .seq = 2, .token = 1, .begin_ns = 150, .end_ns = 151}}},
      {3,
       {{.what = What::receive,
         .hand_outs = 2,
         .message = 1,
         .seq = 1,
         .token = 2,
         .begin_ns = 30,
         .end_ns = 31},
        {.what = What::ack_begin, .seq = 1, .token = 2, .begin_ns = 32},
        {.what = What::ack_end, .seq = 1, .token = 2, .begin_ns = 32, .end_ns = 33},
        {.what = What::receive,
         .hand_outs = 2,
         .message = 2,
         .seq = 2,
         .token = 2,
         .begin_ns = 120,
         .end_ns = 121},
        {.what = What::ack_begin, .seq = 2, .token = 2, .begin_ns = 122},
        {.what = What::ack_end, .seq = 2, .token = 2, .begin_ns = 122, .end_ns = 123}}},
  };
}

Verdict shared_verdict(const std::vector<History>& histories) {
  return check_histories(histories, {{.shared = true, .lease_ns = lease_ns, .batch_max = 1}}, 3);
}
std::string shared_fault(const std::vector<History>& histories) {
  const Verdict verdict = shared_verdict(histories);
  std::string all;
  for (const std::string& broken : verdict.broken) all += broken + "; ";
  return all;
}
bool names(const std::string& fault, const char* what) {
  return fault.find(what) != std::string::npos;
}

TEST(SharedChecker, a_good_history_passes) {
  const Verdict verdict = shared_verdict(good_shared());
  EXPECT_TRUE(verdict.broken.empty()) << verdict.broken.front();
  EXPECT_EQ(verdict.redeliveries, 2U);
  EXPECT_EQ(verdict.refused, 1U);
  EXPECT_GT(verdict.checks, 20U);
}

TEST(SharedChecker, a_lost_message_is_found) {
  auto histories = good_shared();
  histories[1].events.erase(histories[1].events.begin(), histories[1].events.begin() + 3);
  EXPECT_TRUE(names(shared_fault(histories), "seq 0 was never delivered: lost"));
}

TEST(SharedChecker, a_message_that_is_never_acked_is_found) {
  auto histories = good_shared();
  histories[3].events.resize(4);
  EXPECT_TRUE(names(shared_fault(histories), "seq 2 was never acked"));
}

TEST(SharedChecker, an_ack_that_its_process_died_in_may_be_done) {
  auto histories = good_shared();
  histories[3].events.resize(5);
  histories[3].killed_ns = 130;
  EXPECT_EQ(shared_fault(histories), "");
}

TEST(SharedChecker, a_second_ack_is_found) {
  auto histories = good_shared();
  histories[2].events[2].what = What::ack_end;
  EXPECT_TRUE(names(shared_fault(histories), "acked twice"));
}

TEST(SharedChecker, a_delivery_after_the_ack_is_found) {
  auto histories = good_shared();
  histories[3].events.push_back({.what = What::receive,
                                 .hand_outs = 2,
                                 .message = 0,
                                 .seq = 0,
                                 .token = 2,
                                 .begin_ns = 200,
                                 .end_ns = 201});
  EXPECT_TRUE(names(shared_fault(histories), "came again after its ack"));
}

TEST(SharedChecker, a_token_that_is_given_twice_is_found) {
  auto histories = good_shared();
  histories[3].events[0].token = histories[3].events[0].hand_outs = 1;
  EXPECT_TRUE(names(shared_fault(histories), "twice under one token"));
}

TEST(SharedChecker, a_token_that_is_not_the_hand_out_is_found) {
  auto histories = good_shared();
  histories[3].events[0].hand_outs = 7;
  EXPECT_TRUE(names(shared_fault(histories), "the token is not the hand-out"));
}

TEST(SharedChecker, two_leases_at_a_time_are_found) {
  // The first holder lived on.
  auto histories = good_shared();
  histories[1].killed_ns = 0;
  EXPECT_TRUE(names(shared_fault(histories), "seq 1 was leased to two at a time"));
  // It died later.
  histories = good_shared();
  histories[1].killed_ns = 40;
  EXPECT_TRUE(names(shared_fault(histories), "seq 1 was leased to two at a time"));
  // The lease had not expired.
  histories = good_shared();
  histories[3].events[3].begin_ns = 100;
  histories[3].events[3].end_ns = 101;
  EXPECT_TRUE(names(shared_fault(histories), "seq 2 was leased to two at a time"));
}

TEST(SharedChecker, what_was_given_back_may_be_had_by_another) {
  auto histories = good_shared();
  histories[2].events[1].begin_ns = 50;
  histories[2].events[2] = {
      .what = What::give_back_end, .seq = 2, .token = 1, .begin_ns = 50, .end_ns = 51};
  histories[3].events[3].begin_ns = 60;
  histories[3].events[3].end_ns = 61;
  EXPECT_EQ(shared_fault(histories), "");
}

TEST(SharedChecker, a_lease_that_is_lost_before_its_time_is_found) {
  auto histories = good_shared();
  histories[2].events[2].end_ns = 90;
  EXPECT_TRUE(names(shared_fault(histories), "lost before its time"));
}

TEST(SharedChecker, a_refusal_that_nobody_gained_by_is_found) {
  auto histories = good_shared();
  histories[3].events.push_back(
      {.what = What::refused, .seq = 1, .token = 2, .begin_ns = 300, .end_ns = 301});
  EXPECT_TRUE(names(shared_fault(histories), "nobody else got it"));
}

TEST(SharedChecker, hand_outs_that_nobody_saw_are_found) {
  auto histories = good_shared();
  // One for the one that was killed.
  histories[3].events[0].token = histories[3].events[0].hand_outs = 3;
  histories[3].events[1].token = histories[3].events[2].token = 3;
  EXPECT_EQ(shared_fault(histories), "");
  EXPECT_EQ(shared_verdict(histories).unseen, 1U);
  histories[3].events[0].token = histories[3].events[0].hand_outs = 4;
  histories[3].events[1].token = histories[3].events[2].token = 4;
  EXPECT_TRUE(names(shared_fault(histories), "seen by nobody"));
}

TEST(SharedChecker, a_token_that_nobody_had_is_found) {
  auto histories = good_shared();
  histories[3].events[2].token = 5;
  EXPECT_TRUE(names(shared_fault(histories), "acked under a token that nobody had"));
}

TEST(SharedChecker, first_hand_outs_out_of_order_are_found) {
  auto histories = good_shared();
  std::swap(histories[1].events[0], histories[1].events[3]);
  EXPECT_TRUE(names(shared_fault(histories), "came after"));
}

TEST(SharedChecker, damage_is_found) {
  auto histories = good_shared();
  histories[3].events[0].damaged = 1;
  EXPECT_TRUE(names(shared_fault(histories), "damaged"));
}

TEST(SharedChecker, an_exclusive_group_beside_it_has_its_own_rules) {
  auto histories = good_shared();
  for (const std::uint64_t seq : {0U, 1U, 2U}) {
    histories[3].events.push_back({.what = What::receive,
                                   .group = 1,
                                   .hand_outs = 1,
                                   .message = seq,
                                   .seq = seq,
                                   .token = 9});
    histories[3].events.push_back({.what = What::ack_end, .group = 1, .seq = seq, .token = 9});
  }
  const std::vector<GroupRule> rules{{.shared = true, .lease_ns = lease_ns, .batch_max = 1}, {}};
  EXPECT_TRUE(check_histories(histories, rules, 3).broken.empty());
  std::swap(histories[3].events[6], histories[3].events[8]);
  EXPECT_FALSE(check_histories(histories, rules, 3).broken.empty()) << "order";
}

}  // namespace
