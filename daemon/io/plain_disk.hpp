// SPDX-License-Identifier: Apache-2.0
//
// The disk by plain system calls, for where io_uring is denied (containers). Each call waits; its
// completion is delivered by poll() like any other.
#pragma once

#include <deque>

#include "daemon/io/file_table.hpp"

namespace shmq::io {

class PlainDisk : public Disk {
 public:
  explicit PlainDisk(Directory directory) : directory_(std::move(directory)) {}
  /// Nothing is outstanding on `other`, and nobody uses it any more. Its handles are good here.
  PlainDisk(PlainDisk&& other) noexcept = default;

  [[nodiscard]] std::string path() const override { return directory_.path(); }
  void create(const std::string& name, std::uint32_t mode, Done done) override;
  void open(const std::string& name, Done done) override;
  void allocate(Handle file, std::uint64_t bytes, Done done) override;
  void write(Handle file, std::uint64_t offset, std::span<const std::byte> bytes,
             Done done) override;
  std::int64_t lock_against_readers(const std::string& name) override;
  void sync(Handle file, Done done) override;
  void sync_directory(Done done) override;
  void rename(const std::string& from, const std::string& to, Done done) override;
  void unlink(const std::string& name, Done done) override;
  void close(Handle file) override { files_.close(file); }
  bool poll(bool wait) override;
  [[nodiscard]] bool has_completions() const noexcept override { return !completed_.empty(); }
  Result<std::vector<std::string>> list() override { return directory_.list(); }
  std::int64_t open_for_reading(const std::string& name) override;
  std::int64_t size(Handle file) override;
  std::int64_t read(Handle file, std::uint64_t offset, std::span<std::byte> into) override;

 protected:
  /// A handle for a descriptor just opened, or -errno; on failure it is closed.
  std::int64_t adopt(std::int64_t descriptor, std::uint32_t mode);

  Directory directory_;
  FileTable files_;

 private:
  void complete(Done done, std::int64_t result) { completed_.push_back({std::move(done), result}); }

  struct Completion {
    Done done;
    std::int64_t result;
  };
  std::deque<Completion> completed_;
};

/// fallocate(2)'s and renameat2(2)'s results where a file system does not know them.
std::int64_t forgive_allocate(std::int64_t result) noexcept;

}  // namespace shmq::io
