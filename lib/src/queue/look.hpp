// SPDX-License-Identifier: Apache-2.0
//
// Looking without touching: peek and figures. Works on a read-only mapping.
#pragma once

#include <optional>
#include <shmq/info.hpp>
#include <vector>

#include "shm/segment.hpp"

namespace shmq::queue {

/// Copies of messages, from `from` on.
Result<std::vector<PeekedMessage>> peek(const shm::Segment& segment, std::uint64_t from,
                                        std::size_t max_messages);
/// CLOCK_REALTIME at the publication of a message that is in the ring; none if its record has no
/// such time, or it is gone.
std::optional<std::uint64_t> read_publish_time(const shm::Segment& segment, std::uint64_t seq);
/// The same for entry `entry` of a shared group's straggler table.
std::optional<std::uint64_t> read_straggler_publish_time(const shm::Segment& segment,
                                                         std::uint32_t group, std::uint32_t entry,
                                                         std::uint64_t seq);
std::chrono::system_clock::time_point time_of(std::uint64_t realtime_ns) noexcept;
QueueInfo describe_queue(const shm::Segment& segment);
QueueStats read_stats(const shm::Segment& segment);
std::vector<GroupInfo> list_groups(const shm::Segment& segment);
std::vector<ParticipantInfo> list_participants(const shm::Segment& segment);
std::vector<ParticipantInfo> list_former_participants(const shm::Segment& segment);

}  // namespace shmq::queue
