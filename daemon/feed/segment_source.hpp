// SPDX-License-Identifier: Apache-2.0
//
// What a journal's writer writes, taken from the shared-memory segment of a queue: messages in seq
// order, and what changed in the groups since they were last told.
//
// Who calls: the daemon's thread alone, through journal::Writer.
//
// Invariants:
//  1. Nothing of the segment is believed: each shared field is read once into private memory and
//     checked there. What cannot be is damage, remembered, and the end of this source.
//  2. A seq is told as settled only if it was settled in the segment. An unsettled one that is told
//     too late costs a redelivery, the other way round a message.
//  3. What was told is known (told_), and only differences to it are told: the cost is in
//     proportion to what changed, and after a restart the first look tells what the disk does not
//     know yet.
//  4. acks_synced moves to a look's number once everything that was settled when the look began is
//     on stable storage, what it had to leave out for now included.
#pragma once

#include <deque>
#include <optional>
#include <shmq/error.hpp>

#include "daemon/feed/group_scan.hpp"
#include "daemon/journal/source.hpp"
#include "shm/mark.hpp"
#include "shm/segment.hpp"

namespace shmq::feed {

class SegmentSource final : public journal::MessageSource {
 public:
  /// `on_disk` and `watermark`: where the journal stands (journal::Start). The segment and the mark
  /// must outlive the source; both belong to the same queue. One source for one writer: both count
  /// the changes from here on.
  SegmentSource(const shm::Segment& segment, shm::MarkWriter& mark,
                const journal::CheckpointState& on_disk, std::uint64_t watermark);
  SegmentSource(const SegmentSource&) = delete;
  SegmentSource& operator=(const SegmentSource&) = delete;
  ~SegmentSource() override = default;

  /// The view points into the arena. False, for good, after damage.
  bool message(std::uint64_t seq, journal::MessageView& view) override;
  /// The first call looks at all groups, the following ones give what that look found; false ends
  /// the look, and the next call is the first of another one. So a call ends, however fast the
  /// consumers are.
  bool next_change(std::uint64_t end_seq, journal::Change& change) override;
  /// Tells the watermark object; false if a group was born meanwhile that needs an older message.
  bool on_removal(std::uint64_t first_retained) override;
  /// Tells the watermark object, and wakes who waits for room, or for messages that are visible
  /// once they are synced.
  void on_progress(const journal::Progress& progress) override;

  /// Would a pump() find something to write? A cheap look, for the daemon's sweep: may say yes
  /// where there is nothing, and no for what has been so for less than a second.
  [[nodiscard]] bool has_news();
  /// What is wrong with the segment, if anything was found: the queue must be stopped, since what
  /// its memory says is not to be believed any more.
  [[nodiscard]] const std::optional<Error>& damage() const noexcept { return damage_; }

 private:
  struct Told {
    journal::GroupState state;
    std::uint64_t word = 0;  // of the segment's entry; 0: not seen there yet
    std::uint32_t index = 0;
    bool settings = false;        // told
    std::vector<std::byte> text;  // of the settings
    LeaseAge age;
  };
  // A look whose acks are not known to be on stable storage.
  struct Look {
    std::uint64_t number = 0;
    std::uint64_t bound = 0;               // all that was settled then is below
    std::optional<std::uint64_t> changes;  // so many have to be durable; nothing: not told wholly
  };

  // What the sweep compares with first.
  struct Standing {
    std::uint64_t epoch = 0;            // of head: moves with each birth and each end of a group
    std::vector<std::uint32_t> active;  // all groups that were there, by entry
    bool holds = false;
  };

  void damaged(std::string why);
  [[nodiscard]] bool has_news_of_groups();
  [[nodiscard]] bool has_news_of(std::uint32_t index, std::uint64_t word);
  void look(std::uint64_t end_seq);
  void look_at_group(std::uint32_t index, std::uint64_t word, std::uint64_t end_seq);
  void tell_removed(const std::vector<bool>& seen);
  void finish_look(std::uint64_t end_seq);
  /// Forgets the looks that are on stable storage; gives the last one's number, 0: none.
  std::uint64_t take_confirmed_looks();
  void take(const journal::Change& change);

  const shm::Segment& segment_;
  shm::MarkWriter& mark_;
  GroupScan scan_;
  std::map<journal::Uuid, Told> told_;
  Standing standing_;
  GroupPicture swept_;                                  // kept for its memory
  std::vector<std::optional<journal::Uuid>> group_at_;  // by entry: who was found there last
  std::deque<journal::Change> pending_;                 // found by the look, not taken yet
  bool in_look_ = false;
  bool was_cut_short_ = false;  // a group changed under the look: it vouches for nothing
  std::uint64_t look_number_ = 0;
  std::uint64_t look_end_ = 0;
  std::uint64_t look_bound_ = 0;
  std::deque<Look> looks_;
  std::uint64_t taken_ = 0;  // changes, in all
  journal::Progress progress_;
  std::optional<Error> damage_;
};

}  // namespace shmq::feed
