// SPDX-License-Identifier: Apache-2.0
//
// Backlog figures: ages from records, leases and samples; rates from samples; who is busy, who
// sleeps.
#include <gtest/gtest.h>

#include <atomic>
#include <thread>

#include "base/clock.hpp"
#include "support/small_queue.hpp"

namespace {

using namespace shmq;
using namespace std::chrono_literals;
using shmq::testing::SmallQueue;

// All clocks, moved by the test. Made before any handle; nothing in these tests waits by it.
class FakeTime {
 public:
  FakeTime() { base::clock = &fake; }
  FakeTime(const FakeTime&) = delete;
  FakeTime& operator=(const FakeTime&) = delete;
  ~FakeTime() { base::clock = &base::system_clock; }
  void advance(std::chrono::nanoseconds time) { offset_ns += time.count(); }

 private:
  static inline std::atomic<std::uint64_t> offset_ns{1'000'000'000'000};
  static std::uint64_t now() noexcept { return offset_ns; }
  static constexpr base::Clock fake{now, now, now};
};

constexpr auto tick = std::chrono::nanoseconds{1LL << base::tick_shift};

GroupOptions shared_group(std::chrono::nanoseconds lease = 30s) {
  return {.name = "default", .mode = GroupMode::shared, .lease = lease};
}

struct Ages : ::testing::TestWithParam<GroupMode> {
  FakeTime time;
  SmallQueue small{Overflow::fail,
                   {{.name = "default", .mode = GetParam(), .lease = std::chrono::seconds{30}}}};
  Producer plain = small.producer();
  Producer timed = std::move(small.queue->producer({.publish_time = true}).value());
};
INSTANTIATE_TEST_SUITE_P(Modes, Ages, ::testing::Values(GroupMode::exclusive, GroupMode::shared));

TEST_P(Ages, an_empty_group_has_no_oldest_message) {
  EXPECT_FALSE(small.group().oldest_ready);
  EXPECT_FALSE(small.group().oldest_in_flight);
}

TEST_P(Ages, a_publish_time_says_how_old_a_message_is_in_whatever_state) {
  ASSERT_TRUE(timed.publish("a"));
  time.advance(5s);
  ASSERT_TRUE(timed.publish("b"));
  time.advance(2s);
  auto group = small.group();
  ASSERT_TRUE(group.oldest_ready);
  EXPECT_EQ(group.oldest_ready->seq, Seq{0});
  EXPECT_EQ(group.oldest_ready->age, 7s);
  EXPECT_EQ(group.oldest_ready->basis, AgeBasis::publish_time);
  EXPECT_FALSE(group.oldest_in_flight);

  auto consumer = small.consumer();
  auto first = consumer.try_receive().value();
  ASSERT_FALSE(first.empty());
  time.advance(1s);
  group = small.group();
  ASSERT_TRUE(group.oldest_ready);
  EXPECT_EQ(group.oldest_ready->seq, Seq{1});
  EXPECT_EQ(group.oldest_ready->age, 3s);
  ASSERT_TRUE(group.oldest_in_flight);
  EXPECT_EQ(group.oldest_in_flight->seq, Seq{0});
  EXPECT_EQ(group.oldest_in_flight->age, 8s);
  EXPECT_EQ(group.oldest_in_flight->basis, AgeBasis::publish_time);
  EXPECT_EQ(group.consumers_busy, 1U);

  ASSERT_EQ(first.ack(), Settlement::settled);
  group = small.group();
  EXPECT_FALSE(group.oldest_in_flight);
  EXPECT_EQ(group.consumers_busy, 0U);
}

TEST_P(Ages, a_clock_that_was_set_back_gives_no_age_below_zero) {
  ASSERT_TRUE(timed.publish("a"));
  time.advance(-3s);
  EXPECT_EQ(small.group().oldest_ready->age, 0s);
}

TEST_P(Ages, without_a_publish_time_the_age_of_a_ready_message_is_unknown) {
  ASSERT_TRUE(plain.publish("a"));
  time.advance(5s);
  const auto oldest = small.group().oldest_ready;
  ASSERT_TRUE(oldest);
  EXPECT_EQ(oldest->basis, AgeBasis::unknown);
  EXPECT_EQ(oldest->age, 0s);
}

TEST_P(Ages, a_delayed_message_is_not_ready) {
  auto consumer = small.consumer();
  ASSERT_TRUE(timed.publish("a"));
  ASSERT_EQ(consumer.try_receive()->nack(60s), Settlement::settled);
  EXPECT_FALSE(small.group().oldest_ready);
  time.advance(61s);
  ASSERT_TRUE(small.group().oldest_ready);
  EXPECT_EQ(small.group().oldest_ready->age, 61s);
}

TEST_P(Ages, a_sampler_knows_since_when_it_saw_a_message) {
  BacklogSampler sampler;
  EXPECT_FALSE(sampler.sample(*small.queue)[0].group.oldest_ready);
  time.advance(10s);
  ASSERT_TRUE(plain.publish("a"));  // seen 1 s later
  time.advance(1s);
  auto oldest = sampler.sample(*small.queue)[0].group.oldest_ready;
  ASSERT_TRUE(oldest);
  EXPECT_EQ(oldest->basis, AgeBasis::observed);
  EXPECT_EQ(oldest->age, 0s);
  time.advance(4s);
  ASSERT_TRUE(timed.publish("b"));
  oldest = sampler.sample(*small.queue)[0].group.oldest_ready;
  EXPECT_EQ(oldest->seq, Seq{0});
  EXPECT_EQ(oldest->age, 4s);
  auto consumer = small.consumer();
  ASSERT_EQ(consumer.try_receive()->ack(), Settlement::settled);
  time.advance(1s);
  oldest = sampler.sample(*small.queue)[0].group.oldest_ready;
  EXPECT_EQ(oldest->basis, AgeBasis::publish_time) << "better than what was seen";
  EXPECT_EQ(oldest->age, 1s);
}

struct SharedFigures : ::testing::Test {
  FakeTime time;
  SmallQueue small{Overflow::drop_oldest, {shared_group(1h)}};
  Producer plain = small.producer();
  Producer timed = std::move(small.queue->producer({.publish_time = true}).value());
};

TEST_F(SharedFigures, a_lease_says_how_old_a_message_is_at_least) {
  ASSERT_TRUE(plain.publish("a"));
  time.advance(5s);
  auto consumer = small.consumer();
  const auto held = consumer.try_receive().value();
  time.advance(3s);
  const auto oldest = small.group().oldest_in_flight;
  ASSERT_TRUE(oldest);
  EXPECT_EQ(oldest->basis, AgeBasis::hand_out);
  EXPECT_GE(oldest->age, 3s - 3 * tick);
  EXPECT_LE(oldest->age, 3s);
}

TEST_F(SharedFigures, a_straggler_keeps_its_publish_time) {
  auto consumer = small.consumer();
  ASSERT_TRUE(timed.publish("slow"));
  auto held = consumer.try_receive().value();
  for (int i = 0; i < 40; ++i) {
    ASSERT_TRUE(plain.publish("fast"));
    ASSERT_EQ(consumer.try_receive()->ack(), Settlement::settled);
  }
  time.advance(9s);
  auto group = small.group();
  ASSERT_EQ(group.stragglers, 1U);
  ASSERT_TRUE(group.oldest_in_flight);
  EXPECT_EQ(group.oldest_in_flight->seq, Seq{0});
  EXPECT_EQ(group.oldest_in_flight->age, 9s);
  EXPECT_EQ(group.oldest_in_flight->basis, AgeBasis::publish_time);
  ASSERT_EQ(held.release(), Settlement::settled);
  group = small.group();
  EXPECT_FALSE(group.oldest_in_flight);
  ASSERT_TRUE(group.oldest_ready);
  EXPECT_EQ(group.oldest_ready->seq, Seq{0});
  EXPECT_EQ(group.oldest_ready->age, 9s);
}

TEST_F(SharedFigures, busy_consumers_are_those_that_hold_something) {
  auto one = small.consumer();
  auto two = small.consumer();
  auto three = small.consumer();
  for (int i = 0; i < 4; ++i) ASSERT_TRUE(plain.publish("x"));
  const auto a = one.try_receive().value();
  const auto b = one.try_receive().value();
  const auto c = two.try_receive().value();
  EXPECT_EQ(small.group().consumers, 3U);
  EXPECT_EQ(small.group().consumers_busy, 2U);
}

TEST_F(SharedFigures, rates_are_those_between_the_samples) {
  BacklogSampler sampler{10s};
  auto consumer = small.consumer();
  auto figures = sampler.sample(*small.queue).at(0);
  EXPECT_EQ(figures.span, 0s);
  EXPECT_FALSE(figures.arrivals_per_second);
  EXPECT_FALSE(figures.drained_per_second);
  for (int i = 0; i < 12; ++i) ASSERT_TRUE(plain.publish("x"));
  for (int i = 0; i < 5; ++i) ASSERT_EQ(consumer.try_receive()->ack(), Settlement::settled);
  ASSERT_EQ(consumer.try_receive()->reject(), Settlement::settled);
  time.advance(2s);
  figures = sampler.sample(*small.queue).at(0);
  EXPECT_EQ(figures.span, 2s);
  EXPECT_DOUBLE_EQ(figures.arrivals_per_second.value(), 6.0);
  EXPECT_DOUBLE_EQ(figures.drained_per_second.value(), 3.0);
  EXPECT_DOUBLE_EQ(figures.mean_consumers, 1.0);
  EXPECT_FALSE(figures.never_without_ready);
  // A span later nothing of that is left but what happened since.
  time.advance(8s);
  sampler.sample(*small.queue);
  time.advance(10s);
  ASSERT_EQ(consumer.try_receive()->ack(), Settlement::settled);
  figures = sampler.sample(*small.queue).at(0);
  EXPECT_EQ(figures.span, 10s);
  EXPECT_DOUBLE_EQ(figures.arrivals_per_second.value(), 0.0);
  EXPECT_DOUBLE_EQ(figures.drained_per_second.value(), 0.1);
  EXPECT_TRUE(figures.never_without_ready);
}

TEST_F(SharedFigures, what_was_dropped_was_not_drained) {
  BacklogSampler sampler;
  sampler.sample(*small.queue);
  for (int i = 0; i < 40; ++i) ASSERT_TRUE(plain.publish("x"));
  time.advance(1s);
  const auto figures = sampler.sample(*small.queue).at(0);
  EXPECT_GT(figures.group.dropped_total, 0U);
  EXPECT_DOUBLE_EQ(figures.arrivals_per_second.value(), 40.0);
  EXPECT_DOUBLE_EQ(figures.drained_per_second.value(), 0.0);
}

TEST_F(SharedFigures, a_group_or_queue_that_was_made_again_begins_anew) {
  BacklogSampler sampler;
  {
    auto consumer = small.consumer();
    for (int i = 0; i < 10; ++i) {
      ASSERT_TRUE(plain.publish("x"));
      ASSERT_EQ(consumer.try_receive()->ack(), Settlement::settled);
    }
  }
  EXPECT_EQ(sampler.sample(*small.queue).at(0).group.acked_total, 10U);
  ASSERT_TRUE(small.queue->remove_group("default"));
  time.advance(1s);
  ASSERT_TRUE(small.queue->create_group(shared_group()));
  auto figures = sampler.sample(*small.queue).at(0);
  EXPECT_EQ(figures.group.acked_total, 0U);
  EXPECT_FALSE(figures.drained_per_second);

  SmallQueue other{Overflow::fail, {shared_group()}};
  time.advance(1s);
  figures = sampler.sample(*other.queue).at(0);
  EXPECT_FALSE(figures.arrivals_per_second);
}

TEST(SampledAges, thousands_of_samples_make_no_age_higher_than_it_is) {
  FakeTime time;
  SmallQueue small{Overflow::fail, {shared_group(0s)}};  // no lease that would tell an age
  auto plain = small.producer();
  BacklogSampler sampler;
  auto consumer = small.consumer();
  ASSERT_TRUE(plain.publish("old"));
  const auto held = consumer.try_receive().value();
  for (int i = 0; i < 5000; ++i) {
    ASSERT_TRUE(plain.publish("x"));
    sampler.sample(*small.queue);
    time.advance(10ms);
    ASSERT_EQ(consumer.try_receive()->ack(), Settlement::settled);
  }
  const auto oldest = sampler.sample(*small.queue).at(0).group.oldest_in_flight;
  ASSERT_TRUE(oldest);
  EXPECT_EQ(oldest->seq, Seq{0});
  EXPECT_EQ(oldest->basis, AgeBasis::observed);
  EXPECT_LE(oldest->age, 50s);
  EXPECT_GT(oldest->age, 49s) << "the first sample is kept";
}

// --- sleeping, by the real clock -----------------------------------------------------------------

std::optional<std::chrono::nanoseconds> asleep_for(const SmallQueue& small, Role role) {
  for (const ParticipantInfo& info : small.queue->participants()) {
    if (info.role == role) return info.asleep_for;
  }
  ADD_FAILURE() << "nobody of that role";
  return {};
}

TEST(Asleep, a_consumer_that_waits_says_since_when_until_a_message_comes) {
  SmallQueue small;
  auto producer = small.producer();
  auto consumer = small.consumer();
  EXPECT_FALSE(asleep_for(small, Role::consumer));
  std::thread waiter{[&] {
    auto delivery = consumer.receive();
    EXPECT_TRUE(delivery && !delivery->empty());
    EXPECT_FALSE(asleep_for(small, Role::consumer)) << "it has something to do";
    EXPECT_EQ(delivery->ack(), Settlement::settled);
  }};
  std::optional<std::chrono::nanoseconds> seen;
  while (!seen || *seen < 20ms) {
    seen = asleep_for(small, Role::consumer);
    std::this_thread::yield();
  }
  EXPECT_FALSE(asleep_for(small, Role::producer));
  ASSERT_TRUE(producer.publish("x"));
  waiter.join();
}

TEST(Asleep, a_producer_that_waits_for_room_says_since_when_until_there_is) {
  SmallQueue small{Overflow::block};
  auto producer = small.producer();
  auto consumer = small.consumer();
  for (int i = 0; i < 16; ++i) ASSERT_TRUE(producer.publish("x"));
  std::thread waiter{[&] { EXPECT_TRUE(producer.publish("one more")); }};
  while (!asleep_for(small, Role::producer)) std::this_thread::yield();
  for (int i = 0; i < 17; ++i) {
    auto delivery = consumer.receive();
    ASSERT_TRUE(delivery && !delivery->empty());
    ASSERT_EQ(delivery->ack(), Settlement::settled);
  }
  waiter.join();
  EXPECT_FALSE(asleep_for(small, Role::producer));
}

}  // namespace
