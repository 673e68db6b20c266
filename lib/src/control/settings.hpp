// SPDX-License-Identifier: Apache-2.0
//
// What was chosen for a queue and its groups, as text: in the journal's settings records and in
// requests to the daemon.
//
// Invariants:
//  1. JSON. A reader takes what it knows, and the default for what is missing.
//  2. What a reader gives has been checked for its form alone; whoever uses it checks the values.
#pragma once

#include <shmq/error.hpp>
#include <shmq/options.hpp>
#include <string>
#include <string_view>

namespace shmq::control {

/// A queue's options, its groups included; not its namespace and whom the caller trusts.
std::string text_of(const QueueOptions& options);
Result<QueueOptions> queue_options_from(std::string_view text, const std::string& what);

/// A group as it stands in a segment.
struct GroupSettings {
  GroupOptions options;  ///< but for `from`
  std::uint64_t born_seq = 0;
  std::uint64_t created_realtime_ns = 0;
};
std::string text_of(const GroupSettings& settings);
Result<GroupSettings> group_settings_from(std::string_view text, const std::string& what);

}  // namespace shmq::control
