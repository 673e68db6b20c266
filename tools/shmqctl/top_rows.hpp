// SPDX-License-Identifier: Apache-2.0
//
// What shmqctl top shows: a row a group, with what happened since the look before. No terminal
// here.
#pragma once

#include <map>
#include <optional>
#include <shmq/shmq.hpp>
#include <string>
#include <vector>

#include "context.hpp"
#include "output.hpp"

namespace shmqctl {

struct TopRow {
  std::string queue, group;  ///< group "-": the queue has none
  std::uint64_t ready = 0, in_flight = 0, delayed = 0, dead = 0;
  /// A second, since the look before; none at the first one.
  std::optional<double> published, acked, redelivered;
  std::optional<std::chrono::nanoseconds>
      oldest;                              ///< of those that are ready; none: none, or not known
  std::optional<std::uint64_t> flush_lag;  ///< messages; a durable queue whose daemon answers
  std::uint32_t consumers = 0, consumers_busy = 0;
  std::string problem;  ///< why the queue cannot be looked at
};

/// Columns, in the order of the screen; the first two are texts.
inline constexpr std::array<const char*, 12> top_columns{
    "QUEUE", "GROUP", "READY",   "IN FLIGHT", "DELAYED",   "DEAD",
    "PUB/S", "ACK/S", "REDEL/S", "OLDEST",    "FLUSH LAG", "CONSUMERS"};
std::array<std::string, top_columns.size()> cells_of(const TopRow& row);
Json json_of(const TopRow& row);

/// Those whose queue or group holds `filter`, ordered by a column: texts ascending, figures
/// descending, each the other way round if `reversed`.
std::vector<TopRow> arranged(std::vector<TopRow> rows, const std::string& filter,
                             std::size_t column, bool reversed);

/// Looks at every queue of the namespace, as an observer.
class TopSampler {
 public:
  explicit TopSampler(const Context& context) : context_(context) {}
  std::vector<TopRow> sample();

 private:
  struct Totals {
    std::uint64_t published = 0, acked = 0, redelivered = 0;
  };
  using Key = std::pair<std::string, std::string>;  // uuid of the queue, life of the group

  void sample_queue(const std::string& name, std::vector<TopRow>& rows);
  void rate(TopRow& row, const Key& key, const Totals& now);
  std::map<std::string, std::uint64_t> flush_lags() const;

  const Context& context_;
  std::chrono::steady_clock::time_point looked_{}, before_{};
  std::map<Key, Totals> totals_, totals_before_;
  std::map<std::string, shmq::BacklogSampler> samplers_;
  bool any_durable_ = false;
};

}  // namespace shmqctl
