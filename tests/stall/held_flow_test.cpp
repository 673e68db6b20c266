// SPDX-License-Identifier: Apache-2.0
//
// 64 messages are held, each in a chunk of its own, and 1,000 are nacked with a delay, while many
// others pass (G10, G11): the producers are never stopped, the held bytes stay as they are, and all
// that is delayed comes back, once, and not too early. Short by default; SHMQ_LONG=1: 20 million
// others, 60 s of real time, and the rate beside the one without.
#include <gtest/gtest.h>

#include <algorithm>
#include <map>

#include "support/fake_clock.hpp"
#include "support/shared_look.hpp"
#include "support/small_queue.hpp"
#include "support/step_campaign.hpp"

namespace {

using namespace shmq;
using namespace shmq::testing;
using namespace std::chrono_literals;

constexpr std::size_t held_count = 64;
constexpr std::size_t delayed_count = 1000;
constexpr auto delay = 60s;
constexpr auto lease = 1s;
constexpr std::size_t batch_size = 256;

struct Shape {
  const char* name;
  std::uint64_t arena_bytes;
  std::uint32_t chunk_bytes;
  std::size_t payload_bytes;
  bool far_apart;  // each delayed one in a chunk of its own
  std::uint64_t others;
};

std::string held_text(std::size_t i, std::uint32_t chunk_bytes) {
  return "held " + std::to_string(i) +
         std::string(chunk_bytes * 2 / 3, static_cast<char>('A' + i % 26));
}
std::string delayed_text(std::size_t i) {
  return "delayed " + std::to_string(i) + std::string(90, 'd');
}

std::uint64_t coarse_ns() { return base::clock->coarse_ns(); }
double seconds_now() { return static_cast<double>(base::clock->monotonic_ns()) * 1e-9; }

QueueOptions options_of(const Shape& shape) {
  QueueOptions options = SmallQueue::options(
      Overflow::block, {{.name = "default", .mode = GroupMode::shared, .lease = lease}});
  options.slots = 1024;
  options.arena_bytes = shape.arena_bytes;
  options.chunk_bytes = shape.chunk_bytes;
  options.window_entries = 1024;
  options.straggler_entries = 4096;
  return options;
}

class Flow {
 public:
  explicit Flow(const Shape& shape)
      : shape_(shape), small(options_of(shape)), other_(shape.payload_bytes, 'o') {}

  // The holder keeps these; every second one is extended again and again, the others are lost.
  void hold() {
    for (std::size_t i = 0; i < held_count; ++i) {
      ASSERT_TRUE(producer_.publish(held_text(i, shape_.chunk_bytes), {.timeout = 5s}));
      auto delivery = holder_.try_receive();
      ASSERT_TRUE(delivery && !delivery->empty());
      held_.push_back(std::move(*delivery));
    }
  }
  void extend_some() {
    for (std::size_t i = 0; i < held_.size(); i += 2) {
      ASSERT_EQ(held_[i].extend(), Settlement::settled) << i;
    }
  }
  void nack_many() {
    const std::size_t between =
        shape_.far_apart ? shape_.chunk_bytes / (shape_.payload_bytes + 24) + 1 : 0;
    for (std::size_t i = 0; i < delayed_count; ++i) {
      ASSERT_TRUE(publish(delayed_text(i)))
          << "the producer is stopped by " << i << " delayed ones";
      for (std::size_t k = 0; k < between; ++k) {
        if (k % batch_size == batch_size - 1) work();
        ASSERT_TRUE(publish(other_)) << "the producer is stopped by " << i << " delayed ones";
      }
      work();
      if (i % 16 == 0) extend_some();  // in real time this may take longer than a lease
      if (::testing::Test::HasFatalFailure()) return;
    }
    ASSERT_EQ(nacked_at_.size(), delayed_count);
  }
  void pass(std::size_t count) {
    for (std::size_t i = 0; i < count; ++i)
      ASSERT_TRUE(publish(other_)) << "the producer is stopped";
    work();
  }
  // Receives what there is, and settles it: the delayed ones by nack for the first time, the rest
  // by ack.
  void work() {
    for (;;) {
      const auto count = worker_.receive_batch(batch_, 0ns);
      ASSERT_TRUE(count) << count.error().message();
      if (*count == 0) return;
      for (std::size_t i = 0; i < *count; ++i) {
        take(batch_[i]);
        if (::testing::Test::HasFatalFailure()) return;
      }
    }
  }
  void expect_held_whole() {
    for (std::size_t i = 0; i < held_.size(); ++i) {
      ASSERT_EQ(held_[i].text(), held_text(i, shape_.chunk_bytes)) << "held bytes changed";
    }
  }
  void end() {
    expect_held_whole();
    if (::testing::Test::HasFatalFailure()) return;
    for (std::size_t i = 0; i < held_.size(); ++i) {
      ASSERT_EQ(held_[i].ack(), i % 2 == 0 ? Settlement::settled : Settlement::lease_lost) << i;
    }
    held_.clear();
    ASSERT_EQ(came_back_.size(), delayed_count);
    ASSERT_EQ(lost_and_found_, held_count / 2) << "each expired one was handed out once";
    work();
    ASSERT_EQ(small.group().floor, small.queue->stats().tail);
    ASSERT_EQ(look_at_group(*segment_of(small)).in_table, 0U);
  }
  [[nodiscard]] std::size_t came_back() const { return came_back_.size(); }
  [[nodiscard]] std::uint64_t others() const { return others_; }

