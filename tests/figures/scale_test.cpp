// SPDX-License-Identifier: Apache-2.0
//
// How many consumers are wanted, for every kind of measurement.
#include "figures/scale.hpp"

#include <gtest/gtest.h>

#include "figures/metrics.hpp"

namespace {

using namespace shmq;
using namespace std::chrono_literals;
using figures::advise;

struct Measured {
  double arrivals = 0, drained = 0;
  std::uint64_t ready = 0;
  std::uint32_t consumers = 0;
  double busy = 0;
  bool always_ready = false;
  GroupMode mode = GroupMode::shared;
};

GroupFigures of(const Measured& measured) {
  GroupFigures figures;
  figures.group.mode = measured.mode;
  figures.group.ready = measured.ready;
  figures.group.consumers = measured.consumers;
  figures.span = 1s;
  figures.arrivals_per_second = measured.arrivals;
  figures.drained_per_second = measured.drained;
  figures.mean_consumers = measured.consumers;
  figures.mean_consumers_busy = measured.busy;
  figures.never_without_ready = measured.always_ready;
  return figures;
}

TEST(Scale, a_surge_against_saturated_workers) {
  // 10,000/s come, two workers drain 500/s each, 285,000 wait: gone in a minute.
  const auto advice = advise(of({.arrivals = 10'000,
                                 .drained = 1'000,
                                 .ready = 285'000,
                                 .consumers = 2,
                                 .busy = 1.7,
                                 .always_ready = true}),
                             {});
  EXPECT_DOUBLE_EQ(advice.per_consumer.value(), 500);
  EXPECT_EQ(advice.wanted, 30U);  // (10,000 + 4,750) / 500 = 29.5
  EXPECT_DOUBLE_EQ(advice.drain_seconds.value(), 57);
}

TEST(Scale, workers_that_are_idle_half_of_the_time_count_half) {
  const auto advice =
      advise(of({.arrivals = 1'000, .drained = 1'000, .consumers = 4, .busy = 2}), {});
  EXPECT_DOUBLE_EQ(advice.per_consumer.value(), 500);
  EXPECT_EQ(advice.wanted, 2U);
  EXPECT_DOUBLE_EQ(advice.drain_seconds.value(), 0);
}

TEST(Scale, workers_too_quick_to_be_met_at_work_stay_as_they_are) {
  EXPECT_EQ(advise(of({.arrivals = 900, .drained = 900, .consumers = 3}), {}).wanted, 3U);
}

TEST(Scale, an_error_of_measurement_is_no_reason_for_one_more) {
  const Measured measured{.arrivals = 1'002, .drained = 1'000, .consumers = 2, .busy = 2};
  EXPECT_EQ(advise(of(measured), {}).wanted, 2U);
}

TEST(Scale, what_may_wait_is_not_drained) {
  const Measured measured{.ready = 1'000, .consumers = 0};
  EXPECT_EQ(
      advise(of(measured), {.target_backlog = 400, .target_drain = 10s, .per_consumer = 10}).wanted,
      6U);
  EXPECT_EQ(advise(of(measured), {.target_backlog = 1'000, .per_consumer = 10}).wanted, 1U)
      << "what is there and what comes must be done by somebody";
}

TEST(Scale, nothing_to_do_needs_nobody_and_something_at_least_one) {
  EXPECT_EQ(advise(of({.consumers = 5}), {}).wanted, 0U);
  EXPECT_EQ(advise(of({.consumers = 5}), {.min = 2}).wanted, 2U);
  EXPECT_EQ(advise(of({.ready = 1}), {}).wanted, 1U);
  auto in_flight = of({.consumers = 5, .busy = 1});
  in_flight.group.in_flight = 1;
  EXPECT_GE(advise(in_flight, {}).wanted, 1U);
  auto delayed = of({});
  delayed.group.delayed = 1;
  EXPECT_EQ(advise(delayed, {}).wanted, 1U);
}

TEST(Scale, without_a_drain_nothing_is_claimed) {
  const auto advice = advise(of({.arrivals = 10, .ready = 100, .consumers = 3, .busy = 3}), {});
  EXPECT_FALSE(advice.per_consumer);
  EXPECT_FALSE(advice.drain_seconds);
  EXPECT_EQ(advice.wanted, 3U);
  EXPECT_NE(advice.why.find("nothing was drained"), std::string::npos);
}

TEST(Scale, a_maximum_that_is_too_low_says_that_it_never_drains) {
  const auto advice = advise(of({.arrivals = 1'000, .ready = 100, .consumers = 1}),
                             {.max = 2, .per_consumer = 500});
  EXPECT_EQ(advice.wanted, 2U);
  EXPECT_FALSE(advice.drain_seconds);
  EXPECT_NE(advice.why.find("never drains"), std::string::npos);
}

TEST(Scale, an_exclusive_group_has_one_that_works) {
  const auto advice = advise(of({.arrivals = 100,
                                 .drained = 200,
                                 .ready = 1'000,
                                 .consumers = 3,
                                 .busy = 0.4,
                                 .always_ready = true,
                                 .mode = GroupMode::exclusive}),
                             {.target_drain = 1s, .min = 2});
  EXPECT_DOUBLE_EQ(advice.per_consumer.value(), 200);
  EXPECT_EQ(advice.wanted, 2U) << "the minimum is the user's will";
  EXPECT_DOUBLE_EQ(advice.drain_seconds.value(), 10);
}

TEST(Metrics, names_from_a_damaged_segment_stay_inside_their_quotes) {
  GroupInfo group;
  group.name = "a\"} 1\n\\b\x80";
  const std::string text = figures::metrics_text(
      {{.queue = "q",
        .contents = figures::Reading::Contents{.info = {}, .stats = {}, .groups = {group}}}},
      nullptr);
  EXPECT_NE(text.find(R"(group="a\"} 1?\\b?")"), std::string::npos) << text;
}

}  // namespace
