// SPDX-License-Identifier: Apache-2.0
#include "tools/shmq-scaler/planner.hpp"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <functional>
#include <vector>

namespace shmq_scaler {
namespace {

/// A group, its workers and the planner, in steps of a second.
struct Simulation {
  Simulation(const Limits& limits, double acks_per_worker_and_second)
      : per_worker_s{acks_per_worker_and_second}, planner{limits} {}

  double per_worker_s;
  Planner planner;
  Sample now{};
  double acked = 0;
  double peak_ready = 0;
  std::vector<unsigned> history;

  /// One second: `arrive` messages come, the workers do what they can, the planner says how many.
  void second(std::uint64_t arrive) {
    now.time_s += 1;
    now.published_total += arrive;
    const double backlog = static_cast<double>(now.published_total) - acked;
    acked += std::min(backlog, per_worker_s * now.consumers);
    now.acked_total = static_cast<std::uint64_t>(acked);
    const std::uint64_t left = now.published_total - now.acked_total;
    now.in_flight = std::min<std::uint64_t>(left, now.consumers);
    now.ready = left - now.in_flight;
    peak_ready = std::max(peak_ready, static_cast<double>(now.ready));
    now.workers = now.consumers = planner.plan(now).workers;
    history.push_back(now.workers);
  }
  void seconds(int count, std::uint64_t arrive) {
    for (int i = 0; i < count; ++i) second(arrive);
  }
  [[nodiscard]] int changes() const {
    int count = 0;
    for (std::size_t i = 1; i < history.size(); ++i) count += history[i] != history[i - 1] ? 1 : 0;
    return count;
  }
};

TEST(Planner, the_first_message_starts_one_worker_at_once) {
  Simulation queue{{.max_workers = 8}, 10};
  queue.seconds(100, 0);
  EXPECT_EQ(queue.now.workers, 0U);
  queue.second(1);
  EXPECT_EQ(queue.now.workers, 1U);
}

TEST(Planner, a_surge_is_levelled_from_zero_and_back_to_zero) {
  // 10,000 a second for 60 s, workers that do 500 a second each.
  Simulation queue{{.max_workers = 40, .drain_s = 30, .down_after_s = 30}, 500};
  queue.seconds(60, 10000);
  EXPECT_GE(queue.now.workers, 20U) << "less than what arrives";
  const double backlog = static_cast<double>(queue.now.ready);
  int drained_s = 0;
  while (queue.now.ready > 0 && drained_s < 300) {
    queue.second(0);
    ++drained_s;
  }
  EXPECT_LE(drained_s, 36) << "of " << backlog << " messages";
  queue.seconds(40, 0);
  EXPECT_EQ(queue.now.workers, 0U);
  EXPECT_EQ(queue.now.acked_total, 600000U);
}

TEST(Planner, the_number_is_backlog_over_drain_time_and_rate) {
  // 12,000 stand there, nothing comes: 12,000 / 60 s / 10 per second = 20 workers, less what the
  // first few have done until their rate is believed.
  Simulation queue{{.max_workers = 100, .drain_s = 60, .down_after_s = 1000}, 10};
  queue.second(12000);
  queue.seconds(20, 0);
  EXPECT_GE(queue.now.workers, 15U);
  EXPECT_LE(queue.now.workers, 25U);
  queue.seconds(60, 0);
  EXPECT_LE(queue.now.ready, 500U);
}

TEST(Planner, steady_work_keeps_a_steady_number) {
  Simulation queue{{.max_workers = 20, .drain_s = 10, .down_after_s = 20}, 50};
  queue.seconds(120, 230);  // 4.6 workers' worth
  queue.history.clear();
  queue.seconds(600, 230);
  EXPECT_LE(*std::max_element(queue.history.begin(), queue.history.end()), 6U);
  EXPECT_GE(*std::min_element(queue.history.begin(), queue.history.end()), 4U);
  EXPECT_LE(queue.changes(), 600 / 20) << "flutters";
}

TEST(Planner, bursts_within_the_time_of_down_after_stop_nobody) {
  Simulation queue{{.max_workers = 20, .drain_s = 5, .down_after_s = 30}, 50};
  for (int burst = 0; burst < 10; ++burst) {
    queue.second(2000);
    queue.seconds(19, 0);
  }
  const auto warm = queue.history.begin() + 40;
  EXPECT_GE(*std::min_element(warm, queue.history.end()), 3U);
}

TEST(Planner, at_most_doubles_at_each_look) {
  Simulation queue{{.max_workers = 64, .drain_s = 1}, 1};
  queue.second(100000);
  queue.seconds(30, 0);
  EXPECT_EQ(queue.now.workers, 64U);
  for (std::size_t i = 1; i < queue.history.size(); ++i) {
    EXPECT_LE(queue.history[i], std::max(1U, 2 * queue.history[i - 1]));
  }
}

TEST(Planner, slow_work_is_not_forgotten_before_the_next_is_done) {
  // One message takes a worker ten minutes. 10 wait, and shall be gone in an hour: 2 workers do.
  Simulation queue{{.max_workers = 50, .drain_s = 3600, .down_after_s = 600}, 1.0 / 600};
  queue.second(10);
  queue.seconds(3000, 0);
  EXPECT_LE(queue.now.workers, 4U);
  EXPECT_GE(queue.now.workers, 1U);
  EXPECT_NEAR(queue.planner.rate().value_or(0), 1.0 / 600, 1.0 / 1200);
}

TEST(Planner, min_and_max_hold_whatever_is_there) {
  Simulation idle{{.min_workers = 2, .max_workers = 4, .down_after_s = 5}, 1};
  idle.seconds(20, 0);
  EXPECT_EQ(idle.now.workers, 2U);
  idle.seconds(50, 1000);
  EXPECT_EQ(idle.now.workers, 4U);
  idle.now.workers = 9;  // somebody started more
  idle.second(1000);
  EXPECT_EQ(idle.now.workers, 4U);
}

TEST(Planner, a_message_in_flight_keeps_its_worker) {
  Planner planner{{.max_workers = 4, .down_after_s = 5}};
  Sample sample{.published_total = 1, .in_flight = 1, .consumers = 1, .workers = 1};
  for (int i = 0; i < 100; ++i) {
    sample.time_s = i;
    ASSERT_EQ(planner.plan(sample).workers, 1U);
  }
  sample.in_flight = 0;
  for (int i = 100; i < 110; ++i) {
    sample.time_s = i;
    sample.workers = planner.plan(sample).workers;
  }
  EXPECT_EQ(sample.workers, 0U);
}

TEST(Planner, started_beside_running_workers_it_leaves_them_for_down_after) {
  Planner planner{{.max_workers = 8, .down_after_s = 10}};
  Sample sample{.workers = 6};
  for (int i = 0; i < 10; ++i) {
    sample.time_s = i;
    EXPECT_EQ(planner.plan(sample).workers, 6U);
  }
  sample.time_s = 10;
  EXPECT_EQ(planner.plan(sample).workers, 0U);
}

TEST(Planner, another_queue_of_the_name_starts_the_measurement_anew) {
  Simulation queue{{.max_workers = 8}, 10};
  queue.seconds(20, 100);
  ASSERT_TRUE(queue.planner.rate());
  queue.planner.forget();
  EXPECT_FALSE(queue.planner.rate());
  // Counters that ran backwards are no rate either.
  queue.now.acked_total = 0;
  queue.planner.plan(queue.now);
  EXPECT_FALSE(queue.planner.rate());
}

}  // namespace
}  // namespace shmq_scaler
