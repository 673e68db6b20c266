// SPDX-License-Identifier: Apache-2.0
//
// On a durable queue room is what is settled and on stable storage.
#include "queue/head.hpp"

#include <gtest/gtest.h>

#include <thread>

#include "queue/groups.hpp"
#include "support/durable_queue.hpp"
#include "sync/event.hpp"

namespace {

using namespace shmq;
using namespace shmq::testing;

struct Fixture : DurableQueue {
  explicit Fixture(Overflow overflow) : Fixture(SmallQueue::options(overflow)) {}
  explicit Fixture(const QueueOptions& options) : DurableQueue(options) {
    begin_journal();
    queue = std::make_unique<Queue>(std::move(open().value()));
    producer = std::make_unique<Producer>(std::move(queue->producer().value()));
    consumer = std::make_unique<Consumer>(std::move(queue->consumer("default").value()));
  }
  std::size_t publish_all(std::string_view payload = "x") {
    std::size_t count = 0;
    while (count < 1000 && producer->publish(payload)) ++count;
    return count;
  }
  std::size_t settle_all() {
    std::size_t count = 0;
    for (auto delivery = consumer->try_receive(); delivery.has_value() && !delivery->empty();
         delivery = consumer->try_receive()) {
      EXPECT_EQ(delivery->ack(), Settlement::settled);
      ++count;
    }
    return count;
  }
  std::unique_ptr<Queue> queue;
  std::unique_ptr<Producer> producer;
  std::unique_ptr<Consumer> consumer;
};

TEST(Head, what_is_settled_but_not_durable_keeps_its_slot) {
  Fixture f{Overflow::fail};
  EXPECT_EQ(f.publish_all(), 16U);
  EXPECT_EQ(f.settle_all(), 16U);
  EXPECT_EQ(f.producer->publish("x").error(), Errc::full);
  EXPECT_EQ(queue::refresh_head(*f.segment), 0U);
  f.move_watermark(5);
  EXPECT_EQ(f.publish_all(), 5U);
  EXPECT_EQ(queue::refresh_head(*f.segment), 5U);
  f.move_watermark(21);
  EXPECT_EQ(queue::refresh_head(*f.segment), 16U) << "the floor holds it, too";
}

TEST(Head, what_is_settled_but_not_durable_keeps_its_bytes) {
  QueueOptions options = SmallQueue::options(Overflow::fail);
  options.slots = options.window_entries = 64;
  Fixture f{options};
  const std::string large(3000, 'a');  // a chunk each
  const std::size_t held = f.publish_all(large);
  ASSERT_GT(held, 4U);
  ASSERT_LT(held, 64U) << "the arena is what is full";
  EXPECT_EQ(f.settle_all(), held);
  EXPECT_EQ(f.publish_all(std::string(3000, 'b')), 0U);
  for (std::uint64_t seq = 0; seq < held; ++seq) {
    const auto copy = f.queue->peek(Seq{seq}, 1);
    ASSERT_TRUE(copy && copy->size() == 1);
    EXPECT_EQ(copy->front().payload.size(), 3000U);
    EXPECT_EQ(copy->front().payload[0], std::byte{'a'});
  }
  f.move_watermark(3);
  EXPECT_GT(f.publish_all(std::string(3000, 'b')), 0U);
}

TEST(Head, dropping_takes_only_what_is_durable) {
  Fixture f{Overflow::drop_oldest};
  EXPECT_EQ(f.publish_all(), 16U) << "nothing is durable: full";
  EXPECT_EQ(f.queue->stats().dropped_total, 0U);
  f.move_watermark(1);
  EXPECT_EQ(f.publish_all(), 1U);
  EXPECT_EQ(f.queue->stats().dropped_total, 1U);
  f.move_watermark(17);
  EXPECT_GE(f.publish_all(), 16U);
}

TEST(Head, a_blocked_producer_goes_on_when_the_watermark_moves) {
  Fixture f{Overflow::block};
  for (int i = 0; i < 16; ++i) ASSERT_TRUE(f.producer->publish("x"));
  EXPECT_EQ(f.settle_all(), 16U);
  std::thread blocked{[&] { EXPECT_TRUE(f.producer->publish("y")); }};
  // It sleeps once it has announced itself; the daemon wakes it after it moved the watermark.
  while (!sync::event_has_sleeper(f.segment->control().room_event)) std::this_thread::yield();
  f.move_watermark(1);
  sync::full_fence();
  sync::event_notify(f.segment->control().room_event);
  blocked.join();
  EXPECT_EQ(queue::refresh_head(*f.segment), 1U);
}

TEST(Head, a_daemon_that_has_not_mapped_the_watermark_moves_nothing) {
  Fixture f{Overflow::fail};
  EXPECT_EQ(f.publish_all(), 16U);
  EXPECT_EQ(f.settle_all(), 16U);
  f.move_watermark(16);
  auto unmapped =
      shm::Segment::open("q", {.name_space = f.scratch.name_space}, shm::Authority::daemon);
  ASSERT_TRUE(unmapped);
  EXPECT_EQ(queue::refresh_head(**unmapped), 0U);
  EXPECT_EQ(queue::refresh_head(*f.segment), 16U);
}

// Head lags behind: the ring still holds what the journal has let go.
TEST(Head, a_group_begins_no_earlier_than_the_journal) {
  Fixture f{Overflow::fail};
  EXPECT_EQ(f.publish_all(), 16U);
  EXPECT_EQ(f.settle_all(), 16U);
  f.move_watermark(16);
  f.mark->set_first_retained(9);
  ASSERT_EQ(queue::read_head(*f.segment), 0U);
  const auto early = queue::create_group(*f.segment, {.name = "early", .from = StartAt::at({8})});
  ASSERT_FALSE(early);
  EXPECT_EQ(early.error(), Errc::not_retained);
  ASSERT_TRUE(queue::create_group(*f.segment, {.name = "earliest"}));
  ASSERT_TRUE(queue::create_group(*f.segment, {.name = "at", .from = StartAt::at({9})}));
  for (const GroupInfo& group : f.queue->groups()) {
    if (group.name != "default") {
      EXPECT_EQ(group.floor.value, 9U) << group.name;
    }
  }
}

}  // namespace
