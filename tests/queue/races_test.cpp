// SPDX-License-Identifier: Apache-2.0
//
// Races made certain: at a named point of one operation another one runs to its end. Builds without
// crash points (release) have nothing to hook, and skip.
#include <gtest/gtest.h>

#include <cstring>
#include <functional>

#include "base/mutant.hpp"
#include "support/small_queue.hpp"

namespace {

using namespace shmq;
using shmq::testing::SmallQueue;

#ifdef SHMQ_CRASH_POINTS
std::function<void()> then;
const char* wanted = nullptr;
int hits = 0;

// Runs `action` once, at the next passage of `point`.
void at_point(const char* point, std::function<void()> action) {
  wanted = point;
  then = std::move(action);
  hits = 0;
  base::crash_hook = [](const char* reached) {
    if (wanted == nullptr || std::strcmp(reached, wanted) != 0) return;
    wanted = nullptr;  // first, so that the action itself is not hooked
    ++hits;
    then();
  };
}

void overrun(Producer& producer) {
  // Three laps of the arena, chunk by chunk.
  for (int i = 0; i < 200; ++i) ASSERT_TRUE(producer.publish(std::string(1000, 'x')));
}

// c1: a head computed before a birth must not land after it.
TEST(Races, a_group_born_while_head_is_computed_keeps_its_messages) {
  SmallQueue small;
  auto producer = small.producer();
  auto consumer = small.consumer();
  for (int i = 0; i < 16; ++i) ASSERT_TRUE(producer.publish(std::to_string(i)));
  for (int i = 0; i < 16; ++i) ASSERT_EQ(consumer.try_receive()->ack(), Settlement::settled);
  at_point("head.before_cas", [&] { ASSERT_TRUE(small.queue->create_group({.name = "late"})); });
  EXPECT_EQ(producer.publish("m").code(), Errc::full) << "the new group wants the old messages";
  ASSERT_EQ(hits, 1);
  const auto late = small.group("late");
  EXPECT_EQ(late.floor.value, 0U);
  EXPECT_LE(small.queue->stats().head, late.floor);
  EXPECT_EQ(small.consumer("late").try_receive()->text(), "0");
}

// c2: between the look at the slot and the pin the message is dropped and its chunk used again.
TEST(Races, a_message_dropped_before_the_pin_is_not_handed_out) {
  SmallQueue small{Overflow::drop_oldest};
  auto producer = small.producer();
  auto consumer = small.consumer();
  ASSERT_TRUE(producer.publish(std::string(1000, 'a')));
  at_point("receive.before_pin", [&] { overrun(producer); });
  auto delivery = consumer.try_receive();
  ASSERT_EQ(hits, 1);
  ASSERT_TRUE(delivery) << delivery.error().message();
  ASSERT_FALSE(delivery->empty());
  EXPECT_EQ(delivery->text(), std::string(1000, delivery->seq().value == 0 ? 'a' : 'x'));
  EXPECT_GT(delivery->seq().value, 0U);
}

TEST(Races, a_message_dropped_while_it_is_peeked_at_is_not_shown) {
  SmallQueue small{Overflow::drop_oldest};
  auto producer = small.producer();
  ASSERT_TRUE(producer.publish(std::string(1000, 'a')));
  at_point("peek.before_copy", [&] { overrun(producer); });
  auto messages = small.queue->peek({0}, 1);
  ASSERT_EQ(hits, 1);
  ASSERT_TRUE(messages) << messages.error().message();
  for (const auto& message : *messages) {
    const std::byte expected{static_cast<unsigned char>(message.seq.value == 0 ? 'a' : 'x')};
    for (const std::byte byte : message.payload) ASSERT_EQ(byte, expected);
  }
}
#else
TEST(Races, need_a_build_with_crash_points) { GTEST_SKIP() << "nothing to hook in this build"; }
#endif

}  // namespace
