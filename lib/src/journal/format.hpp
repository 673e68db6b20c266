// SPDX-License-Identifier: Apache-2.0
//
// The layout of a journal: THE law. Nothing else defines a structure on disk; shmq_journal(5)
// explains it, and a test compares the two.
//
//   directory of a queue:  journal.<file number, 16 hex digits>   prepare.<...>.tmp (never valid)
//   file:                  FileHeader | batch | batch | ... | zeros, or stale blocks if recycled
//   batch:                 BatchHeader | record | record | ... | zeros up to the next 4 KiB
//
// Invariants:
//  1. Little-endian, fixed width, no pointers. Structures have no padding.
//  2. A batch is the atomic unit: it counts wholly or not at all, by its two checksums.
//  3. Batch n + 1 is written after batch n is on stable storage. So a genuine batch n + 1 proves
//     that batch n was whole, and if it is not now, it was damaged.
//  4. A block once confirmed is never written again while its file has its name.
//  5. A batch names its queue, epoch, file and place in the file. So a stale batch of a recycled
//     file, or one moved by a broken disk, is none.
//  6. No block starts with batch_magic but the first of a batch: a block of a body that would is
//     stored with its first word inverted, and is listed in the batch's escape record. So bytes of
//     a payload are never taken for a batch, whatever they are.
//  7. A batch names its predecessor. What follows in a file after the batch that the next file
//     names does not count: the writer gave it up after an error, or recovery replaced it.
//  8. Any change to a structure raises `format_version` or sets a flag.
#pragma once

#include <bit>
#include <cstddef>
#include <cstdint>
#include <string_view>

