// SPDX-License-Identifier: Apache-2.0
//
// Where the reader gets its bytes: a directory and its files, read only. The daemon and the tests
// bring sources of their own (its disk interface; a simulated disk).
#pragma once

#include <cstdint>
#include <memory>
#include <shmq/error.hpp>
#include <span>
#include <string>
#include <vector>

namespace shmq::journal {

class ByteSource {
 public:
  virtual ~ByteSource() = default;
  /// As it was when the file was opened.
  [[nodiscard]] virtual std::uint64_t size() const = 0;
  /// Fills all of `into` with a private copy, or fails. Fewer bytes than size() promised is EIO.
  virtual std::error_code read(std::uint64_t offset, std::span<std::byte> into) = 0;
  /// These bytes will be read soon. A hint.
  virtual void will_need(std::uint64_t /*offset*/, std::uint64_t /*bytes*/) {}
};

class DirectorySource {
 public:
  virtual ~DirectorySource() = default;
  /// For messages.
  [[nodiscard]] virtual std::string path() const = 0;
  /// All names but "." and "..", in any order.
  virtual Result<std::vector<std::string>> list() = 0;
  virtual Result<std::unique_ptr<ByteSource>> open(const std::string& name) = 0;
};

/// Of a reader beside the daemon: an open-file-description lock for reading, held as long as the
/// file is open. The daemon removes such a file, but does not use it again for another (it tries
/// for the lock for writing before it takes the file's name away). A file that is being used again
/// already is gone: ENOENT.
enum class ReadLock : std::uint8_t { no, yes };

/// Fills all of `into` from there; an end before that is EIO.
std::error_code read_whole(int descriptor, std::uint64_t offset, std::span<std::byte> into);

/// pread(2), never mmap: a file that is cut meanwhile is an error, not a signal.
Result<std::unique_ptr<ByteSource>> open_file(const std::string& path,
                                              ReadLock lock = ReadLock::no);
std::unique_ptr<DirectorySource> open_directory(std::string path, ReadLock lock = ReadLock::no);

}  // namespace shmq::journal