 private:
  bool publish(const std::string& text) {
    return producer_.publish(text, {.timeout = 2s}).has_value();
  }
  void take(Delivery& delivery) {
    const std::string_view text = delivery.text();
    if (text.starts_with("delayed ")) {
      const std::size_t i = std::strtoull(text.data() + 8, nullptr, 10);
      ASSERT_EQ(text, delayed_text(i));
      if (delivery.failures() == 0) {
        nacked_at_[i] = coarse_ns();
        ASSERT_EQ(delivery.nack(delay), Settlement::settled);
        return;
      }
      ASSERT_GE(coarse_ns() - nacked_at_.at(i), static_cast<std::uint64_t>(delay / 1ns)) << "early";
      ASSERT_TRUE(came_back_.insert({i, true}).second) << "twice: " << i;
    } else if (text.starts_with("held ")) {
      const std::size_t i = std::strtoull(text.data() + 5, nullptr, 10);
      ASSERT_EQ(i % 2, 1U) << "a valid lease was lost";
      ASSERT_EQ(text, held_text(i, shape_.chunk_bytes));
      ++lost_and_found_;
    } else {
      ASSERT_EQ(text.size(), other_.size());
      ++others_;
    }
    ASSERT_EQ(delivery.ack(), Settlement::settled);
  }

  const Shape shape_;

 public:
  SmallQueue small;

 private:
  Producer producer_ = small.producer();
  Consumer holder_ = small.consumer();
  Consumer worker_ = small.consumer();
  const std::string other_;
  std::vector<Delivery> held_;
  std::vector<Delivery> batch_{batch_size};
  std::map<std::size_t, std::uint64_t> nacked_at_;
  std::map<std::size_t, bool> came_back_;
  std::size_t lost_and_found_ = 0;
  std::uint64_t others_ = 0;
};

class HeldFlow : public ::testing::TestWithParam<Shape> {};

TEST_P(HeldFlow, stops_nobody_and_keeps_every_byte) {
  FakeClock clock;
  Flow flow{GetParam()};
  flow.hold();
  if (!HasFatalFailure()) flow.nack_many();
  // The delay passes in small steps, and some more.
  const auto step = std::chrono::nanoseconds{66s} / (GetParam().others / batch_size + 1);
  for (std::uint64_t i = 0; i <= GetParam().others / batch_size && !HasFatalFailure(); ++i) {
    clock.advance(step);
    flow.extend_some();
    if (!HasFatalFailure()) flow.pass(batch_size);
  }
  for (int i = 0; i < 8 && !HasFatalFailure(); ++i) {  // those that were nacked last
    clock.advance(lease / 2);
    flow.extend_some();
    flow.work();
  }
  if (HasFatalFailure()) return;
  flow.end();
  std::printf("%s: %llu others passed 64 held and 1,000 delayed ones\n", GetParam().name,
              static_cast<unsigned long long>(flow.others()));
}

INSTANTIATE_TEST_SUITE_P(
    Arenas, HeldFlow,
    ::testing::Values(Shape{"close_small_arena", 1 << 20, 4096, 500, false, 100'000},
                      Shape{"close_large_arena", 64 << 20, 256 << 10, 1000, false, 100'000},
                      Shape{"far_small_arena", 1 << 20, 4096, 500, true, 100'000},
                      Shape{"far_large_arena", 64 << 20, 256 << 10, 1000, true, 100'000}),
    [](const auto& tested) { return std::string{tested.param.name}; });

TEST(HeldFlowLong, twenty_million_others_pass_in_real_time) {
  if (!long_run()) GTEST_SKIP() << "SHMQ_LONG=1 for this";
  constexpr std::uint64_t count = 20'000'000;
  const Shape shape{"long", 64 << 20, 256 << 10, 64, true, count};
  const auto rate_of = [&](Flow& flow, std::uint64_t messages) {
    const double begin = seconds_now();
    for (std::uint64_t i = 0; i < messages / batch_size && !HasFatalFailure(); ++i) {
      flow.pass(batch_size);
      if (i % 1024 == 0) flow.extend_some();
    }
    return static_cast<double>(messages) / (seconds_now() - begin);
  };
  double without = 0;
  {
    Flow plain{shape};
    without = rate_of(plain, count / 4);
  }
  Flow flow{shape};
  flow.hold();
  if (!HasFatalFailure()) flow.nack_many();
  if (HasFatalFailure()) return;
  const double with = rate_of(flow, count);
  const double end = seconds_now() + 75;
  while (flow.came_back() < delayed_count && seconds_now() < end && !HasFatalFailure()) {
    flow.pass(batch_size);
    flow.extend_some();
  }
  if (HasFatalFailure()) return;
  flow.end();
  std::printf("others: %.2f million/s, without held and delayed ones %.2f, ratio %.2f\n",
              with * 1e-6, without * 1e-6, with / without);
}

}  // namespace
