// SPDX-License-Identifier: Apache-2.0
#include "daemon/engine/restore_job.hpp"

#include <fcntl.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <filesystem>
#include <utility>

#include "base/clock.hpp"
#include "base/mutant.hpp"
#include "control/settings.hpp"
#include "daemon/engine/recovery.hpp"
#include "daemon/journal/batch_builder.hpp"
#include "journal/backup.hpp"

namespace shmq::engine {
namespace {

using journal::Bytes;
using journal::Uuid;

/// The client's descriptor: its file may change or end under us, and then it is an error.
class Backup final : public journal::ByteSource {
 public:
  Backup(int descriptor, std::uint64_t size) : descriptor_(descriptor), size_(size) {}
  [[nodiscard]] std::uint64_t size() const override { return size_; }
  std::error_code read(std::uint64_t offset, std::span<std::byte> into) override {
    return journal::read_whole(descriptor_, offset, into);
  }

 private:
  int descriptor_;
  std::uint64_t size_;
};

/// Writes the files, with another uuid, another name, and a last batch with the new settings.
class Journal final : public journal::BackupVisitor {
 public:
  Journal(const RestoreRequest& request, const journal::BackupSummary& summary)
      : request_(request), end_seq_(summary.end_seq), batches_(summary.batches) {}
  Journal(const Journal&) = delete;
  Journal& operator=(const Journal&) = delete;
  ~Journal() override {
    if (file_ >= 0) ::close(file_);
  }

  Result<void> begin(std::string settings) {
    settings_ = std::move(settings);
    if (::getrandom(uuid_.data(), uuid_.size(), 0) != static_cast<ssize_t>(uuid_.size())) {
      return failed("choose a uuid");
    }
    struct stat status {};
    if (::stat(request_.directory.c_str(), &status) != 0) return failed("look at the directory");
    // As for files that the daemon makes: readable for whom the queue is.
    mode_ = 0600U | (status.st_mode & 0044U);
    return {};
  }

  Result<void> on_file(const journal::FileHeader& header) override {
    if (auto done = end_file(); !done) return done;
    header_ = header;
    std::copy(uuid_.begin(), uuid_.end(), header_.queue_uuid);
    std::fill(std::begin(header_.name_space), std::end(header_.name_space), '\0');
    std::fill(std::begin(header_.queue), std::end(header_.queue), '\0');
    request_.name_space.copy(header_.name_space, sizeof(header_.name_space) - 1);
    request_.name.copy(header_.queue, sizeof(header_.queue) - 1);
    header_.origin = static_cast<std::uint32_t>(journal::Origin::fresh);
    const std::string path = request_.directory + "/" + journal::file_name(header_.file_number);
    file_ = ::open(path.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC | O_NOFOLLOW, mode_);
    if (file_ < 0 || ::fchmod(file_, mode_) != 0) return failed("make '" + path + "'");
    end_ = journal::block_bytes;
    return {};
  }

  Result<void> on_batch(const journal::BatchHeader& header, std::span<std::byte> raw) override {
    auto changed = header;
    std::copy(uuid_.begin(), uuid_.end(), changed.queue_uuid);
    if (last_.file_number != 0) changed.previous_checksum = last_.checksum;
    // Nobody was given a seq beyond the backup by this queue: numbering goes on without a gap.
    changed.seq_ceiling = std::min(changed.seq_ceiling, end_seq_);
    std::memcpy(raw.data(), &changed, sizeof(changed));
    journal::seal_batch(raw);
    changed = journal::load<journal::BatchHeader>(raw);
    if (auto done = put(raw); !done) return done;
    last_ = journal::ref_of(changed);
    batch_number_ = changed.batch_number;
    if (batches_ == 0) return {};  // changed meanwhile: told at the end
    return --batches_ == 0 ? add_settings() : Result<void>{};
  }

