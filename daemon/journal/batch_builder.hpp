// SPDX-License-Identifier: Apache-2.0
//
// Makes the bytes of one batch: records in, a sealed and padded batch out.
//
// Invariants:
//  1. The batch never exceeds the room it was given; an add that would says no and changes nothing.
//  2. The bytes are a private copy: nothing of shared memory is read again after an add.
//  3. No block but the first starts with batch_magic.
#pragma once

#include "daemon/io/aligned_buffer.hpp"
#include "journal/analysis.hpp"

namespace shmq::journal {

/// What the batch says of itself, apart from what its records say.
struct BatchFrame {
  Uuid queue_uuid{};
  std::uint64_t epoch = 0;
  std::uint64_t file_number = 0;
  std::uint64_t file_offset = 0;
  std::uint64_t batch_number = 0;
  std::uint64_t first_seq = 0;
  BatchRef previous = {};
};

class BatchBuilder {
 public:
  /// Starts over. `room_bytes` is a multiple of block_bytes, and at least one block.
  void begin(const BatchFrame& frame, std::uint64_t room_bytes);

  // Each gives false, and adds nothing, if there is no room left.
  [[nodiscard]] bool add_message(const MessageView& message);
  [[nodiscard]] bool add_gap(std::uint64_t end_seq);
  [[nodiscard]] bool add_change(const GroupChange& change);
  [[nodiscard]] bool add_group_removed(const Uuid& group, std::uint64_t incarnation);
  [[nodiscard]] bool add_settings(const Uuid& group, Bytes value);
  [[nodiscard]] bool add_copy_source(const CopySourceRecord& source);
  /// The whole state, and the flag that says so. First of all records, but for a copy source.
  [[nodiscard]] bool add_snapshot(const CheckpointState& state);

  [[nodiscard]] std::uint64_t first_seq() const noexcept { return header_.first_seq; }
  [[nodiscard]] std::uint64_t end_seq() const noexcept { return header_.end_seq; }
  [[nodiscard]] std::uint64_t messages() const noexcept { return header_.message_count; }
  [[nodiscard]] bool is_empty() const noexcept { return header_.record_count == 0; }

  struct Seal {
    std::uint32_t flags = 0;  ///< besides batch_snapshot
    std::uint64_t durable_upto = 0;
    std::uint64_t seq_ceiling = 0;
    std::uint64_t realtime_ns = 0;
  };
  /// Pads, escapes and seals. The bytes belong to the caller.
  io::AlignedBuffer finish(const Seal& seal);
  /// The header as it was sealed.
  [[nodiscard]] const BatchHeader& header() const noexcept { return header_; }

 private:
  bool has_room(std::uint64_t record_bytes) const noexcept;
  std::byte* begin_record(RecordType type, std::uint16_t flags, std::uint64_t bytes);
  template <typename T>
  bool add_fixed(RecordType type, T record);
  bool add_group(RecordType type, const Uuid& group, const GroupChange& change);
  void escape();

  io::AlignedBuffer buffer_;
  BatchHeader header_{};
  std::uint64_t room_bytes_ = 0;
};

/// The state of one group as a change that tells it from the beginning.
GroupChange change_of(const Uuid& group, const GroupState& state);

}  // namespace shmq::journal
