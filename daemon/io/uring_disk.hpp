// SPDX-License-Identifier: Apache-2.0
//
// The disk by io_uring. What only waits at the start (list, read) goes by plain calls.
#pragma once

#include "daemon/io/plain_disk.hpp"
#include "daemon/io/ring.hpp"

namespace shmq::io {

class UringDisk final : public PlainDisk {
 public:
  UringDisk(std::shared_ptr<Ring> ring, Directory directory)
      : PlainDisk(std::move(directory)),
        ring_(std::move(ring)),
        liveness_(std::make_shared<UringDisk*>(this)) {}
  /// Goes on with a disk that was used by plain calls up to now.
  UringDisk(std::shared_ptr<Ring> ring, PlainDisk&& disk)
      : PlainDisk(std::move(disk)),
        ring_(std::move(ring)),
        liveness_(std::make_shared<UringDisk*>(this)) {}
  ~UringDisk() override;

  void create(const std::string& name, std::uint32_t mode, Done done) override;
  void open(const std::string& name, Done done) override;
  void allocate(Handle file, std::uint64_t bytes, Done done) override;
  void write(Handle file, std::uint64_t offset, std::span<const std::byte> bytes,
             Done done) override;
  void sync(Handle file, Done done) override;
  void sync_directory(Done done) override;
  void rename(const std::string& from, const std::string& to, Done done) override;
  void unlink(const std::string& name, Done done) override;
  void close(Handle file) override;
  bool poll(bool wait) override { return ring_->poll(wait); }

 private:
  void open_at(const std::string& name, int flags, std::uint32_t mode, Done done);

  std::shared_ptr<Ring> ring_;
  std::shared_ptr<UringDisk*> liveness_;  // null inside once this is gone
};

}  // namespace shmq::io
