// SPDX-License-Identifier: Apache-2.0
#include "journal/state.hpp"

#include <algorithm>

namespace shmq::journal {

bool GroupState::is_settled(std::uint64_t seq) const noexcept {
  if (seq < floor) return true;
  const auto after = settled.upper_bound(seq);
  return after != settled.begin() && std::prev(after)->second > seq;
}

void GroupState::settle(std::uint64_t first, std::uint64_t end) {
  first = std::max(first, floor);
  if (first >= end) return;
  // Swallow each range that overlaps or touches [first, end).
  auto range = settled.upper_bound(first);
  if (range != settled.begin() && std::prev(range)->second >= first) --range;
  while (range != settled.end() && range->first <= end) {
    first = std::min(first, range->first);
    end = std::max(end, range->second);
    range = settled.erase(range);
  }
  entries.erase(entries.lower_bound(first), entries.lower_bound(end));
  if (first == floor) {
    floor = end;
  } else {
    settled.emplace(first, end);
  }
}

void GroupState::raise_floor(std::uint64_t seq) {
  if (seq > floor) settle(floor, seq);
}

void GroupState::set_entry(const EntryState& entry) {
  if (!is_settled(entry.seq)) entries.insert_or_assign(entry.seq, entry);
}

namespace {

bool equal_entries(const EntryState& left, const EntryState& right) noexcept {
  return left.seq == right.seq && left.due_realtime_ns == right.due_realtime_ns &&
         left.hand_outs == right.hand_outs && left.failures == right.failures &&
         left.deaths == right.deaths && left.condition == right.condition;
}

}  // namespace

bool operator==(const GroupState& left, const GroupState& right) {
  return left.incarnation == right.incarnation && left.floor == right.floor &&
         left.settled == right.settled &&
         std::equal(left.entries.begin(), left.entries.end(), right.entries.begin(),
                    right.entries.end(),
                    [](const auto& a, const auto& b) { return equal_entries(a.second, b.second); });
}

bool operator==(const CheckpointState& left, const CheckpointState& right) {
  return left.groups == right.groups && left.settings == right.settings;
}

void CheckpointState::apply(const GroupChange& change) {
  GroupState& group = groups[change.group];
  if (change.incarnation < group.incarnation) return;  // told late, about a former life
  if (change.incarnation > group.incarnation) {
    group = {};
    group.incarnation = change.incarnation;
    group.floor = change.floor;
  }
  group.raise_floor(change.floor);
  for (const SettledRange& range : change.settled) group.settle(range.first_seq, range.end_seq);
  for (const EntryState& entry : change.entries) group.set_entry(entry);
}

void CheckpointState::remove(const Uuid& group, std::uint64_t incarnation) {
  const auto found = groups.find(group);
  if (found == groups.end() || found->second.incarnation > incarnation) return;
  groups.erase(found);
  settings.erase(group);
}

void CheckpointState::settle_gap(std::uint64_t first_seq, std::uint64_t end_seq) {
  for (auto& [uuid, group] : groups) group.settle(first_seq, end_seq);
}

void CheckpointState::apply(const Record& record) {
  if (record.type == RecordType::group_snapshot || record.type == RecordType::group_delta) {
    const GroupView view = group_of(record);
    GroupChange change{.group = uuid_of(view.head.group_uuid),
                       .incarnation = view.head.incarnation,
                       .floor = view.head.floor,
                       .settled = {},
                       .entries = {}};
    for (std::uint32_t i = 0; i < view.head.range_count; ++i) {
      change.settled.push_back(view.range(i));
    }
    for (std::uint32_t i = 0; i < view.head.entry_count; ++i) {
      change.entries.push_back(view.entry(i));
    }
    apply(change);
  } else if (record.type == RecordType::gap) {
    const auto gap = load<GapRecord>(record.bytes);
    settle_gap(gap.first_seq, gap.end_seq);
  } else if (record.type == RecordType::group_removed) {
    const auto removed = load<GroupRemovedRecord>(record.bytes);
    remove(uuid_of(removed.group_uuid), removed.incarnation);
  } else if (record.type == RecordType::settings) {
    const auto head = load<SettingsRecord>(record.bytes);
    const Bytes value = record.bytes.subspan(sizeof(SettingsRecord));
    settings[uuid_of(head.group_uuid)].assign(value.begin(), value.end());
  }
}

void CheckpointState::apply(const BatchHeader& header, const std::vector<Record>& records) {
  if ((header.flags & batch_snapshot) != 0) *this = {};
  for (const Record& record : records) apply(record);
}

std::uint64_t CheckpointState::least_floor(std::uint64_t otherwise) const noexcept {
  std::uint64_t least = otherwise;
  for (const auto& [uuid, group] : groups) least = std::min(least, group.floor);
  return least;
}

}  // namespace shmq::journal
