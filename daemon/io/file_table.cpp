// SPDX-License-Identifier: Apache-2.0
#include "daemon/io/file_table.hpp"

#include <fcntl.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <filesystem>
#include <utility>

namespace shmq::io {

FileTable::~FileTable() {
  for (const auto& [handle, descriptor] : descriptors_) ::close(descriptor);
}

Handle FileTable::add(int descriptor) {
  descriptors_[next_] = descriptor;
  return next_++;
}

int FileTable::descriptor_of(Handle file) const noexcept {
  const auto found = descriptors_.find(file);
  return found == descriptors_.end() ? -1 : found->second;
}

void FileTable::close(Handle file) noexcept {
  const auto found = descriptors_.find(file);
  if (found == descriptors_.end()) return;
  ::close(found->second);
  descriptors_.erase(found);
}

Directory::Directory(std::string path, int descriptor)
    : path_(std::move(path)), descriptor_(descriptor) {
  // tmpfs of older kernels and some network file systems refuse O_DIRECT.
  const int probe = ::openat(descriptor_, ".", O_TMPFILE | O_RDWR | O_CLOEXEC | O_DIRECT, 0600);
  if (probe < 0) return;
  direct_ = O_DIRECT;
  ::close(probe);
}

Directory::Directory(Directory&& other) noexcept
    : path_(std::move(other.path_)),
      descriptor_(std::exchange(other.descriptor_, -1)),
      direct_(other.direct_) {}

Directory::~Directory() {
  if (descriptor_ >= 0) ::close(descriptor_);
}

Result<Directory> Directory::open(const std::string& path) {
  const int descriptor = ::open(path.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  if (descriptor < 0) {
    return tl::unexpected{
        Error{{errno, std::generic_category()}, "open directory '" + path + "'", "", ""}};
  }
  return Directory{path, descriptor};
}

int Directory::create_flags() const noexcept { return open_flags() | O_CREAT | O_EXCL; }

// A file that was replaced by a link must not lead out of the directory.
int Directory::open_flags() const noexcept { return O_RDWR | O_CLOEXEC | O_NOFOLLOW | direct_; }

Result<std::vector<std::string>> Directory::list() const {
  std::vector<std::string> names;
  std::error_code code;
  std::filesystem::directory_iterator entries{path_, code};
  for (; !code && entries != std::filesystem::directory_iterator{}; entries.increment(code)) {
    names.push_back(entries->path().filename().string());
  }
  if (code) return tl::unexpected{Error{code, "list directory '" + path_ + "'", "", ""}};
  return names;
}

int make_ready(int descriptor, std::uint32_t mode) noexcept {
  if (mode != 0 && ::fchmod(descriptor, static_cast<mode_t>(mode)) != 0) return -errno;
  // flock goes with the open file, which the kernel keeps as long as writes of it are in flight.
  if (::flock(descriptor, LOCK_EX | LOCK_NB) != 0) return -errno;
  return 0;
}

}  // namespace shmq::io
