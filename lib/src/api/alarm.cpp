// SPDX-License-Identifier: Apache-2.0
#include <optional>
#include <shmq/alarm.hpp>

#include "api/alarm_state.hpp"
#include "base/clock.hpp"
#include "base/mutant.hpp"
#include "queue/look.hpp"

namespace shmq {
namespace {

// The helper wakes with each message while somebody else in the process waits for one by
// descriptor.
constexpr std::uint64_t look_ns = 45'000'000;

}  // namespace

// Nothing if the group, as it was found, is gone.
std::optional<std::uint64_t> BacklogAlarm::State::look() const {
  if (sync::load_acquire(segment->control().queue_state) !=
          static_cast<std::uint32_t>(shm::QueueState::active) ||
      sync::load_acquire(segment->group(index).word) != word) {
    return std::nullopt;
  }
  for (const GroupInfo& group : queue::list_groups(*segment)) {
    if (group.name == name) return group.ready + group.delayed;
  }
  return std::nullopt;
}

bool BacklogAlarm::State::is_due() noexcept {
  const std::uint64_t now_ns = base::clock->monotonic_ns();
  if (looked_ns != 0 && now_ns - looked_ns < look_ns) return was_due;
  looked_ns = now_ns;
  const auto backlog = look();
  was_due = !backlog || *backlog >= threshold;
  return was_due;
}

BacklogAlarm::BacklogAlarm(std::unique_ptr<State> state) noexcept : state_(std::move(state)) {}
BacklogAlarm::BacklogAlarm(BacklogAlarm&&) noexcept = default;
BacklogAlarm& BacklogAlarm::operator=(BacklogAlarm&&) noexcept = default;
BacklogAlarm::~BacklogAlarm() = default;

int BacklogAlarm::fd() const noexcept { return state_->source->descriptor(); }

Result<std::uint64_t> BacklogAlarm::backlog() const {
  if (const auto backlog = state_->look()) return *backlog;
  return tl::unexpected(Error{make_error_code(Errc::no_such_group),
                              state_->segment->describe("look at a group of"),
                              "group '" + state_->name + "' was removed", ""});
}

}  // namespace shmq
