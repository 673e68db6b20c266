// SPDX-License-Identifier: Apache-2.0
//
// A consumer of a shared group is killed at each distinct state of claim, redelivery and every
// settlement, in the window and in the straggler table (G4, G5): a message is settled, or it comes
// again, to one consumer; nothing of the dead is left.
#include "step/shared_steps.hpp"

namespace {

using namespace shmq;
using namespace shmq::testing;
using namespace std::chrono_literals;

constexpr auto settled = Settlement::settled;

// Messages 0 to 19; the child holds 0 to 3, which had to make room for the others.
Holder& holder_with_stragglers(const SmallQueue& small) {
  Holder& child = child_holder(small);
  child.take(4);
  auto producer = child.queue.producer();
  publish_up_to(*producer, 4, 20);
  if (look_at_group(*segment_of(small)).in_table < 4) throw std::runtime_error{"no stragglers"};
  return child;
}

TEST(StepShared, a_killed_claim_takes_nothing_with_it) {
  FakeClock clock;
  run_campaign(
      {.what = "claim, one by one",
       .fresh = [] { return shared_queue(8); },
       .prepare = [](const SmallQueue& small) -> Stepper::Operation {
         Holder& child = child_holder(small);
         return [&child] { child.take(3); };
       },
       .check = [&](SmallQueue& small, bool) { expect_the_rest(small, clock, {.published = 8}); },
       .states_max = 60});
  run_campaign({.what = "claim, a batch",
                .fresh = [] { return shared_queue(8); },
                .prepare = [](const SmallQueue& small) -> Stepper::Operation {
                  Holder& child = child_holder(small);
                  child.held.resize(6);
                  return [&child] {
                    if (child.consumer.receive_batch(child.held).value() != 6) _exit(1);
                  };
                },
                .check =
                    [&](SmallQueue& small, bool finished) {
                      if (finished) {
                        EXPECT_EQ(small.group().in_flight, 6U);
                      }
                      expect_the_rest(small, clock, {.published = 8});
                    },
                .states_max = 60});
}

TEST(StepShared, a_killed_redelivery_comes_again) {
  FakeClock clock;
  run_campaign(
      {.what = "redelivery in the window",
       .fresh = [] { return shared_queue(8); },
       .prepare = [](const SmallQueue& small) -> Stepper::Operation {
         Holder& child = child_holder(small);
         child.take(4);
         if (child.held[1].release() != settled) _exit(1);
         if (child.held[3].nack() != settled) _exit(1);
         return [&child] {
           child.take(2);
           if (child.held[4].hand_outs() != 2 || child.held[4].ack() != settled) _exit(1);
           if (child.held[5].ack() != settled) _exit(1);
         };
       },
       .check =
           [&](SmallQueue& small, bool finished) {
             expect_the_rest(small, clock, {.published = 8, .maybe = {1, 3}, .finished = finished});
           },
       .states_max = 60});
  run_campaign({.what = "redelivery in the straggler table",
                .fresh = [] { return shared_queue(4); },
                .prepare = [](const SmallQueue& small) -> Stepper::Operation {
                  Holder& child = holder_with_stragglers(small);
                  if (child.held[1].release() != settled) _exit(1);
                  if (child.held[3].nack() != settled) _exit(1);
                  return [&child] {
                    child.take(2);
                    if (child.held[4].hand_outs() != 2 || child.held[4].ack() != settled) _exit(1);
                    if (child.held[5].ack() != settled) _exit(1);
                  };
                },
                .check =
                    [&](SmallQueue& small, bool finished) {
                      expect_the_rest(small, clock,
                                      {.published = 20, .maybe = {1, 3}, .finished = finished});
                    },
                .states_max = 60});
}

TEST(StepShared, a_killed_take_over_of_expired_leases_leaves_one_owner) {
  FakeClock clock;
  // The parent lives, and is late.
  std::unique_ptr<Holder> late;
  run_campaign({.what = "take-over after expiry",
                .fresh =
                    [&] {
                      late.reset();
                      auto small = shared_queue(8);
                      late = std::make_unique<Holder>(*small);
                      late->take(4);
                      return small;
                    },
                .prepare = [&](const SmallQueue& small) -> Stepper::Operation {
                  Holder& child = child_holder(small);
                  clock.advance(1min);
                  return [&child] {
                    child.take(5);
                    if (child.held[0].seq().value != 0 || child.held[0].ack() != settled) _exit(1);
                    if (child.held[2].ack() != settled) _exit(1);
                  };
                },
                .check =
                    [&](SmallQueue& small, bool finished) {
                      // A late settlement is good if nobody took over before; else it is refused.
                      Seqs gone;
                      Seqs maybe{0, 2};
                      for (Delivery& delivery : late->held) {
                        const std::uint64_t seq = delivery.seq().value;
                        ASSERT_EQ(delivery.text(), text_of(seq));
                        if (delivery.ack() == settled) {
                          ASSERT_FALSE(finished) << "the lease had been taken over";
                          gone.insert(seq);
                          maybe.erase(seq);
                        }
                      }
                      late.reset();
                      expect_the_rest(
                          small, clock,
                          {.published = 8, .gone = gone, .maybe = maybe, .finished = finished});
                    },
                .states_max = 60});
}

TEST(StepShared, a_killed_ack_is_done_or_not) {
  FakeClock clock;
  run_campaign({.what = "ack in the window",
                .fresh = [] { return shared_queue(8); },
                .prepare = [](const SmallQueue& small) -> Stepper::Operation {
                  Holder& child = child_holder(small);
                  child.take(6);
                  return [&child] {
                    for (const std::size_t i : {0U, 3U, 2U, 5U}) {
                      if (child.held[i].ack() != settled) _exit(1);
                    }
                  };
                },
                .check =
                    [&](SmallQueue& small, bool finished) {
                      expect_the_rest(
                          small, clock,
                          {.published = 8, .maybe = {0, 2, 3, 5}, .finished = finished});
                    },
                .states_max = 40});
  run_campaign({.what = "ack in the straggler table",
                .fresh = [] { return shared_queue(4); },
                .prepare = [](const SmallQueue& small) -> Stepper::Operation {
                  Holder& child = holder_with_stragglers(small);
                  return [&child] {
                    for (const std::size_t i : {0U, 3U, 2U}) {
                      if (child.held[i].ack() != settled) _exit(1);
                    }
                  };
                },
                .check =
                    [&](SmallQueue& small, bool finished) {
                      expect_the_rest(small, clock,
                                      {.published = 20, .maybe = {0, 2, 3}, .finished = finished});
                    },
                .states_max = 40});
}

TEST(StepShared, a_killed_ack_through_settles_a_part) {
  FakeClock clock;
  run_campaign({.what = "ack_through, in table and window",
                .fresh = [] { return shared_queue(4); },
                .prepare = [](const SmallQueue& small) -> Stepper::Operation {
                  Holder& child = holder_with_stragglers(small);
                  child.take(4);
                  return [&child] {
                    if (child.consumer.ack_through({5}) != settled) _exit(1);
                  };
                },
                .check =
                    [&](SmallQueue& small, bool finished) {
                      expect_the_rest(
                          small, clock,
                          {.published = 20, .maybe = {0, 1, 2, 3, 4, 5}, .finished = finished});
                    },
                .states_max = 60});
}

TEST(StepShared, a_killed_nack_or_release_keeps_the_message) {
  FakeClock clock;
  const auto give_back = [](Holder& child) -> Stepper::Operation {
    return [&child] {
      if (child.held[0].nack() != settled) _exit(1);
      if (child.held[1].nack(5s) != settled) _exit(1);
      if (child.held[2].release() != settled) _exit(1);
    };
  };
  run_campaign({.what = "nack, nack with a delay, release in the window",
                .fresh = [] { return shared_queue(8); },
                .prepare =
                    [&](const SmallQueue& small) {
                      Holder& child = child_holder(small);
                      child.take(4);
                      return give_back(child);
                    },
                .check =
                    [&](SmallQueue& small, bool finished) {
                      if (finished) {
                        EXPECT_EQ(small.group().delayed, 1U);
                      }
                      expect_the_rest(small, clock, {.published = 8});
                    },
                .states_max = 80});
  run_campaign(
      {.what = "nack, nack with a delay, release in the straggler table",
       .fresh = [] { return shared_queue(4); },
       .prepare = [&](const SmallQueue& small) { return give_back(holder_with_stragglers(small)); },
       .check =
           [&](SmallQueue& small, bool finished) {
             if (finished) {
               EXPECT_EQ(small.group().delayed, 1U);
             }
             expect_the_rest(small, clock, {.published = 20});
           },
       .states_max = 80});
}

TEST(StepShared, a_killed_reject_leaves_the_message_dead_or_to_come_again) {
  FakeClock clock;
  for (const bool in_table : {false, true}) {
    const std::uint64_t published = in_table ? 20 : 8;
    run_campaign({.what = in_table ? "reject in the straggler table" : "reject in the window",
                  .fresh = [] { return shared_queue(4); },
                  .prepare = [in_table](const SmallQueue& small) -> Stepper::Operation {
                    Holder* child = nullptr;
                    if (in_table) {
                      child = &holder_with_stragglers(small);
                    } else {
                      child = &child_holder(small);
                      child->take(4);
                      publish_up_to(child->queue.producer(), 4, 8);
                    }
                    return [child] {
                      if (child->held[1].reject() != settled) _exit(1);
                      if (child->held[2].reject() != settled) _exit(1);
                    };
                  },
                  .check =
                      [&](SmallQueue& small, bool finished) {
                        ASSERT_TRUE(small.queue->reclaim());
                        const auto segment = segment_of(small);
                        Seqs dead;
                        for (const std::uint64_t seq : {1U, 2U}) {
                          if (lease_of(*segment, seq).state == shm::LeaseState::dead) {
                            dead.insert(seq);
                          }
                        }
                        ASSERT_EQ(small.group().dead, dead.size());
                        ASSERT_TRUE(!finished || dead.size() == 2);
                        // The dead go with a purge; the rest comes before.
                        clock.advance(2min);
                        auto consumer = small.consumer();
                        Seqs seen = dead;
                        for (;;) {
                          auto delivery = consumer.try_receive();
                          ASSERT_TRUE(delivery);
                          if (delivery->empty()) break;
                          ASSERT_EQ(delivery->text(), text_of(delivery->seq().value));
                          ASSERT_TRUE(seen.insert(delivery->seq().value).second);
                          ASSERT_EQ(delivery->ack(), settled);
                        }
                        ASSERT_EQ(seen.size(), published) << "lost";
                        consumer.close();
                        ASSERT_TRUE(small.queue->purge());
                        expect_the_rest(small, clock, {.published = published, .gone = seen});
                      },
                  .states_max = 40});
  }
}

TEST(StepShared, a_killed_extension_is_none_or_a_lease_that_ends_with_the_process) {
  FakeClock clock;
  for (const bool in_table : {false, true}) {
    run_campaign(
        {.what = in_table ? "extend in the straggler table" : "extend in the window",
         .fresh = [] { return shared_queue(4); },
         .prepare = [in_table](const SmallQueue& small) -> Stepper::Operation {
           Holder* child = nullptr;
           if (in_table) {
             child = &holder_with_stragglers(small);
           } else {
             child = &child_holder(small);
             child->take(4);
           }
           return [child] {
             if (child->held[1].extend() != settled) _exit(1);
             if (child->held[2].extend(10min) != settled) _exit(1);
           };
         },
         .check = [&](SmallQueue& small,
                      bool) { expect_the_rest(small, clock, {.published = in_table ? 20U : 4U}); },
         .states_max = 40});
  }
}

TEST(StepShared, a_killed_close_gives_back_what_it_had_not_yet_given_back) {
  FakeClock clock;
  run_campaign({.what = "close with leases in table and window",
                .fresh = [] { return shared_queue(4); },
                .prepare = [](const SmallQueue& small) -> Stepper::Operation {
                  Holder& child = holder_with_stragglers(small);
                  child.take(3);
                  return [&child] { child.consumer.close(); };
                },
                .check =
                    [&](SmallQueue& small, bool finished) {
                      if (finished) {
                        EXPECT_EQ(small.group().in_flight, 0U);
                      }
                      expect_the_rest(small, clock, {.published = 20});
                    },
                .states_max = 60});
}

}  // namespace
