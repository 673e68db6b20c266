// SPDX-License-Identifier: Apache-2.0
#include "daemon/journal/batch_builder.hpp"

#include <algorithm>
#include <utility>

#include "base/assert.hpp"

namespace shmq::journal {

void BatchBuilder::begin(const BatchFrame& frame, std::uint64_t room_bytes) {
  SHMQ_ASSERT(room_bytes >= block_bytes && room_bytes % block_bytes == 0);
  buffer_.clear();
  buffer_.append_zeros(sizeof(BatchHeader));
  header_ = {};
  header_.magic = batch_magic;
  header_.version = format_version;
  header_.header_bytes = sizeof(BatchHeader);
  std::memcpy(header_.queue_uuid, frame.queue_uuid.data(), uuid_bytes);
  header_.epoch = frame.epoch;
  header_.file_number = frame.file_number;
  header_.file_offset = frame.file_offset;
  header_.batch_number = frame.batch_number;
  header_.first_seq = header_.end_seq = frame.first_seq;
  header_.previous_file = frame.previous.file_number;
  header_.previous_offset = frame.previous.offset;
  header_.previous_checksum = frame.previous.checksum;
  header_.previous_first_seq = frame.previous.first_seq;
  room_bytes_ = room_bytes;
}

// The worst that escaping can add is an index for each block and the record's head.
bool BatchBuilder::has_room(std::uint64_t record_bytes) const noexcept {
  const std::uint64_t bytes =
      round_up(buffer_.size(), record_alignment) + record_bytes + record_alignment;
  const std::uint64_t escapes = sizeof(EscapeRecord) + (bytes / block_bytes + 1) * 4;
  return record_bytes <= record_bytes_max && bytes + escapes <= room_bytes_;
}

std::byte* BatchBuilder::begin_record(RecordType type, std::uint16_t flags, std::uint64_t bytes) {
  buffer_.append_zeros(round_up(buffer_.size(), record_alignment) - buffer_.size());
  std::byte* place = buffer_.extend(bytes);
  const RecordHeader head{static_cast<std::uint32_t>(bytes), static_cast<std::uint16_t>(type),
                          flags};
  std::memcpy(place, &head, sizeof(head));
  ++header_.record_count;
  return place;
}

bool BatchBuilder::add_message(const MessageView& message) {
  const std::uint64_t bytes =
      sizeof(MessageRecord) + message.attributes.size() + message.payload.size();
  SHMQ_ASSERT(message.seq == header_.end_seq);
  if (!has_room(bytes)) return false;
  std::byte* place = begin_record(RecordType::message, message.flags, bytes);
  auto head = load<MessageRecord>({place, sizeof(MessageRecord)});
  head.attribute_bytes = static_cast<std::uint32_t>(message.attributes.size());
  head.reserved = 0;
  head.seq = message.seq;
  head.publish_realtime_ns = message.publish_realtime_ns;
  std::memcpy(place, &head, sizeof(head));
  place = std::copy(message.attributes.begin(), message.attributes.end(), place + sizeof(head));
  std::copy(message.payload.begin(), message.payload.end(), place);
  ++header_.end_seq;
  ++header_.message_count;
  return true;
}

template <typename T>
bool BatchBuilder::add_fixed(RecordType type, T record) {
  if (!has_room(sizeof(T))) return false;
  std::byte* place = begin_record(type, 0, sizeof(T));
  std::memcpy(reinterpret_cast<std::byte*>(&record), place, sizeof(RecordHeader));
  std::memcpy(place, &record, sizeof(T));
  return true;
}

bool BatchBuilder::add_gap(std::uint64_t end_seq) {
  GapRecord record{};
  record.first_seq = header_.end_seq;
  record.end_seq = end_seq;
  if (!add_fixed(RecordType::gap, record)) return false;
  header_.end_seq = end_seq;
  return true;
}

bool BatchBuilder::add_group_removed(const Uuid& group, std::uint64_t incarnation) {
  GroupRemovedRecord record{};
  std::memcpy(record.group_uuid, group.data(), uuid_bytes);
  record.incarnation = incarnation;
  return add_fixed(RecordType::group_removed, record);
}

bool BatchBuilder::add_copy_source(const CopySourceRecord& source) {
  return add_fixed(RecordType::copy_source, source);
}

bool BatchBuilder::add_settings(const Uuid& group, Bytes value) {
  const std::uint64_t bytes = sizeof(SettingsRecord) + value.size();
  if (!has_room(bytes)) return false;
  std::byte* place = begin_record(RecordType::settings, 0, bytes);
  auto head = load<SettingsRecord>({place, sizeof(SettingsRecord)});
  head.reserved = 0;
  std::memcpy(head.group_uuid, group.data(), uuid_bytes);
  std::memcpy(place, &head, sizeof(head));
  std::copy(value.begin(), value.end(), place + sizeof(head));
  return true;
}

bool BatchBuilder::add_group(RecordType type, const Uuid& group, const GroupChange& change) {
  const std::uint64_t range_bytes = change.settled.size() * sizeof(SettledRange);
  const std::uint64_t entry_bytes = change.entries.size() * sizeof(EntryState);
  const std::uint64_t bytes = sizeof(GroupRecord) + range_bytes + entry_bytes;
  if (!has_room(bytes)) return false;
  std::byte* place = begin_record(type, 0, bytes);
  auto head = load<GroupRecord>({place, sizeof(GroupRecord)});
  head.range_count = static_cast<std::uint32_t>(change.settled.size());
  head.entry_count = static_cast<std::uint32_t>(change.entries.size());
  std::memcpy(head.group_uuid, group.data(), uuid_bytes);
  head.incarnation = change.incarnation;
  head.floor = change.floor;
  std::memcpy(place, &head, sizeof(head));
  place += sizeof(head);
  if (range_bytes != 0) std::memcpy(place, change.settled.data(), range_bytes);
  if (entry_bytes != 0) std::memcpy(place + range_bytes, change.entries.data(), entry_bytes);
  return true;
}

bool BatchBuilder::add_change(const GroupChange& change) {
  return add_group(RecordType::group_delta, change.group, change);
}

bool BatchBuilder::add_snapshot(const CheckpointState& state) {
  header_.flags |= batch_snapshot;
  for (const auto& [uuid, value] : state.settings) {
    if (!add_settings(uuid, value)) return false;
  }
  for (const auto& [uuid, group] : state.groups) {
    if (!add_group(RecordType::group_snapshot, uuid, change_of(uuid, group))) return false;
  }
  return true;
}

// Inverts the first word of each block that looks like a batch, and lists those blocks.
void BatchBuilder::escape() {
  std::vector<std::uint32_t> indices;
  for (std::uint64_t at = block_bytes; at + 8 <= buffer_.size(); at += block_bytes) {
    std::byte* word = buffer_.data() + at;
    if (load<std::uint64_t>({word, 8}) != batch_magic) continue;
    for (int byte = 0; byte < 8; ++byte) word[byte] = ~word[byte];
    indices.push_back(static_cast<std::uint32_t>(at / block_bytes));
  }
  if (indices.empty()) return;
  const std::uint64_t list = indices.size() * sizeof(std::uint32_t);
  std::byte* place = begin_record(RecordType::escape, 0, sizeof(EscapeRecord) + list);
  auto head = load<EscapeRecord>({place, sizeof(EscapeRecord)});
  head.count = static_cast<std::uint32_t>(indices.size());
  head.reserved = 0;
  std::memcpy(place, &head, sizeof(head));
  std::memcpy(place + sizeof(head), indices.data(), list);
  header_.escape_count = head.count;
}

io::AlignedBuffer BatchBuilder::finish(const Seal& seal) {
  escape();
  header_.flags |= seal.flags;
  header_.durable_upto = seal.durable_upto;
  header_.seq_ceiling = seal.seq_ceiling;
  header_.realtime_ns = seal.realtime_ns;
  header_.body_bytes = buffer_.size() - sizeof(BatchHeader);
  header_.total_bytes = round_up(buffer_.size(), block_bytes);
  buffer_.append_zeros(header_.total_bytes - buffer_.size());
  SHMQ_ASSERT(header_.total_bytes <= room_bytes_);
  std::memcpy(buffer_.data(), &header_, sizeof(header_));
  seal_batch(buffer_.bytes());
  header_ = load<BatchHeader>(buffer_.bytes());
  return std::exchange(buffer_, {});
}

GroupChange change_of(const Uuid& group, const GroupState& state) {
  GroupChange change{.group = group,
                     .incarnation = state.incarnation,
                     .floor = state.floor,
                     .settled = {},
                     .entries = {}};
  for (const auto& [first, end] : state.settled) change.settled.push_back({first, end});
  for (const auto& [seq, entry] : state.entries) change.entries.push_back(entry);
  return change;
}

}  // namespace shmq::journal
