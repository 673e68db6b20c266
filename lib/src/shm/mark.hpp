// SPDX-License-Identifier: Apache-2.0
//
// The watermark object of a durable queue: written by the daemon, read by everybody.
//
// Invariants:
//  1. The object has its name only when it is whole; its fixed part is read into private memory and
//     checked before anything of it is believed.
//  2. A reader trusts it only if its owner is trusted and nobody else may write it.
//  3. The watermark, the ceiling and both counts of looks never fall. The ceiling moves before the
//     watermark that makes room for the seqs below it.
#pragma once

#include <sys/types.h>

#include <chrono>
#include <shmq/error.hpp>
#include <string>
#include <vector>

#include "shm/layout.hpp"
#include "shm/mapping.hpp"

namespace shmq::shm {

class Segment;

/// Which object, and what must be true of it.
struct MarkIdentity {
  std::string name_space;
  std::string queue;
  std::uint8_t queue_uuid[16] = {};
};

/// Mapped read-only. daemon_away: there is none of this queue (yet).
Result<Mapping> open_mark(const MarkIdentity& identity, const std::vector<uid_t>& trusted_owners,
                          const std::string& what);

/// The directory of the journal, from a private copy; empty: the daemon has not said it.
std::string journal_directory(const Mark& mark);

/// What is told to everybody at once.
struct MarkProgress {
  std::uint64_t watermark = 0;
  std::uint64_t seq_ceiling = 0;
  std::uint64_t acks_synced = 0;
};

/// The daemon's side; one for a queue, and nobody else writes the object. Single-threaded.
class MarkWriter {
 public:
  /// Goes on with the object that belongs to the segment, or makes it. What stands under its name
  /// and is not of this segment, or cannot be believed, is replaced.
  static Result<MarkWriter> open(const Segment& segment);

  /// A new incarnation of the journal's writer.
  void begin_epoch(std::uint64_t epoch) noexcept;
  /// What is lower than before stays what it was.
  void advance(const MarkProgress& progress) noexcept;
  /// A look at the groups begins: what they say from now on is part of it. Gives its number.
  std::uint64_t begin_look() noexcept;
  void set_state(DaemonState state) noexcept;
  /// The files begin with this seq. A full fence follows: who joins below it, and does not see it,
  /// is seen by a look at the groups from here on.
  void set_first_retained(std::uint64_t seq) noexcept;
  /// Where the daemon hears the doorbell; a path that is too long leaves it without one.
  void set_doorbell(const std::string& path) noexcept;
  /// Where the journal's files are; a path that is too long leaves clients without it.
  void set_journal(const std::string& directory) noexcept;

  [[nodiscard]] const Mark& mark() const noexcept { return *mark_; }

 private:
  void notify() noexcept;

  Mapping mapping_;
  Mark* mark_ = nullptr;
};

}  // namespace shmq::shm
