// SPDX-License-Identifier: Apache-2.0
#include "journal/backup.hpp"

#define XXH_INLINE_ALL
#include <xxhash.h>

#include <algorithm>
#include <memory>
#include <utility>

#include "base/clock.hpp"
#include "base/mutant.hpp"
#include "journal/analysis.hpp"

namespace shmq::journal {
namespace {

template <typename T>
Bytes bytes_of(const T& value) {
  return {reinterpret_cast<const std::byte*>(&value), sizeof(T)};
}

template <typename T>
std::uint64_t own_checksum(const T& value) {
  return checksum_of(bytes_of(value).first(offsetof(T, checksum)));
}

struct FreeHash {
  void operator()(XXH3_state_t* state) const { XXH3_freeState(state); }
};

class Sum {
 public:
  Sum() : state_(XXH3_createState()) { XXH3_64bits_reset(state_.get()); }
  void add(Bytes bytes) { XXH3_64bits_update(state_.get(), bytes.data(), bytes.size()); }
  [[nodiscard]] std::uint64_t value() const { return XXH3_64bits_digest(state_.get()); }

 private:
  std::unique_ptr<XXH3_state_t, FreeHash> state_;
};

std::string seqs(const BatchHeader& header) {
  if (header.end_seq == header.first_seq) return "no seqs";
  return "seqs " + std::to_string(header.first_seq) + " to " + std::to_string(header.end_seq - 1);
}

Error interrupted(const std::string& what) {
  return Error{make_error_code(Errc::interrupted), what, "it was interrupted", ""};
}

// --- Writing -----------------------------------------------------------------------------------

constexpr int looks_max = 8;

class Writer {
 public:
  Writer(DirectorySource& directory, const BackupNames& names, ByteSink& sink,
         const BackupProgress& progress)
      : directory_(directory),
        names_(names),
        sink_(sink),
        progress_(progress),
        what_("back up queue '" + names.queue + "'") {}

  Result<BackupSummary> run() {
    auto plan = find_plan();
    if (!plan) return tl::unexpected{plan.error()};
    if (plan->is_new) return failure(Errc::corrupt, "its journal holds nothing", "");
    // Open first: a file that goes meanwhile stays readable.
    std::vector<std::unique_ptr<ByteSource>> sources;
    for (const ChainFile& file : plan->chain) {
      auto source = directory_.open(file.name);
      if (!source) return failed_in_motion(source.error());
      sources.push_back(std::move(*source));
      total_ += file.end_offset;
    }
    if (auto done = put_header(plan->queue_uuid); !done) return tl::unexpected{done.error()};
    const std::uint64_t floor = plan->state.least_floor(plan->end_seq);
    for (std::size_t i = 0; i < plan->chain.size(); ++i) {
      // What was removed and recycled meanwhile nobody needs: then it begins later.
      const bool may_be_gone = summary_.batches == 0 && plan->chain[i].end_seq <= floor;
      auto done = copy_file(*sources[i], plan->chain[i], may_be_gone);
      if (!done) return tl::unexpected{done.error()};
      done_before_ += plan->chain[i].end_offset;
    }
    return finish();
  }

 private:
  [[nodiscard]] tl::unexpected<Error> failure(Errc code, std::string why,
                                              std::string remedy) const {
    return tl::unexpected{Error{make_error_code(code), what_, std::move(why), std::move(remedy)}};
  }
  // The daemon writes while the directory is read: a batch that was not there when its place was
  // read, before others that were when theirs was, looks like damage. Damage is where it was when
  // one looks again.
  Result<Plan> find_plan() {
    std::string seen;
    for (int attempt = 0; attempt < looks_max; ++attempt) {
      // Headers alone: the bodies are checked when they are copied.
      auto plan = analyse(directory_,
                          {.queue_uuid = {}, .memory_is_newer = true, .check_all_bodies = false});
      if (!plan) return failed_in_motion(plan.error());
      if (!plan->is_refused) return plan;
      const Error error = refused(*plan).value();
      if (error.message() == seen) return tl::unexpected{error};
      seen = error.message();
    }
    return failure(Errc::busy, "its files changed each time that they were read", "try again");
  }

  // The daemon removes files all the time.
  [[nodiscard]] tl::unexpected<Error> failed_in_motion(const Error& error) const {
    if (error.code() == std::errc::no_such_file_or_directory) {
      return failure(Errc::busy, "a file went while it was read", "try again");
    }
    return tl::unexpected{error};
  }
  [[nodiscard]] tl::unexpected<Error> refused(const Plan& plan) const {
    for (const Finding& finding : plan.findings) {
      if (finding.action == Action::refuse) {
        return failure(Errc::corrupt, finding.text(), "see shmqctl verify");
      }
    }
    return failure(Errc::corrupt, "its journal is damaged", "see shmqctl verify");
  }

