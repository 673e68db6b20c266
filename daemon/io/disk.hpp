// SPDX-License-Identifier: Apache-2.0
//
// The disk as the journal sees it: one directory and its files, every call asynchronous. Twins:
// uring_disk (io_uring), plain_disk (pwrite and fdatasync, where io_uring is denied), and
// tests/support/sim_disk, which loses, tears and reorders.
//
// Invariants:
//  1. `done` is called once, from poll(), never from within the call that began the operation.
//  2. Results are >= 0, or -errno. Nothing is retried here: the caller knows what a retry means.
//  3. Nothing is stable before sync() of the file, and no name before sync_directory(). A sync
//     covers the writes that were completed before it was begun, no others.
//  4. Operations complete in any order.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <shmq/error.hpp>
#include <span>
#include <string>
#include <vector>

namespace shmq::io {

using Handle = int;
inline constexpr Handle no_handle = -1;

using Done = std::function<void(std::int64_t result)>;

class Disk {
 public:
  virtual ~Disk() = default;

  /// Name of the directory, for messages.
  [[nodiscard]] virtual std::string path() const = 0;

  /// A new file for reading and writing, with these permission bits, whatever the umask; -EEXIST if
  /// the name is taken. Gives its handle, locked as by open().
  virtual void create(const std::string& name, std::uint32_t mode, Done done) = 0;
  /// An existing file, for writing; -EWOULDBLOCK while another process (or what the kernel still
  /// has in flight for a killed one) holds it. Gives its handle; closing it lets go.
  virtual void open(const std::string& name, Done done) = 0;
  /// Reserves blocks: from here on ENOSPC cannot happen to writes within `bytes`.
  virtual void allocate(Handle file, std::uint64_t bytes, Done done) = 0;
  /// Gives the number of bytes written, which may be fewer. Offset, length and address of `bytes`
  /// are multiples of 4096; they must stay until `done`.
  virtual void write(Handle file, std::uint64_t offset, std::span<const std::byte> bytes,
                     Done done) = 0;
  /// The lock that readers beside the daemon hold for reading (journal/source.hpp), for writing.
  /// Gives a handle that has it until it is closed; -EWOULDBLOCK while somebody reads, or where
  /// nobody can tell. Waits for nobody.
  virtual std::int64_t lock_against_readers(const std::string& name) = 0;
  /// Data and length are on stable storage (fdatasync).
  virtual void sync(Handle file, Done done) = 0;
  /// The directory's names are on stable storage.
  virtual void sync_directory(Done done) = 0;
  /// -EEXIST if `to` exists.
  virtual void rename(const std::string& from, const std::string& to, Done done) = 0;
  virtual void unlink(const std::string& name, Done done) = 0;
  /// Without a result: what mattered was synced before.
  virtual void close(Handle file) = 0;

  /// Delivers what has completed; true if that was anything. With `wait`, waits for one completion
  /// if any operation is outstanding.
  virtual bool poll(bool wait) = 0;
  /// Something has completed that poll() would deliver, and that nothing else announces.
  [[nodiscard]] virtual bool has_completions() const noexcept { return false; }

  // For starting up only: these wait. Handles from open_for_reading() only.
  virtual Result<std::vector<std::string>> list() = 0;
  /// A handle, or -errno.
  virtual std::int64_t open_for_reading(const std::string& name) = 0;
  /// The file's size, or -errno.
  virtual std::int64_t size(Handle file) = 0;
  /// Bytes read, fewer only at the end of the file; or -errno.
  virtual std::int64_t read(Handle file, std::uint64_t offset, std::span<std::byte> into) = 0;
};

}  // namespace shmq::io
