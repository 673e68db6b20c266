// SPDX-License-Identifier: Apache-2.0
#include "journal/cursor.hpp"

#include <algorithm>
#include <cerrno>
#include <shmq/error.hpp>

#include "base/mutant.hpp"

namespace shmq::journal {
namespace {

constexpr std::uint64_t window_bytes_max = 256ULL << 10;
constexpr int attempts_max = 16;  // files come and go while we look

bool is_gone(const Error& error) noexcept {
  return error.code() == std::error_code{ENOENT, std::generic_category()};
}

}  // namespace

std::span<std::byte> BatchBuffer::reserve(std::uint64_t bytes) {
  records.clear();
  if (bytes > capacity_) {
    bytes_.reset();
    bytes_.reset(new std::byte[bytes]);
    capacity_ = bytes;
  }
  reserved_ = bytes;
  return {bytes_.get(), bytes};
}

void BatchBuffer::clear() noexcept {
  header = {};
  records.clear();
}

Cursor::Cursor(std::unique_ptr<DirectorySource> directory, const Uuid& queue_uuid)
    : directory_(std::move(directory)), queue_uuid_(queue_uuid) {}

Cursor::~Cursor() = default;

void Cursor::seek(std::uint64_t seq) noexcept {
  position_ = seq;
  close();
}

void Cursor::close() noexcept {
  file_.reset();
  reached_ = 0;
  window_bytes_ = 0;
}

tl::unexpected<Error> Cursor::failure(std::error_code code, std::string why,
                                      std::string remedy) const {
  return tl::unexpected{Error{code, "read the journal in '" + directory_->path() + "'",
                              std::move(why), std::move(remedy)}};
}

tl::unexpected<Error> Cursor::damaged(std::uint64_t first, std::uint64_t end,
                                      const std::string& where) {
  damage_ = DamagedRange{first, end};
  return failure(
      make_error_code(Errc::corrupt),
      "seqs " + std::to_string(first) + " to " + std::to_string(end - 1) + " are damaged: " + where,
      "see: shmqctl verify " + directory_->path());
}

// --- Files -------------------------------------------------------------------------------------

Result<std::vector<std::uint64_t>> Cursor::list_numbers() {
  auto names = directory_->list();
  if (!names) return tl::unexpected{names.error()};
  std::vector<std::uint64_t> numbers;
  for (const std::string& name : *names) {
    if (const auto number = number_in_name(name)) numbers.push_back(*number);
  }
  std::sort(numbers.begin(), numbers.end());
  return numbers;
}

// Nothing: it is gone, or of another queue. One whose header block is damaged is read all the same:
// each batch has to say for itself that it belongs here.
Result<std::optional<Cursor::File>> Cursor::open(std::uint64_t number) {
  auto source = directory_->open(file_name(number));
  if (!source) {
    if (is_gone(source.error())) return std::nullopt;
    return tl::unexpected{source.error()};
  }
  auto header = read_file_header(**source);
  if (!header) return tl::unexpected{header.error()};
  File file{.source = std::move(*source), .number = number, .place = {}};
  file.place = {.queue_uuid = queue_uuid_,
                .epoch = 0,
                .file_number = number,
                .file_offset = 0,
                .file_size = file.source->size()};
  switch (check_file_header(*header, {.queue_uuid = queue_uuid_, .file_number = number},
                            file.place.file_size)) {
    case HeaderCondition::foreign: return std::nullopt;
    case HeaderCondition::unsupported:
      return failure(make_error_code(Errc::version_mismatch),
                     file_name(number) + " is of another version", "read it with that version");
    case HeaderCondition::valid:
    case HeaderCondition::truncated: file.place.epoch = header->epoch; break;
    case HeaderCondition::damaged: break;
  }
  return std::optional<File>{std::move(file)};
}

// True: there is a batch of this place, whose body is not looked at. A piece of the file is kept,
// since most batches of a quiet queue are small. What is on stable storage stays as it is, so only
// the absence of a batch can be out of date: then the file is read again.
Result<bool> Cursor::header_at(File& file, std::uint64_t offset, BatchHeader& header) {
  if (offset + block_bytes > file.place.file_size) return false;
  file.place.file_offset = offset;
  for (int attempt = 0; attempt < 2; ++attempt) {
    const bool is_inside = window_file_ == file.number && offset >= window_start_ &&
                           offset + block_bytes <= window_start_ + window_bytes_;
    if (!is_inside || attempt != 0) {
      const std::uint64_t bytes = std::min(window_bytes_max, file.place.file_size - offset);
      window_.resize(window_bytes_max);
      window_bytes_ = 0;
      if (const auto error = file.source->read(offset, std::span{window_}.first(bytes))) {
        return failure(error, file_name(file.number) + ": " + error.message(), "");
      }
      window_file_ = file.number;
      window_start_ = offset;
      window_bytes_ = bytes;
      ++attempt;  // fresh: what it says counts
    }
    const Bytes block = Bytes{window_}.subspan(offset - window_start_, block_bytes);
    if (check_batch_header(block, file.place) == BatchCondition::genuine) {
      header = load<BatchHeader>(block);
      return true;
    }
  }
  return false;
}

Result<std::optional<BatchHeader>> Cursor::genuine_behind(File& file, std::uint64_t offset) {
  BatchHeader header;
  for (offset += block_bytes; offset < file.place.file_size; offset += block_bytes) {
    auto found = header_at(file, offset, header);
    if (!found) return tl::unexpected{found.error()};
    if (*found) return header;
  }
  return std::nullopt;
}

Result<std::optional<BatchHeader>> Cursor::first_header_of(std::uint64_t number) {
  auto file = open(number);
  if (!file) return tl::unexpected{file.error()};
  if (!*file) return std::nullopt;
  BatchHeader header;
  auto found = header_at(**file, block_bytes, header);
  if (!found) return tl::unexpected{found.error()};
  if (!*found) return std::nullopt;
  return header;
}

Result<std::uint64_t> Cursor::first_seq() {
  auto numbers = list_numbers();
  if (!numbers) return tl::unexpected{numbers.error()};
  for (const std::uint64_t number : *numbers) {
    auto first = first_header_of(number);
    if (!first) return tl::unexpected{first.error()};
    if (*first) return (*first)->first_seq;
  }
  return failure(make_error_code(Errc::not_retained), "it holds nothing", "");
}

// --- Finding the place -------------------------------------------------------------------------

// The last file that begins at or below position(), and in it the batch. First seqs do not fall
// from one file to the next: one that replaces what was given up begins where that did. False: the
// files have changed under us.
Result<bool> Cursor::locate() {
  auto numbers = list_numbers();
  if (!numbers) return tl::unexpected{numbers.error()};
  std::optional<std::uint64_t> best;
  std::uint64_t oldest = ~0ULL;
  std::size_t low = 0;
  std::size_t high = numbers->size();
  while (low < high) {
    const std::size_t middle = low + (high - low) / 2;
    std::size_t probe = middle;
    std::optional<BatchHeader> first;
    // Those that hold nothing yet, or cannot be read, say nothing.
    for (; probe < high; ++probe) {
      auto found = first_header_of((*numbers)[probe]);
      if (!found) return tl::unexpected{found.error()};
      if ((first = *found)) break;
    }
    if (first) oldest = std::min(oldest, first->first_seq);
    if (first && first->first_seq <= position_) {
      best = (*numbers)[probe];
      low = probe + 1;
    } else {
      high = middle;
    }
  }
  if (!best) {
    return failure(make_error_code(Errc::not_retained),
                   oldest == ~0ULL
                       ? "it holds nothing"
                       : "seq " + std::to_string(position_) + " is no longer held, the oldest is " +
                             std::to_string(oldest),
                   "begin at earliest");
  }
  auto file = open(*best);
  if (!file) return tl::unexpected{file.error()};
  if (!*file) return false;
  file_ = std::move(**file);
  offset_ = block_bytes;
  is_skipping_ = false;
  reached_ = 0;
  asked_end_ = 0;
  asked_next_file_ = false;
  BatchHeader header;
  for (;;) {
    auto found = header_at(*file_, offset_, header);
    if (!found) return tl::unexpected{found.error()};
    if (!*found) {
      // Damage before the wanted seq is not our matter.
      auto behind = genuine_behind(*file_, offset_);
      if (!behind) return tl::unexpected{behind.error()};
      if (!*behind || (*behind)->first_seq > position_) return true;  // step() says what it is
      header = **behind;
      offset_ = header.file_offset;
    }
    if (header.end_seq > position_) return true;
    reached_ = header.end_seq;
    offset_ += header.total_bytes;
  }
}

// The newest file whose first batch continues one of file `number`: an attempt that was given up,
// or an incarnation that was not completed, may have named the same one before.
Result<std::optional<Cursor::Successor>> Cursor::find_successor(std::uint64_t number) {
  auto numbers = list_numbers();
  if (!numbers) return tl::unexpected{numbers.error()};
  std::optional<Successor> successor;
  for (auto each = std::upper_bound(numbers->begin(), numbers->end(), number);
       each != numbers->end(); ++each) {
    auto file = open(*each);
    if (!file) return tl::unexpected{file.error()};
    if (!*file) continue;
    BatchHeader first;
    auto found = header_at(**file, block_bytes, first);
    if (!found) return tl::unexpected{found.error()};
    if (!*found) continue;
    if (first.previous_file > number) break;  // the chain has gone on from there
    if (first.previous_file == number) successor = Successor{std::move(**file), first};
  }
  return successor;
}

// --- Reading -----------------------------------------------------------------------------------

std::error_code Cursor::read_body(const BatchHeader& header, BatchBuffer& into) {
  const std::uint64_t bytes = header.total_bytes - sizeof(BatchHeader);
  const std::span<std::byte> body = into.reserve(bytes);
  const std::uint64_t start = header.file_offset + sizeof(BatchHeader);
  const bool is_inside = window_file_ == file_->number && start >= window_start_ &&
                         start + bytes <= window_start_ + window_bytes_;
  if (is_inside) {
    std::memcpy(body.data(), window_.data() + (start - window_start_), bytes);
    return {};
  }
  return file_->source->read(start, body);
}

void Cursor::ask_ahead(const BatchHeader& header) {
  if (read_ahead_bytes_ == 0) return;
  const std::uint64_t end = header.file_offset + header.total_bytes;
  const std::uint64_t wanted = std::min(end + read_ahead_bytes_, file_->place.file_size);
  // In pieces of half of it, so that small batches do not cost a call each.
  if (wanted > asked_end_ &&
      (wanted == file_->place.file_size || wanted >= asked_end_ + read_ahead_bytes_ / 2)) {
    const std::uint64_t from = std::max(asked_end_, end);
    if (wanted > from) file_->source->will_need(from, wanted - from);
    asked_end_ = wanted;
  }
  if (wanted != file_->place.file_size || asked_next_file_) return;
  asked_next_file_ = true;
  // Mostly the next number; where it is not, nothing is lost but the read-ahead.
  if (auto next = directory_->open(file_name(file_->number + 1))) {
    (*next)->will_need(0, std::min((*next)->size(), read_ahead_bytes_));
  }
}

// At `offset_` there is no batch that counts: the chain goes on in another file, or what should be
// here is damaged. False: the files have changed under us.
Result<bool> Cursor::step_over_end(std::uint64_t bound, std::optional<BatchHeader> broken,
                                   const std::string& why) {
  auto successor = find_successor(file_->number);
  if (!successor) return tl::unexpected{successor.error()};
  // What lies behind the batch that it names was given up. A batch that it names is whole.
  const bool goes_on = *successor && (*successor)->first.first_seq <= position_ &&
                       (*successor)->first.previous_offset < offset_;
  if (goes_on) {
    file_ = std::move((*successor)->file);
    offset_ = block_bytes;
    asked_end_ = 0;
    asked_next_file_ = false;
    return true;
  }
  // What lies between was needed by nobody: its files may be gone, and the wanted one be there.
  if (is_skipping_) return false;
  // Removed while we read? Then its name is gone, and all of this says nothing.
  auto again = directory_->open(file_name(file_->number));
  if (!again && is_gone(again.error())) return false;
  const std::string where = file_name(file_->number) + " at offset " + std::to_string(offset_) +
                            (why.empty() ? "" : ": " + why);
  if (broken) return damaged(broken->first_seq, broken->end_seq, where);
  auto behind = genuine_behind(*file_, offset_);
  if (!behind) return tl::unexpected{behind.error()};
  std::uint64_t end = bound;
  if (*behind) {
    end = (*behind)->first_seq;
  } else if (*successor) {
    end = (*successor)->first.first_seq;
  } else {
    // The next file may be there, with its first batch damaged.
    auto resumed = resume_behind(end);
    if (!resumed || *resumed) return resumed;
  }
  const std::uint64_t first = std::min(reached_ != 0 ? reached_ : position_, position_);
  return damaged(first, std::max(end, position_ + 1), where);
}

// In the files behind the open one, the first that has a batch, though not at its start. True: it
// holds position(), or lies before, and reading goes on there. Else `end` becomes where it begins.
Result<bool> Cursor::resume_behind(std::uint64_t& end) {
  auto numbers = list_numbers();
  if (!numbers) return tl::unexpected{numbers.error()};
  for (auto each = std::upper_bound(numbers->begin(), numbers->end(), file_->number);
       each != numbers->end(); ++each) {
    auto file = open(*each);
    if (!file) return tl::unexpected{file.error()};
    if (!*file) continue;
    auto first = genuine_behind(**file, 0);
    if (!first) return tl::unexpected{first.error()};
    if (!*first) continue;
    if ((*first)->first_seq > position_) {
      end = std::min(end, (*first)->first_seq);
      return false;
    }
    file_ = std::move(**file);
    offset_ = (*first)->file_offset;
    asked_end_ = 0;
    asked_next_file_ = false;
    return true;
  }
  return false;
}

Result<bool> Cursor::step(BatchBuffer& into, std::uint64_t bound, bool& given) {
  BatchHeader header;
  auto found = header_at(*file_, offset_, header);
  if (!found) return tl::unexpected{found.error()};
  if (!*found) return step_over_end(bound, {}, "");
  if (header.first_seq > position_) {
    if (is_skipping_) return false;
    return damaged(position_, header.first_seq,
                   file_name(file_->number) + " at offset " + std::to_string(offset_) +
                       ": the batch there does not continue the one before");
  }
  if (header.end_seq > position_) {
    for (int attempt = 0;; ++attempt) {
      if (const auto error = read_body(header, into)) {
        return failure(error, file_name(file_->number) + ": " + error.message(), "");
      }
      std::string why;
      auto records = open_body(header, into.bytes(), why);
      if (records || base::mutant(100)) {
        if (records) into.records = std::move(*records);
        break;
      }
      // What was kept of the file may be older than the batch.
      const bool was_kept = attempt == 0 && std::exchange(window_bytes_, 0) != 0;
      if (!was_kept) return step_over_end(bound, header, why);
    }
    into.header = header;
    position_ = header.end_seq;
    is_skipping_ = false;
    given = true;
  }
  reached_ = header.end_seq;
  offset_ += header.total_bytes;
  if (given) ask_ahead(header);
  return true;
}

Result<bool> Cursor::next(BatchBuffer& into, std::uint64_t bound) {
  damage_.reset();
  into.clear();
  int attempts = 0;
  while (position_ < bound) {
    if (!file_) {
      auto located = locate();
      if (!located || !*located) close();
      if (!located) {
        // A file that was removed between two looks may have been the one.
        if (located.error() == Errc::not_retained && ++attempts < 3) continue;
        return tl::unexpected{located.error()};
      }
      if (!*located) {
        if (++attempts == attempts_max) break;
        continue;
      }
    }
    bool given = false;
    auto stepped = step(into, bound, given);
    if (!stepped) {
      close();
      return tl::unexpected{stepped.error()};
    }
    if (given) return true;
    if (!*stepped) {
      close();
      if (++attempts == attempts_max) break;
    }
  }
  if (position_ >= bound) return false;
  return failure(make_error_code(Errc::busy), "its files come and go too fast", "try again");
}

}  // namespace shmq::journal
