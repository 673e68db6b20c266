// SPDX-License-Identifier: Apache-2.0
//
// Runs of chunks for large messages, among small ones that take every chunk as it comes free.
#include <gtest/gtest.h>

#include "base/clock.hpp"
#include "support/small_queue.hpp"

namespace {

using namespace shmq;
using namespace std::chrono_literals;
using shmq::testing::SmallQueue;

constexpr std::uint64_t start_ns = 1'000'000'000'000;
std::uint64_t fake_ns = start_ns;

class Runs : public ::testing::Test {
 protected:
  Runs() {
    fake_ns = start_ns;
    base::clock = &clock_;
  }
  ~Runs() override { base::clock = &base::system_clock; }

  static QueueOptions options(Overflow overflow) {
    QueueOptions chosen = SmallQueue::options(overflow);
    chosen.slots = chosen.window_entries = 1024;
    return chosen;
  }
  // Small ones until there is no room, by a producer that never waits.
  static int fill(Producer& producer) {
    int published = 0;
    while (producer.publish(small, no_wait)) ++published;
    return published;
  }
  // Settles the messages of a chunk; the one before it, no longer pinned, comes free.
  static void free_a_chunk(Consumer& consumer) {
    for (int i = 0; i < 4; ++i) {
      auto delivery = consumer.try_receive();
      if (!delivery || delivery->empty()) return;
      ASSERT_EQ(delivery->ack(), Settlement::settled);
    }
  }

  static inline const std::string small = std::string(900, 's');   // four in a chunk of 4 KiB
  static inline const std::string large = std::string(7000, 'l');  // two chunks
  static inline const PublishOptions no_wait{.timeout = 0ns};

 private:
  base::Clock clock_{[]() noexcept { return fake_ns; }, []() noexcept { return fake_ns; },
                     base::system_clock.realtime_ns};
};

TEST_F(Runs, small_messages_that_take_each_free_chunk_do_not_starve_a_large_one) {
  SmallQueue queue{options(Overflow::block)};
  auto small_producer = queue.producer();
  auto large_producer = queue.producer();
  auto consumer = queue.consumer();
  ASSERT_GT(fill(small_producer), 40);
  int looks = 0;
  // Two laps of the arena, the small producer being the first at each chunk.
  for (; looks < 32; ++looks) {
    if (large_producer.publish(large, no_wait)) break;
    free_a_chunk(consumer);
    fill(small_producer);
    fake_ns += 1'000'000;
  }
  EXPECT_LT(looks, 32) << "no two neighbours were ever left free";
  // What was kept free for it is there for everybody again.
  for (int i = 0; i < 8; ++i) free_a_chunk(consumer);
  EXPECT_GT(fill(small_producer), 20);
}

TEST_F(Runs, chunks_gathered_by_one_who_gave_up_are_used_again) {
  SmallQueue queue{options(Overflow::block)};
  auto small_producer = queue.producer();
  auto consumer = queue.consumer();
  ASSERT_GT(fill(small_producer), 40);
  ASSERT_EQ(queue.producer().publish(large, no_wait).code(), Errc::full);
  for (;;) {
    auto delivery = consumer.try_receive();
    if (delivery->empty()) break;
    ASSERT_EQ(delivery->ack(), Settlement::settled);
  }
  const int kept_out = fill(small_producer);
  fake_ns += 300'000'000;
  EXPECT_GE(fill(small_producer), 8) << "two chunks, after " << kept_out;
}

TEST_F(Runs, where_nobody_waits_small_messages_take_them_before_they_fail) {
  SmallQueue queue{options(Overflow::fail)};
  auto small_producer = queue.producer();
  auto consumer = queue.consumer();
  const int first = fill(small_producer);
  ASSERT_EQ(queue.producer().publish(large, no_wait).code(), Errc::full);
  for (;;) {
    auto delivery = consumer.try_receive();
    if (delivery->empty()) break;
    ASSERT_EQ(delivery->ack(), Settlement::settled);
  }
  EXPECT_GE(fill(small_producer), first - 4);
}

}  // namespace
