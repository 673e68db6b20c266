// SPDX-License-Identifier: Apache-2.0
//
// Between bytes and the structures of format.hpp: checksums, names, and the checks that a header
// or a batch must pass before anything of it is believed.
//
// Invariants:
//  1. Every check is of a private copy; the caller reads first and asks then.
//  2. No length is believed before it is bounded by bytes that are there.
#pragma once

#include <array>
#include <cstring>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "journal/format.hpp"

namespace shmq::journal {

using Uuid = std::array<std::uint8_t, uuid_bytes>;
using Bytes = std::span<const std::byte>;

std::uint64_t checksum_of(Bytes bytes) noexcept;
void seal(FileHeader& header) noexcept;
/// Both checksums of a batch; `batch` is the whole of it, and starts with its header.
void seal_batch(std::span<std::byte> batch) noexcept;

/// "journal.000000000000002a"
std::string file_name(std::uint64_t file_number);
std::string temporary_name(std::uint64_t file_number);
/// The number in a journal file's name, if it is exactly one.
std::optional<std::uint64_t> number_in_name(std::string_view name);
bool is_temporary_name(std::string_view name);

inline Uuid uuid_of(const std::uint8_t (&field)[uuid_bytes]) noexcept {
  Uuid uuid;
  std::memcpy(uuid.data(), field, uuid_bytes);
  return uuid;
}
std::string text_of(const Uuid& uuid);

/// A structure at the start of `bytes`, which must hold it.
template <typename T>
T load(Bytes bytes) noexcept {
  T value;
  std::memcpy(&value, bytes.data(), sizeof(T));
  return value;
}

enum class HeaderCondition {
  valid,
  damaged,      ///< wrong magic, checksum or contradictory fields
  truncated,    ///< the file is shorter than it was made
  unsupported,  ///< whole, but of another version or with unknown incompatible flags
  foreign,      ///< whole, but of another queue or under another number's name
};

struct FileIdentity {
  std::optional<Uuid> queue_uuid;  ///< nothing: not known yet, any will do
  std::uint64_t file_number = 0;
};

HeaderCondition check_file_header(const FileHeader& header, const FileIdentity& expected,
                                  std::uint64_t file_size) noexcept;

/// Where a batch header was found, and in what.
struct BatchPlace {
  std::optional<Uuid> queue_uuid;
  std::uint64_t epoch = 0;  ///< 0: not known, since the file's header is damaged
  std::uint64_t file_number = 0;
  std::uint64_t file_offset = 0;
  std::uint64_t file_size = 0;
};

enum class BatchCondition {
  none,         ///< the block does not start with batch_magic
  broken,       ///< it does, but the header is no whole one
  stale,        ///< a whole header of another file, queue, epoch or place
  unsupported,  ///< of this place, but of another version or with unknown flags
  genuine,      ///< of this place; its lengths are within the file. The body is not checked yet
};

/// `block` holds at least sizeof(BatchHeader) bytes.
BatchCondition check_batch_header(Bytes block, const BatchPlace& place) noexcept;

/// One record of a checked body.
struct Record {
  RecordType type;
  std::uint16_t flags;
  Bytes bytes;  ///< with its header
};

struct MessageView {
  std::uint64_t seq;
  std::uint64_t publish_realtime_ns;
  std::uint16_t flags;
  Bytes attributes;
  Bytes payload;
};
MessageView message_of(const Record& record) noexcept;

struct GroupView {
  GroupRecord head;
  Bytes ranges;
  Bytes entries;
  [[nodiscard]] SettledRange range(std::uint32_t i) const noexcept {
    return load<SettledRange>(ranges.subspan(i * sizeof(SettledRange)));
  }
  [[nodiscard]] EntryState entry(std::uint32_t i) const noexcept {
    return load<EntryState>(entries.subspan(i * sizeof(EntryState)));
  }
};
GroupView group_of(const Record& record) noexcept;

/// Records of `body`, the bytes behind a genuine header, up to its total_bytes. Checks the body's
/// checksum, puts escaped words back and checks each record and that the seqs are dense. Gives
/// nothing, and says why, if the batch is not whole. The records point into `body`.
std::optional<std::vector<Record>> open_body(const BatchHeader& header, std::span<std::byte> body,
                                             std::string& why);
/// The same into a list whose memory is used again; false: not whole.
bool open_body(const BatchHeader& header, std::span<std::byte> body, std::vector<Record>& records,
               std::string& why);

}  // namespace shmq::journal
