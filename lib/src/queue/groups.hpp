// SPDX-License-Identifier: Apache-2.0
//
// Groups come and go. The control path: administrators exclude each other by an OFD lock, which the
// kernel drops when one dies; producers and consumers never wait for it.
//
// Invariants:
//  1. A group exists from the CAS joining -> active on; it is gone from the CAS active -> retired
//  on.
//  2. From joining on its floor holds head back; the CAS on {head, epoch} makes sure that no
//     computation of head that began before lands after.
//  3. An entry is used again only when no live participant names its incarnation.
//  4. Two active groups of one name: a seek is under way, or was cut short; the younger one stays.
//  5. Who holds the lock and finds forming or joining finds what a killed administrator left.
#pragma once

#include <cstdint>
#include <optional>
#include <shmq/error.hpp>
#include <shmq/options.hpp>
#include <string_view>

#include "shm/segment.hpp"

namespace shmq::queue {

struct FoundGroup {
  std::uint32_t index;
  std::uint64_t word;
};

/// The active group of this name.
std::optional<FoundGroup> find_group(const shm::Segment& segment, std::string_view name) noexcept;

Result<void> create_group(const shm::Segment& segment, const GroupOptions& options);
/// How long another administrator is waited for.
enum class Patience : std::uint8_t { none, some };
Result<void> remove_group(const shm::Segment& segment, std::string_view name,
                          Patience patience = Patience::some);

/// A new incarnation of the group elsewhere, with its choices; gives where it begins. See
/// Queue::seek_group.
Result<std::uint64_t> seek_group(const shm::Segment& segment, std::string_view name,
                                 const StartAt& from);
/// Where a group would begin.
Result<std::uint64_t> find_start(const shm::Segment& segment, const StartAt& from);

/// Is a live consumer attached to this incarnation of the group? Proof of death is asked for
/// elsewhere (reclaim): one that died a moment ago still counts.
bool has_consumers(const shm::Segment& segment, std::uint32_t index, std::uint64_t word) noexcept;

/// Undoes what a killed administrator left, if there is any and nobody administers now.
void heal_administration(const shm::Segment& segment) noexcept;

enum class Drop : std::uint8_t {
  oldest,  // for room: leases of shared groups are kept as stragglers
  all,     // a purge: stragglers that nobody holds go, too
};
/// Moves the floors of all groups to `floor`, as far as they lie below, and then head. Gives the
/// number of messages that some group had not settled; counts them, each once, and per group.
/// `self`: participant entry of the caller.
std::uint64_t drop_below(const shm::Segment& segment, std::uint32_t self, std::uint64_t floor,
                         Drop what) noexcept;

/// The name in a group entry, from a private copy.
std::string group_name(const shm::Group& group);

}  // namespace shmq::queue
