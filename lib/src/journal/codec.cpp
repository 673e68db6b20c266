// SPDX-License-Identifier: Apache-2.0
#include "journal/codec.hpp"

#define XXH_INLINE_ALL
#include <xxhash.h>

#include <algorithm>
#include <charconv>
#include <cstdio>

#include "base/mutant.hpp"

namespace shmq::journal {

std::uint64_t checksum_of(Bytes bytes) noexcept { return XXH3_64bits(bytes.data(), bytes.size()); }

void seal(FileHeader& header) noexcept {
  header.checksum =
      checksum_of({reinterpret_cast<const std::byte*>(&header), offsetof(FileHeader, checksum)});
}

void seal_batch(std::span<std::byte> batch) noexcept {
  auto header = load<BatchHeader>(batch);
  header.body_checksum = checksum_of(batch.subspan(sizeof(BatchHeader)));
  header.header_checksum = checksum_of(
      {reinterpret_cast<const std::byte*>(&header), offsetof(BatchHeader, header_checksum)});
  std::memcpy(batch.data(), &header, sizeof(header));
}

// --- Names -------------------------------------------------------------------------------------

namespace {

constexpr std::size_t number_digits = 16;

std::string hexadecimal(std::uint64_t number) {
  char text[number_digits + 1];
  std::snprintf(text, sizeof(text), "%016llx", static_cast<unsigned long long>(number));
  return text;
}

}  // namespace

std::string file_name(std::uint64_t file_number) {
  return std::string{file_name_prefix} + hexadecimal(file_number);
}

std::string temporary_name(std::uint64_t file_number) {
  return std::string{temporary_name_prefix} + hexadecimal(file_number) +
         std::string{temporary_name_suffix};
}

std::optional<std::uint64_t> number_in_name(std::string_view name) {
  if (!name.starts_with(file_name_prefix)) return std::nullopt;
  name.remove_prefix(file_name_prefix.size());
  std::uint64_t number = 0;
  const char* end = name.data() + name.size();
  const auto [stop, error] = std::from_chars(name.data(), end, number, 16);
  // The one spelling only: two names for one number would be two files for one place.
  if (error != std::errc{} || stop != end || number == 0 || hexadecimal(number) != name) {
    return std::nullopt;
  }
  return number;
}

bool is_temporary_name(std::string_view name) {
  return name.starts_with(temporary_name_prefix) && name.ends_with(temporary_name_suffix);
}

std::string text_of(const Uuid& uuid) {
  std::string text;
  for (std::size_t i = 0; i < uuid.size(); ++i) {
    char digits[3];
    std::snprintf(digits, sizeof(digits), "%02x", uuid[i]);
    if (i == 4 || i == 6 || i == 8 || i == 10) text += '-';
    text += digits;
  }
  return text;
}

// --- Headers -----------------------------------------------------------------------------------

HeaderCondition check_file_header(const FileHeader& header, const FileIdentity& expected,
                                  std::uint64_t file_size) noexcept {
  const auto* start = reinterpret_cast<const std::byte*>(&header);
  if (header.magic != file_magic ||
      header.checksum != checksum_of({start, offsetof(FileHeader, checksum)})) {
    return HeaderCondition::damaged;
  }
  if (header.version != format_version || header.header_bytes != sizeof(FileHeader) ||
      (header.incompatible_flags & ~known_incompatible_flags) != 0) {
    return HeaderCondition::unsupported;
  }
  if (header.file_bytes % block_bytes != 0 || header.file_bytes < file_bytes_min ||
      header.file_bytes > file_bytes_max || header.epoch == 0 ||
      header.purpose > static_cast<std::uint32_t>(Purpose::incarnation) ||
      header.origin > static_cast<std::uint32_t>(Origin::recycled) ||
      header.name_space[name_field_bytes - 1] != '\0' ||
      header.queue[name_field_bytes - 1] != '\0') {
    return HeaderCondition::damaged;
  }
  if (header.file_number != expected.file_number ||
      (expected.queue_uuid && uuid_of(header.queue_uuid) != *expected.queue_uuid)) {
    return HeaderCondition::foreign;
  }
  return file_size < header.file_bytes ? HeaderCondition::truncated : HeaderCondition::valid;
}

BatchCondition check_batch_header(Bytes block, const BatchPlace& place) noexcept {
  const auto header = load<BatchHeader>(block);
  if (header.magic != batch_magic) return BatchCondition::none;
  if (header.header_checksum != checksum_of(block.first(offsetof(BatchHeader, header_checksum)))) {
    return BatchCondition::broken;
  }
  const bool is_of_this_file = header.file_number == place.file_number || base::mutant(48);
  if (!is_of_this_file || header.file_offset != place.file_offset ||
      (place.epoch != 0 && header.epoch != place.epoch) ||
      (place.queue_uuid && uuid_of(header.queue_uuid) != *place.queue_uuid)) {
    return BatchCondition::stale;
  }
  if (header.version != format_version || header.header_bytes != sizeof(BatchHeader) ||
      (header.flags & ~known_batch_flags) != 0) {
    return BatchCondition::unsupported;
  }
  const std::uint64_t room = place.file_size - place.file_offset;
  const bool is_sound =
      header.body_bytes <= room && header.total_bytes <= room &&
      header.total_bytes == round_up(sizeof(BatchHeader) + header.body_bytes, block_bytes) &&
      header.first_seq <= header.end_seq &&
      header.message_count <= header.end_seq - header.first_seq &&
      header.durable_upto <= header.first_seq && header.seq_ceiling >= header.end_seq &&
      header.batch_number != 0 && (header.batch_number == 1) == (header.previous_file == 0) &&
      header.escape_count <= header.total_bytes / block_bytes;
  return is_sound ? BatchCondition::genuine : BatchCondition::broken;
}

// --- Records -----------------------------------------------------------------------------------

namespace {

std::uint64_t bytes_least(RecordType type) noexcept {
  switch (type) {
    case RecordType::message: return sizeof(MessageRecord);
    case RecordType::gap: return sizeof(GapRecord);
    case RecordType::group_snapshot:
    case RecordType::group_delta: return sizeof(GroupRecord);
    case RecordType::group_removed: return sizeof(GroupRemovedRecord);
    case RecordType::settings: return sizeof(SettingsRecord);
    case RecordType::copy_source: return sizeof(CopySourceRecord);
    case RecordType::escape: return sizeof(EscapeRecord);
  }
  return 0;
}

bool is_sound_group(const Record& record, std::uint64_t end_seq) noexcept {
  const auto head = load<GroupRecord>(record.bytes);
  const std::uint64_t expected = sizeof(GroupRecord) +
                                 std::uint64_t{head.range_count} * sizeof(SettledRange) +
                                 std::uint64_t{head.entry_count} * sizeof(EntryState);
  if (record.bytes.size() != expected || head.floor > end_seq) return false;
  const GroupView view = group_of(record);
  for (std::uint32_t i = 0; i < head.range_count; ++i) {
    const SettledRange range = view.range(i);
    if (range.first_seq >= range.end_seq || range.end_seq > end_seq) return false;
  }
  for (std::uint32_t i = 0; i < head.entry_count; ++i) {
    const EntryState entry = view.entry(i);
    if (entry.seq >= end_seq || entry.condition > static_cast<std::uint8_t>(EntryCondition::dead)) {
      return false;
    }
  }
  return true;
}

// Puts the inverted words back. The list is found from the end: it is the last record.
bool put_escapes_back(const BatchHeader& header, std::span<std::byte> body) noexcept {
  if (header.escape_count == 0) return true;
  const std::uint64_t list = sizeof(EscapeRecord) + std::uint64_t{header.escape_count} * 4;
  if (list > header.body_bytes) return false;
  const std::uint64_t place = header.body_bytes - list;
  const auto record = load<EscapeRecord>(body.subspan(place));
  if (record.header.type != static_cast<std::uint16_t>(RecordType::escape) ||
      record.header.bytes != list || record.count != header.escape_count) {
    return false;
  }
  const std::vector<std::byte> indices(body.begin() + static_cast<std::ptrdiff_t>(place + 16),
                                       body.begin() + static_cast<std::ptrdiff_t>(place + list));
  for (std::uint32_t i = 0; i < header.escape_count; ++i) {
    const auto index = load<std::uint32_t>(Bytes{indices}.subspan(i * 4));
    const std::uint64_t offset = index * block_bytes;
    if (index == 0 || offset + 8 > sizeof(BatchHeader) + header.body_bytes) return false;
    std::byte* word = body.data() + (offset - sizeof(BatchHeader));
    for (int byte = 0; byte < 8; ++byte) word[byte] = ~word[byte];
  }
  return true;
}

// What the seqs of the records come to; the header must say the same.
struct SeqCount {
  std::uint64_t next;
  std::uint64_t messages = 0;

