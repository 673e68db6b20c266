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
  const Verdict verdict = check_histories(histories, 1, tail);
  return verdict.broken.empty() ? "" : verdict.broken.front();
}

TEST(Checker, a_good_history_passes) {
  const Verdict verdict = check_histories(good(), 1, 2);
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

}  // namespace
