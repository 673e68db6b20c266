// SPDX-License-Identifier: Apache-2.0
//
// What must not be done on every message, counted.
#include <gtest/gtest.h>

#include <atomic>
#include <thread>

#include "base/mutant.hpp"
#include "support/small_queue.hpp"

namespace {
using namespace shmq;
using namespace std::chrono_literals;
using shmq::testing::SmallQueue;

// A producer that has to wait moves leases of 30 s, given out microseconds ago, to the table.
TEST(Costs, fresh_leases_of_busy_consumers_are_not_evicted) {
#ifdef SHMQ_CRASH_POINTS
  auto options =
      SmallQueue::options(Overflow::block, {{.name = "default", .mode = GroupMode::shared}});
  options.slots = 1024;
  options.window_entries = 4096;
  options.straggler_entries = 4096;
  options.arena_bytes = 4 << 20;
  options.chunk_bytes = 64 << 10;
  SmallQueue small{options};
  static std::atomic<std::uint64_t> evictions{0};
  base::crash_hook = [](const char* point) {
    if (std::string_view{point} == "evict.moved") ++evictions;
  };
  constexpr int messages = 400000;
  std::atomic<int> left{messages};
  const auto consume = [&] {
    auto consumer = small.consumer();
    std::vector<Delivery> batch(32);
    while (left > 0) {
      const auto count = consumer.receive_batch(batch, 20ms);
      for (std::size_t i = 0; i < *count; ++i) {
        (void)batch[i].ack();
        --left;
      }
    }
  };
  std::thread one{consume};
  std::thread two{consume};
  auto producer = small.producer();
  for (int i = 0; i < messages; ++i) ASSERT_TRUE(producer.publish("0123456789"));
  one.join();
  two.join();
  base::crash_hook = nullptr;
  std::printf("%lu evictions for %d messages\n", evictions.load(), messages);
  EXPECT_LT(evictions, messages / 100U);
#endif
}

}  // namespace