  Result<void> put(Bytes bytes) {
    if (const std::error_code code = sink_.write(bytes)) {
      return tl::unexpected{Error{code, what_ + ": write the backup", "", ""}};
    }
    sum_.add(bytes);
    summary_.bytes += bytes.size();
    return {};
  }

  Result<void> put_piece(PieceType type, Bytes content) {
    PieceHeader header{.magic = piece_magic,
                       .type = static_cast<std::uint32_t>(type),
                       .reserved = 0,
                       .bytes = content.size(),
                       .checksum = 0};
    header.checksum = own_checksum(header);
    if (auto done = put(bytes_of(header)); !done) return done;
    return put(content);
  }

  Result<void> put_header(const Uuid& uuid) {
    BackupHeader& header = summary_.header;
    header.magic = backup_magic;
    header.version = backup_version;
    header.header_bytes = sizeof(BackupHeader);
    std::copy(uuid.begin(), uuid.end(), header.queue_uuid);
    header.created_realtime_ns = base::clock->realtime_ns();
    names_.name_space.copy(header.name_space, name_field_bytes - 1);
    names_.queue.copy(header.queue, name_field_bytes - 1);
    header.checksum = own_checksum(header);
    return put(bytes_of(header));
  }

  Result<void> copy_file(ByteSource& source, const ChainFile& file, bool may_be_gone) {
    std::vector<std::byte> block(block_bytes);
    if (const std::error_code code = source.read(0, block)) return unreadable(code, file);
    const auto header = load<FileHeader>(block);
    const FileIdentity identity{.queue_uuid = uuid_of(summary_.header.queue_uuid),
                                .file_number = file.file_number};
    if (check_file_header(header, identity, source.size()) != HeaderCondition::valid) {
      if (may_be_gone) return {};
      return failure(Errc::busy, file.name + " went while it was read", "try again");
    }
    bool is_told = false;
    for (std::uint64_t offset = block_bytes; offset < file.end_offset;) {
      auto batch = read_batch(source, header, offset);
      if (!batch) {
        // Of a file that was recycled under us nothing has been written yet, or all of it counts.
        if (may_be_gone && !is_told) return {};
        return tl::unexpected{batch.error()};
      }
      if (!std::exchange(is_told, true)) {
        ++summary_.files;
        if (auto done = put_piece(PieceType::file, block); !done) return done;
      }
      if (auto done = put_piece(PieceType::batch, raw_); !done) return done;
      if (summary_.batches++ == 0) summary_.first_seq = batch->first_seq;
      summary_.messages += batch->message_count;
      summary_.end_seq = batch->end_seq;
      offset += batch->total_bytes;
      if (progress_ && !progress_(done_before_ + offset, std::max(total_, done_before_ + offset))) {
        return tl::unexpected{interrupted(what_)};
      }
    }
    return {};
  }

  // Into raw_, checked.
  Result<BatchHeader> read_batch(ByteSource& source, const FileHeader& file, std::uint64_t offset) {
    std::vector<std::byte> start(sizeof(BatchHeader));
    if (const std::error_code code = source.read(offset, start)) {
      return tl::unexpected{Error{code, what_, "", ""}};
    }
    const BatchPlace place{.queue_uuid = uuid_of(file.queue_uuid),
                           .epoch = file.epoch,
                           .file_number = file.file_number,
                           .file_offset = offset,
                           .file_size = file.file_bytes};
    const auto header = load<BatchHeader>(start);
    if (check_batch_header(start, place) != BatchCondition::genuine) {
      return damaged(file, offset, "its header is not whole");
    }
    raw_.resize(header.total_bytes);
    if (const std::error_code code = source.read(offset, raw_)) {
      return tl::unexpected{Error{code, what_, "", ""}};
    }
    opened_.assign(raw_.begin() + sizeof(BatchHeader), raw_.end());
    std::string why;
    const auto records = open_body(header, opened_, why);
    if (!records) return damaged(file, offset, seqs(header) + ": " + why);
    summary_.state.apply(header, *records);
    return header;
  }

  [[nodiscard]] tl::unexpected<Error> damaged(const FileHeader& file, std::uint64_t offset,
                                              const std::string& why) const {
    return failure(Errc::corrupt,
                   file_name(file.file_number) + ", offset " + std::to_string(offset) + ": " + why,
                   "see shmqctl verify");
  }
  [[nodiscard]] tl::unexpected<Error> unreadable(std::error_code code,
                                                 const ChainFile& file) const {
    return tl::unexpected{Error{code, what_ + ": read " + file.name, "", ""}};
  }

