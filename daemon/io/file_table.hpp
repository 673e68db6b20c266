// SPDX-License-Identifier: Apache-2.0
//
// Descriptors behind handles, for the real disks. A handle is never given out twice, so a late
// operation on a closed file fails with EBADF instead of meeting another file.
#pragma once

#include <map>
#include <utility>

#include "daemon/io/disk.hpp"

namespace shmq::io {

class FileTable {
 public:
  FileTable() = default;
  FileTable(FileTable&& other) noexcept
      : descriptors_(std::exchange(other.descriptors_, {})), next_(other.next_) {}
  FileTable& operator=(FileTable&&) = delete;
  ~FileTable();

  Handle add(int descriptor);
  /// -1 if there is none.
  [[nodiscard]] int descriptor_of(Handle file) const noexcept;
  void close(Handle file) noexcept;

 private:
  std::map<Handle, int> descriptors_;
  Handle next_ = 1;
};

/// A directory that is held open, and what both real disks do with it by plain calls.
class Directory {
 public:
  static Result<Directory> open(const std::string& path);
  Directory(Directory&& other) noexcept;
  Directory& operator=(Directory&&) = delete;
  ~Directory();

  [[nodiscard]] const std::string& path() const noexcept { return path_; }
  [[nodiscard]] int descriptor() const noexcept { return descriptor_; }
  [[nodiscard]] int create_flags() const noexcept;
  [[nodiscard]] int open_flags() const noexcept;
  [[nodiscard]] Result<std::vector<std::string>> list() const;

 private:
  Directory(std::string path, int descriptor);
  std::string path_;
  int descriptor_;
  int direct_ = 0;  // O_DIRECT, if the file system knows it
};

/// What has to be done to a descriptor before its handle is given out: permission bits (none:
/// leave them) and the lock. 0 or -errno.
int make_ready(int descriptor, std::uint32_t mode) noexcept;

}  // namespace shmq::io
