// SPDX-License-Identifier: Apache-2.0
//
// When the daemon is rung for, and when not.
#include <gtest/gtest.h>
#include <sys/wait.h>

#include <thread>

#include "support/fake_daemon.hpp"
#include "sync/event.hpp"

namespace {
using namespace shmq;
using namespace std::chrono_literals;
using shmq::testing::DurableQueue;
using shmq::testing::FakeDaemon;
using shmq::testing::SmallQueue;

QueueOptions options() {
  auto chosen = SmallQueue::options(Overflow::block);
  chosen.slots = 1024;
  chosen.arena_bytes = 256 * 4096;
  return chosen;
}

struct Doorbell : ::testing::Test {
  DurableQueue durable{options()};
  FakeDaemon daemon{durable};
  Queue queue = DurableQueue::need(durable.open());
  Producer producer = DurableQueue::need(queue.producer());
  Doorbell() { daemon.listen(); }
};

TEST_F(Doorbell, is_rung_by_who_wants_something_durable_and_by_nobody_else) {
  ASSERT_TRUE(producer.publish("x"));
  EXPECT_EQ(daemon.rung(), "");
  ASSERT_TRUE(producer.publish("x", {.durability = Durability::flushed}));
  EXPECT_EQ(daemon.rung(), "q");
  auto consumer = DurableQueue::need(queue.consumer("default"));
  auto delivery = consumer.try_receive();
  EXPECT_EQ(delivery->ack({.durability = Durability::flushed}), Settlement::settled);
  EXPECT_EQ(daemon.rung(), "q");
  EXPECT_EQ(consumer.wait_acks_synced(0s).error(), Errc::timed_out);
  EXPECT_EQ(daemon.rung(), "q");
}

TEST_F(Doorbell, is_not_rung_while_the_daemon_is_awake) {
  daemon.wake();
  ASSERT_TRUE(producer.publish("x", {.durability = Durability::flushed}));
  EXPECT_EQ(daemon.rung(), "");
}

TEST_F(Doorbell, is_rung_when_an_eighth_of_the_ring_is_not_on_stable_storage) {
  const PublishOptions stamped{.attributes = {}};
  for (int i = 0; i < 127; ++i) {
    ASSERT_TRUE(i % 2 == 0 ? producer.publish("x") : producer.publish("x", stamped));
  }
  EXPECT_EQ(daemon.rung(), "");
  ASSERT_TRUE(producer.publish("x"));
  EXPECT_EQ(daemon.rung(), "q");
  durable.move_watermark(128);
  for (int i = 0; i < 100; ++i) ASSERT_TRUE(producer.publish("x"));
  EXPECT_EQ(daemon.rung(), "");
}

TEST_F(Doorbell, is_rung_by_a_producer_that_waits_for_room) {
  auto consumer = DurableQueue::need(queue.consumer("default"));
  for (int i = 0; i < 1024; ++i) ASSERT_TRUE(producer.publish("x"));
  while (!daemon.rung().empty()) {
  }
  while (true) {
    auto delivery = consumer.try_receive();
    if (delivery->empty()) break;
    EXPECT_EQ(delivery->ack(), Settlement::settled);
  }
  // All is settled: what holds the room is the watermark alone.
  std::thread waiting{[&] { EXPECT_TRUE(producer.publish("last")); }};
  EXPECT_EQ(daemon.await_ring(), "q");
  durable.move_watermark(1024);
  sync::full_fence();
  sync::event_notify(durable.segment->control().room_event);
  waiting.join();
}

TEST_F(Doorbell, a_dead_or_damaged_doorbell_disturbs_nobody) {
  auto& mark = const_cast<shm::Mark&>(durable.mark->mark());
  std::memset(mark.doorbell_path, 'x', sizeof(mark.doorbell_path));
  EXPECT_TRUE(producer.publish("x", {.durability = Durability::flushed}));
  std::memset(mark.doorbell_path, 0, sizeof(mark.doorbell_path));
  EXPECT_TRUE(producer.publish("x", {.durability = Durability::flushed}));
  std::memcpy(mark.doorbell_path, "/nonexistent", 12);
  EXPECT_TRUE(producer.publish("x", {.durability = Durability::flushed}));
  EXPECT_EQ(daemon.rung(), "");
}

TEST_F(Doorbell, a_forked_child_rings_with_a_socket_of_its_own) {
  ASSERT_TRUE(producer.publish("x", {.durability = Durability::flushed}));
  EXPECT_EQ(daemon.rung(), "q");
  const pid_t child = ::fork();
  if (child == 0) {
    auto own = durable.open();
    auto its = own->producer();
    ::_exit(its->publish("y", {.durability = Durability::flushed}) ? 0 : 1);
  }
  int status = 0;
  ASSERT_EQ(::waitpid(child, &status, 0), child);
  EXPECT_EQ(status, 0);
  EXPECT_EQ(daemon.rung(), "q");
}

}  // namespace
