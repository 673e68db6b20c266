// SPDX-License-Identifier: Apache-2.0
#include <gtest/gtest.h>

#include <atomic>
#include <thread>

#include "support/small_queue.hpp"

namespace {

using namespace shmq;
using namespace std::chrono_literals;
using shmq::testing::SmallQueue;

TEST(ExclusiveGroup, every_group_gets_every_message) {
  SmallQueue small{Overflow::fail, {{.name = "a"}, {.name = "b"}, {.name = "c"}}};
  auto producer = small.producer();
  for (int i = 0; i < 10; ++i) ASSERT_TRUE(producer.publish(std::to_string(i)));
  for (const char* group : {"a", "b", "c"}) {
    auto consumer = small.consumer(group);
    for (int i = 0; i < 10; ++i) {
      auto delivery = consumer.try_receive();
      ASSERT_EQ(delivery->text(), std::to_string(i));
      ASSERT_EQ(delivery->ack(), Settlement::settled);
    }
  }
}

// G5, G7: the slowest group holds its messages, whichever entry it has.
TEST(ExclusiveGroup, the_slowest_group_holds_the_head_back) {
  SmallQueue small{Overflow::fail, {{.name = "fast"}, {.name = "slow"}}};
  auto producer = small.producer();
  auto fast = small.consumer("fast");
  for (int i = 0; i < 16; ++i) {
    ASSERT_TRUE(producer.publish(std::to_string(i)));
    ASSERT_EQ(fast.try_receive()->ack(), Settlement::settled);
  }
  EXPECT_EQ(producer.publish("one too many").code(), Errc::full);
  auto slow = small.consumer("slow");
  EXPECT_EQ(slow.try_receive()->text(), "0");
}

TEST(ExclusiveGroup, a_nack_holds_the_successors_back_and_counts) {
  SmallQueue small;
  auto producer = small.producer();
  auto consumer = small.consumer();
  for (int i = 0; i < 3; ++i) ASSERT_TRUE(producer.publish(std::to_string(i)));
  auto first = consumer.try_receive();
  ASSERT_EQ(first->nack(1h), Settlement::settled);
  EXPECT_TRUE(consumer.try_receive()->empty());
  EXPECT_EQ(small.group().delayed, 1U);
  EXPECT_EQ(small.group().ready, 2U);
}

TEST(ExclusiveGroup, released_and_nacked_messages_come_again_in_order) {
  SmallQueue small;
  auto producer = small.producer();
  auto consumer = small.consumer();
  for (int i = 0; i < 4; ++i) ASSERT_TRUE(producer.publish(std::to_string(i)));
  std::vector<Delivery> batch(4);
  ASSERT_EQ(consumer.receive_batch(batch).value(), 4U);
  EXPECT_EQ(batch[2].release(), Settlement::settled);
  EXPECT_EQ(batch[1].nack(), Settlement::settled);
  EXPECT_EQ(batch[3].ack(), Settlement::settled);
  auto again = consumer.receive(5s);
  EXPECT_EQ(again->text(), "1");
  EXPECT_EQ(again->hand_outs(), 2U);
  EXPECT_EQ(again->failures(), 1U);
  auto released = consumer.receive(5s);
  EXPECT_EQ(released->text(), "2");
  EXPECT_EQ(released->failures(), 0U);
  EXPECT_EQ(released->ack(), Settlement::settled);
  EXPECT_EQ(again->ack(), Settlement::settled);
  EXPECT_EQ(batch[0].ack(), Settlement::settled);
  EXPECT_EQ(small.group().floor.value, 4U) << "what was settled out of order is passed";
  EXPECT_EQ(small.group().acked_total, 4U);
}

TEST(ExclusiveGroup, a_second_settlement_is_refused) {
  SmallQueue small;
  auto producer = small.producer();
  auto consumer = small.consumer();
  ASSERT_TRUE(producer.publish("m"));
  auto delivery = consumer.try_receive();
  EXPECT_EQ(delivery->ack(), Settlement::settled);
  EXPECT_EQ(delivery->ack(), Settlement::lease_lost);
  EXPECT_EQ(delivery->nack(), Settlement::lease_lost);
}

TEST(ExclusiveGroup, leaving_scope_unsettled_is_a_nack_with_back_off) {
  SmallQueue small;
  auto producer = small.producer();
  auto consumer = small.consumer();
  ASSERT_TRUE(producer.publish("m"));
  { auto delivery = consumer.try_receive(); }
  EXPECT_TRUE(consumer.try_receive()->empty());
  auto again = consumer.receive(10s);
  EXPECT_EQ(again->failures(), 1U);
  EXPECT_EQ(again->ack(), Settlement::settled);
}

TEST(ExclusiveGroup, a_consumer_that_holds_the_whole_window_is_told) {
  QueueOptions options = SmallQueue::options();
  options.slots = 64;
  SmallQueue small{options};
  auto producer = small.producer();
  auto consumer = small.consumer();
  for (int i = 0; i < 20; ++i) ASSERT_TRUE(producer.publish("m"));
  std::vector<Delivery> held(16);
  ASSERT_EQ(consumer.receive_batch(held).value(), 16U);
  EXPECT_EQ(consumer.try_receive().error().code(), make_error_code(Errc::in_flight_limit));
  EXPECT_EQ(consumer.ack_through(held[15].seq()), Settlement::settled);
  EXPECT_FALSE(consumer.try_receive()->empty());
}

// G4: a consumer that was replaced can change nothing any more, whatever it holds.
TEST(ExclusiveGroup, a_late_ack_of_a_replaced_consumer_is_refused) {
  SmallQueue small{Overflow::fail, {{.name = "default", .lease = 1ms}}};
  auto producer = small.producer();
  for (int i = 0; i < 6; ++i) ASSERT_TRUE(producer.publish(std::to_string(i)));
  auto former = small.consumer();
  std::vector<Delivery> held(3);
  ASSERT_EQ(former.receive_batch(held).value(), 3U);
  auto successor = small.consumer();
  auto again = successor.receive(10s);  // after the lease, which is short
  ASSERT_TRUE(again && !again->empty());
  EXPECT_EQ(again->text(), "0");
  EXPECT_EQ(again->hand_outs(), 2U);
  EXPECT_LT(held[0].fencing_token(), again->fencing_token());
  for (Delivery& delivery : held) {
    EXPECT_EQ(delivery.extend(), Settlement::lease_lost);
    EXPECT_EQ(delivery.nack(), Settlement::lease_lost);
    EXPECT_EQ(delivery.ack(), Settlement::lease_lost);
  }
  EXPECT_EQ(former.ack_through({2}), Settlement::lease_lost);
  EXPECT_EQ(held[1].text(), "1") << "the bytes stay";
  EXPECT_EQ(again->ack(), Settlement::settled);
  for (int i = 1; i < 6; ++i) {
    auto next = successor.receive(5s);
    ASSERT_EQ(next->text(), std::to_string(i));
    ASSERT_EQ(next->ack(), Settlement::settled);
  }
}

TEST(GroupLife, a_group_begins_where_it_was_told_to) {
  SmallQueue small;
  auto producer = small.producer();
  for (int i = 0; i < 8; ++i) ASSERT_TRUE(producer.publish(std::to_string(i)));
  ASSERT_TRUE(small.queue->create_group({.name = "earliest"}));
  ASSERT_TRUE(small.queue->create_group({.name = "latest", .from = StartAt::latest()}));
  ASSERT_TRUE(small.queue->create_group({.name = "five", .from = StartAt::at({5})}));
  ASSERT_TRUE(producer.publish("8"));
  EXPECT_EQ(small.consumer("earliest").try_receive()->text(), "0");
  EXPECT_EQ(small.consumer("latest").try_receive()->text(), "8");
  EXPECT_EQ(small.consumer("five").try_receive()->text(), "5");
  EXPECT_EQ(small.queue->create_group({.name = "five"}).error().code(),
            make_error_code(Errc::already_exists));
  EXPECT_EQ(small.queue->create_group({.name = "more"}).error().code(),
            make_error_code(Errc::too_many_groups));
}

TEST(GroupLife, starting_points_that_are_not_held_are_refused) {
  SmallQueue small;
  auto producer = small.producer();
  auto consumer = small.consumer();
  for (int i = 0; i < 32; ++i) {
    ASSERT_TRUE(producer.publish(std::to_string(i)));
    ASSERT_EQ(consumer.try_receive()->ack(), Settlement::settled);
  }
  EXPECT_EQ(small.queue->create_group({.name = "g", .from = StartAt::at({0})}).error().code(),
            make_error_code(Errc::not_retained));
  EXPECT_EQ(small.queue->create_group({.name = "g", .from = StartAt::at({33})}).error().code(),
            make_error_code(Errc::invalid_argument));
}

TEST(GroupLife, consumers_of_a_removed_group_are_told_and_producers_get_the_room) {
  SmallQueue small{Overflow::fail, {{.name = "a"}, {.name = "b"}}};
  auto producer = small.producer();
  auto a = small.consumer("a");
  auto b = small.consumer("b");
  for (int i = 0; i < 16; ++i) {
    ASSERT_TRUE(producer.publish("m"));
    ASSERT_EQ(a.try_receive()->ack(), Settlement::settled);
  }
  ASSERT_EQ(b.try_receive()->ack(), Settlement::settled);
  ASSERT_TRUE(small.queue->remove_group("b"));
  EXPECT_EQ(b.try_receive().error().code(), make_error_code(Errc::removed));
  EXPECT_TRUE(producer.publish("room"));
  // The entry is used again only when nobody names it any more.
  ASSERT_TRUE(small.queue->create_group({.name = "b"}));
  EXPECT_EQ(b.try_receive().error().code(), make_error_code(Errc::removed));
  b.close();
  for (int i = 0; i < 100; ++i) {
    ASSERT_TRUE(small.queue->remove_group("b"));
    ASSERT_TRUE(small.queue->create_group({.name = "b"})) << i;
  }
}

TEST(GroupLife, a_reused_entry_remembers_nothing) {
  SmallQueue small{Overflow::fail, {{.name = "keep"}, {.name = "g"}}};
  auto producer = small.producer();
  for (int i = 0; i < 4; ++i) ASSERT_TRUE(producer.publish(std::to_string(i)));
  {
    auto consumer = small.consumer("g");
    std::vector<Delivery> batch(4);
    ASSERT_EQ(consumer.receive_batch(batch).value(), 4U);
    ASSERT_EQ(batch[2].ack(), Settlement::settled);
    ASSERT_EQ(batch[1].nack(1h), Settlement::settled);
  }
  for (int turn = 0; turn < 4; ++turn) {  // whichever entry the new group gets
    ASSERT_TRUE(small.queue->remove_group("g"));
    ASSERT_TRUE(small.queue->create_group({.name = "g"}));
    auto consumer = small.consumer("g");
    for (int i = 0; i < 4; ++i) {
      auto delivery = consumer.try_receive();
      ASSERT_FALSE(delivery->empty());
      ASSERT_EQ(delivery->text(), std::to_string(i));
      ASSERT_EQ(delivery->hand_outs(), 1U);
      ASSERT_EQ(delivery->ack(), Settlement::settled);
    }
  }
}

// G7 with births in the middle: what a group was promised is never overwritten.
TEST(GroupLife, groups_are_born_and_removed_while_producers_run) {
  QueueOptions options = SmallQueue::options(Overflow::block);
  SmallQueue small{options};
  std::atomic<bool> stop{false};
  std::thread producing{[&] {
    auto producer = small.producer();
    for (std::uint64_t i = 0; !stop; ++i) {
      if (!producer.publish(std::to_string(i), {.timeout = 10s})) break;
    }
  }};
  std::thread consuming{[&] {
    auto consumer = small.consumer();
    while (!stop) {
      auto delivery = consumer.receive(10ms);
      if (delivery && !delivery->empty()) (void)delivery->ack();
    }
  }};
  std::uint64_t checked = 0;
  for (int i = 0; i < 300; ++i) {
    ASSERT_TRUE(small.queue->create_group({.name = "late"}));
    {
      auto consumer = small.consumer("late");
      for (int k = 0; k < 20; ++k) {
        auto delivery = consumer.receive(10s);
        if (!delivery || delivery->empty()) {
          ADD_FAILURE() << (delivery ? "nothing came" : delivery.error().message());
          break;
        }
        EXPECT_EQ(delivery->text(), std::to_string(delivery->seq().value));
        EXPECT_EQ(delivery->ack(), Settlement::settled);
        ++checked;
      }
    }
    ASSERT_TRUE(small.queue->remove_group("late"));
    if (HasFailure()) break;
  }
  stop = true;
  producing.join();
  consuming.join();
  std::printf("%llu messages checked\n", static_cast<unsigned long long>(checked));
  EXPECT_GT(checked, 1000U);
}

TEST(Purge, settles_everything_for_every_group) {
  SmallQueue small{Overflow::fail, {{.name = "a"}, {.name = "b"}}};
  auto producer = small.producer();
  for (int i = 0; i < 10; ++i) ASSERT_TRUE(producer.publish("m"));
  auto a = small.consumer("a");
  ASSERT_EQ(a.try_receive()->ack(), Settlement::settled);
  EXPECT_EQ(small.queue->purge().value(), 10U);
  EXPECT_TRUE(a.try_receive()->empty());
  EXPECT_EQ(small.queue->stats().messages_held, 0U);
}

}  // namespace
