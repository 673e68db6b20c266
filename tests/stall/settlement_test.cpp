// SPDX-License-Identifier: Apache-2.0
//
// A settlement is stopped before each of its instructions, while the group goes on for two laps of
// the window; the lease is valid all the time, so the settlement must succeed.
#include <gtest/gtest.h>
#include <unistd.h>

#include <cstdlib>
#include <functional>

#include "support/small_queue.hpp"
#include "support/stepper.hpp"

namespace {

using namespace shmq;
using shmq::testing::SmallQueue;
using shmq::testing::Stepper;

void stop_everywhere(const std::function<Settlement(Delivery&)>& settle) {
  if (!Stepper::available()) GTEST_SKIP() << "ptrace is refused here";
  // The looks at window and table come first.
  const std::uint64_t end = std::getenv("SHMQ_LONG") != nullptr ? 100000 : 120;
  int lost = 0;
  for (std::uint64_t n = 1; n < end; ++n) {
    SmallQueue small{
        Overflow::fail,
        {{.name = "default", .mode = GroupMode::shared, .lease = std::chrono::hours{1}}}};
    auto producer = small.producer();
    ASSERT_TRUE(producer.publish("m"));
    Stepper stepper{
        "shmq." + small.scratch.name_space + ".q", [&] {
          auto queue = std::make_shared<Queue>(std::move(*small.open_again()));
          auto consumer = std::make_shared<Consumer>(std::move(*queue->consumer("default")));
          auto delivery = std::make_shared<Delivery>(std::move(*consumer->try_receive()));
          if (delivery->empty()) _exit(9);
          return [settle, queue, consumer, delivery] {
            const Settlement done = settle(*delivery);
            _exit(done == Settlement::settled ? 0 : 1);
          };
        }};
    if (!stepper.run_for(n)) break;
    auto consumer = small.consumer();
    for (int i = 0; i < 40; ++i) {
      (void)producer.publish("n");
      auto delivery = consumer.try_receive();
      if (!delivery->empty()) (void)delivery->ack();
    }
    if (small.group().floor.value < 20) break;
    if (!stepper.resume()) {
      ++lost;
      ADD_FAILURE() << "refused when stopped before instruction " << n;
      if (lost > 3) break;
    }
  }
}

TEST(Stall, an_ack_of_a_valid_lease_is_not_refused) {
  stop_everywhere([](Delivery& delivery) { return delivery.ack(); });
}
TEST(Stall, a_nack_of_a_valid_lease_is_not_refused) {
  stop_everywhere([](Delivery& delivery) { return delivery.nack(std::chrono::hours{1}); });
}
TEST(Stall, an_extension_of_a_valid_lease_is_not_refused) {
  stop_everywhere([](Delivery& delivery) { return delivery.extend(); });
}

}  // namespace
