// SPDX-License-Identifier: Apache-2.0
//
// STEP: an operation is killed for real at each distinct state that it goes through; each time, on
// a fresh queue, others check with the real code what must hold.
#pragma once

#include <gtest/gtest.h>

#include <cstdio>
#include <cstdlib>
#include <functional>
#include <memory>

#include "support/small_queue.hpp"
#include "support/stepper.hpp"

namespace shmq::testing {

inline bool long_run() { return std::getenv("SHMQ_LONG") != nullptr; }

/// About `at_most` of the states, evenly; all of them in a long run.
inline std::vector<std::uint64_t> sampled(const std::vector<std::uint64_t>& states,
                                          std::size_t at_most) {
  const std::size_t stride = long_run() ? 1 : std::max<std::size_t>(1, states.size() / at_most);
  std::vector<std::uint64_t> chosen;
  for (std::size_t i = 0; i < states.size(); i += stride) chosen.push_back(states[i]);
  return chosen;
}

struct Campaign {
  const char* what;
  /// Makes the state that the operation starts from.
  std::function<std::unique_ptr<SmallQueue>()> fresh;
  /// In the child: gives the operation.
  std::function<Stepper::Operation(const SmallQueue&)> prepare;
  /// After the kill, in the parent. `finished`: the operation had come to its end.
  std::function<void(SmallQueue&, bool finished)> check;
  /// At most so many of the states, evenly; all of them in a long run.
  std::size_t states_max = 400;
};

inline void run_campaign(const Campaign& campaign) {
  if (!Stepper::available()) GTEST_SKIP() << "ptrace is refused here";
  std::vector<std::uint64_t> states;
  std::uint64_t instructions = 0;
  {
    auto small = campaign.fresh();
    Stepper stepper{"shmq." + small->scratch.name_space + ".q",
                    [&] { return campaign.prepare(*small); }};
    states = stepper.record();
    instructions = stepper.instructions();
    stepper.kill();
    campaign.check(*small, true);
  }
  ASSERT_FALSE(states.empty());
  std::uint64_t kills = 0;
  for (const std::uint64_t state : sampled(states, campaign.states_max)) {
    SCOPED_TRACE(std::string{campaign.what} + " killed after " + std::to_string(state) +
                 " instructions");
    auto small = campaign.fresh();
    Stepper stepper{"shmq." + small->scratch.name_space + ".q",
                    [&] { return campaign.prepare(*small); }};
    const bool stopped = stepper.run_for(state);
    stepper.kill();
    ++kills;
    campaign.check(*small, !stopped);
    if (::testing::Test::HasFailure()) return;
  }
  std::printf("%s: %llu instructions, %llu distinct states, %llu kills, each checked\n",
              campaign.what, static_cast<unsigned long long>(instructions),
              static_cast<unsigned long long>(states.size()),
              static_cast<unsigned long long>(kills));
  ASSERT_GT(kills, 0U);
}

/// Nothing of the dead is left, and the whole capacity is there.
inline void expect_nothing_leaked(SmallQueue& small, std::size_t living = 0) {
  ASSERT_TRUE(small.queue->reclaim());
  EXPECT_EQ(small.queue->participants().size(), living);
  if (living == 0) {
    EXPECT_EQ(small.queue->stats().chunks_open, 0U);
    EXPECT_EQ(small.queue->stats().chunks_pinned, 0U);
  }
}

/// Publishes until the ring is full twice, everything consumed by all groups.
inline void expect_two_laps(SmallQueue& small) {
  const auto slots = static_cast<int>(small.queue->info().slots);
  auto producer = small.producer();
  for (const auto& info : small.queue->groups()) {
    auto consumer = small.consumer(info.name);
    while (small.group(info.name).floor < small.queue->stats().tail) {
      auto delivery = consumer.receive(std::chrono::seconds{10});  // some may be delayed
      ASSERT_TRUE(delivery && !delivery->empty());
      ASSERT_EQ(delivery->ack(), Settlement::settled);
    }
  }
  for (int lap = 0; lap < 2; ++lap) {
    for (int i = 0; i < slots; ++i) ASSERT_TRUE(producer.publish(std::string(900, 'l')));
    if (small.queue->info().overflow != Overflow::drop_oldest) {
      ASSERT_EQ(producer.publish("m").code(), Errc::full);
    }
    for (const auto& info : small.queue->groups()) {
      auto consumer = small.consumer(info.name);
      for (int i = 0; i < slots; ++i) {
        auto delivery = consumer.try_receive();
        ASSERT_TRUE(delivery && !delivery->empty());
        ASSERT_EQ(delivery->text(), std::string(900, 'l'));
        ASSERT_EQ(delivery->ack(), Settlement::settled);
      }
    }
  }
}

}  // namespace shmq::testing
