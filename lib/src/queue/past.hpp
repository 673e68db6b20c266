// SPDX-License-Identifier: Apache-2.0
//
// Messages that head has passed and a group still needs: read from the journal, by the consumer
// itself. One Past belongs to one consumer, and is used by its thread alone.
//
// A group's progress (floor, window, stragglers) does not depend on where the bytes are. So a group
// behind head has the same states, leases and acks as any other; only the bytes of seq < head come
// from here, and once it has caught up it reads the ring again, without a step in between.
//
// The pin rule. Where head cannot pass an unsettled message, a claim proves that head had not
// passed it. Where it can (Overflow::spill, or a group that was set behind head), the reader does
//
//     1. pin the record's chunk    2. full fence    3. look at head: seq < head?
//
// and whoever wants to use the chunk again does
//
//     a. head has passed its last seq    b. full fence [K0]    c. look at the pins
//
// Of the two fences one is first. If the reader's is, the pin is seen at c, and the chunk stays. If
// the other's is, the reader sees at 3 a head that is at least the one of a, which is above seq: it
// undoes the pin and reads from the journal. Either way no byte of a chunk that is in use for
// something else is handed out. A pin that has passed 3 for one seq holds its chunk as long as it
// stands, so all records in it may be read, whatever head does: the fast paths, which stay within
// the pinned chunk, need no look at head. A reserved entry of a straggler table that names a place
// in the arena follows the same rule [T9]; else its place is "in the journal".
//
// And head never passes the watermark [H3]: what is below head is on stable storage, so the journal
// has it, as long as a floor or a straggler keeps its file.
//
// Invariants:
//  1. Bytes that are handed out lie in memory of the process and stay as they are until released.
//  2. Nothing is skipped: what cannot be read is an error that names the seqs, each time.
//  3. Memory: two batches, and those that deliveries hang on; beyond 32 MiB of those, messages are
//     copied out one by one.
#pragma once

#include <array>
#include <memory>
#include <optional>
#include <vector>

#include "journal/cursor.hpp"
#include "shm/segment.hpp"

namespace shmq::queue {

enum class PastLook : std::uint8_t {
  found,
  not_yet,  // the watermark does not cover it: the daemon has just begun a new life
  no_memory,
  failed,  // Past::take_error says why
};

/// A message as a record in memory of the process: head_bytes before the payload a shm::Record
/// begins, with all that belongs to one.
struct PastMessage {
  enum class Memory : std::uint8_t {
    none,   // a seq that no message has: a void record, never to be released
    batch,  // Past::release
    copy,   // std::free
  };
  const std::byte* payload = nullptr;
  std::uint32_t payload_bytes = 0;
  std::uint32_t head_bytes = 0;
  Memory memory = Memory::none;
};

class Past {
 public:
  /// The next ones in order, which are read ahead; or one out of order, which leaves the place of
  /// the others alone.
  enum class Way : std::uint8_t { onward, back };

  explicit Past(const shm::Segment& segment) noexcept;
  Past(const Past&) = delete;
  Past& operator=(const Past&) = delete;
  ~Past();

  PastLook find(std::uint64_t seq, Way way, PastMessage& message) noexcept;
  /// `record`: head_bytes before the payload of a message with Memory::batch.
  static void release(const std::byte* record) noexcept;
  /// Why the last find() failed, once.
  std::optional<Error> take_error() { return std::exchange(error_, std::nullopt); }

 private:
  struct Batch;
  struct Reading {
    std::unique_ptr<journal::Cursor> cursor;
    Batch* batch = nullptr;
  };
  PastLook load(std::uint64_t seq, Reading& reading, Way way);
  static PastLook view(Batch& batch, std::uint64_t seq, bool copies, PastMessage& message);
  Batch* take_batch();
  void let_go(Batch* batch) noexcept;
  [[nodiscard]] std::uint64_t detached_bytes() const noexcept;

  const shm::Segment& segment_;
  std::array<Reading, 2> readings_;  // by Way
  std::vector<std::unique_ptr<Batch>> batches_;
  std::optional<Error> error_;
};

}  // namespace shmq::queue
