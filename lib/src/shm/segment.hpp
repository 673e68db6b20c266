// SPDX-License-Identifier: Apache-2.0
//
// A segment: created aside and linked whole, opened with distrust, removed once.
//
// Invariants:
//  1. A segment has its name only when every byte of it is initialised and allocated.
//  2. An open Segment's limits and places come from a private, validated copy of the header.
//  3. The naming lock (byte 0 of the segment's own inode, through a description that is never
//     mapped) serialises removal and the making of the companion lock object; who holds it and sees
//     the name lead to this inode may unlink the name.
//  4. Removal marks the segment first, so a half-removed one counts as gone and anybody finishes
//  it.
//  5. An open Segment of a durable queue has its watermark object mapped; the daemon's has once the
//     daemon has made that.
#pragma once

#include <sys/types.h>

#include <array>
#include <memory>
#include <mutex>
#include <optional>
#include <shmq/error.hpp>
#include <shmq/options.hpp>
#include <span>
#include <string>
#include <vector>

#include "shm/geometry.hpp"
#include "shm/layout.hpp"
#include "shm/mapping.hpp"
#include "sync/ofd_lock.hpp"

namespace shmq::shm {

/// On whose behalf: only the daemon creates and removes durable queues, and opens those whose
/// journal has not begun.
enum class Authority { client, daemon };

class Segment {
 public:
  Segment(const Segment&) = delete;
  Segment& operator=(const Segment&) = delete;
  ~Segment() = default;

  /// `uuid`: of a queue that is made anew from its journal; nothing: a random one.
  static Result<std::shared_ptr<Segment>> create(
      const std::string& queue, const QueueOptions& options,
      Authority authority = Authority::client,
      const std::optional<std::array<std::uint8_t, 16>>& uuid = {});
  static Result<std::shared_ptr<Segment>> open(const std::string& queue, const OpenOptions& options,
                                               Authority authority = Authority::client);
  static Result<void> remove(const std::string& queue, const OpenOptions& options,
                             Authority authority = Authority::client);
  static Result<std::vector<std::string>> list(const std::string& name_space);

  [[nodiscard]] const Header& header() const noexcept { return header_; }
  [[nodiscard]] const Limits& limits() const noexcept { return header_.limits; }
  [[nodiscard]] const std::string& queue() const noexcept { return queue_; }
  [[nodiscard]] const std::string& name_space() const noexcept { return name_space_; }
  [[nodiscard]] bool writable() const noexcept { return access_ == Access::participant; }
  [[nodiscard]] uid_t owner() const noexcept { return owner_; }
  [[nodiscard]] gid_t owner_group() const noexcept { return owner_group_; }
  [[nodiscard]] mode_t mode() const noexcept { return mode_; }

  // Indices must be below the limits.
  [[nodiscard]] Control& control() const noexcept { return *part<Control>(part_control); }
  [[nodiscard]] Participant& participant(std::uint32_t i) const noexcept {
    return part<Participant>(part_participants)[i];
  }
  [[nodiscard]] Group& group(std::uint32_t i) const noexcept { return part<Group>(part_groups)[i]; }
  [[nodiscard]] Word16* window(std::uint32_t group) const noexcept {
    return part<Word16>(part_windows) + std::size_t{group} * limits().window_entries;
  }
  [[nodiscard]] Straggler* stragglers(std::uint32_t group) const noexcept {
    return part<Straggler>(part_stragglers) + std::size_t{group} * limits().straggler_entries;
  }
  [[nodiscard]] Word16* slots() const noexcept { return part<Word16>(part_slots); }
  [[nodiscard]] Word16& chunk(std::uint32_t i) const noexcept {
    return part<Word16>(part_chunks)[i];
  }
  [[nodiscard]] const std::byte* arena() const noexcept { return arena_.data(); }
  /// Of a durable queue; null for a transient one, and for the daemon before map_mark().
  [[nodiscard]] const Mark* mark() const noexcept {
    return reinterpret_cast<const Mark*>(mark_.data());
  }
  /// For the daemon, once it has made the watermark object; before anybody uses the segment.
  Result<void> map_mark(const std::vector<uid_t>& trusted_owners);
  /// Mapped when the first producer asks for it; consumers have the arena read-only.
  Result<std::byte*> writable_arena();
  /// Copies into the arena by a system call: of pages that nobody has touched, a third of the cost
  /// of a store. For whoever fills a segment that is not in use yet.
  Result<void> write_arena(std::uint64_t offset, std::span<const std::byte> bytes);

  /// A fresh description of the companion lock object, made if this is the first participant.
  Result<sync::LockFile> open_lock_file() const;
  /// Does somebody hold this byte? By a fresh description, read-only. Unknown counts as held.
  [[nodiscard]] bool lock_is_held(std::uint64_t byte) const noexcept;

  /// "what" for an Error: the verb and the queue's name.
  [[nodiscard]] std::string describe(const char* verb) const;

 private:
  Segment() = default;
  template <typename T>
  [[nodiscard]] T* part(PartIndex index) const noexcept {
    return reinterpret_cast<T*>(body_.data() + (header_.parts[index].offset - header_.page_bytes));
  }
  Result<void> map(int descriptor);
  Result<void> read_header(int descriptor, std::uint64_t file_bytes, const std::string& what);

  Header header_{};
  std::string queue_;
  std::string name_space_;
  Access access_ = Access::participant;
  uid_t owner_{};
  gid_t owner_group_{};
  mode_t mode_{};
  std::uint64_t inode_ = 0;
  SharedObject object_;
  Mapping body_;
  Mapping arena_;
  Mapping mark_;
  mutable std::mutex writable_arena_mutex_;
  Mapping writable_arena_;
};

/// Is `owner` one whose segments the caller trusts: its own, the system user "shmq", or a named
/// one?
bool is_trusted_owner(uid_t owner, const std::vector<uid_t>& trusted);

inline constexpr const char* shared_memory_directory = "/dev/shm";

}  // namespace shmq::shm
