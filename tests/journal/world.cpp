// SPDX-License-Identifier: Apache-2.0
#include "journal/world.hpp"

#include <algorithm>

namespace shmq::testing {

using namespace shmq::journal;

Uuid World::uuid_of(std::size_t group) {
  Uuid uuid{};
  uuid[0] = static_cast<std::uint8_t>(0xa0 + group);
  return uuid;
}

CheckpointState World::initial_state() const {
  CheckpointState state;
  for (std::size_t i = 0; i < group_count; ++i) state.groups[uuid_of(i)].incarnation = 1;
  state.settings[Uuid{}] = std::vector<std::byte>(40, std::byte{7});
  return state;
}

// --- Producers and consumers -------------------------------------------------------------------

std::size_t World::publish(std::size_t most, const std::vector<std::byte>& decoy) {
  std::size_t count = 0;
  for (; count < most && next_seq_ < progress_.seq_ceiling; ++count) {
    const std::uint64_t nonce = random_();
    std::string payload(reinterpret_cast<const char*>(&nonce), sizeof(nonce));
    const std::uint64_t kind = random(24);
    if (kind == 0 && !decoy.empty()) {
      // Alignments by chance; with enough copies, some lie at the start of a block.
      payload.append(random(3) * 8 + 200, 'x');
      payload.append(reinterpret_cast<const char*>(decoy.data()), decoy.size());
    } else if (kind == 1) {
      for (std::uint64_t i = random(1200); i > 0; --i) {
        payload.append(reinterpret_cast<const char*>(&batch_magic), 8);
      }
    } else {
      payload.append(kind == 2 ? random(9000) : random(300), static_cast<char>('a' + nonce % 26));
    }
    memory_[next_seq_] = payload;
    ever_given_[next_seq_] = std::move(payload);
    ++next_seq_;
  }
  return count;
}

void World::settle_some() {
  Group& group = groups_[random(group_count)];
  const std::uint64_t floor = group.memory.floor;
  if (next_seq_ <= floor) return;
  const std::uint64_t reach = std::min<std::uint64_t>(next_seq_ - floor, 40);
  const bool in_order = random(3) != 0;
  for (std::uint64_t i = random(reach) + 1; i > 0; --i) {
    const std::uint64_t seq = in_order ? group.memory.floor : floor + random(reach);
    if (seq >= next_seq_ || group.memory.is_settled(seq)) continue;
    group.memory.settle(seq, seq + 1);
    group.ever_settled.insert(seq);
    group.untold.insert(seq);
    group.untold_entries.erase(seq);
  }
}

void World::hand_out_some() {
  Group& group = groups_[random(group_count)];
  if (next_seq_ <= group.memory.floor) return;
  const std::uint64_t seq = group.memory.floor + random(next_seq_ - group.memory.floor);
  if (group.memory.is_settled(seq)) return;
  EntryState entry{};
  entry.seq = seq;
  if (group.memory.entries.contains(seq)) entry = group.memory.entries.at(seq);
  ++entry.hand_outs;
  ++entry.failures;
  group.memory.set_entry(entry);
  group.untold_entries.insert(seq);
}

// --- Source ------------------------------------------------------------------------------------

bool World::message(std::uint64_t seq, MessageView& view) {
  const auto found = memory_.find(seq);
  if (found == memory_.end()) return false;
  view = {.seq = seq,
          .publish_realtime_ns = 0,
          .flags = 0,
          .attributes = {},
          .payload = std::as_bytes(std::span{found->second})};
  return true;
}

bool World::take_change_of(std::size_t index, std::uint64_t end_seq, GroupChange& change) {
  Group& group = groups_[index];
  Taken taken{.group = index, .settled = {}, .entries = {}};
  while (!group.untold.empty() && *group.untold.begin() < end_seq) {
    const std::uint64_t seq = *group.untold.begin();
    group.untold.erase(group.untold.begin());
    taken.settled.push_back(seq);
    change.settled.push_back({seq, seq + 1});
  }
  while (!group.untold_entries.empty() && *group.untold_entries.begin() < end_seq) {
    const std::uint64_t seq = *group.untold_entries.begin();
    group.untold_entries.erase(group.untold_entries.begin());
    if (!group.memory.entries.contains(seq)) continue;
    change.entries.push_back(group.memory.entries.at(seq));
    taken.entries.push_back(change.entries.back());
  }
  if (taken.settled.empty() && taken.entries.empty()) return false;
  change.group = uuid_of(index);
  change.incarnation = 1;
  taken_.push_back(std::move(taken));
  return true;
}

bool World::next_change(std::uint64_t end_seq, Change& change) {
  for (std::size_t i = 0; i < group_count; ++i) {
    if (take_change_of(i, end_seq, change.group)) return true;
  }
  return false;
}

// Now and then somebody comes who needs what is about to go; else nobody must.
bool World::on_removal(std::uint64_t first_retained) {
  for (const Group& group : groups_) went_back_ |= group.memory.floor < first_retained;
  return random(4) != 0;
}

void World::on_progress(const Progress& progress) {
  went_back_ |= progress.watermark < progress_.watermark || progress.changes < told_ ||
                progress.seq_ceiling < progress_.seq_ceiling;
  for (std::uint64_t seq = progress_.watermark; seq < progress.watermark; ++seq) {
    if (memory_.contains(seq) && confirmed_.insert(seq).second) ++confirmed_count_;
  }
  for (; told_ < progress.changes && told_ < taken_.size(); ++told_) {
    Group& group = groups_[taken_[told_].group];
    group.stays_settled.insert(taken_[told_].settled.begin(), taken_[told_].settled.end());
    for (const EntryState& entry : taken_[told_].entries) {
      std::uint32_t& known = group.stable_hand_outs[entry.seq];
      known = std::max(known, entry.hand_outs);
    }
  }
  progress_ = progress;
  watermark_confirmed_ = std::max(watermark_confirmed_, progress.watermark);
}

// --- Lives -------------------------------------------------------------------------------------

void World::live_again(const Plan& plan, const std::map<std::uint64_t, std::string>& messages) {
  memory_ = messages;
  next_seq_ = plan.next_seq;
  for (std::size_t i = 0; i < group_count; ++i) {
    groups_[i].memory = plan.state.groups.at(uuid_of(i));
    groups_[i].memory.settle(plan.end_seq, plan.next_seq);  // the gap
    groups_[i].untold.clear();
    groups_[i].untold_entries.clear();
  }
  taken_.clear();
  told_ = 0;
  progress_ = {.watermark = plan.next_seq, .seq_ceiling = plan.next_seq, .changes = 0};
  // What was recovered is on stable storage now, and may be relied on.
  for (const auto& [seq, payload] : messages) confirmed_.insert(seq);
}

void World::restart_writer(const Plan& plan) {
  for (Group& group : groups_) {
    for (std::uint64_t seq = 0; seq < next_seq_; ++seq) {
      if (group.memory.is_settled(seq) && ever_given_.contains(seq)) group.untold.insert(seq);
    }
    for (const auto& [seq, entry] : group.memory.entries) group.untold_entries.insert(seq);
  }
  taken_.clear();
  told_ = 0;
  progress_ = {.watermark = plan.end_seq, .seq_ceiling = plan.seq_ceiling, .changes = 0};
  for (std::uint64_t seq = 0; seq < plan.end_seq; ++seq) {
    if (memory_.contains(seq)) confirmed_.insert(seq);
  }
}

// --- Judgement ---------------------------------------------------------------------------------

std::string World::judge_groups(const Plan& plan) {
  for (std::size_t i = 0; i < group_count; ++i) {
    const auto found = plan.state.groups.find(uuid_of(i));
    if (found == plan.state.groups.end()) return "a group is gone";
    const GroupState& state = found->second;
    const Group& group = groups_[i];
    for (const std::uint64_t seq : group.stays_settled) {
      ++checks_;
      if (!state.is_settled(seq)) return "synced ack of seq " + std::to_string(seq) + " is back";
    }
    for (const auto& [seq, payload] : ever_given_) {
      ++checks_;
      if (state.is_settled(seq) && !group.ever_settled.contains(seq)) {
        // A seq in a gap counts as settled once the floor is past it; it has no message.
        if (confirmed_.contains(seq)) return "seq " + std::to_string(seq) + " was never acked";
      }
    }
    for (const auto& [seq, count] : group.stable_hand_outs) {
      ++checks_;
      if (state.is_settled(seq)) continue;
      const auto entry = state.entries.find(seq);
      if (entry == state.entries.end() || entry->second.hand_outs < count) {
        return "the synced count of seq " + std::to_string(seq) + " went back";
      }
    }
  }
  return {};
}

std::string World::judge(const Plan& plan, bool memory_is_gone,
                         const std::map<std::uint64_t, std::string>& messages,
                         const std::vector<SettledRange>& gaps) {
  if (went_back_) return "progress went back";
  if (plan.is_refused) {
    std::string text = "refused:";
    for (const Finding& finding : plan.findings) {
      if (finding.action == Action::refuse) text += " " + finding.text();
    }
    return text;
  }
  if (plan.is_new) return ever_given_.empty() ? std::string{} : "the queue is gone";
  if (plan.end_seq < watermark_confirmed_) return "the end lies below the confirmed watermark";
  const std::uint64_t floor = plan.state.least_floor(plan.end_seq);
  std::uint64_t expected = floor;
  auto gap = gaps.begin();
  for (auto message = messages.lower_bound(floor); expected < plan.end_seq; ++checks_) {
    while (gap != gaps.end() && gap->end_seq <= expected) ++gap;
    if (gap != gaps.end() && gap->first_seq <= expected) {
      for (; expected < gap->end_seq; ++expected) {
        if (confirmed_.contains(expected)) return "a confirmed seq lies in a gap";
      }
      continue;
    }
    if (message == messages.end() || message->first != expected) {
      return "seq " + std::to_string(expected) + " is missing without a gap record";
    }
    const auto given = ever_given_.find(expected);
    if (given == ever_given_.end() || given->second != message->second) {
      return "seq " + std::to_string(expected) + " has another payload";
    }
    ++message;
    ++expected;
  }
  if (memory_is_gone && !ever_given_.empty() && plan.next_seq <= ever_given_.rbegin()->first) {
    return "seq " + std::to_string(ever_given_.rbegin()->first) + " would be given out twice";
  }
  return judge_groups(plan);
}

}  // namespace shmq::testing
