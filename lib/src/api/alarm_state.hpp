// SPDX-License-Identifier: Apache-2.0
//
// What a BacklogAlarm looks at.
#pragma once

#include <memory>
#include <optional>
#include <shmq/alarm.hpp>
#include <string>

#include "api/readiness.hpp"
#include "shm/segment.hpp"

namespace shmq {

struct BacklogAlarm::State {
  std::shared_ptr<shm::Segment> segment;
  std::string name;
  std::uint32_t index = 0;
  std::uint64_t word = 0;  // of the group as it was found
  std::uint64_t threshold = 0;
  // The helper's alone.
  std::uint64_t looked_ns = 0;
  bool was_due = false;
  // No word of the queue's: nobody would move it but at a cost, so the helper's sleeps, which are
  // short, are what ends.
  std::uint32_t event = 0;
  std::unique_ptr<detail::ReadinessSource> source;  // last: it calls is_due() until it is gone

  [[nodiscard]] std::optional<std::uint64_t> look() const;
  bool is_due() noexcept;
};

}  // namespace shmq
