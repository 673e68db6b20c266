// SPDX-License-Identifier: Apache-2.0
#include "top_rows.hpp"

#include <algorithm>
#include <cmath>
#include <cstdio>

#include "failure.hpp"
#include "units.hpp"

namespace shmqctl {
namespace {

std::string rate_text(const std::optional<double>& rate) {
  if (!rate) return "-";
  std::array<char, 32> text{};
  std::snprintf(text.data(), text.size(), *rate < 10 && *rate > 0 ? "%.1f" : "%.0f", *rate);
  return text.data();
}

// A figure of the column, for sorting: what is not known comes last.
double figure_of(const TopRow& row, std::size_t column) {
  constexpr double unknown = -1;
  switch (column) {
    case 2: return static_cast<double>(row.ready);
    case 3: return static_cast<double>(row.in_flight);
    case 4: return static_cast<double>(row.delayed);
    case 5: return static_cast<double>(row.dead);
    case 6: return row.published.value_or(unknown);
    case 7: return row.acked.value_or(unknown);
    case 8: return row.redelivered.value_or(unknown);
    case 9: return row.oldest ? static_cast<double>(row.oldest->count()) : unknown;
    case 10: return row.flush_lag ? static_cast<double>(*row.flush_lag) : unknown;
    default: return row.consumers;
  }
}

}  // namespace

std::array<std::string, top_columns.size()> cells_of(const TopRow& row) {
  if (!row.problem.empty()) return {row.queue, row.problem};
  return {row.queue,
          row.group,
          std::to_string(row.ready),
          std::to_string(row.in_flight),
          std::to_string(row.delayed),
          std::to_string(row.dead),
          rate_text(row.published),
          rate_text(row.acked),
          rate_text(row.redelivered),
          row.oldest ? human_time(*row.oldest) : "-",
          row.flush_lag ? std::to_string(*row.flush_lag) : "-",
          std::to_string(row.consumers_busy) + "/" + std::to_string(row.consumers)};
}

Json json_of(const TopRow& row) {
  if (!row.problem.empty()) return {{"queue", row.queue}, {"problem", row.problem}};
  const auto rate = [](const std::optional<double>& value) {
    return value ? Json(*value) : Json{};
  };
  return {{"queue", row.queue},
          {"group", row.group},
          {"ready", row.ready},
          {"in_flight", row.in_flight},
          {"delayed", row.delayed},
          {"dead", row.dead},
          {"published_per_second", rate(row.published)},
          {"acked_per_second", rate(row.acked)},
          {"redelivered_per_second", rate(row.redelivered)},
          {"oldest_ready_seconds", row.oldest ? Json(seconds(*row.oldest)) : Json{}},
          {"flush_lag_messages", row.flush_lag ? Json(*row.flush_lag) : Json{}},
          {"consumers", row.consumers},
          {"consumers_busy", row.consumers_busy}};
}

std::vector<TopRow> arranged(std::vector<TopRow> rows, const std::string& filter,
                             std::size_t column, bool reversed) {
  std::erase_if(rows, [&](const TopRow& row) {
    return row.queue.find(filter) == std::string::npos &&
           row.group.find(filter) == std::string::npos;
  });
  const auto comes_before = [column](const TopRow& a, const TopRow& b) {
    if (column == 0) return a.queue < b.queue;
    if (column == 1) return a.group < b.group;
    return figure_of(a, column) > figure_of(b, column);
  };
  std::stable_sort(rows.begin(), rows.end(), [&](const TopRow& a, const TopRow& b) {
    return reversed ? comes_before(b, a) : comes_before(a, b);
  });
  return rows;
}

std::vector<TopRow> TopSampler::sample() {
  before_ = std::exchange(looked_, std::chrono::steady_clock::now());
  totals_before_ = std::exchange(totals_, {});
  any_durable_ = false;
  std::vector<TopRow> rows;
  const auto names = take(shmq::Queue::list(context_.name_space), "list queues");
  for (const std::string& name : names) sample_queue(name, rows);
  std::erase_if(samplers_, [&](const auto& each) {
    return !std::binary_search(names.begin(), names.end(), each.first);
  });
  if (any_durable_) {
    const auto lags = flush_lags();
    for (TopRow& row : rows) {
      if (const auto lag = lags.find(row.queue); lag != lags.end()) row.flush_lag = lag->second;
    }
  }
  return rows;
}

void TopSampler::sample_queue(const std::string& name, std::vector<TopRow>& rows) {
  const auto queue = shmq::Queue::open(name, open_options(context_, shmq::Access::observer));
  TopRow row;
  row.queue = name;
  if (!queue) {
    if (queue.error() == shmq::Errc::no_such_queue) return;  // removed since it was listed
    row.problem = queue.error().why();
    rows.push_back(row);
    return;
  }
  const shmq::QueueInfo info = queue->info();
  any_durable_ |= info.durable;
  const std::string uuid(info.uuid.begin(), info.uuid.end());
  const std::uint64_t published = queue->stats().tail.value;
  const auto groups = samplers_[name].sample(*queue);
  for (const shmq::GroupFigures& figures : groups) {
    const shmq::GroupInfo& group = figures.group;
    row.group = group.name;
    row.ready = group.ready;
    row.in_flight = group.in_flight;
    row.delayed = group.delayed;
    row.dead = group.dead;
    row.consumers = group.consumers;
    row.consumers_busy = group.consumers_busy;
    row.oldest.reset();
    if (group.oldest_ready && group.oldest_ready->basis != shmq::AgeBasis::unknown) {
      row.oldest = group.oldest_ready->age;
    }
    rate(row, {uuid, group.name + rfc3339(group.created)},
         {published, group.acked_total,
          group.redelivered_death_total + group.redelivered_lease_total +
              group.redelivered_nack_total + group.redelivered_release_total});
    rows.push_back(row);
  }
  if (!groups.empty()) return;
  row.group = "-";
  rate(row, {uuid, ""}, {published, 0, 0});
  rows.push_back(row);
}

void TopSampler::rate(TopRow& row, const Key& key, const Totals& now) {
  totals_[key] = now;
  const auto before = totals_before_.find(key);
  const double span = std::chrono::duration<double>(looked_ - before_).count();
  row.published.reset();
  row.acked.reset();
  row.redelivered.reset();
  if (before == totals_before_.end() || span <= 0) return;
  const auto per_second = [span](std::uint64_t later, std::uint64_t earlier) {
    return later > earlier ? static_cast<double>(later - earlier) / span : 0.0;
  };
  row.published = per_second(now.published, before->second.published);
  row.acked = per_second(now.acked, before->second.acked);
  row.redelivered = per_second(now.redelivered, before->second.redelivered);
}

std::map<std::string, std::uint64_t> TopSampler::flush_lags() const {
  shmq::DaemonOptions options = daemon_options(context_);
  options.timeout = std::chrono::milliseconds{500};  // a screen that stands still is no use
  std::map<std::string, std::uint64_t> lags;
  const auto answer = shmq::daemon_status(options);
  if (!answer) return lags;
  const Json status = Json::parse(*answer, nullptr, false);
  if (!status.contains("queues") || !status["queues"].is_array()) return lags;
  for (const Json& queue : status["queues"]) {
    if (queue.is_object() && queue.contains("lag") && queue["lag"].is_number_unsigned()) {
      lags[queue.value("name", "")] = queue["lag"].get<std::uint64_t>();
    }
  }
  return lags;
}

}  // namespace shmqctl
