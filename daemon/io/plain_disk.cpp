// SPDX-License-Identifier: Apache-2.0
#include "daemon/io/plain_disk.hpp"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstdio>

namespace shmq::io {
namespace {

std::int64_t result_of(std::int64_t returned) noexcept { return returned < 0 ? -errno : returned; }

}  // namespace

// Where blocks cannot be reserved, writing through the file reserves them: ENOSPC comes then.
std::int64_t forgive_allocate(std::int64_t result) noexcept {
  return result == -EOPNOTSUPP ? 0 : result;
}

std::int64_t PlainDisk::adopt(std::int64_t descriptor, std::uint32_t mode) {
  if (descriptor < 0) return descriptor;
  const int ready = make_ready(static_cast<int>(descriptor), mode);
  if (ready == 0) return files_.add(static_cast<int>(descriptor));
  ::close(static_cast<int>(descriptor));
  return ready;
}

void PlainDisk::create(const std::string& name, std::uint32_t mode, Done done) {
  const std::int64_t descriptor = result_of(::openat(
      directory_.descriptor(), name.c_str(), directory_.create_flags(), static_cast<mode_t>(mode)));
  complete(std::move(done), adopt(descriptor, mode));
}

void PlainDisk::open(const std::string& name, Done done) {
  const std::int64_t descriptor =
      result_of(::openat(directory_.descriptor(), name.c_str(), directory_.open_flags()));
  complete(std::move(done), adopt(descriptor, 0));
}

void PlainDisk::allocate(Handle file, std::uint64_t bytes, Done done) {
  const int descriptor = files_.descriptor_of(file);
  complete(std::move(done),
           forgive_allocate(result_of(::fallocate(descriptor, 0, 0, static_cast<off_t>(bytes)))));
}

void PlainDisk::write(Handle file, std::uint64_t offset, std::span<const std::byte> bytes,
                      Done done) {
  const int descriptor = files_.descriptor_of(file);
  complete(std::move(done),
           result_of(::pwrite(descriptor, bytes.data(), bytes.size(), static_cast<off_t>(offset))));
}

std::int64_t PlainDisk::lock_against_readers(const std::string& name) {
  const std::int64_t descriptor = result_of(::openat(directory_.descriptor(), name.c_str(),
                                                     O_RDWR | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK));
  if (descriptor < 0) return descriptor;
  struct flock wanted {};
  wanted.l_type = F_WRLCK;
  wanted.l_whence = SEEK_SET;
  if (::fcntl(static_cast<int>(descriptor), F_OFD_SETLK, &wanted) != 0) {
    ::close(static_cast<int>(descriptor));
    return -EWOULDBLOCK;
  }
  return files_.add(static_cast<int>(descriptor));
}

void PlainDisk::sync(Handle file, Done done) {
  complete(std::move(done), result_of(::fdatasync(files_.descriptor_of(file))));
}

void PlainDisk::sync_directory(Done done) {
  complete(std::move(done), result_of(::fsync(directory_.descriptor())));
}

void PlainDisk::rename(const std::string& from, const std::string& to, Done done) {
  const int directory = directory_.descriptor();
  std::int64_t result =
      result_of(::renameat2(directory, from.c_str(), directory, to.c_str(), RENAME_NOREPLACE));
  // File numbers are never used twice: without the flag, nothing is replaced either.
  if (result == -EINVAL) {
    result = result_of(::renameat(directory, from.c_str(), directory, to.c_str()));
  }
  complete(std::move(done), result);
}

void PlainDisk::unlink(const std::string& name, Done done) {
  complete(std::move(done), result_of(::unlinkat(directory_.descriptor(), name.c_str(), 0)));
}

bool PlainDisk::poll(bool) {
  if (completed_.empty()) return false;
  const Completion completion = std::move(completed_.front());
  completed_.pop_front();
  completion.done(completion.result);
  return true;
}

std::int64_t PlainDisk::open_for_reading(const std::string& name) {
  // Without O_DIRECT: reads are of any length. O_NONBLOCK: a FIFO must not hang us.
  const std::int64_t descriptor = result_of(::openat(
      directory_.descriptor(), name.c_str(), O_RDONLY | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK));
  if (descriptor < 0) return descriptor;
  return files_.add(static_cast<int>(descriptor));
}

std::int64_t PlainDisk::size(Handle file) {
  struct stat status {};
  if (::fstat(files_.descriptor_of(file), &status) != 0) return -errno;
  return S_ISREG(status.st_mode) ? status.st_size : -EINVAL;
}

std::int64_t PlainDisk::read(Handle file, std::uint64_t offset, std::span<std::byte> into) {
  return result_of(
      ::pread(files_.descriptor_of(file), into.data(), into.size(), static_cast<off_t>(offset)));
}

}  // namespace shmq::io
