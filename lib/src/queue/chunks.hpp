// SPDX-License-Identifier: Apache-2.0
//
// Payload memory of one producer: chunks that it owns, and bump allocation in them.
//
// Invariants:
//  1. Nobody but the owner writes in an open chunk; a sealed chunk is written by nobody.
//  2. A chunk is taken again only after head has passed its last seq AND no live pin names it; the
//     pins are read after head, with a full fence between. Such a judgement stays true: whoever
//     pins the chunk later looks at head after that, finds its message passed, and lets go.
//  3. Stragglers of shared groups keep their chunks. Small ones are moved together, so that a few
//     delayed messages do not hold the whole arena (compaction.cpp).
//  4. A chunk with an unsettled loan in it stays open, however long; its producer goes on in
//  another.
//
// Reuse is first-in-first-out through a working set of 4 MiB: the lines of a chunk just freed are
// still dirty in the other core's cache and the slowest to write again (64 B: 87 against 26
// million/s). Beyond it chunks are taken only when the working set is busy.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <vector>

#include "base/assert.hpp"
#include "shm/segment.hpp"

namespace shmq::queue {

/// A chunk (or a run of neighbours, for a large message) that this producer holds open.
struct OwnedChunk {
  std::uint32_t first = 0;
  std::uint32_t count = 0;    // 0: this entry is not in use
  std::uint64_t end_seq = 0;  // greatest seq published from it, and one; 0: nothing yet
  std::uint32_t loans = 0;
};

class ProducerChunks {
 public:
  ProducerChunks(const shm::Segment& segment, std::byte* arena, std::uint32_t owner,
                 std::uint64_t generation);
  ProducerChunks(const ProducerChunks&) = delete;  // holds a pointer into itself

  /// Room for a record, aligned, in the current chunk; false: it does not fit there.
  bool bump(std::uint64_t bytes, std::byte*& place) noexcept {
    const std::uint64_t rounded =
        (bytes + shm::record_alignment - 1) & ~(shm::record_alignment - 1);
    place = cursor_;
    if (SHMQ_UNLIKELY(rounded > static_cast<std::uint64_t>(end_ - place))) return false;
    cursor_ = place + rounded;
    return true;
  }
  /// The same, in another chunk if need be; nullptr: no chunk is free now. The record lies in
  /// `current()`.
  std::byte* allocate(std::uint64_t bytes) noexcept {
    std::byte* place = nullptr;
    if (SHMQ_LIKELY(bump(bytes, place))) return place;
    return allocate_in_another((bytes + shm::record_alignment - 1) & ~(shm::record_alignment - 1));
  }
  /// The index of the chunk that the last allocation lies in.
  [[nodiscard]] std::uint32_t current() const noexcept { return current_; }

  /// Takes the last allocation back; only if nothing was allocated since.
  void undo_last(std::byte* place) noexcept { cursor_ = place; }
  void note_published(std::uint32_t index, std::uint64_t seq) noexcept {
    owned_[index].end_seq = seq + 1;  // one producer's seqs only rise
  }
  /// The same, for what lies in the current chunk.
  void note_published_here(std::uint64_t seq) noexcept { current_chunk_->end_seq = seq + 1; }
  /// Keeps a chunk open until every loan in it is settled.
  void add_loan(std::uint32_t index) noexcept { ++owned_[index].loans; }
  void end_loan(std::uint32_t index) noexcept;

  /// Seals what is open. For a clean end; loans must be over.
  void seal_all() noexcept;

  /// The greatest record that one allocation can hold.
  [[nodiscard]] std::uint64_t arena_bytes() const noexcept { return segment_.limits().arena_bytes; }

 private:
  std::byte* allocate_in_another(std::uint64_t bytes) noexcept;
  bool acquire(std::uint32_t count, std::uint32_t& first) noexcept;
  bool acquire_run(std::uint32_t count, std::uint32_t& first) noexcept;
  bool try_take(std::uint32_t index, sync::Word16& previous, std::uint64_t owned_word) noexcept;
  void seal(OwnedChunk& chunk) noexcept;
  void judge() noexcept;
  void widen_working_set() noexcept;
  bool acquire_single(bool outside, std::uint64_t owned_word, std::uint32_t& first) noexcept;
  void gather_run(std::uint32_t count) noexcept;
  // compaction.cpp
  void prepare_gathering() noexcept;
  [[nodiscard]] bool stragglers_crowd() noexcept;
  void choose_to_empty() noexcept;
  bool leave_to_journal() noexcept;
  bool gather_stragglers() noexcept;
  std::byte* allocate_gathering(std::uint64_t bytes) noexcept;
  void seal_gathering() noexcept;
  [[nodiscard]] bool pinned(std::uint32_t index) const noexcept {
    return ((pinned_[index / 64] >> (index % 64)) & 1) != 0;
  }

  const shm::Segment& segment_;
  std::byte* arena_;
  std::uint64_t open_word_;
  std::uint32_t working_set_chunks_;
  std::uint32_t near_chunks_;  // the working set, and what is pinned in between
  // The current one and those with loans: 64, each in a chunk of its own, and one more.
  std::array<OwnedChunk, 65> owned_{};
  std::uint32_t current_ = 0;
  OwnedChunk* current_chunk_ = owned_.data();
  std::byte* cursor_ = nullptr;  // where the next record goes; both null before the first chunk
  std::byte* end_ = nullptr;
  // What was pinned when head was `judged_head_`: one bit a chunk.
  std::vector<std::uint64_t> pinned_;
  std::uint64_t judged_head_ = 0;
  std::vector<sync::Word16> run_previous_;  // what the chunks of a run were before

  // The chunk that small stragglers are moved to: taken while there is no need for it, since when
  // there is, no other may be free. Both null: none.
  std::byte* gathering_cursor_ = nullptr;
  std::byte* gathering_end_ = nullptr;
  std::uint32_t gathering_chunk_ = 0;
  std::vector<std::uint32_t> straggler_bytes_;  // per chunk
  static constexpr std::uint32_t not_now = ~0U;
  std::vector<std::uint64_t> consumer_pins_;  // one bit a chunk
};

/// Marks every chunk that a live participant pins; the caller has read head before.
void mark_pinned_chunks(const shm::Segment& segment, std::vector<std::uint64_t>& bits) noexcept;
/// The same, for pins alone: not what stragglers hold. Clears nothing.
void mark_consumer_pins(const shm::Segment& segment, std::vector<std::uint64_t>& bits) noexcept;

}  // namespace shmq::queue
