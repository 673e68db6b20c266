// SPDX-License-Identifier: Apache-2.0
#include "collector.hpp"

#include <algorithm>
#include <utility>

namespace shmq_exporter {
namespace {

// One that does not answer must not hold a scrape up: its metrics are absent then.
constexpr std::chrono::seconds daemon_patience{2};

}  // namespace

shmq::Result<void> Collector::look_locked() {
  auto names = shmq::Queue::list(options_.name_space);
  if (!names) return tl::unexpected(names.error());
  std::erase_if(watched_, [&](const auto& item) {
    return !std::binary_search(names->begin(), names->end(), item.first);
  });
  for (const std::string& name : *names) {
    const auto queue = shmq::Queue::open(name, options_);
    if (!queue && queue.error() == shmq::Errc::no_such_queue) {
      watched_.erase(name);  // removed since it was listed
      continue;
    }
    Watched& watched = watched_.try_emplace(name, span_).first->second;
    watched.figures.clear();
    watched.reading = {.queue = name, .contents = {}};
    if (!queue) continue;
    watched.figures = watched.sampler.sample(*queue);
    shmq::figures::Reading::Contents contents{
        .info = queue->info(), .stats = queue->stats(), .groups = {}};
    // The sampler's groups: their totals never fall, and it knows ages that no record tells.
    for (const auto& each : watched.figures) contents.groups.push_back(each.group);
    watched.reading.contents = std::move(contents);
  }
  looked_at_ = std::chrono::steady_clock::now();
  return {};
}

shmq::Result<void> Collector::look() {
  const std::lock_guard lock{mutex_};
  return look_locked();
}

shmq::Result<std::string> Collector::metrics() {
  const std::lock_guard lock{mutex_};
  if (auto looked = look_locked(); !looked) return tl::unexpected(looked.error());
  std::vector<shmq::figures::Reading> readings;
  for (const auto& [name, watched] : watched_) readings.push_back(watched.reading);
  const auto daemon = shmq::figures::read_daemon({.name_space = options_.name_space,
                                                  .runtime_dir = options_.runtime_dir,
                                                  .trusted_owners = options_.trusted_owners,
                                                  .timeout = daemon_patience});
  return shmq::figures::metrics_text(readings, daemon ? &*daemon : nullptr);
}

std::variant<shmq::GroupFigures, Collector::Missing> Collector::figures(
    const std::string& queue, const std::string& group) const {
  const std::lock_guard lock{mutex_};
  const auto watched = watched_.find(queue);
  if (watched == watched_.end()) return Missing::queue;
  for (const auto& each : watched->second.figures) {
    if (each.group.name == group) return each;
  }
  return Missing::group;
}

std::optional<std::chrono::nanoseconds> Collector::since_look() const {
  const std::lock_guard lock{mutex_};
  if (!looked_at_) return std::nullopt;
  return std::chrono::steady_clock::now() - *looked_at_;
}

}  // namespace shmq_exporter