  bool add(const Record& record, std::uint64_t end_seq) noexcept {
    if (record.type == RecordType::message) {
      const auto head = load<MessageRecord>(record.bytes);
      if (head.seq != next || head.attribute_bytes > record.bytes.size() - sizeof(MessageRecord)) {
        return false;
      }
      ++next;
      ++messages;
    } else if (record.type == RecordType::gap) {
      const auto gap = load<GapRecord>(record.bytes);
      if (gap.first_seq != next || gap.end_seq <= gap.first_seq) return false;
      next = gap.end_seq;
    } else if (record.type == RecordType::group_snapshot ||
               record.type == RecordType::group_delta) {
      return is_sound_group(record, end_seq);
    }
    return next <= end_seq;
  }
};

}  // namespace

MessageView message_of(const Record& record) noexcept {
  const auto head = load<MessageRecord>(record.bytes);
  const Bytes rest = record.bytes.subspan(sizeof(MessageRecord));
  return {.seq = head.seq,
          .publish_realtime_ns = head.publish_realtime_ns,
          .flags = record.flags,
          .attributes = rest.first(head.attribute_bytes),
          .payload = rest.subspan(head.attribute_bytes)};
}

GroupView group_of(const Record& record) noexcept {
  const auto head = load<GroupRecord>(record.bytes);
  const Bytes rest = record.bytes.subspan(sizeof(GroupRecord));
  const std::size_t ranges = head.range_count * sizeof(SettledRange);
  return {.head = head, .ranges = rest.first(ranges), .entries = rest.subspan(ranges)};
}

std::optional<std::vector<Record>> open_body(const BatchHeader& header, std::span<std::byte> body,
                                             std::string& why) {
  std::vector<Record> records;
  if (!open_body(header, body, records, why)) return std::nullopt;
  return records;
}

bool open_body(const BatchHeader& header, std::span<std::byte> body, std::vector<Record>& records,
               std::string& why) {
  const auto fail = [&why](const char* text) {
    why = text;
    return false;
  };
  records.clear();
  if (body.size() != header.total_bytes - sizeof(BatchHeader)) return fail("the batch is cut off");
  if (checksum_of(body) != header.body_checksum) return fail("the body's checksum is wrong");
  if (!put_escapes_back(header, body)) return fail("the escape record is wrong");
  // A count is a hint for the reservation only as far as the bytes could hold so many.
  records.reserve(
      std::min<std::uint64_t>(header.record_count, header.body_bytes / sizeof(RecordHeader)));
  SeqCount seqs{.next = header.first_seq};
  for (std::uint64_t offset = 0; offset < header.body_bytes;) {
    const std::uint64_t left = header.body_bytes - offset;
    if (left < sizeof(RecordHeader)) return fail("a record is cut off");
    const auto head = load<RecordHeader>(body.subspan(offset));
    const auto type = static_cast<RecordType>(head.type);
    const std::uint64_t least = bytes_least(type);
    if (least == 0) return fail("a record of an unknown type");
    if (head.bytes < least || head.bytes > left) return fail("a record's length is wrong");
    const Record record{type, head.flags, Bytes{body}.subspan(offset, head.bytes)};
    if (!seqs.add(record, header.end_seq)) return fail("a record contradicts its batch");
    records.push_back(record);
    offset += round_up(head.bytes, record_alignment);
  }
  if (records.size() != header.record_count || seqs.messages != header.message_count ||
      seqs.next != header.end_seq) {
    return fail("the records are not those that the header counts");
  }
  return true;
}

}  // namespace shmq::journal
