// SPDX-License-Identifier: Apache-2.0
//
// Makes a journal file ready for use beside the writer's own work: blocks reserved and written
// through, header synced, name given, directory synced. Or takes a file that nobody needs any more,
// whose blocks are there already.
//
// Invariants:
//  1. Under its final name a file is ready, always: after a cut there is the whole of it or nothing
//     (or a temporary name, which recovery removes).
//  2. A recycled file has no reader, and loses its old name, on stable storage, before its old
//  header is overwritten.
//  3. ENOSPC can happen here only, never to a batch.
#pragma once

#include <memory>

#include "daemon/io/disk.hpp"
#include "daemon/journal/identity.hpp"

namespace shmq::journal {

struct FileSpec {
  std::uint64_t number = 0;
  std::uint64_t bytes = 0;
  std::uint64_t epoch = 0;
  Purpose purpose = Purpose::ordinary;
  std::string recycle_name;  ///< a file of exactly `bytes` to be reused; empty: a new one
  /// Of that file, Disk::lock_against_readers: held until its old name is gone. A reader that opens
  /// the file then finds that its name leads elsewhere.
  io::Handle reader_lock = io::no_handle;
};

struct PreparedFile {
  io::Handle handle = io::no_handle;
  std::uint64_t number = 0;
  std::uint64_t bytes = 0;
};

class FilePreparer {
 public:
  enum class State { idle, working, ready, failed };

  /// `on_settled` is called each time an attempt has become ready or has failed.
  FilePreparer(io::Disk& disk, Identity identity, std::function<void()> on_settled = {});
  FilePreparer(const FilePreparer&) = delete;
  FilePreparer& operator=(const FilePreparer&) = delete;
  ~FilePreparer();

  /// Only when idle or failed.
  void start(const FileSpec& spec);
  [[nodiscard]] State state() const noexcept;
  /// errno of the failure, when failed.
  [[nodiscard]] int error() const noexcept;
  /// Whether the failed attempt had taken the file to be recycled away from its name.
  [[nodiscard]] bool consumed_recycled() const noexcept;
  /// The ready file; idle from then on.
  PreparedFile take();
  [[nodiscard]] const FileSpec& spec() const noexcept;

 private:
  struct Work;
  io::Disk& disk_;
  Identity identity_;
  std::function<void()> on_settled_;
  std::shared_ptr<Work> work_;
};

}  // namespace shmq::journal
