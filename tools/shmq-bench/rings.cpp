// SPDX-License-Identifier: Apache-2.0
//
// The rings that libshmq is compared with, in anonymous shared memory, payload inside the cell: the
// textbook single-producer ring, and Vyukov's bounded queue (vyukov_ring.hpp).
#include "vyukov_ring.hpp"

namespace shmq_bench {
namespace {

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

}  // namespace

void add_ring_peers(Contenders& contenders, const std::vector<std::size_t>& sizes) {
  contenders.push_back(std::make_unique<LinkContender<PlainRing>>("plain-ring", sizes));
  contenders.push_back(std::make_unique<LinkContender<VyukovRing<NoBackoff>>>("vyukov", sizes));
  contenders.push_back(
      std::make_unique<LinkContender<VyukovRing<Backoff>>>("vyukov-backoff", sizes));
}

}  // namespace shmq_bench
