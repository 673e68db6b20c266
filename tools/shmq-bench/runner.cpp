// SPDX-License-Identifier: Apache-2.0
#include "runner.hpp"

#include <sys/resource.h>
#include <unistd.h>

#include "children.hpp"

namespace shmq_bench {
namespace {

constexpr double near_min_ns = 70, near_max_ns = 150, far_max_ns = 460;

// How often something else took the CPU from this process.
std::uint64_t count_preemptions() {
  rusage usage{};
  getrusage(RUSAGE_SELF, &usage);
  return static_cast<std::uint64_t>(usage.ru_nivcsw);
}

}  // namespace

Distance classify(double before, double after) noexcept {
  const auto is_near = [](double ns) { return ns >= near_min_ns && ns < near_max_ns; };
  const auto is_far = [](double ns) { return ns >= near_max_ns && ns < far_max_ns; };
  if (is_near(before) && is_near(after)) return Distance::near;
  if (is_far(before) && is_far(after)) return Distance::far;
  return Distance::mixed;
}

struct Runner::Shared {
  alignas(128) std::atomic<std::uint64_t> epoch;
  std::uint32_t contender;
  Mode mode;  // 0: end
  std::uint64_t bytes, count;
  alignas(128) std::atomic<std::uint64_t> done;
  std::uint64_t child_preemptions;  // during the run that is done
};

Runner::Runner(Contenders& contenders, bool pin)
    : contenders_(contenders), shared_(reinterpret_cast<Shared*>(map_shared(sizeof(Shared)))) {
  if (fork_child()) {
    if (pin) pin_to(1);
    child_loop();
  }
  if (pin) pin_to(0);
  watch_children();
}

Runner::~Runner() {
  let_children_end();
  shared_->mode = Mode{};
  shared_->epoch.store(++epoch_, std::memory_order_release);
  await_children();
}

void Runner::child_loop() {
  for (std::uint64_t epoch = 1;; ++epoch) {
    while (shared_->epoch.load(std::memory_order_acquire) != epoch) cpu_pause();
    // _exit: destructors would remove what the parent still uses.
    if (shared_->mode == Mode{}) _exit(0);
    Contender& contender = *contenders_[shared_->contender];
    const std::uint64_t preemptions = count_preemptions();
    if (shared_->mode == Mode::throughput) {
      contender.send_all(shared_->count, shared_->bytes);
    } else {
      contender.pong(shared_->count, shared_->bytes);
    }
    shared_->child_preemptions = count_preemptions() - preemptions;
    shared_->done.store(epoch, std::memory_order_release);
  }
}

std::uint64_t Runner::run(std::uint32_t contender, Mode mode, std::size_t bytes,
                          std::uint64_t count) {
  limit_run(hung_after_s);
  shared_->contender = contender;
  shared_->mode = mode;
  shared_->bytes = bytes;
  shared_->count = count;
  const std::uint64_t preemptions = count_preemptions();
  const std::uint64_t start = now_ns();
  shared_->epoch.store(++epoch_, std::memory_order_release);
  if (mode == Mode::throughput) {
    contenders_[contender]->receive_all(count, bytes);
  } else {
    contenders_[contender]->ping(count, bytes);
  }
  const std::uint64_t taken = now_ns() - start;
  while (shared_->done.load(std::memory_order_acquire) != epoch_) cpu_pause();
  undisturbed_ = count_preemptions() == preemptions && shared_->child_preemptions == 0;
  limit_run(0);
  return taken;
}

std::uint32_t Runner::index_of(const Contender* contender) const {
  for (std::uint32_t i = 0; i < contenders_.size(); ++i) {
    if (contenders_[i].get() == contender) return i;
  }
  fail("no such contender");
}

double Runner::probe() {
  // The ping-pong always stands last.
  const auto last = static_cast<std::uint32_t>(contenders_.size() - 1);
  return static_cast<double>(run(last, Mode::round_trip, 8, probe_round_trips)) /
         static_cast<double>(probe_round_trips);
}

void Runner::run_plain(Series& series, std::uint64_t count) {
  run(index_of(series.contender), series.mode, series.bytes, count);
}

void Runner::run_round(std::vector<Series>& all, std::uint64_t round) {
  double before = probe();
  for (Series& series : all) {
    // A round trip is steady at once; throughput needs the back-off to settle.
    const double wanted_ns = series.mode == Mode::throughput ? 25e6 : 5e6;
    const std::uint64_t taken = std::max<std::uint64_t>(
        run(index_of(series.contender), series.mode, series.bytes, series.count), 1);
    const bool undisturbed = undisturbed_;
    const double after = probe();
    const double each_ns = static_cast<double>(taken) / static_cast<double>(series.count);
    if (series.warm) {
      series.samples.push_back({round, undisturbed ? classify(before, after) : Distance::mixed,
                                series.mode == Mode::throughput ? 1e3 / each_ns : each_ns});
    }
    // Runs far too short say more about the start than about the contender.
    series.warm = static_cast<double>(taken) > wanted_ns / 8;
    const double next = std::min(wanted_ns / each_ns, static_cast<double>(series.count) * 16);
    series.count = std::max<std::uint64_t>(static_cast<std::uint64_t>(next), 16);
    before = after;
  }
}

Summary summarise(std::vector<double> values) {
  if (values.empty()) return {};
  std::sort(values.begin(), values.end());
  const std::size_t middle = values.size() / 2;
  const double median =
      values.size() % 2 == 1 ? values[middle] : (values[middle - 1] + values[middle]) / 2;
  return {median, values.front(), values.back(), values.size()};
}

Summary summarise(const Series& series, Distance distance) {
  return summarise(series.samples, distance);
}

Summary summarise(const std::vector<Sample>& samples, Distance distance) {
  std::vector<double> values;
  for (const Sample& sample : samples) {
    if (sample.distance == distance) values.push_back(sample.value);
  }
  return summarise(std::move(values));
}

std::vector<Sample> of_any_class(std::vector<Sample> samples) {
  for (Sample& sample : samples) sample.distance = Distance::mixed;
  return samples;
}

Summary paired_ratio(const Series& left, const Series& right, Distance distance) {
  return paired_ratio(left.samples, right.samples, distance);
}

Summary paired_ratio(const std::vector<Sample>& left, const std::vector<Sample>& right,
                     Distance distance) {
  std::map<std::uint64_t, double> partners;
  for (const Sample& sample : right) {
    if (sample.distance == distance) partners[sample.round] = sample.value;
  }
  std::vector<double> ratios;
  for (const Sample& sample : left) {
    const auto partner = partners.find(sample.round);
    if (sample.distance == distance && partner != partners.end()) {
      ratios.push_back(sample.value / partner->second);
    }
  }
  return summarise(std::move(ratios));
}

}  // namespace shmq_bench
