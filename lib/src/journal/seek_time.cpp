// SPDX-License-Identifier: Apache-2.0
#include "journal/seek_time.hpp"

#include <algorithm>
#include <memory>

namespace shmq::journal {
namespace {

class Search {
 public:
  Search(DirectorySource& directory, const Uuid& queue_uuid, std::uint64_t realtime_ns)
      : directory_(directory), uuid_(queue_uuid), realtime_ns_(realtime_ns) {}

  Result<std::optional<std::uint64_t>> run() {
    auto names = directory_.list();
    if (!names) return tl::unexpected{names.error()};
    for (const std::string& name : *names) {
      if (const auto number = number_in_name(name)) numbers_.push_back(*number);
    }
    std::sort(numbers_.begin(), numbers_.end());
    // The last file that begins before the time: the batch is in it, or begins the next one.
    std::size_t low = 0;
    std::size_t high = numbers_.size();
    while (low < high) {
      const std::size_t middle = low + (high - low) / 2;
      if (begins_before(numbers_[middle])) {
        low = middle + 1;
      } else {
        high = middle;
      }
    }
    for (std::size_t i = low == 0 ? 0 : low - 1; i < numbers_.size(); ++i) {
      if (const auto found = walk(numbers_[i])) return found;
    }
    return std::optional<std::uint64_t>{};
  }

 private:
  // A file that has gone, or holds no batch yet, is passed over: the old ones begin before any time
  // that is asked for, the one that is being prepared does not.
  bool begins_before(std::uint64_t number) {
    if (!open(number)) return number != numbers_.back();
    const auto first = header_at(block_bytes);
    return first && first->realtime_ns < realtime_ns_;
  }

  std::optional<std::uint64_t> walk(std::uint64_t number) {
    if (!open(number)) return std::nullopt;
    for (std::uint64_t offset = block_bytes; offset + block_bytes <= header_.file_bytes;) {
      const auto header = header_at(offset);
      if (!header) return std::nullopt;
      // An empty batch says nothing of when messages came.
      const bool has_messages = header->message_count != 0;
      if (header->realtime_ns >= realtime_ns_ && has_messages) return header->first_seq;
      offset += header->total_bytes;
    }
    return std::nullopt;
  }

  bool open(std::uint64_t number) {
    if (source_ != nullptr && header_.file_number == number) return true;
    source_.reset();
    auto source = directory_.open(file_name(number));
    if (!source) return false;
    std::vector<std::byte> block(block_bytes);
    if ((*source)->read(0, block)) return false;
    const auto header = load<FileHeader>(block);
    if (check_file_header(header, {.queue_uuid = uuid_, .file_number = number},
                          (*source)->size()) != HeaderCondition::valid) {
      return false;
    }
    header_ = header;
    source_ = std::move(*source);
    return true;
  }

  std::optional<BatchHeader> header_at(std::uint64_t offset) {
    std::vector<std::byte> start(sizeof(BatchHeader));
    if (source_->read(offset, start)) return std::nullopt;
    const BatchPlace place{.queue_uuid = uuid_,
                           .epoch = header_.epoch,
                           .file_number = header_.file_number,
                           .file_offset = offset,
                           .file_size = header_.file_bytes};
    if (check_batch_header(start, place) != BatchCondition::genuine) return std::nullopt;
    return load<BatchHeader>(start);
  }

  DirectorySource& directory_;
  const Uuid uuid_;
  const std::uint64_t realtime_ns_;
  std::vector<std::uint64_t> numbers_;
  std::unique_ptr<ByteSource> source_;
  FileHeader header_{};
};

}  // namespace

Result<std::optional<std::uint64_t>> first_seq_since(DirectorySource& directory,
                                                     const Uuid& queue_uuid,
                                                     std::uint64_t realtime_ns) {
  return Search{directory, queue_uuid, realtime_ns}.run();
}

}  // namespace shmq::journal
