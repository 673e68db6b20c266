// SPDX-License-Identifier: Apache-2.0
//
// Descriptors for epoll. One helper thread per process sleeps on the futex words of all queues that
// a descriptor was asked for, and writes eventfds.
//
// A descriptor is readable while its condition probably holds: the helper makes it readable when
// the condition is seen true, and quiet again when it is seen false; so it is level-triggered, and
// may be early or late by a look, never silent for longer than the sleep limit.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <shmq/error.hpp>

#include "shm/segment.hpp"

namespace shmq::detail {

class ReadinessSource {
 public:
  /// `ready` is called from the helper thread until this object is destroyed; it must only look.
  static Result<std::unique_ptr<ReadinessSource>> make(std::shared_ptr<shm::Segment> segment,
                                                       std::uint32_t& event,
                                                       std::function<bool()> ready);
  ~ReadinessSource();
  [[nodiscard]] int descriptor() const noexcept { return descriptor_; }
  /// The owner saw the condition false: quiet, unless it came true since.
  void refresh() noexcept;
  /// Sets the descriptor by the condition. The helper thread.
  void look() noexcept;
  [[nodiscard]] std::uint32_t& event() const noexcept { return event_; }

 private:
  ReadinessSource(std::shared_ptr<shm::Segment> segment, std::uint32_t& event,
                  std::function<bool()> ready, int descriptor);
  void clear() noexcept;

  std::shared_ptr<shm::Segment> segment_;
  std::uint32_t& event_;
  std::function<bool()> ready_;
  int descriptor_;
};

}  // namespace shmq::detail

namespace shmq::queue {
/// Is there a free slot, as far as head tells now?
bool has_room_for_one(const shm::Segment& segment) noexcept;
}  // namespace shmq::queue
