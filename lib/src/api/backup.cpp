// SPDX-License-Identifier: Apache-2.0
#include "journal/backup.hpp"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstdlib>
#include <shmq/backup.hpp>
#include <utility>

#include "api/daemon_calls.hpp"
#include "base/names.hpp"

namespace shmq {
namespace {

constexpr int attempts_max = 5;

tl::unexpected<Error> failure(Errc code, std::string what, std::string why, std::string remedy) {
  return tl::unexpected{
      Error{make_error_code(code), std::move(what), std::move(why), std::move(remedy)}};
}
tl::unexpected<Error> system_failure(std::string what) {
  return tl::unexpected{Error{{errno, std::generic_category()}, std::move(what), "", ""}};
}

/// A file beside `path`, which gets that name once it is whole, and is gone otherwise.
class Output final : public journal::ByteSink {
 public:
  explicit Output(std::string path) : path_(std::move(path)), temporary_(path_ + ".XXXXXX") {}
  Output(const Output&) = delete;
  Output& operator=(const Output&) = delete;
  ~Output() override {
    if (descriptor_ < 0) return;
    ::close(descriptor_);
    if (!has_name_) ::unlink(temporary_.c_str());
  }

  Result<void> open() {
    struct stat status {};
    if (::lstat(path_.c_str(), &status) == 0) return exists();
    descriptor_ = ::mkostemp(temporary_.data(), O_CLOEXEC);
    return descriptor_ >= 0 ? Result<void>{} : system_failure(what());
  }
  Result<void> begin_anew() {
    if (::ftruncate(descriptor_, 0) != 0 || ::lseek(descriptor_, 0, SEEK_SET) != 0) {
      return system_failure(what());
    }
    return {};
  }
  std::error_code write(journal::Bytes bytes) override {
    while (!bytes.empty()) {
      const ssize_t done = ::write(descriptor_, bytes.data(), bytes.size());
      if (done < 0 && errno == EINTR) continue;
      if (done < 0) return {errno, std::generic_category()};
      bytes = bytes.subspan(static_cast<std::size_t>(done));
    }
    return {};
  }
  Result<void> commit() {
    if (::fsync(descriptor_) != 0) return system_failure(what());
    if (::link(temporary_.c_str(), path_.c_str()) != 0) {
      return errno == EEXIST ? exists() : system_failure(what());
    }
    ::unlink(temporary_.c_str());
    has_name_ = true;
    const std::size_t slash = path_.rfind('/');
    const std::string directory = slash == std::string::npos ? "." : path_.substr(0, slash + 1);
    const int above = ::open(directory.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    const bool is_synced = above >= 0 && ::fsync(above) == 0;
    if (above >= 0) ::close(above);
    return is_synced ? Result<void>{} : system_failure(what());
  }

 private:
  [[nodiscard]] std::string what() const { return "write the backup '" + path_ + "'"; }
  [[nodiscard]] tl::unexpected<Error> exists() const {
    return failure(Errc::already_exists, what(), "there is something of this name",
                   "name another file, or remove that one");
  }

  std::string path_;
  std::string temporary_;
  int descriptor_ = -1;
  bool has_name_ = false;
};

BackupInfo info_of(const journal::BackupSummary& summary) {
  const journal::BackupHeader& header = summary.header;
  return {.name_space = header.name_space,
          .queue = header.queue,
          .queue_uuid = journal::text_of(journal::uuid_of(header.queue_uuid)),
          .created = std::chrono::system_clock::time_point{std::chrono::nanoseconds{
              static_cast<std::int64_t>(header.created_realtime_ns)}},
          .first_seq = summary.first_seq,
          .end_seq = summary.end_seq,
          .messages = summary.messages,
          .groups = summary.state.groups.size(),
          .files = summary.files,
          .batches = summary.batches,
          .bytes = summary.bytes};
}

}  // namespace

Result<BackupInfo> backup_queue(const std::string& queue, const std::string& file,
                                const BackupOptions& options) {
  if (!base::is_valid_queue_name(queue)) {
    return failure(Errc::invalid_name, "back up queue '" + queue + "'", "not a valid queue name",
                   "use [a-z0-9][a-z0-9._-]{0,63}");
  }
  std::string path = options.directory;
  if (path.empty()) {
    auto found = detail::journal_directory(queue, options.daemon, "back up queue '" + queue + "'");
    if (!found) return tl::unexpected{found.error()};
    path = std::move(*found);
  }
  Output output{file};
  if (auto done = output.open(); !done) return tl::unexpected{done.error()};
  const auto directory = journal::open_directory(path);
  const journal::BackupNames names{.name_space = base::resolve_namespace(options.daemon.name_space),
                                   .queue = queue};
  for (int attempt = 1;; ++attempt) {
    auto summary = journal::write_backup(*directory, names, output, options.progress);
    if (summary) {
      if (auto done = output.commit(); !done) return tl::unexpected{done.error()};
      return info_of(*summary);
    }
    if (!(summary.error() == Errc::busy) || attempt == attempts_max) {
      return tl::unexpected{summary.error()};
    }
    if (auto done = output.begin_anew(); !done) return tl::unexpected{done.error()};
  }
}

Result<BackupInfo> verify_backup(const std::string& file, const BackupProgress& progress) {
  auto source = journal::open_file(file);
  if (!source) return tl::unexpected{source.error()};
  const auto summary = journal::read_backup(**source, file, progress, nullptr);
  if (!summary) return tl::unexpected{summary.error()};
  return info_of(*summary);
}

Result<void> restore_queue(const std::string& file, const RestoreOptions& options) {
  std::string name = options.queue;
  {
    auto source = journal::open_file(file);
    if (!source) return tl::unexpected{source.error()};
    const auto header = journal::read_backup_header(**source, file);
    if (!header) return tl::unexpected{header.error()};
    if (name.empty()) name = header->queue;
  }
  if (!base::is_valid_queue_name(name)) {
    return failure(Errc::invalid_name, "restore queue '" + name + "'", "not a valid queue name",
                   "use [a-z0-9][a-z0-9._-]{0,63}");
  }
  const int descriptor = ::open(file.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK);
  if (descriptor < 0) return system_failure("open the backup '" + file + "'");
  auto done = detail::restore_durable(name, descriptor, options.daemon);
  ::close(descriptor);
  return done;
}

}  // namespace shmq
