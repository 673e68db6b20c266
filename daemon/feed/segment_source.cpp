// SPDX-License-Identifier: Apache-2.0
#include "daemon/feed/segment_source.hpp"

#include <algorithm>
#include <cstring>

#include "base/clock.hpp"
#include "base/mutant.hpp"
#include "base/names.hpp"
#include "control/settings.hpp"
#include "daemon/feed/group_settings.hpp"
#include "queue/groups.hpp"
#include "queue/head.hpp"
#include "queue/record_view.hpp"
#include "sync/event.hpp"

namespace shmq::feed {

using journal::Change;
using journal::EntryState;
using journal::GroupChange;
using journal::SettledRange;
using journal::Uuid;

namespace {

// Of one change record: more goes into the next one, so that each fits into any batch.
constexpr std::size_t change_items_max = 4096;
// Between two looks' conversions of one due time: the clocks' grain.
constexpr std::uint64_t due_grain_ns = 250'000'000;

bool says_the_same(const EntryState& told, const EntryState& now) {
  if (told.hand_outs != now.hand_outs || told.failures != now.failures ||
      told.deaths != now.deaths) {
    return false;
  }
  const auto dead = static_cast<std::uint8_t>(journal::EntryCondition::dead);
  if (told.condition == dead || now.condition == dead) return told.condition == now.condition;
  if (told.condition == now.condition) {
    return std::max(told.due_realtime_ns, now.due_realtime_ns) -
               std::min(told.due_realtime_ns, now.due_realtime_ns) <
           due_grain_ns;
  }
  // A delay that is over is nothing to tell.
  return std::max(told.due_realtime_ns, now.due_realtime_ns) <= base::clock->realtime_ns();
}

// The parts of [first, end) that are not in `known`, appended to `out`.
void append_unknown(const std::map<std::uint64_t, std::uint64_t>& known, std::uint64_t first,
                    std::uint64_t end, std::vector<SettledRange>& out) {
  auto range = known.upper_bound(first);
  if (range != known.begin() && std::prev(range)->second > first) --range;
  for (; first < end; ++range) {
    if (range == known.end() || range->first >= end) {
      out.push_back({first, end});
      return;
    }
    if (range->first > first) out.push_back({first, range->first});
    first = std::max(first, range->second);
  }
}

}  // namespace

SegmentSource::SegmentSource(const shm::Segment& segment, shm::MarkWriter& mark,
                             const journal::CheckpointState& on_disk, std::uint64_t watermark)
    : segment_(segment), mark_(mark), scan_(segment), group_at_(segment.limits().max_groups) {
  for (const auto& [uuid, state] : on_disk.groups) {
    told_[uuid].state = state;
    told_[uuid].settings = on_disk.settings.contains(uuid);
  }
  progress_.watermark = watermark;
}

void SegmentSource::damaged(std::string why) {
  if (damage_) return;
  damage_ = Error{make_error_code(Errc::corrupt), segment_.describe("read"), std::move(why),
                  "stop who writes to it, and restart the daemon"};
}

// --- Messages ----------------------------------------------------------------------------------

bool SegmentSource::message(std::uint64_t seq, journal::MessageView& view) {
  if (damage_) return false;
  const shm::Limits& limits = segment_.limits();
  const sync::Word16& slot = segment_.slots()[seq & (limits.slots - 1)];
  // [C0] acquire, pairs with P3: the record is whole once stamp == seq.
  const std::uint64_t stamp = sync::load_acquire(slot.low);
  if (stamp == seq - limits.slots) return false;
  // At or above the watermark, which head does not pass, nobody may take the slot again.
  if (stamp != seq) {
    damaged("the slot of seq " + std::to_string(seq) + " says " + std::to_string(stamp));
    return false;
  }
  const std::uint64_t offset = (sync::load_acquire(slot.high) & shm::ref_mask)
                               << shm::ref_unit_shift;
  queue::RecordView record;
  if (!queue::view_record(segment_.arena(), limits.arena_bytes, offset, seq, record) ||
      std::uint64_t{record.payload_bytes} + record.attribute_bytes > limits.max_message_bytes) {
    damaged("the record of seq " + std::to_string(seq) + " is damaged");
    return false;
  }
  const std::byte* place = segment_.arena() + record.offset + sizeof(shm::Record);
  view = {};
  view.seq = seq;
  if ((record.flags & shm::record_has_publish_time) != 0) {
    view.flags = shm::record_has_publish_time;
    view.publish_realtime_ns = sync::load_relaxed(*reinterpret_cast<const std::uint64_t*>(place));
  }
  place += std::size_t{8} * static_cast<unsigned>(__builtin_popcount(record.flags));
  view.attributes = {place, record.attribute_bytes};
  view.payload = {segment_.arena() + record.payload_offset, record.payload_bytes};
  return true;
}

// --- Changes -----------------------------------------------------------------------------------

bool SegmentSource::next_change(std::uint64_t end_seq, Change& change) {
  if (damage_) return false;
  if (in_look_ && end_seq < look_end_) {
    // Fewer messages fit this time: what was found may be about later ones.
    pending_.clear();
    in_look_ = false;
  }
  if (!in_look_) look(end_seq);
  if (pending_.empty()) {
    in_look_ = false;
    finish_look(look_end_);
    return false;
  }
  change = std::move(pending_.front());
  pending_.pop_front();
  take(change);
  return true;
}

void SegmentSource::take(const Change& change) {
  ++taken_;
  switch (change.kind) {
    case Change::Kind::group: told_[change.group.group].state.incarnation = 1; break;
    case Change::Kind::removed: told_.erase(change.group.group); return;
    case Change::Kind::settings: told_[change.group.group].settings = true; return;
  }
  journal::GroupState& state = told_[change.group.group].state;
  state.raise_floor(change.group.floor);
  for (const SettledRange& range : change.group.settled) {
    state.settle(range.first_seq, range.end_seq);
  }
  for (const EntryState& entry : change.group.entries) state.set_entry(entry);
}

void SegmentSource::look(std::uint64_t end_seq) {
  in_look_ = true;
  was_cut_short_ = false;
  look_end_ = end_seq;
  look_bound_ = 0;
  look_number_ = mark_.begin_look();
  std::vector<bool> seen(segment_.limits().max_groups);
  for (std::uint32_t index = 0; index < segment_.limits().max_groups; ++index) {
    const std::uint64_t word = sync::load_acquire(segment_.group(index).word);
    if (shm::group_state(word) != shm::GroupState::active) continue;
    look_at_group(index, word, end_seq);
    seen[index] = true;
  }
  tell_removed(seen);
}

void SegmentSource::look_at_group(std::uint32_t index, std::uint64_t word, std::uint64_t end_seq) {
  std::optional<Uuid>& at = group_at_[index];
  if (!at || told_[*at].word != word || told_[*at].index != index) {
    const control::GroupSettings settings = settings_of(segment_.group(index), word);
    const Uuid uuid =
        group_uuid(settings.options.name, settings.created_realtime_ns, settings.born_seq);
    if (sync::load_acquire(segment_.group(index).word) != word) {
      was_cut_short_ = true;  // another group's by now: seen by the next look
      return;
    }
    if (!base::is_valid_name(settings.options.name)) {
      return damaged("the name of the group in entry " + std::to_string(index) + " is damaged");
    }
    at = uuid;
    Told& told = told_[uuid];
    told.word = word;
    told.index = index;
    told.text = bytes_of(settings);
  }
  Told& told = told_[*at];
  if (!told.settings) {
    Change change{.kind = Change::Kind::settings, .group = {}, .settings = told.text};
    change.group.group = *at;
    change.group.incarnation = 1;
    pending_.push_back(std::move(change));
  }
  GroupPicture picture;
  if (!scan_.scan(index, word, told.age, picture)) {
    was_cut_short_ = true;
    return;
  }
  told.age.note(picture.handed_out_end, base::coarse_tick_64());
  const std::uint64_t highest =
      picture.settled.empty() ? picture.floor : picture.settled.back().end_seq;
  look_bound_ = std::max(look_bound_, highest);
  const std::uint64_t floor = std::max(std::min(picture.floor, end_seq), told.state.floor);
  const bool is_new = told.state.incarnation == 0;

  // In order, and in pieces; the floor goes first.
  GroupChange change{.group = *at, .incarnation = 1, .floor = floor, .settled = {}, .entries = {}};
  std::vector<SettledRange> settled;
  for (const SettledRange& range : picture.settled) {
    append_unknown(told.state.settled, std::max(range.first_seq, floor),
                   base::mutant(74) ? range.end_seq : std::min(range.end_seq, end_seq), settled);
  }
  std::vector<EntryState> entries;
  for (const EntryState& entry : picture.entries) {
    if (entry.seq >= end_seq || told.state.is_settled(entry.seq)) continue;
    const auto known = told.state.entries.find(entry.seq);
    if (known == told.state.entries.end() || !says_the_same(known->second, entry)) {
      entries.push_back(entry);
    }
  }
  if (!is_new && floor == told.state.floor && settled.empty() && entries.empty()) return;
  std::size_t s = 0;
  std::size_t e = 0;
  do {
    const std::size_t s_end = std::min(settled.size(), s + change_items_max);
    const std::size_t e_end = std::min(entries.size(), e + change_items_max);
    change.settled.assign(settled.begin() + static_cast<std::ptrdiff_t>(s),
                          settled.begin() + static_cast<std::ptrdiff_t>(s_end));
    change.entries.assign(entries.begin() + static_cast<std::ptrdiff_t>(e),
                          entries.begin() + static_cast<std::ptrdiff_t>(e_end));
    s = s_end;
    e = e_end;
    pending_.push_back({.kind = Change::Kind::group, .group = change, .settings = {}});
  } while (s < settled.size() || e < entries.size());
}

void SegmentSource::tell_removed(const std::vector<bool>& seen) {
  for (const auto& [uuid, told] : told_) {
    // One that was not met in this life of the daemon may stand in any entry.
    const bool is_there = told.word != 0 && told.index < seen.size() && seen[told.index] &&
                          group_at_[told.index] == uuid;
    if (is_there) continue;
    if (told.word != 0 && sync::load_acquire(segment_.group(told.index).word) == told.word) {
      continue;  // active again after all: it was forming, or the scan came between
    }
    Change change{.kind = Change::Kind::removed, .group = {}, .settings = {}};
    change.group.group = uuid;
    change.group.incarnation = 1;
    pending_.push_back(std::move(change));
  }
}

// --- Acks that are on stable storage -------------------------------------------------------------

void SegmentSource::finish_look(std::uint64_t end_seq) {
  if (was_cut_short_ || damage_) return;
  // What an earlier look had to leave out, since it was about messages that were not written yet,
  // is told by the first look that reaches as far: what is settled stays so.
  for (Look& each : looks_) {
    if (!each.changes && each.bound <= end_seq) each.changes = taken_;
  }
  Look current{.number = look_number_, .bound = look_bound_, .changes = {}};
  if (!looks_.empty()) current.bound = std::max(current.bound, looks_.back().bound);
  if (current.bound <= end_seq || base::mutant(75)) current.changes = taken_;
  if (!looks_.empty() && looks_.back().bound == current.bound &&
      looks_.back().changes == current.changes) {
    looks_.back() = current;  // they come true together
  } else {
    looks_.push_back(current);
  }
  if (const std::uint64_t synced = take_confirmed_looks(); synced != 0) {
    mark_.advance({.watermark = 0, .seq_ceiling = 0, .acks_synced = synced});
  }
}

std::uint64_t SegmentSource::take_confirmed_looks() {
  std::uint64_t last = 0;
  while (!looks_.empty() && looks_.front().changes &&
         *looks_.front().changes <= progress_.changes) {
    last = looks_.front().number;
    looks_.pop_front();
  }
  return last;
}

bool SegmentSource::on_removal(std::uint64_t first_retained) {
  const std::uint64_t before = sync::load_relaxed(mark_.mark().first_retained);
  mark_.set_first_retained(first_retained);
  // What is on disk knows of all groups but those that were born just now. Such a one was seen
  // here, or sees the mark [M3]; or both, then it is in vain that it gives up.
  for (std::uint32_t index = 0; index < segment_.limits().max_groups; ++index) {
    const shm::Group& group = segment_.group(index);
    const std::uint64_t word = sync::load_acquire(group.word);
    if (!queue::counts_for_head(word)) continue;
    if (sync::load_acquire(group.progress.low) >= first_retained || base::mutant(113)) continue;
    mark_.set_first_retained(before);
    return false;
  }
  return true;
}

void SegmentSource::on_progress(const journal::Progress& progress) {
  progress_ = progress;
  mark_.advance({.watermark = progress.watermark,
                 .seq_ceiling = progress.seq_ceiling,
                 .acks_synced = take_confirmed_looks()});
  // [D3] full fence, pairs with S1: who went to sleep before saw the old watermark, or is seen.
  sync::full_fence();
  sync::event_notify(segment_.control().room_event);
  if (segment_.limits().visible != 0) sync::event_notify(segment_.control().message_event);
}

// --- The sweep's look ----------------------------------------------------------------------------

bool SegmentSource::has_news() {
  if (damage_) return false;
  const shm::Limits& limits = segment_.limits();
  const std::uint64_t seq = progress_.watermark;
  // acquire: nothing hangs on it but the answer. Any stamp but that of an empty slot is news.
  if (sync::load_acquire(segment_.slots()[seq & (limits.slots - 1)].low) != seq - limits.slots) {
    return true;
  }
  return has_news_of_groups();
}

// A thousand queues without traffic are looked at all the time: their entries for groups, 16 lines
// of two pages each, are read only if a group came or went.
bool SegmentSource::has_news_of_groups() {
  // [D4] acquire, before the words: a birth or an end that the words do not show yet moves it
  // later, while the word is joining, or before it is free.
  const std::uint64_t epoch = sync::load_acquire(segment_.control().head.high);
  if (standing_.holds && standing_.epoch == epoch) {
    for (const std::uint32_t index : standing_.active) {
      if (has_news_of(index, sync::load_acquire(segment_.group(index).word))) return true;
    }
    return false;
  }
  standing_ = {.epoch = epoch, .active = {}, .holds = true};
  for (std::uint32_t index = 0; index < segment_.limits().max_groups; ++index) {
    const std::uint64_t word = sync::load_acquire(segment_.group(index).word);
    const shm::GroupState state = shm::group_state(word);
    if (state == shm::GroupState::active) {
      standing_.active.push_back(index);
      if (has_news_of(index, word)) {
        standing_.holds = false;
        return true;
      }
    } else if (state == shm::GroupState::joining) {
      standing_.holds = false;  // its epoch may be the one that was just read
    }
  }
  if (standing_.active.size() == told_.size()) return false;
  standing_.holds = false;
  return true;
}

bool SegmentSource::has_news_of(std::uint32_t index, std::uint64_t word) {
  const std::uint64_t seq = progress_.watermark;
  const std::optional<Uuid>& at = group_at_[index];
  const auto found = at ? told_.find(*at) : told_.end();
  if (found == told_.end() || found->second.word != word) return true;
  Told& told = found->second;
  if (!scan_.scan(index, word, told.age, swept_)) return true;
  told.age.note(swept_.handed_out_end, base::coarse_tick_64());
  // Above the watermark there is nothing to tell about.
  if (std::min(swept_.floor, seq) > told.state.floor) return true;
  for (const SettledRange& range : swept_.settled) {
    std::vector<SettledRange> unknown;
    append_unknown(told.state.settled, std::max(range.first_seq, told.state.floor),
                   std::min(range.end_seq, seq), unknown);
    if (!unknown.empty()) return true;
  }
  for (const EntryState& entry : swept_.entries) {
    if (entry.seq >= seq || told.state.is_settled(entry.seq)) continue;
    const auto known = told.state.entries.find(entry.seq);
    if (known == told.state.entries.end() || !says_the_same(known->second, entry)) return true;
  }
  return false;
}

}  // namespace shmq::feed
