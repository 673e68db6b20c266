// SPDX-License-Identifier: Apache-2.0
//
// A producer is killed at each distinct image of publish, loan, commit and batch (G1, G2).
#include <gtest/gtest.h>

#include <cstring>

#include "support/step_campaign.hpp"

namespace {

using namespace shmq;
using namespace shmq::testing;

std::unique_ptr<SmallQueue> queue_with_two_messages() {
  auto small = std::make_unique<SmallQueue>();
  auto producer = small->producer();
  (void)producer.publish("before 0");
  (void)producer.publish("before 1");
  return small;
}

std::string marked(int i) {
  return std::string(700, static_cast<char>('A' + i)) + std::to_string(i);
}

// What must hold after any kill: the messages before are there; of those of the dead, a prefix,
// each whole; others publish and receive at once.
void check_prefix(SmallQueue& small, bool finished, int published_when_finished) {
  auto other = small.producer();
  ASSERT_TRUE(other.publish("after")) << "others never wait";
  auto consumer = small.consumer();
  std::uint64_t seq = 0;
  int whole = 0;
  for (const char* before : {"before 0", "before 1"}) {
    auto delivery = consumer.try_receive();
    ASSERT_TRUE(delivery && !delivery->empty());
    ASSERT_EQ(delivery->text(), before);
    ASSERT_EQ(delivery->seq().value, seq++);
    ASSERT_EQ(delivery->ack(), Settlement::settled);
  }
  for (;;) {
    auto delivery = consumer.try_receive();
    ASSERT_TRUE(delivery) << delivery.error().message();
    ASSERT_FALSE(delivery->empty());
    ASSERT_EQ(delivery->seq().value, seq++) << "no gap";
    if (delivery->text() == "after") {
      ASSERT_EQ(delivery->ack(), Settlement::settled);
      break;
    }
    ASSERT_EQ(delivery->text(), marked(whole)) << "wholly there or not at all";
    ASSERT_EQ(delivery->ack(), Settlement::settled);
    ++whole;
  }
  if (finished) {
    ASSERT_EQ(whole, published_when_finished);
  }
  ASSERT_LE(whole, published_when_finished);
  consumer.close();
  other.close();
  expect_nothing_leaked(small);
  expect_two_laps(small);
}

TEST(StepPublish, a_killed_publisher_leaves_a_whole_message_or_none) {
  run_campaign({.what = "publish",
                .fresh = queue_with_two_messages,
                .prepare = [](const SmallQueue& small) -> Stepper::Operation {
                  static auto queue = std::move(*small.open_again());
                  static auto producer = std::move(*queue.producer());
                  return [] {
                    for (int i = 0; i < 8; ++i) {
                      if (!producer.publish(marked(i))) _exit(1);
                    }
                  };
                },
                .check = [](SmallQueue& small, bool finished) { check_prefix(small, finished, 8); },
                .states_max = 2000});
}

TEST(StepPublish, a_killed_loan_is_published_whole_or_not_at_all) {
  run_campaign(
      {.what = "loan and commit",
       .fresh = queue_with_two_messages,
       .prepare = [](const SmallQueue& small) -> Stepper::Operation {
         static auto queue = std::move(*small.open_again());
         static auto producer = std::move(*queue.producer());
         return [] {
           for (int i = 0; i < 3; ++i) {
             const std::string text = marked(i);
             auto loan = producer.loan(text.size());
             std::memcpy(loan->bytes().data(), text.data(), text.size());
             if (!loan->commit()) _exit(1);
           }
           auto abandoned = producer.loan(3000);
         };
       },
       .check = [](SmallQueue& small, bool finished) { check_prefix(small, finished, 3); }});
}

TEST(StepPublish, a_killed_batch_leaves_a_prefix) {
  run_campaign(
      {.what = "publish_batch",
       .fresh = queue_with_two_messages,
       .prepare = [](const SmallQueue& small) -> Stepper::Operation {
         static auto queue = std::move(*small.open_again());
         static auto producer = std::move(*queue.producer());
         static std::vector<std::string> texts{marked(0), marked(1), marked(2), marked(3)};
         static std::vector<std::span<const std::byte>> payloads;
         for (const auto& text : texts) payloads.push_back(std::as_bytes(std::span{text}));
         return [] {
           if (producer.publish_batch(payloads).published != 4) _exit(1);
         };
       },
       .check = [](SmallQueue& small, bool finished) { check_prefix(small, finished, 4); }});
}

// STALL: stopped instead of killed. The others go on for two laps; the late message is a new one.
TEST(StallPublish, a_stopped_publisher_delays_nobody_and_its_message_arrives_whole) {
  if (!Stepper::available()) GTEST_SKIP() << "ptrace is refused here";
  const auto prepare = [](const SmallQueue& small) -> Stepper::Operation {
    static auto queue = std::move(*small.open_again());
    static auto producer = std::move(*queue.producer());
    // Made here: how many instructions an allocation takes depends on the heap of the moment.
    static const std::string first = marked(0), second = marked(1);
    return [] {
      if (!producer.publish(first)) _exit(1);
      if (!producer.publish(second)) _exit(1);
    };
  };
  std::vector<std::uint64_t> states;
  {
    SmallQueue small;
    states =
        Stepper{"shmq." + small.scratch.name_space + ".q", [&] { return prepare(small); }}.record();
  }
  std::uint64_t stalls = 0;
  for (const std::uint64_t state : states) {
    SCOPED_TRACE("stopped after " + std::to_string(state) + " instructions");
    SmallQueue small;
    Stepper stepper{"shmq." + small.scratch.name_space + ".q", [&] { return prepare(small); }};
    ASSERT_TRUE(stepper.run_for(state));
    auto producer = small.producer();
    auto consumer = small.consumer();
    int late = 0;
    const auto receive_all = [&] {
      for (;;) {
        auto delivery = consumer.try_receive();
        ASSERT_TRUE(delivery) << delivery.error().message();
        if (delivery->empty()) break;
        if (delivery->text() != std::string(900, 'o')) {
          ASSERT_EQ(delivery->text(), marked(late));
          ++late;
        }
        ASSERT_EQ(delivery->ack(), Settlement::settled);
      }
    };
    for (int lap = 0; lap < 5; ++lap) {  // two of the ring, more than one of the arena
      for (int i = 0; i < 14; ++i) ASSERT_TRUE(producer.publish(std::string(900, 'o')));
      receive_all();
      if (HasFatalFailure()) return;
    }
    ASSERT_TRUE(stepper.resume()) << "the late publish went wrong";
    for (int i = 0; i < 4; ++i) ASSERT_TRUE(producer.publish(std::string(900, 'o')));
    receive_all();
    if (HasFatalFailure()) return;
    ASSERT_EQ(late, 2);
    ++stalls;
  }
  std::printf("%llu stalls, each checked\n", static_cast<unsigned long long>(stalls));
  ASSERT_GT(stalls, 20U);
}

}  // namespace
