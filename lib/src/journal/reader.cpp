// SPDX-License-Identifier: Apache-2.0
#include "journal/reader.hpp"

#include <algorithm>

#include "base/mutant.hpp"

namespace shmq::journal {
namespace {

constexpr std::uint64_t window_bytes = 64 * block_bytes;

bool is_zero(Bytes bytes) noexcept {
  return std::all_of(bytes.begin(), bytes.end(), [](std::byte b) { return b == std::byte{0}; });
}

// Blocks of the file, a window at a time. The last block of a truncated file is filled with zeros.
class Blocks {
 public:
  explicit Blocks(ByteSource& source) : source_(source) {}

  std::error_code at(std::uint64_t offset, Bytes& block) {
    if (offset < start_ || offset + block_bytes > start_ + window_.size()) {
      const std::uint64_t left = source_.size() - offset;
      const std::uint64_t wanted = std::min(left, window_bytes);
      window_.assign(round_up(wanted, block_bytes), std::byte{0});
      if (auto error = source_.read(offset, std::span{window_}.first(wanted))) {
        window_.clear();
        return error;
      }
      start_ = offset;
    }
    block = Bytes{window_}.subspan(offset - start_, block_bytes);
    return {};
  }

 private:
  ByteSource& source_;
  std::uint64_t start_ = 0;
  std::vector<std::byte> window_;
};

class Scanner {
 public:
  Scanner(ByteSource& source, const ScanOptions& options, const BatchTaker& take, FileScan& scan)
      : source_(source), blocks_(source), options_(options), take_(take), scan_(scan) {}

  std::error_code run() {
    place_.queue_uuid = options_.queue_uuid;
    if (scan_.header_is_sound) {
      place_.queue_uuid = uuid_of(scan_.header.queue_uuid);
      place_.epoch = scan_.header.epoch;
      recycled_ = scan_.header.origin == static_cast<std::uint32_t>(Origin::recycled);
    }
    place_.file_number = scan_.number;
    place_.file_size = scan_.size;
    for (std::uint64_t offset = block_bytes; offset < scan_.size;) {
      Bytes block;
      if (auto error = blocks_.at(offset, block)) return error;
      place_.file_offset = offset;
      const BatchCondition condition = check_batch_header(block, place_);
      if (condition == BatchCondition::genuine) {
        close_hole(offset);
        if (auto error = take_batch(load<BatchHeader>(block), offset)) return error;
      } else {
        add_to_hole(condition, block, offset);
        offset += block_bytes;
      }
    }
    close_hole(scan_.size);
    return {};
  }

 private:
  std::error_code take_batch(const BatchHeader& header, std::uint64_t& offset) {
    Stretch stretch{.kind = StretchKind::batch,
                    .offset = offset,
                    .bytes = header.total_bytes,
                    .header = header,
                    .hole = {},
                    .why = {}};
    if (options_.check_bodies) {
      batch_.body.resize(header.total_bytes - sizeof(BatchHeader));
      if (auto error = source_.read(offset + sizeof(BatchHeader), batch_.body)) return error;
      if (!open_body(header, batch_.body, batch_.records, stretch.why)) {
        stretch.kind = StretchKind::damaged;
      } else if (take_) {
        batch_.header = header;
        if (!take_(batch_)) return std::make_error_code(std::errc::operation_canceled);
      }
    }
    scan_.stretches.push_back(std::move(stretch));
    offset += header.total_bytes;
    return {};
  }

  void add_to_hole(BatchCondition condition, Bytes block, std::uint64_t offset) {
    if (!in_hole_) {
      in_hole_ = true;
      hole_ = {};
      hole_.offset = offset;
    }
    HoleContent& content = hole_.hole;
    switch (condition) {
      case BatchCondition::stale:
        // Only a recycled file may hold them; anywhere else somebody put a batch out of place.
        (recycled_ ? content.stale : content.noise) = true;
        break;
      case BatchCondition::broken: content.noise = content.broken_header = true; break;
      case BatchCondition::unsupported: content.noise = content.unsupported = true; break;
      case BatchCondition::none:
      case BatchCondition::genuine:
        if (!is_zero(block)) (recycled_ ? content.stale : content.noise) = true;
        break;
    }
  }

