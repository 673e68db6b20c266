// SPDX-License-Identifier: Apache-2.0
//
// Looking without touching: peek and figures. Works on a read-only mapping.
#pragma once

#include <shmq/info.hpp>
#include <vector>

#include "shm/segment.hpp"

namespace shmq::queue {

/// Copies of messages, from `from` on.
Result<std::vector<PeekedMessage>> peek(const shm::Segment& segment, std::uint64_t from,
                                        std::size_t max_messages);
std::chrono::system_clock::time_point time_of(std::uint64_t realtime_ns) noexcept;
QueueInfo describe_queue(const shm::Segment& segment);
QueueStats read_stats(const shm::Segment& segment);
std::vector<GroupInfo> list_groups(const shm::Segment& segment);
std::vector<ParticipantInfo> list_participants(const shm::Segment& segment);

}  // namespace shmq::queue
