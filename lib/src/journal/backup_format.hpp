// SPDX-License-Identifier: Apache-2.0
//
// The layout of a backup: one file that holds a queue as it stood at one point of its journal.
//
//   BackupHeader | piece | piece | ... | end piece           nothing behind it
//   piece:         PieceHeader | content
//
// The pieces are those of the journal: of each file its FileHeader, then its batches, as they are
// on disk, checksums and checkpoints included (format.hpp). So a backup proves what a journal
// proves, and each of its batches can be read by what reads journals.
//
// Invariants:
//  1. The batches are one chain: each names the one before it, and no seq is missing. The first one
//     is a snapshot, and no group needs a seq before it.
//  2. The end piece holds the sum of all bytes before it. Without it the backup is none.
//  3. Any change to a structure raises `backup_version` or sets a flag.
#pragma once

#include "journal/format.hpp"

namespace shmq::journal {

inline constexpr std::uint64_t backup_magic = 0x314b4142514d4853ULL;  // "SHMQBAK1"
inline constexpr std::uint64_t piece_magic = 0x31435042514d4853ULL;   // "SHMQBPC1"
inline constexpr std::uint32_t backup_version = 1;

struct BackupHeader {
  std::uint64_t magic;    // backup_magic
  std::uint32_t version;  // backup_version
  std::uint32_t header_bytes;
  std::uint64_t compatible_flags;    // unknown bits may be ignored
  std::uint64_t incompatible_flags;  // unknown bits must be refused
  std::uint8_t queue_uuid[16];
  std::uint64_t created_realtime_ns;
  std::uint64_t reserved0;
  char name_space[name_field_bytes];
  char queue[name_field_bytes];
  std::uint8_t reserved[3880];  // zeros
  std::uint64_t checksum;       // XXH3-64 of all bytes before it
};
static_assert(sizeof(BackupHeader) == block_bytes);

enum class PieceType : std::uint32_t { file = 1, batch = 2, end = 3 };

struct PieceHeader {
  std::uint64_t magic;  // piece_magic
  std::uint32_t type;   // PieceType
  std::uint32_t reserved;
  std::uint64_t bytes;     // of the content
  std::uint64_t checksum;  // XXH3-64 of all bytes before it; the content has its own
};
static_assert(sizeof(PieceHeader) == 32);

struct BackupEnd {
  std::uint64_t files;
  std::uint64_t batches;
  std::uint64_t messages;
  std::uint64_t first_seq;
  std::uint64_t end_seq;
  std::uint64_t sum;       // XXH3-64 of all bytes of the backup before this piece's header
  std::uint64_t checksum;  // XXH3-64 of all bytes of this structure before it
};
static_assert(sizeof(BackupEnd) == 56);

}  // namespace shmq::journal