  void close_hole(std::uint64_t end) {
    if (!in_hole_) return;
    in_hole_ = false;
    hole_.bytes = end - hole_.offset;
    scan_.stretches.push_back(hole_);
  }

  ByteSource& source_;
  Blocks blocks_;
  const ScanOptions& options_;
  const BatchTaker& take_;
  FileScan& scan_;
  BatchPlace place_;
  bool recycled_ = false;
  bool in_hole_ = false;
  Stretch hole_;
  CheckedBatch batch_;
};

tl::unexpected<Error> read_failed(const std::string& name, std::error_code code) {
  return tl::unexpected{Error{code, "read journal file '" + name + "'", "", ""}};
}

}  // namespace

Result<FileHeader> read_file_header(ByteSource& source) {
  FileHeader header{};
  auto bytes = std::as_writable_bytes(std::span{&header, 1});
  bytes = bytes.first(std::min<std::uint64_t>(source.size(), bytes.size()));
  if (const auto error = source.read(0, bytes)) return read_failed("", error);
  return header;
}

std::optional<FileScan> read_ends(ByteSource& source, const std::string& name, std::uint64_t number,
                                  const std::optional<Uuid>& queue_uuid, const BatchHeader& next) {
  FileScan scan{};
  scan.name = name;
  scan.number = number;
  scan.size = source.size();
  const auto header = read_file_header(source);
  if (!header) return std::nullopt;
  scan.header = *header;
  scan.condition =
      check_file_header(scan.header, {.queue_uuid = queue_uuid, .file_number = number}, scan.size);
  if (scan.condition != HeaderCondition::valid) return std::nullopt;
  scan.header_is_sound = true;
  const auto add = [&](std::uint64_t offset) {
    BatchHeader batch{};
    if (offset % block_bytes != 0 || offset > scan.size - block_bytes) return false;
    if (source.read(offset, std::as_writable_bytes(std::span{&batch, 1}))) return false;
    const BatchPlace place{.queue_uuid = uuid_of(scan.header.queue_uuid),
                           .epoch = scan.header.epoch,
                           .file_number = number,
                           .file_offset = offset,
                           .file_size = scan.size};
    const auto condition = check_batch_header(std::as_bytes(std::span{&batch, 1}), place);
    if (condition != BatchCondition::genuine && !base::mutant(120)) return false;
    scan.stretches.push_back({.kind = StretchKind::batch,
                              .offset = offset,
                              .bytes = batch.total_bytes,
                              .header = batch,
                              .hole = {},
                              .why = {}});
    return true;
  };
  if (!add(block_bytes)) return std::nullopt;
  if (next.previous_offset != block_bytes && !add(next.previous_offset)) return std::nullopt;
  return scan;
}

Result<FileScan> scan_file(ByteSource& source, const std::string& name, std::uint64_t number,
                           const ScanOptions& options, const BatchVisitor& visit) {
  if (!visit) return scan_file(source, name, number, options, BatchTaker{});
  const BatchTaker take = [&visit](CheckedBatch& batch) {
    visit(batch.header, batch.records);
    return true;
  };
  return scan_file(source, name, number, options, take);
}

Result<FileScan> scan_file(ByteSource& source, const std::string& name, std::uint64_t number,
                           const ScanOptions& options, const BatchTaker& take) {
  FileScan scan{};
  scan.name = name;
  scan.number = number;
  scan.size = source.size();
  auto header = read_file_header(source);
  if (!header) return read_failed(name, header.error().code());
  scan.header = *header;
  scan.condition = check_file_header(
      scan.header, {.queue_uuid = options.queue_uuid, .file_number = number}, scan.size);
  scan.header_is_sound =
      scan.condition == HeaderCondition::valid || scan.condition == HeaderCondition::truncated;
  // A damaged header of a file that has no sound length: it was cut, whatever else happened.
  if (scan.condition == HeaderCondition::damaged &&
      (scan.size < file_bytes_min || scan.size % block_bytes != 0)) {
    scan.condition = HeaderCondition::truncated;
  }
  if (scan.condition == HeaderCondition::foreign ||
      scan.condition == HeaderCondition::unsupported) {
    return scan;
  }
  if (auto error = Scanner{source, options, take, scan}.run()) return read_failed(name, error);
  return scan;
}

}  // namespace shmq::journal
