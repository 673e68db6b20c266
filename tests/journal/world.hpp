// SPDX-License-Identifier: Apache-2.0
//
// A queue as the journal's writer sees it, and the judge of what a recovery brings back: what was
// confirmed must be there, what was settled and synced must stay settled, and no seq may show two
// payloads, over any number of lives.
#pragma once

#include <map>
#include <random>
#include <set>
#include <string>
#include <vector>

#include "daemon/journal/recover.hpp"
#include "daemon/journal/source.hpp"

namespace shmq::testing {

class World final : public journal::MessageSource {
 public:
  static constexpr std::size_t group_count = 2;

  explicit World(std::uint64_t seed) : random_(seed) {}

  [[nodiscard]] journal::CheckpointState initial_state() const;

  // --- What producers and consumers do ---
  /// As many as the ceiling and `most` allow; gives their number. `decoy`: bytes that some payloads
  /// are made of, such as a whole batch.
  std::size_t publish(std::size_t most, const std::vector<std::byte>& decoy);
  void settle_some();
  /// Counts go up, as after a nack.
  void hand_out_some();

  // --- journal::MessageSource ---
  bool message(std::uint64_t seq, journal::MessageView& view) override;
  bool next_change(std::uint64_t end_seq, journal::Change& change) override;
  bool on_removal(std::uint64_t first_retained) override;
  void on_progress(const journal::Progress& progress) override;

  // --- Lives ---
  /// Memory is gone: what the plan says is what there is.
  void live_again(const journal::Plan& plan, const std::map<std::uint64_t, std::string>& messages);
  /// Memory is newer: the writer starts at the plan's end, and is told everything again.
  void restart_writer(const journal::Plan& plan);

  // --- Judgement ---
  /// What is wrong with a recovery that came to `plan` and these messages; empty: nothing.
  [[nodiscard]] std::string judge(const journal::Plan& plan, bool memory_is_gone,
                                  const std::map<std::uint64_t, std::string>& messages,
                                  const std::vector<journal::SettledRange>& gaps);
  [[nodiscard]] std::uint64_t checks() const noexcept { return checks_; }
  [[nodiscard]] std::uint64_t confirmed() const noexcept { return confirmed_count_; }
  [[nodiscard]] const journal::Progress& progress() const noexcept { return progress_; }
  [[nodiscard]] std::uint64_t tail() const noexcept { return next_seq_; }

 private:
  struct Group {
    journal::GroupState memory;
    std::set<std::uint64_t> untold;          // settled, not yet taken as a change
    std::set<std::uint64_t> untold_entries;  // handed out, not yet taken
    std::set<std::uint64_t> ever_settled;    // in any life
    std::set<std::uint64_t> stays_settled;   // and confirmed to be on stable storage
    std::map<std::uint64_t, std::uint32_t> stable_hand_outs;
  };
  struct Taken {
    std::size_t group;
    std::vector<std::uint64_t> settled;
    std::vector<journal::EntryState> entries;
  };

  static journal::Uuid uuid_of(std::size_t group);
  std::uint64_t random(std::uint64_t below) { return random_() % below; }
  bool take_change_of(std::size_t index, std::uint64_t end_seq, journal::GroupChange& change);
  std::string judge_groups(const journal::Plan& plan);

  std::mt19937_64 random_;
  std::uint64_t next_seq_ = 0;
  std::map<std::uint64_t, std::string> memory_;      // messages of this life
  std::map<std::uint64_t, std::string> ever_given_;  // of all lives
  std::set<std::uint64_t> confirmed_;
  Group groups_[group_count];
  std::vector<Taken> taken_;  // in order; [told_, end) not yet confirmed
  std::uint64_t told_ = 0;
  journal::Progress progress_;
  std::uint64_t watermark_confirmed_ = 0;
  std::uint64_t confirmed_count_ = 0;
  std::uint64_t checks_ = 0;
  bool went_back_ = false;
};

}  // namespace shmq::testing
