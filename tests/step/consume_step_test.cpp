// SPDX-License-Identifier: Apache-2.0
//
// A consumer is killed at each distinct image of receive, ack, ack_through, nack and release (G5):
// a message is acked, or it comes again; nothing in between.
#include <gtest/gtest.h>

#include "support/step_campaign.hpp"

namespace {

using namespace shmq;
using namespace shmq::testing;

constexpr int messages = 8;

std::unique_ptr<SmallQueue> queue_with_messages() {
  auto small = std::make_unique<SmallQueue>();
  auto producer = small->producer();
  for (int i = 0; i < messages; ++i) (void)producer.publish("m" + std::to_string(i));
  return small;
}

struct Kept {
  Queue queue;
  Consumer consumer;
  std::vector<Delivery> batch{messages};
};

Kept& keep(const SmallQueue& small) {
  auto queue = small.open_again();
  auto consumer = queue->consumer("default");
  static Kept kept{std::move(*queue), std::move(*consumer)};
  return kept;
}

// Whatever the dead had done: what is not acked comes, in order, once each, up to the last.
// `surely_acked`: seqs that were acked before the operation; `maybe`: those that it acks.
void check_rest(SmallQueue& small, std::uint64_t floor_at_least, std::vector<std::uint64_t> maybe,
                bool finished) {
  auto consumer = small.consumer();
  std::vector<bool> seen(messages);
  std::uint64_t last = 0;
  bool any = false;
  for (;;) {
    auto delivery = consumer.receive(std::chrono::milliseconds{0});
    ASSERT_TRUE(delivery) << delivery.error().message();
    if (delivery->empty()) break;
    const std::uint64_t seq = delivery->seq().value;
    ASSERT_EQ(delivery->text(), "m" + std::to_string(seq));
    ASSERT_TRUE(!any || seq > last) << "order";
    ASSERT_GE(seq, floor_at_least) << "acked before";
    any = true;
    last = seq;
    seen[seq] = true;
    ASSERT_EQ(delivery->ack(), Settlement::settled);
  }
  for (std::uint64_t seq = floor_at_least; seq < messages; ++seq) {
    const bool may_be_acked = std::find(maybe.begin(), maybe.end(), seq) != maybe.end();
    ASSERT_TRUE(seen[seq] || may_be_acked) << "message " << seq << " is lost";
    ASSERT_FALSE(finished && may_be_acked && seen[seq]) << "acked, and came again: " << seq;
  }
  const auto info = small.group();
  ASSERT_EQ(info.floor.value, static_cast<std::uint64_t>(messages));
  consumer.close();
  expect_nothing_leaked(small);
  expect_two_laps(small);
}

TEST(StepConsume, a_killed_receive_takes_nothing_with_it) {
  run_campaign({.what = "receive_batch",
                .fresh = queue_with_messages,
                .prepare = [](const SmallQueue& small) -> Stepper::Operation {
                  Kept& kept = keep(small);
                  return [&kept] {
                    if (kept.consumer.receive_batch(kept.batch).value() != messages) _exit(1);
                  };
                },
                .check = [](SmallQueue& small, bool) { check_rest(small, 0, {}, false); }});
}

TEST(StepConsume, a_killed_ack_is_done_or_not) {
  run_campaign({.what = "ack in and out of order",
                .fresh = queue_with_messages,
                .prepare = [](const SmallQueue& small) -> Stepper::Operation {
                  Kept& kept = keep(small);
                  (void)kept.consumer.receive_batch(kept.batch);
                  return [&kept] {
                    for (const std::size_t i : {0U, 3U, 2U, 1U, 5U}) {
                      if (kept.batch[i].ack() != Settlement::settled) _exit(1);
                    }
                  };
                },
                .check =
                    [](SmallQueue& small, bool finished) {
                      check_rest(small, 0, {0, 1, 2, 3, 5}, finished);
                    }});
}

TEST(StepConsume, a_killed_ack_through_is_all_or_nothing) {
  run_campaign({.what = "ack_through",
                .fresh = queue_with_messages,
                .prepare = [](const SmallQueue& small) -> Stepper::Operation {
                  Kept& kept = keep(small);
                  (void)kept.consumer.receive_batch(kept.batch);
                  return [&kept] {
                    if (kept.consumer.ack_through({4}) != Settlement::settled) _exit(1);
                  };
                },
                .check =
                    [](SmallQueue& small, bool finished) {
                      const std::uint64_t floor = small.group().floor.value;
                      ASSERT_TRUE(floor == 0 || floor == 5) << floor;
                      check_rest(small, 0, {0, 1, 2, 3, 4}, finished);
                    }});
}

TEST(StepConsume, a_killed_nack_or_release_keeps_the_message) {
  run_campaign({.what = "nack and release",
                .fresh = queue_with_messages,
                .prepare = [](const SmallQueue& small) -> Stepper::Operation {
                  Kept& kept = keep(small);
                  (void)kept.consumer.receive_batch(kept.batch);
                  return [&kept] {
                    if (kept.batch[1].nack() != Settlement::settled) _exit(1);
                    if (kept.batch[0].release() != Settlement::settled) _exit(1);
                    if (kept.batch[2].extend() != Settlement::settled) _exit(1);
                  };
                },
                .check = [](SmallQueue& small, bool) { check_rest(small, 0, {}, false); }});
}

TEST(StepConsume, a_killed_redelivery_comes_again) {
  run_campaign({.what = "redelivery",
                .fresh = queue_with_messages,
                .prepare = [](const SmallQueue& small) -> Stepper::Operation {
                  Kept& kept = keep(small);
                  (void)kept.consumer.receive_batch(kept.batch);
                  (void)kept.batch[1].release();
                  (void)kept.batch[4].release();
                  return [&kept] {
                    std::vector<Delivery> again(2);
                    if (kept.consumer.receive_batch(again).value() != 2) _exit(1);
                    if (again[0].ack() != Settlement::settled) _exit(1);
                    if (again[1].ack() != Settlement::settled) _exit(1);
                  };
                },
                .check =
                    [](SmallQueue& small, bool finished) {
                      check_rest(small, 0, {1, 4}, finished);
                    }});
}

}  // namespace
