// SPDX-License-Identifier: Apache-2.0
#include "queue/chunks.hpp"

#include <algorithm>
#include <bit>
#include <shmq/info.hpp>
#include <shmq/options.hpp>

#include "base/clock.hpp"
#include "base/mutant.hpp"
#include "queue/head.hpp"
#include "queue/shared_group.hpp"
#include "queue/straggler_places.hpp"

namespace shmq::queue {
namespace {

constexpr std::uint64_t working_set_bytes = 4ULL << 20;

std::uint64_t coarse_ms() noexcept { return base::clock->coarse_ns() / 1'000'000; }

}  // namespace

ProducerChunks::ProducerChunks(const shm::Segment& segment, std::byte* arena, std::uint32_t owner,
                               std::uint64_t generation)
    : segment_(segment),
      arena_(arena),
      open_word_(shm::chunk_word(shm::ChunkState::open, owner, generation)),
      working_set_chunks_(std::min<std::uint32_t>(
          segment.limits().chunks,
          std::max<std::uint32_t>(
              static_cast<std::uint32_t>(working_set_bytes / segment.limits().chunk_bytes), 4))),
      near_chunks_(working_set_chunks_),
      pinned_((segment.limits().chunks + 63) / 64),
      run_previous_(segment.limits().chunks),
      consumer_pins_((segment.limits().chunks + 63) / 64) {}

void mark_pinned_chunks(const shm::Segment& segment, std::vector<std::uint64_t>& bits) noexcept {
  std::fill(bits.begin(), bits.end(), 0);
  // The stragglers first, the pins second: who claims a straggler pins its chunk before, and it
  // leaves the table only when that claim is settled.
  if (!base::mutant(15)) {
    for_each_straggler(segment, [&](const StragglerPlace& straggler) {
      for (std::uint64_t chunk = straggler.first_chunk; chunk <= straggler.last_chunk; ++chunk) {
        bits[chunk / 64] |= 1ULL << (chunk % 64);
      }
    });
  }
  mark_consumer_pins(segment, bits);
}

void mark_consumer_pins(const shm::Segment& segment, std::vector<std::uint64_t>& bits) noexcept {
  const shm::Limits& limits = segment.limits();
  // Entries beyond were never used. acquire, after the caller's fence: an attach that is not seen
  // here is one that comes after the look (see K1).
  const std::uint32_t used =
      std::min(sync::load_acquire(segment.control().participants_used), limits.max_participants);
  for (std::uint32_t i = 0; i < used; ++i) {
    const shm::Participant& entry = segment.participant(i);
    // [K1] acquire: a pin counts in the life that the word names. A participant that attaches after
    // this look pins only what it finds at or above head, which has passed every candidate.
    const std::uint64_t word = sync::load_acquire(entry.word);
    if (shm::participant_state(word) != shm::ParticipantState::alive ||
        shm::participant_role(word) != static_cast<std::uint8_t>(Role::consumer)) {
      continue;
    }
    const std::uint64_t generation = shm::participant_generation(word) & shm::pin_generation_mask;
    for (const std::uint64_t& place : entry.pins) {
      // [K2] acquire, pairs with C1 (pin): after the full fence below K0, so a consumer whose look
      // at the floor came before the floor moved is seen here.
      const std::uint64_t pin = sync::load_acquire(place);
      const std::uint64_t first = pin & shm::pin_chunk_mask;
      if (first == 0 || (pin >> 44) != generation) continue;
      const std::uint64_t count = (pin >> shm::pin_chunk_bits) & shm::pin_chunk_mask;
      const std::uint64_t end = std::min<std::uint64_t>(first - 1 + count, limits.chunks);
      for (std::uint64_t chunk = first - 1; chunk < end; ++chunk) {
        bits[chunk / 64] |= 1ULL << (chunk % 64);
      }
    }
  }
}

void ProducerChunks::judge() noexcept {
  advance_floors(segment_, shm::chunk_owner(open_word_) - 1);
  judged_head_ = refresh_head(segment_);
  // [K0] full fence: head was read before, the pins are read after.
  sync::full_fence();
  mark_pinned_chunks(segment_, pinned_);
  std::uint64_t pinned = 0;
  for (const std::uint64_t bits : pinned_)
    pinned += static_cast<std::uint64_t>(std::popcount(bits));
  sync::store_relaxed(segment_.control().pinned_chunks_hint,
                      pinned);  // a figure: any value will do
  widen_working_set();
  if (base::mutant(1)) std::fill(pinned_.begin(), pinned_.end(), 0);
}

// What is pinned is not worked with: as many others in its place, the nearest ones. Without them a
// few held messages would send the producer through all of a large arena, which is in no cache.
void ProducerChunks::widen_working_set() noexcept {
  const std::uint32_t chunks = segment_.limits().chunks;
  std::uint32_t usable = 0;
  near_chunks_ = 0;
  while (near_chunks_ < chunks && usable < working_set_chunks_) {
    if (!pinned(near_chunks_++)) ++usable;
  }
}

void ProducerChunks::seal(OwnedChunk& chunk) noexcept {
  for (std::uint32_t i = chunk.first; i < chunk.first + chunk.count; ++i) {
    sync::Word16& entry = segment_.chunk(i);
    const sync::Word16 seen = sync::read_halves(entry);
    const std::uint64_t last = chunk.end_seq - (base::mutant(2) ? 2 : 1);
    const sync::Word16 sealed =
        chunk.end_seq != 0
            ? sync::Word16{last, (open_word_ & ~(7ULL << 61)) |
                                     (static_cast<std::uint64_t>(shm::ChunkState::sealed) << 61)}
            : sync::Word16{0, shm::chunk_word(shm::ChunkState::free, 0, 0)};
    if (seen.high != open_word_) continue;  // corrupt: not ours any more; touch nothing
    // [K4] seq_cst: all stores to the chunk come before.
    sync::compare_and_swap(entry, seen, sealed);
  }
  chunk = OwnedChunk{};
}

void ProducerChunks::end_loan(std::uint32_t index) noexcept {
  OwnedChunk& chunk = owned_[index];
  if (--chunk.loans == 0 && index != current_) seal(chunk);
}

void ProducerChunks::seal_all() noexcept {
  for (OwnedChunk& chunk : owned_) {
    if (chunk.count != 0) seal(chunk);
  }
  cursor_ = end_ = nullptr;
  seal_gathering();
}

bool ProducerChunks::try_take(std::uint32_t index, sync::Word16& previous,
                              std::uint64_t owned_word) noexcept {
  sync::Word16& entry = segment_.chunk(index);
  previous = sync::read_halves(entry);
  const shm::ChunkState state = shm::chunk_state(previous.high);
  const bool reusable = state == shm::ChunkState::free ||
                        (state == shm::ChunkState::sealed && previous.low < judged_head_);
  if (!reusable || pinned(index)) return false;
  // [K3] seq_cst: from exactly what was judged. A torn read fails here.
  return sync::compare_and_swap(entry, previous, {0, owned_word});
}

bool ProducerChunks::acquire_run(std::uint32_t count, std::uint32_t& first) noexcept {
  // From the top: small ones are taken from the bottom, so the two meet as late as possible.
  const std::uint32_t chunks = segment_.limits().chunks;
  std::uint32_t taken = 0;
  std::vector<sync::Word16>& previous = run_previous_;
  for (std::uint32_t i = chunks; i-- > 0;) {
    if (try_take(i, previous[taken], open_word_)) {
      if (++taken == count) {
        first = i;
        shm::Control& control = segment_.control();
        if (sync::load_relaxed(control.run_hint) != 0) sync::store_relaxed(control.run_hint, 0);
        return true;
      }
      continue;
    }
    // A gap: give back what was taken above it, as it was.
    for (std::uint32_t k = 0; k < taken; ++k) {
      sync::compare_and_swap(segment_.chunk(i + taken - k), {0, open_word_}, previous[k]);
    }
    taken = 0;
  }
  for (std::uint32_t k = 0; k < taken; ++k) {
    sync::compare_and_swap(segment_.chunk(taken - 1 - k), {0, open_word_}, previous[k]);
  }
  return false;
}

// No run is free: says which chunks are gathered for one, those that will be free first.
void ProducerChunks::gather_run(std::uint32_t count) noexcept {
  std::uint64_t& hint = segment_.control().run_hint;
  const std::uint64_t now_ms = coarse_ms();
  const std::uint64_t seen = sync::load_relaxed(hint);
  const std::uint32_t chunks = segment_.limits().chunks;
  if (count > chunks) return;
  const shm::RunHint current = shm::read_run_hint(seen, now_ms);
  if (current.chunks >= count && std::uint64_t{current.first} + current.chunks <= chunks) {
    // Wide enough, whoever began it: the same ones, or nothing would ever be gathered.
    sync::store_relaxed(hint, shm::run_hint(current.first, current.chunks, now_ms));
    return;
  }
  std::uint64_t best_last = ~std::uint64_t{0};
  std::uint32_t best = chunks - count;
  for (std::uint32_t end = chunks; end >= count; end -= count) {
    std::uint64_t last = 0;  // when head has passed it, all of these are free
    for (std::uint32_t i = end - count; i < end && last != ~std::uint64_t{0}; ++i) {
      const sync::Word16 chunk = sync::read_halves(segment_.chunk(i));
      // Open or pinned: nobody knows for how long.
      const shm::ChunkState state = shm::chunk_state(chunk.high);
      const bool endless =
          pinned(i) || state == shm::ChunkState::open || state == shm::ChunkState::gathering;
      if (state == shm::ChunkState::sealed) last = std::max(last, chunk.low);
      if (endless) last = ~std::uint64_t{0};
    }
    if (last >= best_last) continue;
    best_last = last;
    best = end - count;
  }
  if (!base::mutant(33)) sync::store_relaxed(hint, shm::run_hint(best, count, now_ms));
}

// Within the working set, then, if so told, outside of it.
bool ProducerChunks::acquire_single(bool outside, std::uint64_t owned_word,
                                    std::uint32_t& first) noexcept {
  shm::Control& control = segment_.control();
  const std::uint32_t chunks = segment_.limits().chunks;
  const std::uint64_t hint_word = sync::load_relaxed(control.run_hint);
  shm::RunHint hint{};
  if (SHMQ_UNLIKELY(hint_word != 0)) hint = shm::read_run_hint(hint_word, coarse_ms());
  sync::Word16 previous{};
  const auto search = [&](std::uint32_t begin, std::uint32_t size, std::uint32_t& cursor_word) {
    const std::uint32_t cursor = sync::load_relaxed(cursor_word);
    for (std::uint32_t step = 0; step < size; ++step) {
      const std::uint32_t index = begin + (cursor + step) % size;
      if (index - hint.first < hint.chunks) continue;  // unsigned: below it, too
      if (!try_take(index, previous, owned_word)) continue;
      sync::store_relaxed(cursor_word, (cursor + step + 1) % size);  // a hint: any value will do
      first = index;
      return true;
    }
    return false;
  };
  const auto search_all = [&] {
    return search(0, near_chunks_, control.small_chunk_cursor) ||
           (outside && chunks > near_chunks_ &&
            search(near_chunks_, chunks - near_chunks_, control.outer_chunk_cursor));
  };
  if (search_all()) return true;
  const bool others_wait =
      segment_.limits().overflow == static_cast<std::uint32_t>(Overflow::block) ||
      segment_.limits().overflow == static_cast<std::uint32_t>(Overflow::spill);
  if (hint.chunks == 0 || !outside || others_wait) return false;
  hint = {};
  return search_all();
}

bool ProducerChunks::acquire(std::uint32_t count, std::uint32_t& first) noexcept {
  const auto take = [&](bool outside) {
    return count > 1 ? acquire_run(count, first) : acquire_single(outside, open_word_, first);
  };
  // What the last judgement allows, before head and pins are looked at again.
  if (judged_head_ != 0 && take(false)) return true;
  judge();
  prepare_gathering();
  if (stragglers_crowd() && gather_stragglers()) {
    judge();
    prepare_gathering();  // first, so that there is one when it is needed
  }
  if (take(true)) return true;
  if (gather_stragglers()) {
    judge();
    prepare_gathering();
    if (take(true)) return true;
  }
  if (count > 1) gather_run(count);
  return false;
}

std::byte* ProducerChunks::allocate_in_another(std::uint64_t bytes) noexcept {
  const std::uint64_t chunk_bytes = segment_.limits().chunk_bytes;
  const auto count = static_cast<std::uint32_t>((bytes + chunk_bytes - 1) / chunk_bytes);
  // Where the new one will be kept: in place of the current one, unless a loan lies in that.
  std::uint32_t index = current_;
  if (owned_[current_].loans != 0) {
    index = 0;
    while (index < owned_.size() && owned_[index].count != 0) ++index;
    if (index == owned_.size()) return nullptr;
  }
  std::uint32_t first = 0;
  if (!acquire(count, first)) {
    // The current chunk may be what is missing: sealed, it can be freed by those who read it.
    if (index == current_ && owned_[current_].count != 0) {
      seal(owned_[current_]);
      cursor_ = end_ = nullptr;
    }
    return nullptr;
  }
  if (index == current_ && owned_[current_].count != 0) seal(owned_[current_]);
  current_ = index;
  current_chunk_ = &owned_[index];
  owned_[index] = OwnedChunk{.first = first, .count = count};
  std::byte* base = arena_ + std::uint64_t{first} * chunk_bytes;
  cursor_ = base + bytes;
  end_ = base + std::uint64_t{count} * chunk_bytes;
  return base;
}

}  // namespace shmq::queue