namespace shmq::journal {

static_assert(std::endian::native == std::endian::little, "the structures are copied as they are");

inline constexpr std::uint64_t file_magic = 0x314c4e4a514d4853ULL;   // "SHMQJNL1"
inline constexpr std::uint64_t batch_magic = 0x31544142514d4853ULL;  // "SHMQBAT1"
inline constexpr std::uint32_t format_version = 1;
/// A set bit that is not listed here: refuse. Unknown compatible bits may be ignored.
inline constexpr std::uint64_t known_incompatible_flags = 0;

inline constexpr std::uint64_t block_bytes = 4096;      // unit of writing and of alignment
inline constexpr std::uint64_t sector_bytes = 512;      // what a disk writes at once, at worst
inline constexpr std::uint64_t file_bytes_min = 16384;  // a header and three batches
inline constexpr std::uint64_t first_file_bytes = 1ULL << 20;
inline constexpr std::uint64_t usual_file_bytes_max = 64ULL << 20;
inline constexpr std::uint64_t file_bytes_max = 16ULL << 30;  // for a message larger than usual
inline constexpr std::size_t uuid_bytes = 16;
inline constexpr std::size_t name_field_bytes = 72;  // 64 and a NUL, kept to a multiple of 8
inline constexpr std::uint64_t record_alignment = 8;

inline constexpr std::string_view file_name_prefix = "journal.";
inline constexpr std::string_view temporary_name_prefix = "prepare.";
inline constexpr std::string_view temporary_name_suffix = ".tmp";

// --- The file ----------------------------------------------------------------------------------

enum class Purpose : std::uint32_t {
  ordinary = 0,     ///< goes on where another file of the same epoch ended
  incarnation = 1,  ///< the first of an epoch: the copied tail, then the closing marker
};

enum class Origin : std::uint32_t {
  fresh = 0,     ///< zeros were written through before the header
  recycled = 1,  ///< behind the last batch there are blocks of a former file
};

/// Block 0. Synced before the file gets its name; never written again.
struct FileHeader {
  std::uint64_t magic;               // file_magic
  std::uint32_t version;             // format_version
  std::uint32_t header_bytes;        // sizeof(FileHeader)
  std::uint64_t compatible_flags;    // unknown bits may be ignored
  std::uint64_t incompatible_flags;  // unknown bits must be refused
  std::uint8_t queue_uuid[16];       // of the queue; each batch repeats it
  std::uint64_t epoch;               // incarnation of the writer; raised at each start
  std::uint64_t file_number;         // never reused; the name repeats it
  std::uint64_t file_bytes;          // length of the file, a multiple of block_bytes
  std::uint32_t purpose;             // Purpose
  std::uint32_t origin;              // Origin
  std::uint8_t boot_id[16];          // of the host, when the file was prepared; for people
  std::uint64_t created_realtime_ns;
  char name_space[name_field_bytes];  // NUL-terminated; for people and for refusal
  char queue[name_field_bytes];
  std::uint8_t reserved[3840];  // zeros
  std::uint64_t checksum;       // XXH3-64 of all bytes before it
};
static_assert(sizeof(FileHeader) == block_bytes);
static_assert(offsetof(FileHeader, checksum) == block_bytes - 8);

// --- The batch ---------------------------------------------------------------------------------

enum BatchFlags : std::uint32_t {
  batch_snapshot = 1U << 0,  ///< its checkpoint records are the whole state; forget what was before
  batch_closing = 1U << 1,   ///< empty; makes the last durable_upto itself durable
  batch_copy = 1U << 2,      ///< the unsealed tail of the previous incarnation, copied forward
  batch_marker = 1U << 3,    ///< makes the batch_copy before it, and with it the epoch, valid
};
inline constexpr std::uint32_t known_batch_flags = 0xf;

/// At the start of a block. It lies within one sector, so it is never torn itself.
struct BatchHeader {
  std::uint64_t magic;         // batch_magic
  std::uint32_t version;       // format_version
  std::uint32_t header_bytes;  // sizeof(BatchHeader); the records follow
  std::uint32_t flags;         // BatchFlags; an unknown bit makes the batch unsupported
  std::uint32_t record_count;  // of all records, the escape record included
  std::uint8_t queue_uuid[16];
  std::uint64_t epoch;
  std::uint64_t file_number;
  std::uint64_t file_offset;         // of this header
  std::uint64_t batch_number;        // dense along the chain, from 1; goes on over epochs
  std::uint64_t first_seq;           // end_seq of the previous batch
  std::uint64_t message_count;       // message records in it
  std::uint64_t end_seq;             // first_seq + message_count + the seqs of gap records
  std::uint64_t durable_upto;        // all seqs below were on stable storage when this was written
  std::uint64_t seq_ceiling;         // seqs below may have been given out once this is durable
  std::uint64_t body_bytes;          // of the records, without the padding after the last
  std::uint64_t total_bytes;         // header, records and padding: a multiple of block_bytes
  std::uint64_t previous_file;       // file number of batch batch_number - 1; 0: this is the first
  std::uint64_t previous_offset;     // its place there
  std::uint64_t previous_checksum;   // its header_checksum
  std::uint64_t previous_first_seq;  // its first_seq: so its range is known even if it is not
  std::uint64_t realtime_ns;         // when it was written; for people, and for retention by age
  std::uint32_t escape_count;        // blocks with an inverted first word
  std::uint8_t reserved[68];         // zeros
  std::uint64_t body_checksum;       // XXH3-64 of the total_bytes - header_bytes bytes behind it
  std::uint64_t header_checksum;     // XXH3-64 of all bytes of the header before it
};
static_assert(sizeof(BatchHeader) == 256);
static_assert(sizeof(BatchHeader) <= sector_bytes, "a torn sector is a wrong checksum, not a mix");
static_assert(offsetof(BatchHeader, header_checksum) == 248);

// --- Records -----------------------------------------------------------------------------------

enum class RecordType : std::uint16_t {
  message = 1,
  gap = 2,
  group_snapshot = 3,
  group_delta = 4,
  group_removed = 5,
  settings = 6,
  copy_source = 7,
  escape = 8,
};

/// Starts each record. Records are aligned to record_alignment; the bytes between are zeros.
struct RecordHeader {
  std::uint32_t bytes;  // of the record with this header, without alignment
  std::uint16_t type;   // RecordType; an unknown one makes the batch unsupported
  std::uint16_t flags;  // of a message: the publisher's, kept as they are; else 0
};
static_assert(sizeof(RecordHeader) == 8);

/// Followed by the attributes and then the payload.
struct MessageRecord {
  RecordHeader header;
  std::uint32_t attribute_bytes;
  std::uint32_t reserved;             // 0
  std::uint64_t seq;                  // dense in the batch but for gap records
  std::uint64_t publish_realtime_ns;  // 0: not asked for
};
static_assert(sizeof(MessageRecord) == 32);

/// Seqs that no message has or will have: they may have been given out before a power loss.
struct GapRecord {
  RecordHeader header;
  std::uint64_t reserved;   // 0
  std::uint64_t first_seq;  // end of what was recovered
  std::uint64_t end_seq;    // the seq ceiling that was in force
};
static_assert(sizeof(GapRecord) == 32);

/// A group's state (group_snapshot) or what changed in it (group_delta). Followed by range_count
/// SettledRange and entry_count EntryState. Never about a seq at or above the batch's end_seq.
struct GroupRecord {
  RecordHeader header;
  std::uint32_t range_count;
  std::uint32_t entry_count;
  std::uint8_t group_uuid[16];
  std::uint64_t incarnation;  // a higher one replaces all that was known of the group
  std::uint64_t floor;        // all seqs below are settled
};
static_assert(sizeof(GroupRecord) == 48);

/// Settled seqs at or above the floor.
struct SettledRange {
  std::uint64_t first_seq;
  std::uint64_t end_seq;
};
static_assert(sizeof(SettledRange) == 16);

enum class EntryCondition : std::uint8_t { ready = 0, delayed = 1, dead = 2 };

/// An unsettled message that was handed out before. A lease is written as ready: it ends with the
/// host, its counts do not.
struct EntryState {
  std::uint64_t seq;
  std::uint64_t due_realtime_ns;  // of a delayed one
  std::uint32_t hand_outs;
  std::uint16_t failures;
  std::uint8_t deaths;
  std::uint8_t condition;  // EntryCondition
};
static_assert(sizeof(EntryState) == 24);

struct GroupRemovedRecord {
  RecordHeader header;
  std::uint64_t reserved;  // 0
  std::uint8_t group_uuid[16];
  std::uint64_t incarnation;
};
static_assert(sizeof(GroupRemovedRecord) == 40);

/// Options of the queue, or of a group (name, mode, limits), as the daemon encodes them. They
/// follow, up to the end of the record. Part of each snapshot; a later one replaces them.
struct SettingsRecord {
  RecordHeader header;
  std::uint64_t reserved;       // 0
  std::uint8_t group_uuid[16];  // zeros: the queue itself
};
static_assert(sizeof(SettingsRecord) == 32);

/// First record of a batch_copy: what was copied, and from where. All 0: a new queue.
struct CopySourceRecord {
  RecordHeader header;
  std::uint64_t epoch;
  std::uint64_t file_number;
  std::uint64_t file_offset;      // of the one unsealed batch
  std::uint64_t bytes;            // its total_bytes
  std::uint64_t header_checksum;  // its header_checksum
  std::uint64_t first_seq;
  std::uint64_t end_seq;
};
static_assert(sizeof(CopySourceRecord) == 64);

/// Last record of a batch with escape_count > 0. Followed by escape_count block indices of 32 bits,
/// ascending, counted from the batch's first block (so never 0).
struct EscapeRecord {
  RecordHeader header;
  std::uint32_t count;
  std::uint32_t reserved;  // 0
};
static_assert(sizeof(EscapeRecord) == 16);

inline constexpr std::uint64_t record_bytes_max = 0xffff'fff0ULL;
static_assert(file_bytes_max / block_bytes < (1ULL << 32), "a block index has 32 bits");

constexpr std::uint64_t round_up(std::uint64_t bytes, std::uint64_t unit) noexcept {
  return (bytes + unit - 1) / unit * unit;
}

}  // namespace shmq::journal
