// SPDX-License-Identifier: Apache-2.0
#include "journal/source.hpp"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <filesystem>
#include <utility>

namespace shmq::journal {

std::error_code read_whole(int descriptor, std::uint64_t offset, std::span<std::byte> into) {
  while (!into.empty()) {
    const ssize_t got = ::pread(descriptor, into.data(), into.size(), static_cast<off_t>(offset));
    if (got < 0 && errno == EINTR) continue;
    if (got < 0) return {errno, std::generic_category()};
    if (got == 0) return std::make_error_code(std::errc::io_error);
    offset += static_cast<std::uint64_t>(got);
    into = into.subspan(static_cast<std::size_t>(got));
  }
  return {};
}

namespace {

class File final : public ByteSource {
 public:
  File(int descriptor, std::uint64_t size) : descriptor_(descriptor), size_(size) {}
  File(const File&) = delete;
  File& operator=(const File&) = delete;
  ~File() override { ::close(descriptor_); }

  [[nodiscard]] std::uint64_t size() const override { return size_; }

  std::error_code read(std::uint64_t offset, std::span<std::byte> into) override {
    return read_whole(descriptor_, offset, into);
  }

  void will_need(std::uint64_t offset, std::uint64_t bytes) override {
    (void)::posix_fadvise(descriptor_, static_cast<off_t>(offset), static_cast<off_t>(bytes),
                          POSIX_FADV_WILLNEED);
  }

 private:
  int descriptor_;
  std::uint64_t size_;
};

class Directory final : public DirectorySource {
 public:
  Directory(std::string path, ReadLock lock) : path_(std::move(path)), lock_(lock) {}
  [[nodiscard]] std::string path() const override { return path_; }

  Result<std::vector<std::string>> list() override {
    std::vector<std::string> names;
    std::error_code code;
    std::filesystem::directory_iterator entries{path_, code};
    for (; !code && entries != std::filesystem::directory_iterator{}; entries.increment(code)) {
      names.push_back(entries->path().filename().string());
    }
    if (code) return tl::unexpected{Error{code, "list directory '" + path_ + "'", "", ""}};
    return names;
  }

  Result<std::unique_ptr<ByteSource>> open(const std::string& name) override {
    return open_file(path_ + "/" + name, lock_);
  }

 private:
  std::string path_;
  ReadLock lock_;
};

// False: it is being used again, or was already: the name, which the daemon takes away while it
// holds the lock for writing, leads elsewhere.
bool lock_for_reading(int descriptor, const struct stat& opened, const std::string& path) {
  struct flock wanted {};
  wanted.l_type = F_RDLCK;
  wanted.l_whence = SEEK_SET;
  if (::fcntl(descriptor, F_OFD_SETLK, &wanted) != 0) {
    // A file system without locks has a daemon that finds none: it removes, and recycles nothing.
    return errno != EAGAIN && errno != EACCES;
  }
  struct stat named {};
  return ::stat(path.c_str(), &named) == 0 && named.st_ino == opened.st_ino &&
         named.st_dev == opened.st_dev;
}

}  // namespace

Result<std::unique_ptr<ByteSource>> open_file(const std::string& path, ReadLock lock) {
  const auto fail = [&path](int error, std::string why, std::string remedy) {
    return tl::unexpected{Error{{error, std::generic_category()},
                                "open journal file '" + path + "'",
                                std::move(why),
                                std::move(remedy)}};
  };
  // O_NONBLOCK: opening a FIFO that somebody put there must not hang.
  const int descriptor = ::open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK);
  if (descriptor < 0) return fail(errno, "", errno == EACCES ? "run it as the daemon's user" : "");
  struct stat status {};
  if (::fstat(descriptor, &status) != 0 || !S_ISREG(status.st_mode)) {
    ::close(descriptor);
    return fail(EINVAL, "it is not a regular file", "");
  }
  if (lock == ReadLock::yes && !lock_for_reading(descriptor, status, path)) {
    ::close(descriptor);
    return fail(ENOENT, "it is being used again", "");
  }
  return std::make_unique<File>(descriptor, static_cast<std::uint64_t>(status.st_size));
}

std::unique_ptr<DirectorySource> open_directory(std::string path, ReadLock lock) {
  return std::make_unique<Directory>(std::move(path), lock);
}

}  // namespace shmq::journal
