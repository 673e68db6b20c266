// SPDX-License-Identifier: Apache-2.0
//
// Plays the daemon for the tests of shmqctl: makes a durable queue, and does what stdin says.
//
//   mark_mover NAMESPACE QUEUE       a line N: all seqs below N, and all acks, are on stable
//   storage
//                                    end of input: gone, as if killed
#include <iostream>

#include "shm/mark.hpp"
#include "shm/segment.hpp"
#include "sync/event.hpp"

namespace {

template <typename T>
T need(shmq::Result<T> result) {
  if (!result) {
    std::cerr << result.error().message() << '\n';
    std::exit(1);
  }
  return std::move(*result);
}

}  // namespace

int main(int argc, char** argv) {
  using namespace shmq;
  if (argc != 3) return 2;
  const auto segment = need(shm::Segment::create(
      argv[2], {.slots = 1024, .arena_bytes = 8 << 20, .durable = true, .name_space = argv[1]},
      shm::Authority::daemon));
  auto mark = need(shm::MarkWriter::open(*segment));
  auto lock = need(segment->open_lock_file());
  if (!lock.try_lock(shm::lock_byte_daemon)) return 1;
  mark.advance({.seq_ceiling = 1024});
  mark.set_state(shm::DaemonState::serving);
  std::cout << "ready" << std::endl;
  for (std::uint64_t seq; std::cin >> seq;) {
    const std::uint64_t look = mark.begin_look();
    mark.advance({.watermark = seq, .seq_ceiling = seq + 1024, .acks_synced = look});
    sync::full_fence();
    sync::event_notify(segment->control().room_event);
  }
  return 0;  // the lock goes, the queue stays
}
