// SPDX-License-Identifier: Apache-2.0
//
// The daemon's one loop: descriptors to watch, and a sleep that ends at a deadline, at an event or
// at a completion of the disk. All descriptors stand in one epoll instance. With io_uring the loop
// sleeps in the ring, where that instance is one more operation; without, it sleeps in epoll
// itself. The code above is the same.
//
// Invariants:
//  1. Callbacks run in turn() only, on the thread that calls it.
//  2. A callback may watch and unwatch anything, itself included; an event of a descriptor that was
//     unwatched meanwhile is not delivered, even if its number was given out again.
//  3. turn() delivers a bounded number of events and completions: nothing holds it up for ever.
#pragma once

#include <sys/epoll.h>

#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <shmq/error.hpp>

#include "daemon/io/backend.hpp"

namespace shmq::loop {

inline constexpr std::uint64_t no_deadline = ~0ULL;

class Loop {
 public:
  using Ready = std::function<void(std::uint32_t events)>;

  static Result<std::unique_ptr<Loop>> create(const io::Backend& backend);
  Loop(const Loop&) = delete;
  Loop& operator=(const Loop&) = delete;
  ~Loop();

  /// Calls `ready` in each turn in which one of `events` (EPOLLIN, EPOLLOUT) holds. The descriptor
  /// stays the caller's, who unwatches it before closing it.
  Result<void> watch(int descriptor, std::uint32_t events, Ready ready);
  /// Other events for a descriptor that is watched.
  void change(int descriptor, std::uint32_t events) noexcept;
  void unwatch(int descriptor) noexcept;

  /// Sleeps until something happens, or until `deadline_ns` of CLOCK_MONOTONIC (0: not at all), and
  /// delivers what there is.
  void turn(std::uint64_t deadline_ns);
  [[nodiscard]] std::size_t watched() const noexcept { return watches_.size(); }

 private:
  struct Watch {
    int descriptor;
    Ready ready;
  };

  Loop() = default;
  void sleep(std::uint64_t timeout_ns);
  void deliver_events();

  std::shared_ptr<io::Ring> ring_;  // nothing: plain calls
  int epoll_ = -1;
  std::uint64_t next_id_ = 1;
  std::map<std::uint64_t, std::shared_ptr<Watch>> watches_;  // by an id that is never used again
  std::map<int, std::uint64_t> ids_;                         // of the descriptors watched now
  bool poll_is_armed_ = false;  // the ring has an operation that waits for epoll_
};

}  // namespace shmq::loop
