// SPDX-License-Identifier: Apache-2.0
//
// The rings that libshmq is compared with, in anonymous shared memory: the textbook single-producer
// ring and Vyukov's bounded queue, payload inside the cell. None survives the death of a peer.
#include <atomic>
#include <bit>

#include "contender.hpp"

namespace shmq_bench {
namespace {

std::uint64_t cells_for(std::size_t cell_bytes, Mode mode) noexcept {
  if (mode == Mode::round_trip) return 64;
  return std::clamp<std::uint64_t>(std::bit_floor((4U << 20) / cell_bytes), 64, 65536);
}

struct Indices {
  alignas(128) std::atomic<std::uint64_t> head;
  alignas(128) std::atomic<std::uint64_t> tail;
  alignas(128) std::byte cells[1];
};

/// One producer, one consumer; each looks at the other's index for each message.
class PlainRing {
 public:
  static bool possible(std::size_t) noexcept { return true; }
  PlainRing(std::size_t bytes, Mode mode)
      : cell_bytes_(bytes),
        cells_(cells_for(bytes, mode)),
        shared_(reinterpret_cast<Indices*>(map_shared(sizeof(Indices) + cells_ * bytes))) {}

  void send(const std::byte* payload, std::size_t bytes) noexcept {
    const std::uint64_t tail = shared_->tail.load(std::memory_order_relaxed);
    // acquire, pairs with the release of head: the cell has been read.
    while (tail - shared_->head.load(std::memory_order_acquire) == cells_) {
    }
    copy_payload(cell(tail), payload, bytes);
    shared_->tail.store(tail + 1, std::memory_order_release);
  }
  void receive(std::byte* payload, std::size_t bytes) noexcept {
    const std::uint64_t head = shared_->head.load(std::memory_order_relaxed);
    // acquire, pairs with the release of tail: the cell is whole.
    while (shared_->tail.load(std::memory_order_acquire) == head) {
    }
    copy_payload(payload, cell(head), bytes);
    shared_->head.store(head + 1, std::memory_order_release);
  }

 private:
  std::byte* cell(std::uint64_t index) noexcept {
    return shared_->cells + (index & (cells_ - 1)) * cell_bytes_;
  }
  std::size_t cell_bytes_;
  std::uint64_t cells_;
  Indices* shared_;
};

/// Many producers, many consumers: a ticket by CAS, then a sequence word per cell.
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

  void send(const std::byte* payload, std::size_t bytes) noexcept {
    std::uint64_t ticket = take(shared_->tail, 0);
    copy_payload(cell(ticket) + 8, payload, bytes);
    sequence(ticket).store(ticket + 1, std::memory_order_release);
  }
  void receive(std::byte* payload, std::size_t bytes) noexcept {
    std::uint64_t ticket = take(shared_->head, 1);
    copy_payload(payload, cell(ticket) + 8, bytes);
    sequence(ticket).store(ticket + cells_, std::memory_order_release);
  }

 private:
  std::uint64_t take(std::atomic<std::uint64_t>& index, std::uint64_t distance) noexcept {
    std::uint64_t ticket = index.load(std::memory_order_relaxed);
    for (;;) {
      // acquire, pairs with the release of sequence: the cell is free (whole).
      const std::uint64_t seen = sequence(ticket).load(std::memory_order_acquire);
      if (seen == ticket + distance) {
        if (index.compare_exchange_weak(ticket, ticket + 1, std::memory_order_relaxed)) {
          waiting_.made_progress();
          return ticket;
        }
      } else {
        if (seen < ticket + distance) waiting_.wait();
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

}  // namespace

void add_ring_peers(Contenders& contenders, const std::vector<std::size_t>& sizes) {
  contenders.push_back(std::make_unique<LinkContender<PlainRing>>("plain-ring", sizes));
  contenders.push_back(std::make_unique<LinkContender<VyukovRing<NoBackoff>>>("vyukov", sizes));
  contenders.push_back(
      std::make_unique<LinkContender<VyukovRing<Backoff>>>("vyukov-backoff", sizes));
}

}  // namespace shmq_bench
