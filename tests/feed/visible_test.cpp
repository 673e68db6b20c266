// SPDX-License-Identifier: Apache-2.0
//
// visible = synced: consumers see what is on stable storage, and nothing else.
#include <gtest/gtest.h>
#include <poll.h>

#include <thread>

#include "support/fake_daemon.hpp"
#include "sync/event.hpp"

namespace {
using namespace shmq;
using namespace std::chrono_literals;
using shmq::testing::DurableQueue;
using shmq::testing::FakeDaemon;
using shmq::testing::SmallQueue;

QueueOptions options(GroupMode mode) {
  auto chosen = SmallQueue::options(Overflow::fail, {{.name = "default", .mode = mode}});
  chosen.visible = Visible::synced;
  return chosen;
}

class VisibleSynced : public ::testing::TestWithParam<GroupMode> {
 protected:
  // As the daemon does after a barrier.
  void sync_through(std::uint64_t seq) {
    durable.move_watermark(seq + 1);
    sync::full_fence();
    sync::event_notify(durable.segment->control().message_event);
  }
  Consumer consumer() { return DurableQueue::need(queue.consumer("default")); }

  DurableQueue durable{options(GetParam())};
  FakeDaemon daemon{durable};
  Queue queue = DurableQueue::need(durable.open());
  Producer producer = DurableQueue::need(queue.producer());
};

TEST_P(VisibleSynced, nothing_is_handed_out_before_the_watermark_has_passed_it) {
  auto consumer = this->consumer();
  for (int i = 0; i < 6; ++i) ASSERT_TRUE(producer.publish("x"));
  std::vector<Delivery> batch(8);
  EXPECT_EQ(*consumer.receive_batch(batch, 0ns), 0U);
  EXPECT_TRUE(consumer.try_receive()->empty());
  sync_through(1);
  EXPECT_EQ(*consumer.receive_batch(batch, 0ns), 2U);
  EXPECT_EQ(batch[0].ack(), Settlement::settled);
  EXPECT_EQ(batch[1].ack(), Settlement::settled);
  EXPECT_TRUE(consumer.try_receive()->empty());
  sync_through(3);
  for (std::uint64_t seq = 2; seq < 4; ++seq) {  // one at a time: the in-line way
    auto delivery = consumer.try_receive();
    ASSERT_FALSE(delivery->empty());
    EXPECT_EQ(delivery->seq().value, seq);
    EXPECT_EQ(delivery->ack(), Settlement::settled);
  }
  EXPECT_TRUE(consumer.try_receive()->empty());
}

TEST_P(VisibleSynced, a_successor_sees_no_more_than_its_predecessor) {
  for (int i = 0; i < 4; ++i) ASSERT_TRUE(producer.publish("x"));
  sync_through(1);
  {
    auto first = consumer();
    auto delivery = first.try_receive();
    ASSERT_FALSE(delivery->empty());
  }
  auto second = consumer();
  std::uint64_t seen = 0;
  for (int i = 0; i < 8; ++i) {
    auto delivery = second.receive(i == 0 ? 5s : 0s);
    if (!delivery->empty()) {
      EXPECT_LT(delivery->seq().value, 2U);
      ++seen;
      EXPECT_EQ(delivery->ack(), Settlement::settled);
    }
  }
  EXPECT_GE(seen, 1U);
}

TEST_P(VisibleSynced, a_sleeping_consumer_rings_for_what_it_may_not_see_yet_and_gets_it) {
  daemon.listen();
  std::thread waiting{[&] {
    auto consumer = this->consumer();
    auto delivery = consumer.receive();
    ASSERT_TRUE(delivery) << delivery.error().message();
    EXPECT_EQ(delivery->seq().value, 0U);
    EXPECT_EQ(delivery->ack(), Settlement::settled);
  }};
  ASSERT_TRUE(producer.publish("x"));
  EXPECT_EQ(daemon.await_ring(), "q");
  sync_through(0);
  waiting.join();
}

TEST_P(VisibleSynced, an_absent_daemon_is_told_only_when_something_waits_for_it) {
  auto consumer = this->consumer();
  daemon.die();
  auto idle = consumer.receive(300ms);
  ASSERT_TRUE(idle);
  EXPECT_TRUE(idle->empty());
  ASSERT_TRUE(producer.publish("x"));
  EXPECT_EQ(consumer.receive().error(), Errc::daemon_away);
  daemon.come();
  sync_through(0);
  auto delivery = consumer.receive();
  ASSERT_TRUE(delivery);
  EXPECT_EQ(delivery->seq().value, 0U);
}

TEST_P(VisibleSynced, its_descriptor_is_quiet_until_then) {
  auto consumer = this->consumer();
  EXPECT_TRUE(consumer.try_receive()->empty());
  const int descriptor = *consumer.fd();
  ASSERT_TRUE(producer.publish("x"));
  pollfd item{descriptor, POLLIN, 0};
  EXPECT_EQ(::poll(&item, 1, 200), 0);
  sync_through(0);
  EXPECT_EQ(::poll(&item, 1, 30000), 1);
}

INSTANTIATE_TEST_SUITE_P(Modes, VisibleSynced,
                         ::testing::Values(GroupMode::exclusive, GroupMode::shared),
                         [](const auto& tested) {
                           return tested.param == GroupMode::shared ? "shared" : "exclusive";
                         });

TEST(Visible, synced_needs_a_durable_queue) {
  shmq::testing::Scratch scratch;
  auto chosen = options(GroupMode::shared);
  chosen.name_space = scratch.name_space;
  EXPECT_EQ(Queue::create("q", chosen).error(), Errc::invalid_argument);
}

}  // namespace
