// SPDX-License-Identifier: Apache-2.0
#include <gtest/gtest.h>
#include <poll.h>

#include <chrono>
#include <shmq/shmq.hpp>

#include "queue/head.hpp"
#include "shm/segment.hpp"
#include "support/small_queue.hpp"
#include "sync/event.hpp"

namespace {

using namespace shmq;
using namespace shmq::testing;
using namespace std::chrono_literals;

bool is_readable(const BacklogAlarm& alarm) {
  pollfd item{alarm.fd(), POLLIN, 0};
  return ::poll(&item, 1, 0) == 1;
}

bool becomes(const BacklogAlarm& alarm, bool readable) {
  const auto end = std::chrono::steady_clock::now() + 30s;
  while (is_readable(alarm) != readable) {
    if (std::chrono::steady_clock::now() > end) return false;
    ::poll(nullptr, 0, 1);
  }
  return true;
}

TEST(BacklogAlarm, says_when_a_group_has_fallen_behind_and_when_it_has_caught_up) {
  SmallQueue small;
  auto alarm = small.queue->backlog_alarm("default", 3).value();
  auto producer = small.queue->producer().value();
  auto consumer = small.consumer("default");
  const std::string text = "m";
  for (int i = 0; i < 2; ++i) ASSERT_TRUE(producer.publish(std::as_bytes(std::span{text})));
  EXPECT_EQ(alarm.backlog().value(), 2U);
  EXPECT_FALSE(is_readable(alarm));
  ASSERT_TRUE(producer.publish(std::as_bytes(std::span{text})));
  EXPECT_TRUE(becomes(alarm, true));
  EXPECT_TRUE(is_readable(alarm)) << "level-triggered";
  EXPECT_EQ(consumer.try_receive()->ack(), Settlement::settled);
  EXPECT_TRUE(becomes(alarm, false));
  ASSERT_TRUE(producer.publish(std::as_bytes(std::span{text})));
  EXPECT_TRUE(becomes(alarm, true));
}

TEST(BacklogAlarm, costs_publishers_nothing) {
  SmallQueue small;
  auto alarm = small.queue->backlog_alarm("default", 1).value();
  auto producer = small.queue->producer().value();
  const std::string text = "m";
  ASSERT_TRUE(producer.publish(std::as_bytes(std::span{text})));
  ASSERT_TRUE(becomes(alarm, true));  // so the helper has slept, and looked
  const auto segment =
      shm::Segment::open(small.queue->info().name, {.name_space = small.queue->info().name_space})
          .value();
  // Nobody waits for a wake-up, so no publish makes a system call.
  EXPECT_EQ(sync::load_acquire(segment->control().message_event) & sync::event_sleeper_bit, 0U);
  EXPECT_EQ(sync::load_acquire(segment->control().room_event) & sync::event_sleeper_bit, 0U);
}

TEST(BacklogAlarm, tells_of_the_end_of_its_group) {
  SmallQueue small;
  EXPECT_EQ(small.queue->backlog_alarm("nobody", 1).error(), Errc::no_such_group);
  auto alarm = small.queue->backlog_alarm("default", 100).value();
  EXPECT_FALSE(is_readable(alarm));
  ASSERT_TRUE(small.queue->remove_group("default"));
  EXPECT_TRUE(becomes(alarm, true));
  EXPECT_EQ(alarm.backlog().error(), Errc::no_such_group);
}

}  // namespace
