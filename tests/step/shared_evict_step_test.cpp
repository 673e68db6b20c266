// SPDX-License-Identifier: Apache-2.0
//
// Who makes room in a shared group is killed at each distinct state: of an eviction by a producer
// or a consumer, of moving the floor, of drop_oldest and of purge (G4, G5, G11). The leases of
// the living hold throughout.
#include "queue/participants.hpp"
#include "step/shared_steps.hpp"

namespace {

using namespace shmq;
using namespace shmq::testing;
using namespace std::chrono_literals;

constexpr auto settled = Settlement::settled;

// The parent's consumer holds 0 and 1, and has nacked 2 with a delay; 3 to 15 are backlog.
struct Living {
  std::unique_ptr<SmallQueue> fresh(Overflow overflow) {
    holder.reset();
    auto small = shared_queue(16, overflow);
    holder = std::make_unique<Holder>(*small);
    holder->take(3);
    if (holder->held[2].nack(1min) != settled) throw std::runtime_error{"the setting failed"};
    holder->held.pop_back();
    return small;
  }
  // What was leased all the time is settled by its holder, and by nobody else.
  void settle() {
    for (Delivery& delivery : holder->held) {
      ASSERT_EQ(delivery.text(), text_of(delivery.seq().value));
      ASSERT_EQ(delivery.ack(), settled) << "a valid lease was lost";
      ASSERT_EQ(delivery.ack(), Settlement::lease_lost);
    }
    holder.reset();
  }
  std::unique_ptr<Holder> holder;
};

TEST(StepShared, a_killed_eviction_by_a_producer_keeps_every_lease) {
  FakeClock clock;
  Living living;
  run_campaign({.what = "eviction by a producer",
                .fresh = [&] { return living.fresh(Overflow::fail); },
                .prepare = [](const SmallQueue& small) -> Stepper::Operation {
                  auto* queue = new Queue{std::move(*small.open_again())};
                  auto* producer = new Producer{std::move(*queue->producer())};
                  return [producer] { publish_up_to(*producer, 16, 19); };
                },
                .check =
                    [&](SmallQueue& small, bool finished) {
                      const std::uint64_t published = small.queue->stats().tail.value;
                      ASSERT_TRUE(published <= 19 && (!finished || published == 19));
                      ASSERT_TRUE(small.queue->reclaim());
                      living.settle();
                      expect_the_rest(small, clock, {.published = published, .gone = {0, 1}});
                    },
                .states_max = 45});
}

TEST(StepShared, a_killed_eviction_by_a_consumer_keeps_every_lease) {
  FakeClock clock;
  std::unique_ptr<Holder> other;
  run_campaign({.what = "eviction by a consumer whose window is full",
                .fresh =
                    [&] {
                      other.reset();
                      auto small = shared_queue(24, Overflow::fail, 32);
                      other = std::make_unique<Holder>(*small);
                      other->take(2);
                      return small;
                    },
                .prepare = [](const SmallQueue& small) -> Stepper::Operation {
                  Holder& child = child_holder(small);
                  child.take(14);  // with the two of the other one: the whole window
                  return [&child] { child.take(3); };
                },
                .check =
                    [&](SmallQueue& small, bool) {
                      ASSERT_TRUE(small.queue->reclaim());
                      for (Delivery& delivery : other->held) {
                        ASSERT_EQ(delivery.text(), text_of(delivery.seq().value));
                        ASSERT_EQ(delivery.ack(), settled) << "a valid lease was lost";
                      }
                      other.reset();
                      expect_the_rest(small, clock, {.published = 24, .gone = {0, 1}});
                    },
                .states_max = 47});
}

TEST(StepShared, a_killed_move_of_the_floor_can_be_done_again) {
  FakeClock clock;
  Living living;
  run_campaign({.what = "floor over moved and settled entries",
                .fresh =
                    [&] {
                      auto small = living.fresh(Overflow::fail);
                      // Evicted, but the floor has not moved; and two settled behind.
                      const auto segment = segment_of(*small);
                      queue::SharedGroup group{*segment, 0};
                      for (const std::uint64_t seq : {0U, 1U, 2U}) {
                        if (group.evict(seq, 0) != queue::SharedGroup::Eviction::evicted) {
                          throw std::runtime_error{"the setting failed"};
                        }
                      }
                      living.holder->take(2);
                      for (int i = 0; i < 2; ++i) {
                        if (living.holder->held.back().ack() != settled) {
                          throw std::runtime_error{"the setting failed"};
                        }
                        living.holder->held.pop_back();
                      }
                      return small;
                    },
                .prepare = [](const SmallQueue& small) -> Stepper::Operation {
                  auto* segment = new std::shared_ptr<shm::Segment>{segment_of(small)};
                  return [segment] {
                    if (queue::SharedGroup{**segment, 0}.advance_floor() != 5) _exit(1);
                  };
                },
                .check =
                    [&](SmallQueue& small, bool finished) {
                      ASSERT_TRUE(!finished || small.group().floor.value == 5);
                      living.settle();
                      expect_the_rest(small, clock, {.published = 16, .gone = {0, 1, 3, 4}});
                    },
                .states_max = 60});
}

TEST(StepShared, a_killed_drop_of_the_oldest_keeps_every_lease) {
  FakeClock clock;
  Living living;
  run_campaign({.what = "drop_oldest over leased ones",
                .fresh = [&] { return living.fresh(Overflow::drop_oldest); },
                .prepare = [](const SmallQueue& small) -> Stepper::Operation {
                  auto* queue = new Queue{std::move(*small.open_again())};
                  auto* producer = new Producer{std::move(*queue->producer())};
                  return [producer] { publish_up_to(*producer, 16, 22); };
                },
                .check =
                    [&](SmallQueue& small, bool finished) {
                      const std::uint64_t published = small.queue->stats().tail.value;
                      ASSERT_TRUE(published <= 22 && (!finished || published == 22));
                      ASSERT_TRUE(small.queue->reclaim());
                      living.settle();
                      // Dropped: some of the oldest that nobody had, up to some seq; the rest
                      // comes.
                      Seqs maybe;
                      for (std::uint64_t seq = 2; seq < 10; ++seq) maybe.insert(seq);
                      expect_the_rest(small, clock,
                                      {.published = published, .gone = {0, 1}, .maybe = maybe});
                    },
                .states_max = 59});
}

TEST(StepShared, a_killed_purge_keeps_every_lease) {
  FakeClock clock;
  Living living;
  run_campaign({.what = "purge of a shared group",
                .fresh =
                    [&] {
                      auto small = living.fresh(Overflow::fail);
                      auto producer = small->producer();
                      publish_up_to(producer, 16, 18);  // 0 to 2 are stragglers now
                      living.holder->take(2);
                      if (living.holder->held.back().reject() != settled) {
                        throw std::runtime_error{"the setting failed"};
                      }
                      living.holder->held.pop_back();
                      return small;
                    },
                .prepare = [](const SmallQueue& small) -> Stepper::Operation {
                  auto* queue = new Queue{std::move(*small.open_again())};
                  return [queue] {
                    if (!queue->purge()) _exit(1);
                  };
                },
                .check =
                    [&](SmallQueue& small, bool finished) {
                      ASSERT_TRUE(small.queue->reclaim());
                      if (finished) {
                        EXPECT_EQ(small.group().in_flight, 3U);
                      }
                      ASSERT_TRUE(small.queue->purge());
                      const auto info = small.group();
                      ASSERT_EQ(info.ready + info.delayed + info.dead, 0U);
                      living.settle();
                      Seqs gone;
                      for (std::uint64_t seq = 0; seq < 18; ++seq) gone.insert(seq);
                      expect_the_rest(small, clock, {.published = 18, .gone = gone});
                    },
                .states_max = 26});
}

}  // namespace
