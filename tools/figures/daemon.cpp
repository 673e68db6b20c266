// SPDX-License-Identifier: Apache-2.0
#include "figures/daemon.hpp"

#include <algorithm>
#include <nlohmann/json.hpp>
#include <utility>

namespace shmq::figures {
namespace {

using nlohmann::json;

// As far as the daemon gives them: one of another version may leave some out, and then the queue
// has none rather than zeros.
std::optional<DaemonQueue::Contents> contents_of(const json& queue, std::size_t bounds) {
  for (const char* key : {"lag", "lag_seconds", "errors", "reclaimed", "syncs"}) {
    if (!queue.contains(key)) return std::nullopt;
  }
  DaemonQueue::Contents contents;
  contents.lag_messages = queue.at("lag").get<std::uint64_t>();
  contents.lag_seconds = queue.at("lag_seconds").get<double>();
  contents.sync_errors = queue.at("errors").get<std::uint64_t>();
  contents.reclaimed = queue.at("reclaimed").get<std::uint64_t>();
  contents.syncs = queue.at("syncs").at("counts").get<std::vector<std::uint64_t>>();
  contents.syncs_sum_seconds = queue.at("syncs").at("sum_seconds").get<double>();
  if (contents.syncs.size() != bounds + 1) return std::nullopt;
  return contents;
}

}  // namespace

const DaemonQueue* DaemonReading::find(const std::string& name) const noexcept {
  const auto found = std::find_if(queues.begin(), queues.end(),
                                  [&](const DaemonQueue& queue) { return queue.name == name; });
  return found == queues.end() ? nullptr : &*found;
}

Result<DaemonReading> parse_daemon_status(const std::string& text) {
  DaemonReading reading;
  try {
    const json status = json::parse(text);
    reading.sync_bounds_seconds =
        status.value("sync_bounds_seconds", json::array()).get<std::vector<double>>();
    for (const json& queue : status.at("queues")) {
      reading.queues.push_back(
          {.name = queue.at("name").get<std::string>(),
           .state = queue.at("state").get<std::string>(),
           .why = queue.value("why", ""),
           .contents = contents_of(queue, reading.sync_bounds_seconds.size())});
    }
  } catch (const json::exception&) {
    return tl::unexpected(Error{make_error_code(Errc::version_mismatch), "ask the daemon",
                                "its answer cannot be read",
                                "see that the daemon and this program are of one version"});
  }
  return reading;
}

Result<DaemonReading> read_daemon(const DaemonOptions& options) {
  const auto text = daemon_status(options);
  if (!text) return tl::unexpected(text.error());
  return parse_daemon_status(*text);
}

}  // namespace shmq::figures
