// SPDX-License-Identifier: Apache-2.0
//
// Runs contenders: the parent (CPU 0) receives and measures, a child (CPU 1) sends.
//
// Virtual CPUs move between host cores several times a second, so a run is short, stands between
// two ping-pong probes, and belongs to a class by what they say: near, far, or mixed (not used). A
// run in which either process lost its CPU to something else is mixed, too.
#pragma once

#include <optional>

#include "limits.hpp"

namespace shmq_bench {

enum class Distance { near, far, mixed };

inline constexpr std::uint64_t probe_round_trips = 4000;  // about 1 ms
/// Of a run, by the round trips in ns before and after it.
Distance classify(double before_ns, double after_ns) noexcept;

struct Sample {
  std::uint64_t round = 0;
  Distance distance = Distance::mixed;
  double value = 0;  // throughput: million messages a second; round trip: ns
};

struct Series {
  Contender* contender = nullptr;
  Mode mode = Mode::throughput;
  std::size_t bytes = 0;
  std::uint64_t count = 100;  // of the next run, adapted to the time that a run may take
  bool warm = false;
  std::vector<Sample> samples{};
};

class Runner {
 public:
  /// Forks. Call once, with nothing of libshmq attached.
  Runner(Contenders& contenders, bool pin);
  Runner(const Runner&) = delete;
  Runner& operator=(const Runner&) = delete;
  ~Runner();

  /// One run without measuring.
  void run_plain(Series& series, std::uint64_t count);
  /// One run of every series, in order, with probes between.
  void run_round(std::vector<Series>& series, std::uint64_t round);

 private:
  struct Shared;
  void child_loop();
  std::uint64_t run(std::uint32_t contender, Mode mode, std::size_t bytes, std::uint64_t count);
  double probe();
  std::uint32_t index_of(const Contender* contender) const;

  Contenders& contenders_;
  Shared* shared_;
  std::uint64_t epoch_ = 0;
  bool undisturbed_ = false;  // the last run: neither process was preempted
};

struct Summary {
  double median = 0, min = 0, max = 0;
  std::size_t n = 0;
};
Summary summarise(std::vector<double> values);
Summary summarise(const Series& series, Distance distance);
Summary summarise(const std::vector<Sample>& samples, Distance distance);
/// The same samples, all in one class: partners of a round ran within a moment, so that many of
/// them tell something whatever their class. Summarise them as `mixed`.
std::vector<Sample> of_any_class(std::vector<Sample> samples);
/// Of runs of the same round and class: left / right.
Summary paired_ratio(const Series& left, const Series& right, Distance distance);
Summary paired_ratio(const std::vector<Sample>& left, const std::vector<Sample>& right,
                     Distance distance);

}  // namespace shmq_bench