  Result<BackupSummary> finish() {
    if (summary_.batches == 0 ||
        summary_.state.least_floor(summary_.end_seq) < summary_.first_seq) {
      return failure(Errc::busy, "files went while it was read", "try again");
    }
    BackupEnd end{.files = summary_.files,
                  .batches = summary_.batches,
                  .messages = summary_.messages,
                  .first_seq = summary_.first_seq,
                  .end_seq = summary_.end_seq,
                  .sum = sum_.value(),
                  .checksum = 0};
    end.checksum = own_checksum(end);
    if (auto done = put_piece(PieceType::end, bytes_of(end)); !done) {
      return tl::unexpected{done.error()};
    }
    return std::move(summary_);
  }

  DirectorySource& directory_;
  const BackupNames& names_;
  ByteSink& sink_;
  const BackupProgress& progress_;
  const std::string what_;
  BackupSummary summary_;
  Sum sum_;
  std::uint64_t total_ = 0;
  std::uint64_t done_before_ = 0;
  std::vector<std::byte> raw_;
  std::vector<std::byte> opened_;
};

// --- Reading -----------------------------------------------------------------------------------

class Reader {
 public:
  Reader(ByteSource& source, const std::string& name, const BackupProgress& progress,
         BackupVisitor* visitor)
      : source_(source),
        progress_(progress),
        visitor_(visitor),
        what_("read the backup '" + name + "'") {}

  Result<BackupHeader> header() {
    BackupHeader header{};
    if (source_.size() < sizeof(header)) return corrupt("it is too short to be a backup");
    if (auto done = read(header); !done) return tl::unexpected{done.error()};
    if (header.magic != backup_magic) return corrupt("it is no backup of libshmq");
    if (header.checksum != own_checksum(header)) return corrupt("its header is damaged");
    if (header.version != backup_version || header.header_bytes != sizeof(header) ||
        header.incompatible_flags != 0) {
      return tl::unexpected{Error{make_error_code(Errc::version_mismatch), what_,
                                  "it was made by another version", ""}};
    }
    header.name_space[name_field_bytes - 1] = '\0';
    header.queue[name_field_bytes - 1] = '\0';
    return header;
  }

  Result<BackupSummary> run() {
    auto header = this->header();
    if (!header) return tl::unexpected{header.error()};
    summary_.header = *header;
    for (;;) {
      const std::uint64_t sum = sum_.value();
      PieceHeader piece{};
      if (left() < sizeof(piece)) return cut_off();
      if (auto done = read(piece); !done) return tl::unexpected{done.error()};
      if (piece.magic != piece_magic || piece.checksum != own_checksum(piece)) {
        return corrupt("the piece at offset " + std::to_string(offset_ - sizeof(piece)) +
                       " is damaged");
      }
      if (left() < piece.bytes) return cut_off();
      Result<void> done;
      switch (static_cast<PieceType>(piece.type)) {
        case PieceType::file: done = take_file(piece.bytes); break;
        case PieceType::batch: done = take_batch(piece.bytes); break;
        case PieceType::end: return finish(piece.bytes, sum);
        default: return corrupt("it has a piece of an unknown type");
      }
      if (!done) return tl::unexpected{done.error()};
      if (progress_ && !progress_(offset_, source_.size())) {
        return tl::unexpected{interrupted(what_)};
      }
    }
  }

 private:
  [[nodiscard]] tl::unexpected<Error> corrupt(std::string why) const {
    return tl::unexpected{Error{make_error_code(Errc::corrupt), what_, std::move(why),
                                "use another backup: this one is of no use"}};
  }
  [[nodiscard]] tl::unexpected<Error> cut_off() const {
    return corrupt("it is cut off: it has " + std::to_string(source_.size()) +
                   " bytes and no end; seqs before " + std::to_string(summary_.end_seq) +
                   " are in it");
  }
  [[nodiscard]] std::uint64_t left() const { return source_.size() - offset_; }

  Result<void> read(std::span<std::byte> into) {
    if (const std::error_code code = source_.read(offset_, into)) {
      return tl::unexpected{Error{code, what_, "", ""}};
    }
    offset_ += into.size();
    sum_.add(into);
    return {};
  }
  template <typename T>
  Result<void> read(T& into) {
    return read({reinterpret_cast<std::byte*>(&into), sizeof(T)});
  }

