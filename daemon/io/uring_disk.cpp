// SPDX-License-Identifier: Apache-2.0
#include "daemon/io/uring_disk.hpp"

#include <fcntl.h>
#include <unistd.h>

#include <cerrno>
#include <cstdio>

namespace shmq::io {
namespace {

std::unique_ptr<Ring::Operation> operation_of(Done done, std::string name = {},
                                              std::string to = {}) {
  return std::make_unique<Ring::Operation>(
      Ring::Operation{std::move(done), std::move(name), std::move(to)});
}

}  // namespace

UringDisk::~UringDisk() {
  ring_->submit();  // before the descriptors go
  *liveness_ = nullptr;
}

void UringDisk::open_at(const std::string& name, int flags, std::uint32_t mode, Done done) {
  const auto adopt_it = [liveness = liveness_, mode, done = std::move(done)](std::int64_t result) {
    if (*liveness == nullptr) {
      if (result >= 0) ::close(static_cast<int>(result));
      return;
    }
    done((*liveness)->adopt(result, mode));
  };
  ring_->start(operation_of(adopt_it, name), [&](io_uring_sqe* entry, Ring::Operation& operation) {
    io_uring_prep_openat(entry, directory_.descriptor(), operation.name.c_str(), flags,
                         static_cast<mode_t>(mode));
  });
}

void UringDisk::create(const std::string& name, std::uint32_t mode, Done done) {
  open_at(name, directory_.create_flags(), mode, std::move(done));
}

void UringDisk::open(const std::string& name, Done done) {
  open_at(name, directory_.open_flags(), 0, std::move(done));
}

void UringDisk::allocate(Handle file, std::uint64_t bytes, Done done) {
  const int descriptor = files_.descriptor_of(file);
  const auto forgive = [done = std::move(done)](std::int64_t result) {
    done(forgive_allocate(result));
  };
  ring_->start(operation_of(forgive), [&](io_uring_sqe* entry, Ring::Operation&) {
    io_uring_prep_fallocate(entry, descriptor, 0, 0, static_cast<off_t>(bytes));
  });
}

void UringDisk::write(Handle file, std::uint64_t offset, std::span<const std::byte> bytes,
                      Done done) {
  const int descriptor = files_.descriptor_of(file);
  ring_->start(operation_of(std::move(done)), [&](io_uring_sqe* entry, Ring::Operation&) {
    io_uring_prep_write(entry, descriptor, bytes.data(), static_cast<unsigned>(bytes.size()),
                        offset);
  });
}

void UringDisk::sync(Handle file, Done done) {
  const int descriptor = files_.descriptor_of(file);
  ring_->start(operation_of(std::move(done)), [&](io_uring_sqe* entry, Ring::Operation&) {
    io_uring_prep_fsync(entry, descriptor, IORING_FSYNC_DATASYNC);
  });
}

void UringDisk::sync_directory(Done done) {
  ring_->start(operation_of(std::move(done)), [&](io_uring_sqe* entry, Ring::Operation&) {
    io_uring_prep_fsync(entry, directory_.descriptor(), 0);
  });
}

void UringDisk::rename(const std::string& from, const std::string& to, Done done) {
  const auto without_flag = [liveness = liveness_, from, to,
                             done = std::move(done)](std::int64_t result) {
    // As in PlainDisk: some file systems do not know RENAME_NOREPLACE.
    if (result == -EINVAL && *liveness != nullptr) {
      const int directory = (*liveness)->directory_.descriptor();
      const int again = ::renameat(directory, from.c_str(), directory, to.c_str());
      result = again == 0 ? 0 : -errno;
    }
    done(result);
  };
  ring_->start(operation_of(without_flag, from, to),
               [&](io_uring_sqe* entry, Ring::Operation& operation) {
                 const int directory = directory_.descriptor();
                 io_uring_prep_renameat(entry, directory, operation.name.c_str(), directory,
                                        operation.to.c_str(), RENAME_NOREPLACE);
               });
}

void UringDisk::unlink(const std::string& name, Done done) {
  ring_->start(operation_of(std::move(done), name),
               [&](io_uring_sqe* entry, Ring::Operation& operation) {
                 io_uring_prep_unlinkat(entry, directory_.descriptor(), operation.name.c_str(), 0);
               });
}

// The kernel takes its own reference when an operation is submitted, not when it is queued.
void UringDisk::close(Handle file) {
  ring_->submit();
  files_.close(file);
}

}  // namespace shmq::io
