// SPDX-License-Identifier: Apache-2.0
#include "planner.hpp"

#include <algorithm>
#include <array>
#include <cmath>
#include <cstdio>

namespace shmq_scaler {
namespace {

// Old evidence of the rate fades with this half-life, once there is enough of it: work that takes
// ten minutes a message must not be forgotten before the next is done.
constexpr double rate_half_life_s = 30;
constexpr double acks_enough = 32;
constexpr double arrivals_half_life_s = 3;
// A need of 4.1 workers is met by 4: measured rates scatter by as much.
constexpr double tolerance_workers = 0.1;

std::string text_of(const Sample& sample, double arrivals_per_s, std::optional<double> rate) {
  std::array<char, 160> text{};
  int length = std::snprintf(text.data(), text.size(), "%llu ready, %llu in flight, %.1f/s arrive",
                             static_cast<unsigned long long>(sample.ready),
                             static_cast<unsigned long long>(sample.in_flight), arrivals_per_s);
  const auto rest = text.size() - static_cast<std::size_t>(length);
  if (rate) {
    std::snprintf(text.data() + length, rest, ", a worker does %.3g/s", *rate);
  } else {
    std::snprintf(text.data() + length, rest, ", a worker's rate is not known yet");
  }
  return text.data();
}

}  // namespace

void Planner::forget() {
  last_.reset();
  busy_acked_ = busy_worker_s_ = arrivals_per_s_ = 0;
}

std::optional<double> Planner::rate() const {
  if (busy_worker_s_ <= 0) return std::nullopt;
  // No ack yet: it is at most one in the time that was spent.
  return std::max(busy_acked_, 1.0) / busy_worker_s_;
}

void Planner::measure(const Sample& sample) {
  const double passed_s = last_ ? sample.time_s - last_->time_s : 0;
  if (passed_s <= 0 || sample.acked_total < last_->acked_total ||
      sample.published_total < last_->published_total) {
    return;
  }
  const auto arrived = static_cast<double>(sample.published_total - last_->published_total);
  const double kept = std::exp2(-passed_s / arrivals_half_life_s);
  arrivals_per_s_ = arrivals_per_s_ * kept + arrived / passed_s * (1 - kept);

  // With nothing ready some may have been idle, and a consumer that came in between was not there
  // all the time: neither says what a worker can do.
  const unsigned working = std::min(last_->consumers, sample.consumers);
  if (last_->ready == 0 || sample.ready == 0 || working == 0) return;
  if (busy_acked_ >= acks_enough) {
    const double fade = std::exp2(-passed_s / rate_half_life_s);
    busy_acked_ *= fade;
    busy_worker_s_ *= fade;
  }
  busy_acked_ += static_cast<double>(sample.acked_total - last_->acked_total);
  busy_worker_s_ += working * passed_s;
}

double Planner::needed(const Sample& sample) const {
  const auto per_worker = rate();
  if (!per_worker) return sample.workers;
  const double per_s = static_cast<double>(sample.ready) / limits_.drain_s + arrivals_per_s_;
  return per_s / *per_worker;
}

/// The wish, held back by invariants 1 and 2.
unsigned Planner::calmed(const Sample& sample, unsigned wish) {
  while (!wishes_.empty() && wishes_.back().workers <= wish) wishes_.pop_back();
  wishes_.push_back({sample.time_s, wish});
  while (sample.time_s - wishes_.front().time_s > limits_.down_after_s) wishes_.pop_front();
  if (!first_time_s_) first_time_s_ = sample.time_s;

  if (wish > sample.workers) return std::min(wish, std::max(1U, 2 * sample.workers));
  // Started anew beside running workers: they were wanted by somebody, until the window says no.
  if (sample.time_s - *first_time_s_ < limits_.down_after_s) return sample.workers;
  return std::min(sample.workers, wishes_.front().workers);
}

Plan Planner::plan(const Sample& sample) {
  // What comes and is gone between two looks needs somebody, too.
  const bool arrived = last_ && sample.published_total > last_->published_total;
  measure(sample);
  last_ = sample;

  const bool anything = sample.ready + sample.in_flight > 0 || arrived;
  const double need = std::min(needed(sample), static_cast<double>(limits_.max_workers));
  unsigned wish = 0;
  if (anything) {
    wish = std::max(1U, static_cast<unsigned>(std::ceil(std::max(0.0, need - tolerance_workers))));
  }
  const unsigned workers =
      std::clamp(calmed(sample, wish), limits_.min_workers, limits_.max_workers);
  return {workers, text_of(sample, arrivals_per_s_, rate())};
}

}  // namespace shmq_scaler
