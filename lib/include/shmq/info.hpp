// SPDX-License-Identifier: Apache-2.0
//
// What a queue tells of itself. All figures are read without stopping anybody: each is true at
// some moment of the call, the sum of them need not be.
#pragma once

#include <array>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <shmq/options.hpp>
#include <string>
#include <utility>
#include <vector>

namespace shmq {

struct QueueInfo {
  std::string name, name_space;
  std::array<std::uint8_t, 16> uuid{};
  std::uint32_t abi_version = 0;
  uid_t owner{};
  gid_t owner_group{};
  mode_t mode{};
  std::uint64_t segment_bytes = 0, slots = 0, arena_bytes = 0, max_message_bytes = 0;
  std::uint32_t chunk_bytes = 0, max_groups = 0, max_participants = 0, max_producers = 0;
  std::uint32_t window_entries = 0, straggler_entries = 0;
  Overflow overflow{};
  bool durable = false;
  Visible visible{};
  Retention retention{};             ///< durable queues
  std::uint64_t max_disk_bytes = 0;  ///< durable queues; 0: the daemon's own limit
  std::chrono::system_clock::time_point created{};
};

struct QueueStats {
  Seq head{};  ///< the oldest message still held
  Seq tail{};  ///< the seq that the next message will get; also the number published so far
  std::uint64_t messages_held = 0;
  std::uint64_t dropped_total = 0;  ///< by drop_oldest or purge, per queue
  /// sealed: full of messages that some group has not passed, or pinned; free: may be taken.
  std::uint64_t chunks_total = 0, chunks_open = 0, chunks_sealed = 0, chunks_free = 0,
                chunks_pinned = 0;
  std::uint32_t producers = 0, consumers = 0, groups = 0;
};

/// How the age of a message is known.
enum class AgeBasis : std::uint8_t {
  publish_time,  ///< its record has the time of its publication (ProducerOptions::publish_time)
  hand_out,      ///< it is at least so old: it was handed out, or its lease extended, so long ago
  observed,      ///< it is at least so old: a BacklogSampler saw it in the queue so long ago
  unknown,       ///< nothing says how old it is
};

/// The oldest message of a group in some state: the one with the lowest seq.
struct OldestMessage {
  Seq seq{};
  std::chrono::nanoseconds age{};  ///< see basis; zero when unknown
  AgeBasis basis = AgeBasis::unknown;
};

struct GroupInfo {
  std::string name;
  GroupMode mode{};
  std::uint64_t incarnation = 0;  ///< of the entry that holds the group
  std::chrono::system_clock::time_point created{};
  std::chrono::nanoseconds lease{};
  std::uint32_t delivery_limit = 0;        ///< shared
  std::chrono::nanoseconds expire_idle{};  ///< removed after so long without a consumer; 0: never
  Seq born{};                              ///< where it began
  Seq floor{};                             ///< all below are settled
  /// Of the messages published and not settled. ready: may be handed out now; delayed: not yet.
  std::uint64_t ready = 0, in_flight = 0, delayed = 0, dead = 0;
  /// None when no message is in that state.
  std::optional<OldestMessage> oldest_ready, oldest_in_flight;
  std::uint64_t stragglers = 0;  ///< shared: of these, moved out of the way of the others
  /// shared: as much is in flight, delayed and dead as window_entries and straggler_entries allow,
  /// so nothing new is handed out until something is settled or due.
  bool at_in_flight_limit = false;
  std::uint64_t acked_total = 0, dropped_total = 0;
  std::uint64_t redelivered_death_total = 0, redelivered_lease_total = 0,
                redelivered_nack_total = 0, redelivered_release_total = 0;
  std::uint64_t dead_lettered_total = 0;  ///< rejected, or past the delivery limit
  std::uint32_t consumers = 0;            ///< attached, standing by included
  std::uint32_t consumers_busy = 0;       ///< of these, those that have something in flight
  std::uint32_t active_participant = 0;   ///< entry number + 1 of the active consumer; 0: none
  std::uint64_t ownership_generation = 0;
};

enum class Role : std::uint8_t { producer = 1, consumer = 2, administrator = 3 };

/// A message that a consumer of a shared group has in flight.
struct HeldMessage {
  Seq seq{};
  std::uint32_t hand_outs = 0;
  /// Since it was handed out or its lease was last extended, to 16 ms; none in a group without a
  /// lease.
  std::optional<std::chrono::nanoseconds> held_for{};
  bool expired = false;  ///< its lease is over: the next consumer that looks gets it
};

struct ParticipantInfo {
  std::uint32_t entry = 0;  ///< number of its entry, from 0
  std::uint64_t generation = 0;
  Role role{};
  std::string name, group;
  std::uint32_t pid = 0;  ///< as seen in its own pid namespace
  bool alive = false;     ///< false: dead and not yet reclaimed
  bool died = false;      ///< a former participant: it ended without detaching
  bool active = false;    ///< a consumer: the active one of its group
  std::uint64_t in_flight = 0, messages_total = 0, bytes_total = 0, chunks_pinned = 0,
                chunks_owned = 0;
  std::chrono::system_clock::time_point attached{};
  /// For how long it has been asleep in a call that waits for messages or for room; none while it
  /// does anything else. A participant that polls, or waits on its fd, is never seen asleep.
  std::optional<std::chrono::nanoseconds> asleep_for{};
  std::vector<HeldMessage> held;  ///< a consumer of a shared group: what is in flight, by seq
};

/// A message that was looked at, copied.
struct PeekedMessage {
  Seq seq{};
  std::vector<std::byte> payload;
  std::optional<std::chrono::system_clock::time_point> publish_time;
  std::vector<std::pair<std::string, std::string>> attributes;
};

}  // namespace shmq