  Result<void> end() {
    if (auto done = end_file(); !done) return done;
    const int directory = ::open(request_.directory.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    const bool is_synced = directory >= 0 && ::fsync(directory) == 0;
    const auto error = failed("sync '" + request_.directory + "'");
    if (directory >= 0) ::close(directory);
    return is_synced ? Result<void>{} : error;
  }

 private:
  [[nodiscard]] tl::unexpected<Error> failed(const std::string& what) const {
    return tl::unexpected{Error{{errno, std::generic_category()},
                                "restore queue '" + request_.name + "': " + what,
                                "",
                                ""}};
  }

  Result<void> put(Bytes bytes) {
    for (std::uint64_t at = end_; !bytes.empty();) {
      const ssize_t done = ::pwrite(file_, bytes.data(), bytes.size(), static_cast<off_t>(at));
      if (done < 0 && errno == EINTR) continue;
      if (done < 0) return failed("write");
      at += static_cast<std::uint64_t>(done);
      end_ = at;
      bytes = bytes.subspan(static_cast<std::size_t>(done));
    }
    return {};
  }

  Result<void> add_settings() {
    journal::BatchBuilder builder;
    builder.begin({.queue_uuid = uuid_,
                   .epoch = header_.epoch,
                   .file_number = header_.file_number,
                   .file_offset = end_,
                   .batch_number = batch_number_ + 1,
                   .first_seq = end_seq_,
                   .previous = last_},
                  1ULL << 20);
    if (!builder.add_settings(Uuid{}, std::as_bytes(std::span{settings_}))) {
      errno = EFBIG;
      return failed("write the settings");
    }
    const io::AlignedBuffer batch = builder.finish({.flags = 0,
                                                    .durable_upto = end_seq_,
                                                    .seq_ceiling = end_seq_,
                                                    .realtime_ns = base::clock->realtime_ns()});
    return put(batch.bytes());
  }

  // As long as what is in it, so that it is not one of those that are recycled: their blocks are
  // all there, which here nobody has seen to.
  Result<void> end_file() {
    if (file_ < 0) return {};
    header_.file_bytes = std::max(journal::file_bytes_min, end_);
    journal::seal(header_);
    const Bytes bytes{reinterpret_cast<const std::byte*>(&header_), sizeof(header_)};
    const bool is_done =
        ::pwrite(file_, bytes.data(), bytes.size(), 0) == static_cast<ssize_t>(bytes.size()) &&
        ::ftruncate(file_, static_cast<off_t>(header_.file_bytes)) == 0 && ::fsync(file_) == 0;
    const auto error = failed("write " + journal::file_name(header_.file_number));
    ::close(std::exchange(file_, -1));
    return is_done ? Result<void>{} : error;
  }

  const RestoreRequest& request_;
  const std::uint64_t end_seq_;
  std::uint64_t batches_;  // still to come
  std::string settings_;
  Uuid uuid_{};
  mode_t mode_ = 0600;
  int file_ = -1;
  std::uint64_t end_ = 0;
  journal::FileHeader header_{};
  journal::BatchRef last_;
  std::uint64_t batch_number_ = 0;
};

}  // namespace

RestoreJob::RestoreJob(RestoreRequest request, std::function<void()> on_end)
    : request_(std::move(request)) {
  thread_ = std::thread{[this, on_end = std::move(on_end)] {
    outcome_ = run();
    if (!outcome_) {
      std::error_code ignored;
      std::filesystem::remove_all(request_.directory, ignored);
    }
    ::close(std::exchange(request_.backup, -1));
    // relaxed: a figure for people.
    percent_.store(100, std::memory_order_relaxed);
    // release: who sees it sees outcome_.
    is_done_.store(true, std::memory_order_release);
    on_end();
  }};
}

RestoreJob::~RestoreJob() {
  // relaxed: a wish alone; the join orders the rest.
  must_stop_.store(true, std::memory_order_relaxed);
  thread_.join();
}

bool RestoreJob::go_on(std::uint64_t done, std::uint64_t total, unsigned base) noexcept {
  // relaxed, both: a figure, and a wish.
  if (total != 0) {
    percent_.store(base + static_cast<unsigned>(done * 50 / total), std::memory_order_relaxed);
  }
  return !must_stop_.load(std::memory_order_relaxed);
}

Result<void> RestoreJob::run() {
  const std::string what = "restore queue '" + request_.name + "'";
  struct stat status {};
  if (::fstat(request_.backup, &status) != 0 || !S_ISREG(status.st_mode)) {
    return tl::unexpected{Error{make_error_code(Errc::invalid_argument), what,
                                "the backup is not a regular file", "name one"}};
  }
  Backup backup{request_.backup, static_cast<std::uint64_t>(status.st_size)};
  const auto first = [this](std::uint64_t done, std::uint64_t total) {
    return go_on(done, total, 0);
  };
  auto summary = journal::read_backup(backup, request_.name, first, nullptr);
  if (!summary) return tl::unexpected{summary.error()};
  const std::vector<std::byte>& text = summary->state.settings.at(Uuid{});
  auto options =
      control::queue_options_from({reinterpret_cast<const char*>(text.data()), text.size()}, what);
  if (!options) return tl::unexpected{options.error()};
  options->groups.clear();
  if (!base::mutant(117)) {
    if (auto done = request_.adjust(*options); !done) return done;
  }
  if (auto made = make_directory(request_.directory, *options); !made) return made;
  Journal journal{request_, *summary};
  if (auto done = journal.begin(control::text_of(*options)); !done) return done;
  const auto second = [this](std::uint64_t done, std::uint64_t total) {
    return go_on(done, total, 50);
  };
  // Whoever has the file can write it between the passes: all is checked again.
  const auto again = journal::read_backup(backup, request_.name, second, &journal);
  if (!again) return tl::unexpected{again.error()};
  if (again->sum != summary->sum || again->bytes != summary->bytes) {
    return tl::unexpected{Error{make_error_code(Errc::corrupt), what,
                                "the backup was changed while it was read", "try again"}};
  }
  return journal.end();
}

}  // namespace shmq::engine
