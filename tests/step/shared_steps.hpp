// SPDX-License-Identifier: Apache-2.0
//
// What the STEP tests of shared groups have in common: a queue with messages 0, 1, 2 …, a consumer
// of the child's, a living consumer of the parent's, and what must hold after any kill.
#pragma once

#include <set>

#include "support/fake_clock.hpp"
#include "support/shared_look.hpp"
#include "support/step_campaign.hpp"

namespace shmq::testing {

using Seqs = std::set<std::uint64_t>;

inline std::string text_of(std::uint64_t seq) {
  return "m" + std::to_string(seq) + std::string(100, static_cast<char>('a' + seq % 26));
}

inline void publish_up_to(Producer& producer, std::uint64_t first, std::uint64_t end) {
  for (std::uint64_t seq = first; seq < end; ++seq) {
    const auto result = producer.publish(text_of(seq));
    if (!result || result.seq().value != seq) throw std::runtime_error{"the setting failed"};
  }
}

inline void publish_up_to(Result<Producer> producer, std::uint64_t first, std::uint64_t end) {
  publish_up_to(producer.value(), first, end);
}

inline std::unique_ptr<SmallQueue> shared_queue(std::uint64_t published,
                                                Overflow overflow = Overflow::fail,
                                                std::uint64_t slots = 16) {
  QueueOptions options = SmallQueue::options(
      overflow, {{.name = "default", .mode = GroupMode::shared, .delivery_limit = 60}});
  options.slots = slots;
  auto small = std::make_unique<SmallQueue>(options);
  auto producer = small->producer();
  publish_up_to(producer, 0, published);
  return small;
}

/// A consumer with what it holds, of the child (never destroyed there) or of the parent.
struct Holder {
  explicit Holder(const SmallQueue& small)
      : queue(std::move(*small.open_again())), consumer(std::move(*queue.consumer("default"))) {}
  // Takes `count` more, each in a delivery of its own.
  void take(std::size_t count) {
    for (std::size_t i = 0; i < count; ++i) {
      auto delivery = consumer.try_receive();
      if (!delivery || delivery->empty()) throw std::runtime_error{"the setting failed"};
      held.push_back(std::move(*delivery));
    }
  }
  Queue queue;
  Consumer consumer;
  std::vector<Delivery> held;
};

/// In a child: lives until the kill.
inline Holder& child_holder(const SmallQueue& small) { return *new Holder{small}; }

struct After {
  std::uint64_t published = 0;
  Seqs gone{};   // settled before the operation: never seen again
  Seqs maybe{};  // the operation settles these: gone, or handed out again
  bool finished = false;
  std::size_t living = 0;  // participants of the parent
};

/// Reclaims; then what is not gone comes, to two consumers that hold it all at once, each message
/// to one of them; then nothing is left, and the capacity is whole.
inline void expect_the_rest(SmallQueue& small, FakeClock& clock, const After& after) {
  ASSERT_TRUE(small.queue->reclaim());
  ASSERT_EQ(small.queue->reclaim().value(), 0U) << "twice changes nothing";
  expect_no_trace_of_the_dead(small);
  clock.advance(std::chrono::minutes{2});  // every lease and delay is over
  {
    auto one = small.consumer();
    auto two = small.consumer();
    std::vector<Delivery> held;
    Seqs seen;
    for (bool more = true; more;) {
      more = false;
      for (Consumer* consumer : {&one, &two}) {
        auto delivery = consumer->try_receive();
        ASSERT_TRUE(delivery) << delivery.error().message();
        if (delivery->empty()) continue;
        more = true;
        const std::uint64_t seq = delivery->seq().value;
        ASSERT_LT(seq, after.published);
        ASSERT_EQ(delivery->text(), text_of(seq));
        ASSERT_TRUE(seen.insert(seq).second) << "two valid leases of message " << seq;
        ASSERT_FALSE(after.gone.contains(seq)) << "settled, and came again: " << seq;
        ASSERT_FALSE(after.finished && after.maybe.contains(seq)) << "came again: " << seq;
        held.push_back(std::move(*delivery));
      }
    }
    for (std::uint64_t seq = 0; seq < after.published; ++seq) {
      ASSERT_TRUE(seen.contains(seq) || after.gone.contains(seq) || after.maybe.contains(seq))
          << "message " << seq << " is lost";
    }
    ASSERT_EQ(small.group().in_flight, held.size());
    for (Delivery& delivery : held) ASSERT_EQ(delivery.ack(), Settlement::settled);
    held.clear();
    ASSERT_TRUE(one.try_receive()->empty());  // an idle look moves the floor
    ASSERT_TRUE(two.try_receive()->empty());
  }
  ASSERT_EQ(small.group().floor.value, after.published);
  ASSERT_EQ(look_at_group(*segment_of(small)).in_table, 0U) << "the table is not empty";
  expect_nothing_leaked(small, after.living);
  expect_two_laps(small);
}

}  // namespace shmq::testing
