// SPDX-License-Identifier: Apache-2.0
//
// Names, units and the choices that are made when a queue or a group is created.
#pragma once

#include <sys/types.h>

#include <chrono>
#include <compare>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace shmq {

/// A message's place in its queue: dense, from 0, never given out twice.
struct Seq {
  std::uint64_t value = 0;
  friend constexpr auto operator<=>(const Seq&, const Seq&) = default;
};

constexpr Seq operator+(Seq seq, std::uint64_t distance) noexcept { return {seq.value + distance}; }

inline namespace literals {
constexpr std::uint64_t operator""_KiB(unsigned long long n) noexcept { return n << 10; }
constexpr std::uint64_t operator""_MiB(unsigned long long n) noexcept { return n << 20; }
constexpr std::uint64_t operator""_GiB(unsigned long long n) noexcept { return n << 30; }
}  // namespace literals

/// Waits without a limit.
inline constexpr std::chrono::nanoseconds forever = std::chrono::nanoseconds::max();

/// What a publish does when the queue has no room.
enum class Overflow : std::uint32_t {
  block = 1,        ///< wait for room, up to the publish timeout
  fail = 2,         ///< Errc::full at once
  drop_oldest = 3,  ///< settle the oldest messages for every group; each drop is counted
  /// Durable queues only: the oldest messages leave memory; groups that are not past them read them
  /// from the journal. A publish waits for room, as with block, only while nothing in memory is on
  /// stable storage yet, or the disk is full.
  spill = 4,
};

enum class GroupMode : std::uint8_t {
  exclusive = 1,  ///< one active consumer, the others stand by; delivery in seq order
  shared = 2,     ///< competing consumers, each message leased to one of them
};

/// How long a confirmed publish or ack lasts. `flushed` and `synced` need a durable queue.
enum class Durability : std::uint8_t { memory = 1, flushed = 2, synced = 3 };

/// From when on consumers of a durable queue see a message.
enum class Visible : std::uint8_t {
  published = 0,  ///< from its publication on
  synced = 1,     ///< once it is on stable storage, so nothing is seen that a loss of power undoes
};

/// What of a durable queue stays on disk though every group is past it, to be read again. A journal
/// goes file by file (1 MiB at first, then up to 64 MiB), the oldest first: a file stays until the
/// messages in it are older than `age`, or until the newer ones have at least `bytes`, or are at
/// least `messages`, whichever comes first; zero says nothing. With all zero, the default, a file
/// goes once every group is past it. What a group has not settled stays in any case; so does the
/// newest file.
struct Retention {
  std::chrono::nanoseconds age{};
  std::uint64_t bytes = 0;
  std::uint64_t messages = 0;
};

/// Where a new group begins.
struct StartAt {
  enum class Kind : std::uint8_t { earliest, latest, seq, time };
  Kind kind = Kind::earliest;
  Seq seq{};  ///< only with Kind::seq; must lie between the oldest message held and the tail
  /// Only with Kind::time: at the first message that was published since then. A durable queue
  /// knows by when it was written to disk, so some from a moment earlier may come, too; of a
  /// transient one, messages with a publish time are looked at.
  std::chrono::system_clock::time_point time{};

  static constexpr StartAt earliest() noexcept { return {}; }
  static constexpr StartAt latest() noexcept { return {.kind = Kind::latest}; }
  static constexpr StartAt at(Seq seq) noexcept { return {.kind = Kind::seq, .seq = seq}; }
  static constexpr StartAt since(std::chrono::system_clock::time_point time) noexcept {
    return {.kind = Kind::time, .seq = {}, .time = time};
  }
};

struct GroupOptions {
  std::string name;
  GroupMode mode = GroupMode::exclusive;
  /// exclusive: after this time without a receive, ack or extend the active consumer may be
  /// replaced. shared: after this time a message that was not settled may go to another consumer.
  /// Zero: only a proven death counts. At most 1 hour.
  std::chrono::nanoseconds lease = std::chrono::seconds{30};
  /// shared: a message that failed this often (nack, lease expired, consumer died; a release does
  /// not count) is dead: kept, but no longer handed out. 1 to 63. Dead messages are kept up to a
  /// quarter of the queue's straggler_entries; beyond that a message at its limit is handed out on.
  std::uint32_t delivery_limit = 5;
  /// Durable queues: a group without a consumer for so long is removed, with what it has not
  /// settled, since it holds up all others. Zero: never. Else from 1 s to 10 years; the daemon
  /// looks about once a second, and begins to count anew when it starts.
  std::chrono::nanoseconds expire_idle{};
  StartAt from{};
};

/// Limits are fixed when the queue is created and stored in the segment.
struct QueueOptions {
  std::uint64_t slots = 65536;  ///< messages held at most; a power of two from 2 to 2^26
  std::uint64_t arena_bytes = 64ULL << 20;  ///< payload memory; a multiple of chunk_bytes
  std::uint32_t chunk_bytes = 256U << 10;   ///< 4 KiB to 1 MiB, a power of two
  std::uint32_t max_groups = 16;            ///< 1 to 1,024
  std::uint32_t max_participants = 256;     ///< 1 to 4,096; producers, consumers, administrators
  /// Producers attached at once. 0: as many as the arena allows, 2 chunks each.
  std::uint32_t max_producers = 0;
  std::uint32_t window_entries = 4096;     ///< in flight per group; a power of two, 16 to 65,536
  std::uint32_t straggler_entries = 4096;  ///< per group; a power of two, 16 to 65,536
  std::uint64_t max_message_bytes = 0;     ///< payload + attributes; 0: an eighth of the arena
  Overflow overflow = Overflow::block;
  bool durable = false;                  ///< only the daemon creates durable queues
  Visible visible = Visible::published;  ///< synced: durable queues only
  Retention retention{};                 ///< durable queues only
  /// Durable queues: what the journal may take on disk, 8 MiB and four of the largest messages at
  /// least; 0: what the daemon's configuration says. At the limit what only retention keeps goes
  /// first. Then publishers wait or fail as with any queue without room; with drop_oldest the
  /// oldest file's messages are settled for every group, each drop counted.
  std::uint64_t max_disk_bytes = 0;
  std::vector<GroupOptions> groups{};  ///< none named: one exclusive group "default"

  mode_t mode = 0600;                   ///< permission bits, independent of the umask
  std::optional<uid_t> owner{};         ///< default: the caller
  std::optional<gid_t> owner_group{};   ///< default: the caller's group
  std::string name_space{};             ///< default: SHMQ_NAMESPACE, else "default"
  std::vector<uid_t> trusted_owners{};  ///< see OpenOptions; used by open_or_create
  std::string runtime_dir{};            ///< where the daemon of durable queues has its sockets
};

enum class Access : std::uint8_t {
  participant,  ///< may publish and consume
  observer,     ///< maps everything read-only; may look, not touch
};

struct OpenOptions {
  Access access = Access::participant;
  std::string name_space{};  ///< default: SHMQ_NAMESPACE, else "default"
  /// Segments of other owners are refused, but for the caller's own, those of the system user
  /// "shmq", and those of the users listed here.
  std::vector<uid_t> trusted_owners{};
  std::string runtime_dir{};  ///< see QueueOptions; used by remove
};

/// A small key/value header of a message. Both are opaque bytes; key at most 255, value 65,535.
struct Attribute {
  std::string_view key;
  std::string_view value;
};

}  // namespace shmq
