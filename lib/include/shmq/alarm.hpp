// SPDX-License-Identifier: Apache-2.0
//
// A descriptor for event loops that tells when a group has fallen behind.
#pragma once

#include <cstdint>
#include <memory>
#include <shmq/error.hpp>

namespace shmq {

class Queue;

/// Made by Queue::backlog_alarm. The library's helper thread, one for the process, looks every 50
/// ms; publishers and consumers count, sleep and wake nobody for it. One thread at a time.
class SHMQ_API BacklogAlarm {
 public:
  BacklogAlarm(BacklogAlarm&&) noexcept;
  BacklogAlarm& operator=(BacklogAlarm&&) noexcept;
  ~BacklogAlarm();

  /// Readable while at the last look the backlog (ready and delayed) had at least as many messages
  /// as the threshold; level-triggered, not to be read. Also when the group or the queue was
  /// removed. Closed with this object.
  [[nodiscard]] int fd() const noexcept;
  /// The backlog now. no_such_group: it was removed (also by a seek; then make another alarm).
  [[nodiscard]] Result<std::uint64_t> backlog() const;

 private:
  friend class Queue;
  struct State;
  explicit BacklogAlarm(std::unique_ptr<State> state) noexcept;
  std::unique_ptr<State> state_;
};

}  // namespace shmq
