// SPDX-License-Identifier: Apache-2.0
//
// Vyukov's bounded queue for many producers and consumers, in anonymous shared memory, payload
// inside the cell. Who stops between its ticket and its last store stops everybody.
#pragma once

#include <atomic>
#include <bit>

#include "contender.hpp"

namespace shmq_bench {

inline std::uint64_t cells_for(std::size_t cell_bytes, Mode mode) noexcept {
  if (mode == Mode::round_trip) return 64;
  return std::clamp<std::uint64_t>(std::bit_floor((4U << 20) / cell_bytes), 64, 65536);
}

/// Of any of the rings.
struct Indices {
  alignas(128) std::atomic<std::uint64_t> head;
  alignas(128) std::atomic<std::uint64_t> tail;
  alignas(128) std::byte cells[1];
};

/// A ticket by CAS, then a sequence word per cell.
template <typename Waiting>
class VyukovRing {
 public:
  static bool possible(std::size_t) noexcept { return true; }
  VyukovRing(std::size_t bytes, Mode mode)
      : cell_bytes_(8 + (bytes + 7) / 8 * 8),
        cells_(cells_for(cell_bytes_, mode)),
        shared_(reinterpret_cast<Indices*>(map_shared(sizeof(Indices) + cells_ * cell_bytes_))) {
    for (std::uint64_t i = 0; i < cells_; ++i) sequence(i).store(i, std::memory_order_relaxed);
  }

  bool try_send(const std::byte* payload, std::size_t bytes) noexcept {
    std::uint64_t ticket = 0;
    if (!take(shared_->tail, 0, ticket)) return false;
    copy_payload(cell(ticket) + 8, payload, bytes);
    sequence(ticket).store(ticket + 1, std::memory_order_release);
    return true;
  }
  bool try_receive(std::byte* payload, std::size_t bytes) noexcept {
    std::uint64_t ticket = 0;
    if (!take(shared_->head, 1, ticket)) return false;
    copy_payload(payload, cell(ticket) + 8, bytes);
    sequence(ticket).store(ticket + cells_, std::memory_order_release);
    return true;
  }
  void send(const std::byte* payload, std::size_t bytes) noexcept {
    while (!try_send(payload, bytes)) waiting_.wait();
    waiting_.made_progress();
  }
  void receive(std::byte* payload, std::size_t bytes) noexcept {
    while (!try_receive(payload, bytes)) waiting_.wait();
    waiting_.made_progress();
  }

 private:
  // False: the ring is full (empty).
  bool take(std::atomic<std::uint64_t>& index, std::uint64_t distance,
            std::uint64_t& ticket) noexcept {
    ticket = index.load(std::memory_order_relaxed);
    for (;;) {
      // acquire, pairs with the release of sequence: the cell is free (whole).
      const std::uint64_t seen = sequence(ticket).load(std::memory_order_acquire);
      if (seen == ticket + distance) {
        if (index.compare_exchange_weak(ticket, ticket + 1, std::memory_order_relaxed)) return true;
      } else if (seen < ticket + distance) {
        return false;
      } else {
        ticket = index.load(std::memory_order_relaxed);
      }
    }
  }
  std::byte* cell(std::uint64_t index) noexcept {
    return shared_->cells + (index & (cells_ - 1)) * cell_bytes_;
  }
  std::atomic<std::uint64_t>& sequence(std::uint64_t index) noexcept {
    return *reinterpret_cast<std::atomic<std::uint64_t>*>(cell(index));
  }
  std::size_t cell_bytes_;
  std::uint64_t cells_;
  Indices* shared_;
  Waiting waiting_;
};

}  // namespace shmq_bench
