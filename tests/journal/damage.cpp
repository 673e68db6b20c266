// SPDX-License-Identifier: Apache-2.0
#include "journal/damage.hpp"

#include <algorithm>

namespace shmq::testing {

using namespace shmq::journal;

namespace {

using Random = std::mt19937_64;

struct Batch {
  std::string file;
  BatchHeader header;
};

// The batches that count, oldest first.
std::vector<Batch> batches_of(SimDisk& disk, const Plan& plan) {
  std::vector<Batch> batches;
  for (const ChainFile& file : plan.chain) {
    auto& bytes = disk.content(file.name);
    for (std::uint64_t at = block_bytes; at < file.end_offset;) {
      const auto header = load<BatchHeader>(Bytes{bytes}.subspan(at));
      batches.push_back({file.name, header});
      at += header.total_bytes;
    }
  }
  return batches;
}

void flip(std::vector<std::byte>& bytes, std::uint64_t at, Random& random) {
  bytes[at] ^= static_cast<std::byte>(1U << random() % 8);
}

std::optional<Damage> flip_in_batch(SimDisk& disk, const Outcome& before, Random& random) {
  const auto batches = batches_of(disk, before.plan);
  if (batches.size() < 2) return std::nullopt;
  const Batch& batch = batches[random() % (batches.size() - 1)];  // the last is not proven durable
  const BatchHeader& header = batch.header;
  const std::uint64_t length = random() % 2 == 0 ? sizeof(BatchHeader) : header.total_bytes;
  flip(disk.content(batch.file), header.file_offset + random() % length, random);
  // A run that consists of this batch alone is a file that ends too early.
  return Damage{.what = "a bit of a durable batch",
                .letter = 0,
                .range = SettledRange{header.first_seq, header.end_seq}};
}

std::optional<Damage> zero_a_file(SimDisk& disk, const Outcome& before, Random& random) {
  if (before.plan.chain.size() < 2) return std::nullopt;
  const ChainFile& file = before.plan.chain[random() % (before.plan.chain.size() - 1)];
  auto& bytes = disk.content(file.name);
  std::fill(bytes.begin() + block_bytes, bytes.end(), std::byte{0});
  return Damage{.what = "all batches of a needed file", .letter = 'I', .range = {}};
}

std::optional<Damage> remove_a_file(SimDisk& disk, const Outcome& before, Random& random) {
  if (before.plan.chain.size() < 2) return std::nullopt;
  const std::size_t index = random() % (before.plan.chain.size() - 1);
  const std::uint64_t floor = before.plan.state.least_floor(before.plan.end_seq);
  const std::uint64_t next = before.plan.chain[index + 1].first_seq;
  disk.remove(before.plan.chain[index].name);
  const bool is_needed = floor < next;
  Damage damage{.what = "a file is gone", .letter = is_needed ? 'V' : 'U', .is_refused = is_needed};
  if (is_needed) damage.range = SettledRange{floor, next};
  return damage;
}

std::optional<Damage> restore_an_old_copy(SimDisk& disk, const Outcome& before, Random&) {
  if (before.plan.chain.size() < 2) return std::nullopt;
  const ChainFile& file = before.plan.chain[before.plan.chain.size() - 2];
  const auto batches = batches_of(disk, before.plan);
  const auto last = std::find_if(batches.rbegin(), batches.rend(),
                                 [&](const Batch& batch) { return batch.file == file.name; });
  auto& bytes = disk.content(file.name);
  auto batch = std::span{bytes}.subspan(last->header.file_offset, last->header.total_bytes);
  auto header = load<BatchHeader>(batch);
  ++header.realtime_ns;
  std::memcpy(batch.data(), &header, sizeof(header));
  seal_batch(batch);
  return Damage{.what = "another batch in the place of one", .letter = 'W', .range = {}};
}

// Changes the header of some file that counts.
template <typename Change>
std::optional<Damage> change_header(SimDisk& disk, const Outcome& before, Random& random,
                                    char letter, Change change) {
  const auto& chain = before.plan.chain;
  if (chain.empty()) return std::nullopt;
  auto& bytes = disk.content(chain[random() % chain.size()].name);
  auto header = load<FileHeader>(bytes);
  change(header);
  std::memcpy(bytes.data(), &header, sizeof(header));
  return Damage{.what = "a file header", .letter = letter, .range = {}};
}

std::optional<Damage> damage_unused(SimDisk& disk, const Outcome& before, Random& random) {
  for (const Finding& finding : before.plan.findings) {
    if (finding.letter != 'K') continue;
    flip(disk.content(finding.file), random() % block_bytes, random);
    return Damage{.what = "header of an unused file", .letter = 'G', .is_refused = false};
  }
  return std::nullopt;
}

std::optional<Damage> truncate(SimDisk& disk, const Outcome& before, Random& random) {
  const auto& chain = before.plan.chain;
  if (chain.empty()) return std::nullopt;
  auto& bytes = disk.content(chain[random() % chain.size()].name);
  bytes.resize(random() % bytes.size());
  return Damage{.what = "a file is cut short", .letter = 'E', .range = {}};
}

}  // namespace

std::optional<Damage> damage(SimDisk& disk, const Outcome& before, Random& random) {
  switch (random() % 12) {
    case 0:
    case 1:
    case 2: return flip_in_batch(disk, before, random);
    case 3: return zero_a_file(disk, before, random);
    case 4: return remove_a_file(disk, before, random);
    case 5: return restore_an_old_copy(disk, before, random);
    case 6:
      return change_header(disk, before, random, 'C', [&](FileHeader& header) {
        (random() % 2 == 0 ? header.incompatible_flags : header.compatible_flags) = 8;
        header.version = header.incompatible_flags == 0 ? 2 : 1;
        seal(header);
      });
    case 7:
      return change_header(disk, before, random, 'D', [&](FileHeader& header) {
        if (random() % 2 == 0) {
          header.queue_uuid[3] ^= 1;
        } else {
          header.file_number += 1;
        }
        seal(header);
      });
    case 8:
      return change_header(disk, before, random, 'F', [&](FileHeader& header) {
        reinterpret_cast<std::uint8_t*>(&header)[random() % block_bytes] ^= 4;
      });
    case 9: return damage_unused(disk, before, random);
    case 10: return truncate(disk, before, random);
    default:
      disk.put(random() % 2 == 0 ? "notes.txt" : "journal.1", std::vector<std::byte>(100));
      return Damage{.what = "a file of another name", .letter = 'B', .is_refused = false};
  }
}

}  // namespace shmq::testing
