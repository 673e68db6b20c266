// SPDX-License-Identifier: Apache-2.0
//
// The writer of one queue's journal: group commit.
//
//   source -> staging -> batch -> write -> barrier -> watermark
//
// It waits for nobody: pump() does what can be done now and returns; completions come through
// Disk::poll() and pump again by themselves. One thread.
//
// Invariants:
//  1. One barrier at a time: batch k + 1 is staged after batch k is on stable storage.
//  2. Progress is reported after the barrier's completion, never before.
//  3. A file whose write or sync failed is poisoned: never written or synced again. What was not
//     durable is staged again from the source and goes to a new file.
//  4. The state written as a snapshot is the durable one; changes follow as deltas.
//  5. As long as the next file is not there, the end of this one is kept for checkpoints: acks can
//     always be written that let an old file go, and so make room for the next one.
//  6. A seq is given out only below the durable ceiling: watermark + ring_slots.
#pragma once

#include <array>
#include <deque>

#include "daemon/journal/batch_builder.hpp"
#include "daemon/journal/file_set.hpp"
#include "daemon/journal/source.hpp"

namespace shmq::journal {

struct WriterOptions {
  FileLimits files;
  std::uint64_t ring_slots = 65536;
  std::uint64_t batch_bytes_max = 8ULL << 20;    ///< a larger message gets a batch of its own
  std::uint64_t write_piece_bytes = 1ULL << 20;  ///< several of them are in flight for one barrier
  std::uint64_t idle_close_ns = 10'000'000;
  std::uint64_t degraded_retry_ns = 60'000'000'000;
};

enum class Health {
  ok,
  no_space,  ///< no file can be prepared: nothing is lost, but nothing gets durable
  degraded,  ///< two failures in a row: synced publishes fail at once until a batch succeeds
};

/// How long barriers took, from the call until its answer, good or bad.
struct SyncDurations {
  /// Upper bounds, in nanoseconds; the last count is of those that took longer than all of them.
  static constexpr std::array<std::uint64_t, 16> bounds_ns{
      50'000,      100'000,       200'000,       500'000,      1'000'000,   2'000'000,
      5'000'000,   10'000'000,    20'000'000,    50'000'000,   100'000'000, 200'000'000,
      500'000'000, 1'000'000'000, 2'000'000'000, 5'000'000'000};
  std::array<std::uint64_t, bounds_ns.size() + 1> counts{};
  std::uint64_t sum_ns = 0;

  void add(std::uint64_t duration_ns) noexcept;
};

struct WriterFigures {
  std::uint64_t batches = 0;
  std::uint64_t closing_batches = 0;
  std::uint64_t messages = 0;
  std::uint64_t bytes = 0;
  std::uint64_t files = 0;
  std::uint64_t errors = 0;  ///< failed writes, syncs and preparations, ENOSPC aside
  SyncDurations syncs;       ///< of batches
};

class Writer {
 public:
  Writer(io::Disk& disk, MessageSource& source, const WriterOptions& options, Start start);
  Writer(const Writer&) = delete;
  Writer& operator=(const Writer&) = delete;
  /// Completions that come later find nobody.
  ~Writer();

  /// Call after a doorbell, a timer, a reload, and once at the start.
  void pump();
  /// When pump() should be called at the latest; ~0: when something happens.
  [[nodiscard]] std::uint64_t next_timer_ns() const noexcept;
  /// From now on: write what is there, close, and be done.
  void stop();
  [[nodiscard]] bool is_stopped() const noexcept { return is_stopping_ && is_quiet(); }
  /// A batch is on its way: its completion pumps by itself.
  [[nodiscard]] bool is_in_flight() const noexcept { return in_flight_; }
  /// Try again at once what failed.
  void reload();

  [[nodiscard]] const Progress& progress() const noexcept { return progress_; }
  [[nodiscard]] Health health() const noexcept;
  /// errno of the last failure; 0 if a batch has succeeded since.
  [[nodiscard]] int last_error() const noexcept { return last_error_; }
  [[nodiscard]] const WriterFigures& figures() const noexcept { return figures_; }
  [[nodiscard]] const FileSet& files() const noexcept { return files_; }
  /// A passed file has come to the age at which retention lets it go: pump() removes it.
  [[nodiscard]] bool has_file_over_age() const noexcept {
    return files_.oldest_is_over_age() && passed().floor &&
           files_.older().front().end_seq <= *passed().floor;
  }
  [[nodiscard]] const CheckpointState& durable_state() const noexcept { return state_; }

 private:
  struct Liveness {
    Writer* writer;
  };
  // What one look at the source came to.
  enum class Staged { nothing, batch, needs_room };

  [[nodiscard]] bool is_quiet() const noexcept;
  [[nodiscard]] bool closing_is_due(std::uint64_t now_ns) const noexcept;
  [[nodiscard]] BatchFrame next_frame() const;
  [[nodiscard]] FileSet::Passed passed() const noexcept;
  [[nodiscard]] std::optional<std::uint64_t> removable_below() const noexcept;
  [[nodiscard]] std::uint64_t reserve_bytes() const noexcept;
  [[nodiscard]] bool lets_a_file_go() const;
  bool stage_into_reserve();
  void await_file(std::uint64_t now_ns);
  void stage(std::uint64_t now_ns);
  Staged fill(std::uint64_t room, std::uint64_t now_ns);
  bool add_changes();
  bool adopt_next_file();
  void leave_current();
  void submit(std::uint32_t flags);
  void on_written(std::int64_t result);
  void on_synced(std::int64_t result);
  void sync();
  void commit();
  void fail(int error_number);
  void count_failure(int error_number, std::uint64_t now_ns);
  template <typename Member>
  io::Done callback(Member member);

  io::Disk& disk_;
  MessageSource& source_;
  WriterOptions options_;
  Identity identity_;
  std::uint64_t epoch_;
  std::shared_ptr<Liveness> liveness_;
  FileSet files_;

  std::optional<FileRecord> current_;  // nothing: the next one is awaited
  std::uint64_t offset_ = 0;           // in current_, behind its last durable batch
  std::uint64_t least_bytes_ = 0;      // of the next file, for what did not fit
  std::uint64_t last_file_bytes_ = 0;
  std::uint64_t batch_number_ = 1;
  BatchRef last_;
  CheckpointState state_;  // the durable one
  Progress progress_;
  bool needs_closing_ = false;
  bool needs_ceiling_ = true;  // the incarnation's first batch gives out seqs
  std::uint64_t last_commit_ns_ = 0;

  std::deque<Change> changes_;  // taken from the source, not durable; the first of them in flight
  std::size_t changes_staged_ = 0;
  BatchBuilder builder_;
  bool waits_for_file_ = false;  // there is something to write, and no room before the next file
  bool found_nothing_ = false;   // the last look at the source came to nothing
  std::uint64_t sync_began_ns_ = 0;
  bool in_flight_ = false;
  int pieces_ = 0;  // writes outstanding
  int piece_error_ = 0;

  int failures_ = 0;  // in a row
  int last_error_ = 0;
  std::uint64_t retry_at_ns_ = 0;
  bool is_stopping_ = false;
  WriterFigures figures_;
};

}  // namespace shmq::journal
