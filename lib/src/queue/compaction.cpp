// SPDX-License-Identifier: Apache-2.0
//
// Moving small stragglers together, so that a thousand delayed messages do not hold a thousand
// chunks.
//
// A record is copied to a chunk of the producer's own that takes nothing else, and the place in the
// table is changed by CAS [T8] from exactly the one that was copied from, which names the use of
// the entry. Who claimed the message before pinned the old chunk; who claims it later reads the
// place again after the claim [T7].
//
// Another producer may have judged, before the move, that a chunk is free: the one that is gathered
// in never is, since it is not sealed then, and is sealed with the tail, which no head that anybody
// has seen passes.
#include <algorithm>
#include <bit>
#include <shmq/options.hpp>

#include "base/mutant.hpp"
#include "queue/chunks.hpp"
#include "queue/head.hpp"
#include "queue/straggler_places.hpp"
#include "sync/racy_copy.hpp"

namespace shmq::queue {

// One chunk in reserve while the queue has shared groups.
void ProducerChunks::prepare_gathering() noexcept {
  const std::uint64_t chunk_bytes = segment_.limits().chunk_bytes;
  // With room for what a chunk that is emptied may hold, so that the next pass frees one at least.
  const bool has_room =
      gathering_end_ != nullptr &&
      static_cast<std::uint64_t>(gathering_end_ - gathering_cursor_) >= chunk_bytes / 4;
  if (has_room) return;
  bool any = false;
  for (std::uint32_t i = 0; i < segment_.limits().max_groups && !any; ++i) {
    any = is_active_shared(sync::load_acquire(segment_.group(i).word));
  }
  if (!any) return;
  const std::uint64_t word = shm::chunk_word(
      shm::ChunkState::gathering, shm::chunk_owner(open_word_), shm::chunk_generation(open_word_));
  std::uint32_t chunk = 0;
  if (!acquire_single(true, word, chunk)) return;
  seal_gathering();
  gathering_chunk_ = chunk;
  gathering_cursor_ = arena_ + std::uint64_t{gathering_chunk_} * chunk_bytes;
  gathering_end_ = gathering_cursor_ + chunk_bytes;
}

void ProducerChunks::seal_gathering() noexcept {
  if (gathering_end_ == nullptr) return;
  sync::Word16& entry = segment_.chunk(gathering_chunk_);
  const sync::Word16 seen = sync::read_halves(entry);
  const std::byte* begin = arena_ + std::uint64_t{gathering_chunk_} * segment_.limits().chunk_bytes;
  const sync::Word16 sealed =
      gathering_cursor_ == begin
          ? sync::Word16{0, shm::chunk_word(shm::ChunkState::free, 0, 0)}
          : sync::Word16{find_tail(segment_),
                         shm::chunk_word(shm::ChunkState::sealed, shm::chunk_owner(open_word_),
                                         shm::chunk_generation(open_word_))};
  gathering_cursor_ = gathering_end_ = nullptr;
  if (shm::chunk_state(seen.high) != shm::ChunkState::gathering) return;  // corrupt: touch nothing
  // [K6] seq_cst, as K4.
  sync::compare_and_swap(entry, seen, sealed);
}

std::byte* ProducerChunks::allocate_gathering(std::uint64_t bytes) noexcept {
  const std::uint64_t rounded = (bytes + shm::record_alignment - 1) & ~(shm::record_alignment - 1);
  if (rounded > static_cast<std::uint64_t>(gathering_end_ - gathering_cursor_)) return nullptr;
  std::byte* place = gathering_cursor_;
  gathering_cursor_ += rounded;
  return place;
}

// Do stragglers hold more than an eighth of the arena?
bool ProducerChunks::stragglers_crowd() noexcept {
  straggler_bytes_.assign(segment_.limits().chunks, 0);
  std::uint64_t crowded = 0;
  for_each_straggler(segment_, [&](const StragglerPlace& straggler) {
    for (std::uint64_t chunk = straggler.first_chunk; chunk <= straggler.last_chunk; ++chunk) {
      crowded += straggler_bytes_[chunk] == 0 ? 1 : 0;
      const std::uint64_t rounded =
          (straggler.bytes + shm::record_alignment - 1) & ~(shm::record_alignment - 1);
      straggler_bytes_[chunk] += static_cast<std::uint32_t>(
          std::min<std::uint64_t>(rounded, segment_.limits().chunk_bytes));
    }
  });
  return crowded > segment_.limits().chunks / 8;
}

// Which chunks the next pass empties: those that hold a few small stragglers and that no consumer
// pins; as many as there is room for, since one that is emptied in part frees nothing. The others'
// straggler_bytes_ become `not_now`.
void ProducerChunks::choose_to_empty() noexcept {
  (void)stragglers_crowd();
  // A hint: a pin that is missed here costs a move in vain.
  std::fill(consumer_pins_.begin(), consumer_pins_.end(), 0);
  mark_consumer_pins(segment_, consumer_pins_);
  std::uint64_t room = static_cast<std::uint64_t>(gathering_end_ - gathering_cursor_);
  for (std::uint32_t i = 0; i < straggler_bytes_.size(); ++i) {
    std::uint32_t& bytes = straggler_bytes_[i];
    const sync::Word16 state = sync::read_halves(segment_.chunk(i));
    // Worth it: one move in four at least frees a chunk, however often a message is moved.
    const bool worth_it = bytes != 0 && bytes <= segment_.limits().chunk_bytes / 4 &&
                          bytes <= room && ((consumer_pins_[i / 64] >> (i % 64)) & 1) == 0 &&
                          shm::chunk_state(state.high) == shm::ChunkState::sealed &&
                          state.low < judged_head_;
    if (worth_it) {
      room -= bytes;
    } else {
      bytes = not_now;
    }
  }
}

// On a queue that spills, stragglers on stable storage need no memory at all: their place becomes
// "in the journal". As with a move, who claims one later reads the place again [T7].
bool ProducerChunks::leave_to_journal() noexcept {
  if (segment_.limits().overflow != static_cast<std::uint32_t>(Overflow::spill)) return false;
  const std::uint64_t bound = bound_of_head(segment_);
  std::uint64_t left = 0;
  for_each_straggler(segment_, [&](const StragglerPlace& straggler) {
    if (straggler.seq >= bound) return;
    StragglerTable table{segment_, straggler.group};
    left += table.move_place(straggler.index, straggler.place, shm::ref_in_journal) ? 1 : 0;
  });
  return left != 0;
}

// Empties chunks that only a few small stragglers hold. False: nothing was moved.
bool ProducerChunks::gather_stragglers() noexcept {
  if (leave_to_journal()) return true;
  if (gathering_end_ == nullptr) return false;
  choose_to_empty();
  std::uint64_t moved = 0;
  bool room = true;
  for_each_straggler(segment_, [&](const StragglerPlace& straggler) {
    const std::uint64_t chunk = straggler.first_chunk;
    // In a chunk that head has passed (see judged_head_) nothing new becomes a straggler.
    if (!room || chunk != straggler.last_chunk || straggler_bytes_[chunk] == not_now) return;
    StragglerTable table{segment_, straggler.group};
    std::byte* to = allocate_gathering(straggler.bytes);
    room = to != nullptr;
    if (!room) return;
    sync::racy_copy(to, arena_ + straggler.offset, straggler.bytes);
    SHMQ_CRASH_POINT("gather.copied");
    // Still that message in that entry: then the bytes were whole while they were copied, since a
    // live straggler holds its chunk.
    const auto kept = table.kept(straggler.index);
    const std::uint64_t ref = static_cast<std::uint64_t>(to - arena_) >> shm::ref_unit_shift;
    if (kept && kept->seq == straggler.seq &&
        table.move_place(straggler.index, straggler.place, ref)) {
      ++moved;
    } else {
      gathering_cursor_ = to;  // nothing was allocated since
    }
  });
  return moved != 0;
}

}  // namespace shmq::queue