  Result<void> take_file(std::uint64_t bytes) {
    if (bytes != sizeof(FileHeader)) return corrupt("a file's header has a wrong length");
    FileHeader header{};
    if (auto done = read(header); !done) return done;
    const FileIdentity identity{.queue_uuid = uuid_of(summary_.header.queue_uuid),
                                .file_number = header.file_number};
    const bool is_later =
        !file_ || (header.file_number > file_->file_number && header.epoch >= file_->epoch);
    if (check_file_header(header, identity, header.file_bytes) != HeaderCondition::valid ||
        !is_later || header.file_number == 0) {
      return corrupt("the header of " + file_name(header.file_number) + " is damaged");
    }
    file_ = header;
    next_offset_ = block_bytes;
    ++summary_.files;
    return visitor_ != nullptr ? visitor_->on_file(header) : Result<void>{};
  }

  Result<void> take_batch(std::uint64_t bytes) {
    if (!file_ || bytes < sizeof(BatchHeader)) return corrupt("a batch is in no file");
    raw_.resize(bytes);
    const std::uint64_t at = offset_;
    if (auto done = read(std::span{raw_}); !done) return done;
    const auto header = load<BatchHeader>(raw_);
    const BatchPlace place{.queue_uuid = uuid_of(file_->queue_uuid),
                           .epoch = file_->epoch,
                           .file_number = file_->file_number,
                           .file_offset = next_offset_,
                           .file_size = file_->file_bytes};
    const auto bad = [&](const std::string& why) {
      return corrupt("the batch at offset " + std::to_string(at) + " is damaged: " + why);
    };
    if (check_batch_header(raw_, place) != BatchCondition::genuine || header.total_bytes != bytes) {
      return bad("its header is not whole; seqs from " + std::to_string(summary_.end_seq) + " on");
    }
    if (!continues_last(header)) return bad(seqs(header) + " do not follow what is before");
    opened_.assign(raw_.begin() + sizeof(BatchHeader), raw_.end());
    std::string why;
    const auto records = open_body(header, opened_, why);
    if (!records) return bad(seqs(header) + ": " + why);
    summary_.state.apply(header, *records);
    last_ = header;
    next_offset_ += bytes;
    if (summary_.batches++ == 0) summary_.first_seq = header.first_seq;
    summary_.messages += header.message_count;
    summary_.end_seq = header.end_seq;
    return visitor_ != nullptr ? visitor_->on_batch(header, raw_) : Result<void>{};
  }

  [[nodiscard]] bool continues_last(const BatchHeader& header) const {
    if (!last_) return (header.flags & batch_snapshot) != 0;
    const BatchRef ref = ref_of(*last_);
    return header.previous_file == ref.file_number && header.previous_offset == ref.offset &&
           header.previous_checksum == ref.checksum && header.first_seq == last_->end_seq &&
           header.batch_number == last_->batch_number + 1;
  }

  Result<BackupSummary> finish(std::uint64_t bytes, std::uint64_t sum) {
    BackupEnd end{};
    if (bytes != sizeof(end)) return corrupt("its end is damaged");
    if (auto done = read(end); !done) return tl::unexpected{done.error()};
    if (end.checksum != own_checksum(end)) return corrupt("its end is damaged");
    if (end.sum != sum && !base::mutant(116)) {
      return corrupt("its bytes are not those that were written");
    }
    if (end.files != summary_.files || end.batches != summary_.batches ||
        end.messages != summary_.messages || end.first_seq != summary_.first_seq ||
        end.end_seq != summary_.end_seq || summary_.batches == 0) {
      return corrupt("pieces are missing in it");
    }
    if (left() != 0) return corrupt("there are bytes behind its end");
    if (!summary_.state.settings.contains(Uuid{}) ||
        summary_.state.least_floor(summary_.end_seq) < summary_.first_seq) {
      return corrupt("it begins too late: groups need seqs before " +
                     std::to_string(summary_.first_seq));
    }
    summary_.bytes = offset_;
    summary_.sum = sum;
    return std::move(summary_);
  }

  ByteSource& source_;
  const BackupProgress& progress_;
  BackupVisitor* visitor_;
  const std::string what_;
  BackupSummary summary_;
  Sum sum_;
  std::uint64_t offset_ = 0;
  std::optional<FileHeader> file_;
  std::optional<BatchHeader> last_;
  std::uint64_t next_offset_ = 0;
  std::vector<std::byte> raw_;
  std::vector<std::byte> opened_;
};

}  // namespace

Result<BackupSummary> write_backup(DirectorySource& directory, const BackupNames& names,
                                   ByteSink& sink, const BackupProgress& progress) {
  return Writer{directory, names, sink, progress}.run();
}

Result<BackupSummary> read_backup(ByteSource& source, const std::string& name,
                                  const BackupProgress& progress, BackupVisitor* visitor) {
  return Reader{source, name, progress, visitor}.run();
}

Result<BackupHeader> read_backup_header(ByteSource& source, const std::string& name) {
  return Reader{source, name, {}, nullptr}.header();
}

}  // namespace shmq::journal
