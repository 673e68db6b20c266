// SPDX-License-Identifier: Apache-2.0
//
// Where the writer gets what it writes: messages in seq order and changes of groups. The daemon
// implements it over the shared-memory segment, tests over a model.
#pragma once

#include "journal/state.hpp"

namespace shmq::journal {

/// What is on stable storage. Only ever grows.
struct Progress {
  std::uint64_t watermark = 0;    ///< all seqs below
  std::uint64_t seq_ceiling = 0;  ///< no seq at or above may be given out yet
  std::uint64_t changes = 0;      ///< so many of the changes that were taken
};

/// A group's change, or its end, or its settings.
struct Change {
  enum class Kind { group, removed, settings } kind = Kind::group;
  GroupChange group;                ///< of `removed` and `settings` only group and incarnation
  std::vector<std::byte> settings;  ///< group.group all zeros: the queue's own
};

class MessageSource {
 public:
  virtual ~MessageSource() = default;

  /// The message with this seq, if it is published. The view is of memory that others may be
  /// writing: its lengths are already checked and private, its bytes are copied once. Valid until
  /// the next call.
  virtual bool message(std::uint64_t seq, MessageView& view) = 0;

  /// The next change not yet taken that is about seqs below `end_seq` alone, if there is one.
  /// Changes of one group come in order. The writer keeps what it took until it is durable.
  virtual bool next_change(std::uint64_t end_seq, Change& change) = 0;

  /// Files are about to go, and the journal will begin with this seq. False, and nothing is
  /// removed now: somebody has come meanwhile who needs an older one. Also called at the start.
  virtual bool on_removal(std::uint64_t first_retained) {
    static_cast<void>(first_retained);
    return true;
  }

  /// Called after each barrier, and when `health` changed.
  virtual void on_progress(const Progress& progress) = 0;
};

}  // namespace shmq::journal
