// SPDX-License-Identifier: Apache-2.0
//
// Shared groups: competing consumers, a lease for each message.
#include <gtest/gtest.h>
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include <map>
#include <set>

#include "base/clock.hpp"
#include "support/fake_clock.hpp"
#include "support/small_queue.hpp"

namespace {

using namespace shmq;
using namespace std::chrono_literals;
using shmq::testing::FakeClock;
using shmq::testing::SmallQueue;

GroupOptions shared(std::chrono::nanoseconds lease = 30s) {
  return {.name = "default", .mode = GroupMode::shared, .lease = lease};
}

struct SharedGroup : ::testing::Test {
  explicit SharedGroup(Overflow overflow = Overflow::fail, GroupOptions group = shared())
      : small(overflow, {std::move(group)}), producer(small.producer()) {}
  // A consumer in another process receives `count` and is killed.
  void receive_and_die(std::size_t count) const {
    const pid_t pid = fork();
    if (pid == 0) {
      auto queue = small.open_again();
      auto consumer = queue->consumer("default");
      std::vector<Delivery> held(count);
      if (consumer->receive_batch(held, 0ns).value() != count) _exit(1);
      raise(SIGKILL);
    }
    int status = 0;
    ASSERT_EQ(waitpid(pid, &status, 0), pid);
    ASSERT_TRUE(WIFSIGNALED(status)) << "it did not get that many";
  }
  void publish(int first, int end) {
    for (int i = first; i < end; ++i) {
      const auto result = producer.publish(std::to_string(i));
      ASSERT_TRUE(result) << i << ": " << static_cast<int>(result.code());
    }
  }
  FakeClock clock;  // before any handle
  SmallQueue small;
  Producer producer;
};

TEST_F(SharedGroup, each_message_goes_to_one_consumer) {
  auto one = small.consumer();
  auto two = small.consumer();
  publish(0, 10);
  std::set<std::string> seen;
  for (int i = 0; i < 5; ++i) {
    for (Consumer* consumer : {&one, &two}) {
      auto delivery = consumer->try_receive();
      ASSERT_FALSE(delivery->empty());
      EXPECT_TRUE(seen.insert(std::string{delivery->text()}).second) << delivery->text();
      EXPECT_EQ(delivery->hand_outs(), 1U);
      EXPECT_EQ(delivery->ack(), Settlement::settled);
    }
  }
  EXPECT_TRUE(one.try_receive()->empty());
  EXPECT_EQ(seen.size(), 10U);
  EXPECT_EQ(small.group().acked_total, 10U);
  EXPECT_EQ(small.group().floor.value, 10U);
}

TEST_F(SharedGroup, an_unsettled_message_does_not_stop_the_others) {
  auto slow = small.consumer();
  auto fast = small.consumer();
  publish(0, 16);
  auto held = slow.try_receive();
  ASSERT_EQ(held->text(), "0");
  // Ten laps of the ring, of the window and of the arena pass the one that is held.
  for (int i = 16; i < 176; ++i) {
    auto delivery = fast.try_receive();
    ASSERT_FALSE(delivery->empty()) << i;
    ASSERT_EQ(delivery->text(), std::to_string(i - 15));
    ASSERT_EQ(delivery->ack(), Settlement::settled);
    publish(i, i + 1);
  }
  EXPECT_EQ(held->text(), "0");
  EXPECT_EQ(small.group().in_flight, 1U);
  EXPECT_EQ(small.group().stragglers, 1U);
  EXPECT_EQ(held->ack(), Settlement::settled);
  EXPECT_EQ(held->ack(), Settlement::lease_lost);
  EXPECT_EQ(small.group().stragglers, 0U);
}

TEST_F(SharedGroup, an_expired_lease_goes_to_another_and_the_late_one_is_refused) {
  auto late = small.consumer();
  auto other = small.consumer();
  publish(0, 2);
  auto first = late.try_receive();
  ASSERT_EQ(first->text(), "0");
  clock.advance(29s);
  EXPECT_EQ(other.try_receive()->text(), "1");  // nacked by the scope's end
  EXPECT_TRUE(other.try_receive()->empty());
  clock.advance(2s);
  auto again = other.try_receive();
  ASSERT_FALSE(again->empty());
  EXPECT_EQ(again->text(), "0");
  EXPECT_EQ(again->hand_outs(), 2U);
  EXPECT_EQ(again->failures(), 1U);
  EXPECT_GT(again->fencing_token(), first->fencing_token());
  EXPECT_EQ(first->ack(), Settlement::lease_lost);
  EXPECT_EQ(first->nack(), Settlement::lease_lost);
  EXPECT_EQ(first->release(), Settlement::lease_lost);
  EXPECT_EQ(first->reject(), Settlement::lease_lost);
  EXPECT_EQ(first->extend(), Settlement::lease_lost);
  EXPECT_EQ(first->text(), "0");
  EXPECT_EQ(again->ack(), Settlement::settled);
  EXPECT_EQ(small.group().redelivered_lease_total, 1U);
}

TEST_F(SharedGroup, an_extended_lease_lasts_longer) {
  auto slow = small.consumer();
  auto other = small.consumer();
  publish(0, 1);
  auto held = slow.try_receive();
  for (int i = 0; i < 10; ++i) {
    clock.advance(20s);
    ASSERT_EQ(held->extend(), Settlement::settled) << i;
    ASSERT_TRUE(other.try_receive()->empty()) << i;
  }
  ASSERT_EQ(held->extend(5min), Settlement::settled);
  clock.advance(4min);
  EXPECT_TRUE(other.try_receive()->empty());
  clock.advance(2min);
  EXPECT_FALSE(other.try_receive()->empty());
}

TEST_F(SharedGroup, a_nacked_message_waits_for_its_delay_and_holds_nobody_back) {
  auto consumer = small.consumer();
  publish(0, 3);
  EXPECT_EQ(consumer.try_receive()->nack(10s), Settlement::settled);
  EXPECT_EQ(small.group().delayed, 1U);
  EXPECT_EQ(consumer.try_receive()->ack(), Settlement::settled);
  EXPECT_EQ(consumer.try_receive()->ack(), Settlement::settled);
  EXPECT_TRUE(consumer.try_receive()->empty());
  clock.advance(9s);
  EXPECT_TRUE(consumer.try_receive()->empty());
  clock.advance(2s);
  auto again = consumer.try_receive();
  ASSERT_FALSE(again->empty());
  EXPECT_EQ(again->failures(), 1U);
  EXPECT_EQ(again->ack(), Settlement::settled);
  EXPECT_EQ(small.group().redelivered_nack_total, 1U);
}

TEST_F(SharedGroup, a_released_message_comes_at_once_before_new_ones_and_does_not_count) {
  auto consumer = small.consumer();
  publish(0, 4);
  for (int round = 1; round < 20; ++round) {
    auto delivery = consumer.try_receive();
    ASSERT_EQ(delivery->text(), "0");
    ASSERT_EQ(delivery->hand_outs(), static_cast<unsigned>(round));
    ASSERT_EQ(delivery->failures(), 0U);
    ASSERT_EQ(delivery->release(), Settlement::settled);
  }
}

TEST_F(SharedGroup, redeliveries_come_first_and_in_order) {
  auto consumer = small.consumer();
  publish(0, 8);
  std::vector<Delivery> batch(6);
  ASSERT_EQ(consumer.receive_batch(batch).value(), 6U);
  for (const int i : {4, 1, 3})
    ASSERT_EQ(batch[static_cast<std::size_t>(i)].release(), Settlement::settled);
  for (const char* expected : {"1", "3", "4", "6"}) {
    auto delivery = consumer.try_receive();
    ASSERT_EQ(delivery->text(), expected);
    ASSERT_EQ(delivery->ack(), Settlement::settled);
  }
}

TEST_F(SharedGroup, a_delivery_that_ends_unsettled_is_a_nack_with_back_off) {
  auto consumer = small.consumer();
  publish(0, 1);
  { auto delivery = consumer.try_receive(); }
  EXPECT_TRUE(consumer.try_receive()->empty());
  clock.advance(1s);
  EXPECT_EQ(consumer.try_receive()->failures(), 1U);
}

TEST_F(SharedGroup, ack_through_settles_ones_own_and_nobody_elses) {
  auto one = small.consumer();
  auto two = small.consumer();
  publish(0, 8);
  std::vector<Delivery> mine(3);
  std::vector<Delivery> others(3);
  ASSERT_EQ(one.receive_batch(mine).value(), 3U);
  ASSERT_EQ(two.receive_batch(others).value(), 3U);
  EXPECT_EQ(two.ack_through({7}), Settlement::settled);
  EXPECT_EQ(small.group().in_flight, 3U);
  EXPECT_EQ(one.ack_through({1}), Settlement::settled);
  EXPECT_EQ(small.group().in_flight, 1U);
  EXPECT_EQ(mine[0].ack(), Settlement::lease_lost);
  EXPECT_EQ(mine[2].ack(), Settlement::settled);
  mine.clear();
  others.clear();
  EXPECT_EQ(small.group().acked_total, 6U);
  EXPECT_EQ(small.group().redelivered_nack_total, 0U) << "nothing was settled twice";
}

TEST_F(SharedGroup, a_rejected_message_is_dead_and_stops_nobody) {
  auto consumer = small.consumer();
  publish(0, 2);
  EXPECT_EQ(consumer.try_receive()->reject(), Settlement::settled);
  for (int i = 2; i < 50; ++i) {
    ASSERT_EQ(consumer.try_receive()->ack(), Settlement::settled) << i;
    publish(i, i + 1);
  }
  EXPECT_EQ(small.group().dead, 1U);
  EXPECT_EQ(small.group().dead_lettered_total, 1U);
  EXPECT_EQ(consumer.try_receive()->ack(), Settlement::settled);
  EXPECT_TRUE(consumer.try_receive()->empty());
}

TEST_F(SharedGroup, a_message_past_its_delivery_limit_is_dead) {
  auto consumer = small.consumer();
  publish(0, 2);
  for (unsigned i = 0; i < 5; ++i) {
    auto delivery = consumer.try_receive();
    ASSERT_EQ(delivery->text(), "0");
    ASSERT_EQ(delivery->nack(), Settlement::settled);
  }
  EXPECT_EQ(small.group().dead, 1U);
  EXPECT_EQ(consumer.try_receive()->text(), "1");
}

// 16 window entries, 16 stragglers: that many in flight, and then no more until one is settled.
TEST_F(SharedGroup, what_is_in_flight_is_bounded_and_the_bound_is_told) {
  auto consumer = small.consumer();
  std::vector<Delivery> held;
  int published = 0;
  for (int i = 0; i < 100; ++i) {
    if (producer.publish(std::to_string(published))) ++published;
    auto delivery = consumer.try_receive();
    if (!delivery) {
      ASSERT_EQ(delivery.error(), Errc::in_flight_limit);
      ASSERT_EQ(held.size(), 32U);
    } else if (!delivery->empty()) {
      held.push_back(std::move(*delivery));
    }
  }
  EXPECT_EQ(held.size(), 32U);
  EXPECT_EQ(small.group().in_flight, 32U);
  EXPECT_TRUE(small.group().at_in_flight_limit);
  for (std::size_t i = 0; i < held.size(); ++i) ASSERT_EQ(held[i].text(), std::to_string(i));
  // One in the table, one in the window.
  ASSERT_EQ(held[3].ack(), Settlement::settled);
  ASSERT_EQ(held[20].ack(), Settlement::settled);
  if (producer.publish(std::to_string(published))) ++published;
  EXPECT_FALSE(consumer.try_receive()->empty());
  for (auto& delivery : held) (void)delivery.ack();
  EXPECT_EQ(small.group().in_flight, 0U);
}

TEST_F(SharedGroup, a_closed_consumer_gives_back_what_it_holds) {
  publish(0, 4);
  {
    auto consumer = small.consumer();
    std::vector<Delivery> held(3);
    ASSERT_EQ(consumer.receive_batch(held).value(), 3U);
    consumer.close();
  }
  auto other = small.consumer();
  for (int i = 0; i < 4; ++i) {
    auto delivery = other.try_receive();
    ASSERT_EQ(delivery->text(), std::to_string(i));
    ASSERT_EQ(delivery->failures(), 0U);
    ASSERT_EQ(delivery->ack(), Settlement::settled);
  }
}

TEST_F(SharedGroup, it_is_told_who_holds_what) {
  auto consumer = small.consumer();
  publish(0, 3);
  auto first = consumer.try_receive();
  auto second = consumer.try_receive();
  clock.advance(5s);
  for (const auto& participant : small.queue->participants()) {
    if (participant.role != Role::consumer) continue;
    ASSERT_EQ(participant.held.size(), 2U);
    EXPECT_EQ(participant.in_flight, 2U);
    EXPECT_EQ(participant.held[1].seq.value, 1U);
    EXPECT_GE(*participant.held[0].held_for, 4900ms);
    EXPECT_LE(*participant.held[0].held_for, 5100ms);
    EXPECT_FALSE(participant.held[0].expired);
  }
  (void)first->ack();
  (void)second->ack();
}

TEST_F(SharedGroup, a_removed_group_ends_its_consumers) {
  auto consumer = small.consumer();
  publish(0, 3);
  auto held = consumer.try_receive();
  ASSERT_TRUE(small.queue->remove_group("default"));
  EXPECT_EQ(consumer.try_receive().error().code(), Errc::removed);
  EXPECT_EQ(held->text(), "0");
}

TEST_F(SharedGroup, purge_keeps_what_is_in_flight_and_drops_the_rest) {
  auto consumer = small.consumer();
  publish(0, 10);
  auto held = consumer.try_receive();
  ASSERT_EQ(consumer.try_receive()->nack(1h), Settlement::settled);
  ASSERT_EQ(consumer.try_receive()->reject(), Settlement::settled);
  EXPECT_EQ(small.queue->purge().value(), 9U);
  EXPECT_EQ(small.group().in_flight, 1U);
  EXPECT_EQ(small.group().delayed + small.group().dead + small.group().ready, 0U);
  EXPECT_TRUE(consumer.try_receive()->empty());
  EXPECT_EQ(held->ack(), Settlement::settled);
  EXPECT_EQ(small.group().dropped_total, 9U);
  EXPECT_EQ(small.group().acked_total, 1U);
}

TEST_F(SharedGroup, a_killed_consumers_leases_come_at_once_before_new_ones) {
  publish(0, 6);
  receive_and_die(4);
  EXPECT_EQ(small.group().in_flight, 4U);
  auto other = small.consumer();
  ASSERT_EQ(small.queue->reclaim().value(), 1U);
  for (int i = 0; i < 6; ++i) {
    auto delivery = other.try_receive();
    ASSERT_FALSE(delivery->empty()) << i;
    ASSERT_EQ(delivery->text(), std::to_string(i));
    ASSERT_EQ(delivery->hand_outs(), i < 4 ? 2U : 1U);
    ASSERT_EQ(delivery->ack(), Settlement::settled);
  }
  EXPECT_EQ(small.group().redelivered_death_total, 4U);
}

TEST_F(SharedGroup, a_message_that_kills_its_consumers_becomes_dead_and_stops_nobody) {
  auto healthy = small.consumer();
  publish(0, 1);
  int next = 1;
  for (unsigned deaths = 1; deaths <= 5; ++deaths) {
    receive_and_die(1);
    ASSERT_EQ(small.queue->reclaim().value(), 1U);
    // The healthy one gets it next, and passes it on: it is the next victim's. The others flow.
    auto poison = healthy.try_receive();
    if (deaths < 5) {
      ASSERT_EQ(poison->text(), "0");
      ASSERT_EQ(poison->hand_outs(), 2 * deaths);
    } else {
      ASSERT_TRUE(poison->empty()) << "past its limit";
    }
    for (int i = 0; i < 40; ++i, ++next) {
      publish(next, next + 1);
      ASSERT_EQ(healthy.try_receive()->ack(), Settlement::settled);
    }
    if (deaths < 5) {
      ASSERT_EQ(poison->release(), Settlement::settled);
    }
  }
  EXPECT_EQ(small.group().dead, 1U);
  EXPECT_EQ(small.group().dead_lettered_total, 1U);
  EXPECT_EQ(small.group().acked_total, static_cast<std::uint64_t>(next - 1));
}

// The holder gets it again itself: its first delivery is as lost as if another had it.
TEST_F(SharedGroup, a_lost_lease_is_refused_even_if_its_holder_has_the_next_one) {
  auto consumer = small.consumer();
  publish(0, 1);
  auto first = consumer.try_receive();
  clock.advance(31s);
  auto second = consumer.try_receive();
  ASSERT_FALSE(second->empty());
  EXPECT_EQ(first->ack(), Settlement::lease_lost);
  EXPECT_EQ(first->nack(), Settlement::lease_lost);
  EXPECT_EQ(first->release(), Settlement::lease_lost);
  EXPECT_EQ(first->reject(), Settlement::lease_lost);
  EXPECT_EQ(first->extend(), Settlement::lease_lost);
  EXPECT_EQ(small.group().in_flight, 1U);
  EXPECT_EQ(second->ack(), Settlement::settled);
}

// Nobody pins it: the straggler table alone keeps its chunk.
TEST_F(SharedGroup, a_delayed_message_keeps_its_bytes_and_its_time_while_others_flow) {
  auto consumer = small.consumer();
  const std::string text(3000, 'd');
  ASSERT_TRUE(producer.publish(text));
  const std::string next(3000, 'n');  // in a chunk of its own
  ASSERT_TRUE(producer.publish(next));
  ASSERT_EQ(consumer.try_receive()->nack(10s), Settlement::settled);
  auto leased = consumer.try_receive();
  ASSERT_EQ(leased->text(), next);
  auto other = small.consumer();
  for (int i = 0; i < 200; ++i) {
    ASSERT_TRUE(producer.publish(std::string(3000, '#'))) << i;
    ASSERT_EQ(other.try_receive()->ack(), Settlement::settled) << i;
  }
  ASSERT_EQ(small.group().stragglers, 2U);
  clock.advance(9s);
  EXPECT_TRUE(other.try_receive()->empty()) << "before its time";
  clock.advance(2s);
  auto again = other.try_receive();
  ASSERT_TRUE(again) << again.error().message();
  ASSERT_EQ(again->text(), text);
  EXPECT_EQ(again->ack(), Settlement::settled);
  clock.advance(18s);
  EXPECT_TRUE(other.try_receive()->empty()) << "the lease lasts 30 s, evicted or not";
  clock.advance(2s);
  EXPECT_EQ(other.try_receive()->text(), next);
}

// Deadlines are ticks; a lease that is taken at the end of one is not shorter.
TEST(SharedGroupClock, a_lease_lasts_its_whole_time_wherever_in_a_tick_it_began) {
  constexpr std::chrono::nanoseconds tick{1LL << base::tick_shift};
  for (const auto phase : {0ns, tick / 2, tick - 1ns}) {
    FakeClock clock;
    const std::chrono::nanoseconds into{base::clock->coarse_ns() % tick.count()};
    clock.advance(tick - into + phase);
    SmallQueue small{Overflow::fail, {shared(100 * tick)}};
    auto producer = small.producer();
    ASSERT_TRUE(producer.publish("m"));
    auto holder = small.consumer();
    auto other = small.consumer();
    auto held = holder.try_receive();
    ASSERT_FALSE(held->empty());
    clock.advance(100 * tick - 1ns);
    ASSERT_TRUE(other.try_receive()->empty()) << "phase " << phase.count();
    clock.advance(2 * tick + 1ns);
    ASSERT_FALSE(other.try_receive()->empty()) << "phase " << phase.count();
  }
}

struct SharedGroupDropping : SharedGroup {
  SharedGroupDropping() : SharedGroup(Overflow::drop_oldest) {}
};

TEST_F(SharedGroupDropping, drop_oldest_keeps_what_is_in_flight) {
  auto consumer = small.consumer();
  publish(0, 8);
  std::vector<Delivery> held(2);
  ASSERT_EQ(consumer.receive_batch(held).value(), 2U);
  publish(8, 500);
  EXPECT_EQ(held[0].text(), "0");
  EXPECT_EQ(held[1].text(), "1");
  EXPECT_EQ(held[0].ack(), Settlement::settled);
  EXPECT_EQ(held[1].nack(), Settlement::settled);
  auto again = consumer.try_receive();
  EXPECT_EQ(again->text(), "1");
  EXPECT_EQ(again->ack(), Settlement::settled);
  auto next = consumer.try_receive();
  EXPECT_GE(next->seq().value, 484U);
  EXPECT_EQ(next->text(), std::to_string(next->seq().value));
  EXPECT_EQ(small.group().dropped_total, next->seq().value - 2);
}

// A message in each of 64 chunks and more: pins run out, then copies are handed out.
TEST_F(SharedGroup, held_bytes_stay_whole_when_pins_run_out) {
  auto options = SmallQueue::options(Overflow::fail, {shared()});
  options.slots = 256;
  options.arena_bytes = 512 * 4096;
  options.window_entries = 256;
  SmallQueue large{options};
  auto source = large.producer();
  auto consumer = large.consumer();
  std::vector<Delivery> held;
  for (int i = 0; i < 100; ++i) {
    ASSERT_TRUE(source.publish(std::string(3000, static_cast<char>('A' + i % 50))));
    held.push_back(std::move(*consumer.try_receive()));
    ASSERT_FALSE(held.back().empty());
  }
  EXPECT_EQ(large.queue->stats().chunks_pinned, 63U);
  for (auto& delivery : held) ASSERT_EQ(delivery.ack(), Settlement::settled);
  // Everything that is not pinned is written again, several times.
  for (int i = 0; i < 3000; ++i) {
    ASSERT_TRUE(source.publish(std::string(3000, '#'))) << i;
    ASSERT_EQ(consumer.try_receive()->ack(), Settlement::settled);
  }
  for (std::size_t i = 0; i < held.size(); ++i) {
    ASSERT_EQ(held[i].text(), std::string(3000, static_cast<char>('A' + i % 50))) << i;
  }
}

// One delayed message in each chunk would hold the whole arena, ten times over.
TEST_F(SharedGroup, delayed_messages_are_moved_together_and_hold_no_producer_up) {
  auto consumer = small.consumer();
  std::set<std::uint64_t> delayed;
  for (int i = 0; i < 400; ++i) {
    const std::string text(900, static_cast<char>('a' + i % 26));
    const auto result = producer.publish(text);
    ASSERT_TRUE(result) << i << ": " << static_cast<int>(result.code());
    auto delivery = consumer.try_receive();
    ASSERT_FALSE(delivery->empty()) << i;
    ASSERT_EQ(delivery->text(), text) << i;
    if (i % 25 == 3) {
      delayed.insert(delivery->seq().value);
      ASSERT_EQ(delivery->nack(1h), Settlement::settled);
    } else {
      ASSERT_EQ(delivery->ack(), Settlement::settled);
    }
  }
  EXPECT_EQ(small.group().delayed, 16U);
  clock.advance(2h);
  for (const std::uint64_t seq : delayed) {
    auto delivery = consumer.try_receive();
    ASSERT_FALSE(delivery->empty()) << seq;
    EXPECT_EQ(delivery->seq().value, seq);
    EXPECT_EQ(delivery->text(), std::string(900, static_cast<char>('a' + seq % 26)));
    EXPECT_EQ(delivery->ack(), Settlement::settled);
  }
  EXPECT_TRUE(consumer.try_receive()->empty());
}

}  // namespace
