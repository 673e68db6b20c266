// SPDX-License-Identifier: Apache-2.0
//
// How many workers a group wants. No clock, no queue: samples in, a number out.
//
// The number is what drains the backlog within the drain time while as much arrives as of late:
//
//     (ready / drain time + arrivals per second) / messages per second and worker
//
// Invariants:
//  1. Up goes at once, but at most doubles at each sample: a rate seen for a moment is no rate.
//  2. Down goes only to the most that any sample of the last `down_after` asked for.
//  3. From zero goes to one as soon as anything is there; to zero only with nothing in flight.
//  4. Delayed messages count when they are due: nobody can work on them before.
#pragma once

#include <cstdint>
#include <deque>
#include <optional>
#include <string>

namespace shmq_scaler {

struct Limits {
  unsigned min_workers = 0;
  unsigned max_workers = 1;
  double drain_s = 30;
  double down_after_s = 60;
};

/// The group at one moment, and how many workers run.
struct Sample {
  double time_s = 0;
  std::uint64_t published_total = 0;
  std::uint64_t acked_total = 0;
  std::uint64_t ready = 0;
  std::uint64_t in_flight = 0;
  unsigned consumers = 0;  ///< attached, whoever started them
  unsigned workers = 0;    ///< started and not stopped by the scaler's command
};

struct Plan {
  unsigned workers = 0;
  std::string reason;  ///< for people
};

class Planner {
 public:
  explicit Planner(const Limits& limits) : limits_{limits} {}

  Plan plan(const Sample& sample);
  /// Another queue stands under the name: what was measured is of no use.
  void forget();
  /// Acked per second by one worker that always had something to do; nothing before that was seen.
  [[nodiscard]] std::optional<double> rate() const;

 private:
  struct Wish {
    double time_s;
    unsigned workers;
  };

  void measure(const Sample& sample);
  [[nodiscard]] double needed(const Sample& sample) const;
  unsigned calmed(const Sample& sample, unsigned wish);

  Limits limits_;
  std::optional<Sample> last_;
  double busy_acked_ = 0;     ///< acked while something was ready all the time
  double busy_worker_s_ = 0;  ///< by so many seconds of workers
  double arrivals_per_s_ = 0;
  std::deque<Wish> wishes_;  ///< times and values rising and falling: a maximum over a window
  std::optional<double> first_time_s_;
};

}  // namespace shmq_scaler
