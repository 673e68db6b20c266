// SPDX-License-Identifier: Apache-2.0
//
// A disk that does everything a disk is allowed to do: operations complete in any order; a cut of
// power loses, reorders or tears (at 512 B or 4 KiB) what was not synced, names too; the nth
// operation of a kind fails. After a failed sync the pages count as clean, as on Linux: reads still
// show them, a later sync says yes, and the next cut shows that they never were on the disk.
//
// A SimDisk is a value: a copy is another world, in which a recovery can be tried and cut.
#pragma once

#include <deque>
#include <map>
#include <memory>
#include <optional>
#include <random>
#include <set>

#include "daemon/io/disk.hpp"

namespace shmq::testing {

/// Thrown out of poll() where the run is cut.
struct SimCut {};

enum class SimOperation { create, open, allocate, write, sync, sync_directory, rename, unlink };

struct SimFault {
  SimOperation operation{};
  std::uint64_t nth = 0;  ///< the first of its kind from this event on; see operations()
  int error = 0;          ///< errno; 0 with `write`: a short write
  bool stays = false;     ///< every later one fails, too
  bool is_used = false;
};

class SimDisk final : public io::Disk {
 public:
  explicit SimDisk(std::uint64_t seed);
  SimDisk(const SimDisk&) = default;
  SimDisk& operator=(const SimDisk&) = default;

  // --- What goes wrong ---
  std::optional<std::uint64_t> cut_after;  ///< events, from now
  std::vector<SimFault> faults;
  std::uint64_t capacity_bytes = ~0ULL;
  std::set<std::string> readers;  ///< files that somebody beside the daemon reads
  [[nodiscard]] std::uint64_t operations() const { return events_; }  ///< executed so far

  /// Power is lost: what was synced stays, the rest as chance has it. Handles are gone.
  void cut_power();
  /// The process is killed: what was executed stays in the cache, what was in flight as chance has.
  void kill_process();

  // --- Damage, for tests of what is refused ---
  [[nodiscard]] std::vector<std::byte>& content(const std::string& name);
  [[nodiscard]] bool exists(const std::string& name) const { return names_.contains(name); }
  void put(const std::string& name, std::vector<std::byte> bytes);
  void remove(const std::string& name);
  /// The settled state, after a cut: equal for equal disks.
  [[nodiscard]] std::map<std::string, std::vector<std::byte>> snapshot() const;

  // --- io::Disk ---
  [[nodiscard]] std::string path() const override { return "sim"; }
  void create(const std::string& name, std::uint32_t mode, io::Done done) override;
  void open(const std::string& name, io::Done done) override;
  void allocate(io::Handle file, std::uint64_t bytes, io::Done done) override;
  void write(io::Handle file, std::uint64_t offset, std::span<const std::byte> bytes,
             io::Done done) override;
  std::int64_t lock_against_readers(const std::string& name) override;
  void sync(io::Handle file, io::Done done) override;
  void sync_directory(io::Done done) override;
  void rename(const std::string& from, const std::string& to, io::Done done) override;
  void unlink(const std::string& name, io::Done done) override;
  void close(io::Handle file) override;
  bool poll(bool wait) override;
  Result<std::vector<std::string>> list() override;
  std::int64_t open_for_reading(const std::string& name) override;
  std::int64_t size(io::Handle file) override;
  std::int64_t read(io::Handle file, std::uint64_t offset, std::span<std::byte> into) override;

 private:
  struct Write {
    std::uint64_t offset;
    std::vector<std::byte> bytes;
  };
  struct Inode {
    std::vector<std::byte> cached;  // what reads see
    std::vector<std::byte> stable;
    std::vector<Write> pending;  // executed, not synced
    std::uint64_t allocated = 0;
  };
  struct NameChange {
    std::string from;  // empty: a new name
    std::string to;    // empty: removed
    int inode = 0;
  };
  struct Request {
    SimOperation operation{};
    int inode = -1;
    std::string name, to;
    std::uint64_t offset = 0;
    std::uint64_t length = 0;
    const std::byte* bytes = nullptr;
    io::Done done;
  };
  struct Completion {
    io::Done done;
    std::int64_t result;
  };

  [[nodiscard]] int inode_of(io::Handle file) const;
  std::uint64_t random(std::uint64_t below);
  void submit(Request request) { requests_.push_back(std::move(request)); }
  std::int64_t execute(Request& request);
  std::int64_t execute_on_name(const Request& request);
  static void make_stable(Inode& inode);
  std::int64_t execute_write(Inode& inode, const Request& request, const SimFault* fault);
  void fail_sync(Inode& inode);
  const SimFault* fault_of(SimOperation operation);
  void apply_by_chance(std::vector<std::byte>& stable, const Write& write);
  void change_names(std::map<std::string, int>& names, const NameChange& change) const;
  void forget_nameless();
  [[nodiscard]] std::uint64_t bytes_in_use() const;

  std::mt19937_64 random_;
  std::map<int, Inode> inodes_;
  std::map<std::string, int> names_;         // as the process sees them
  std::map<std::string, int> stable_names_;  // as they are after a cut
  std::vector<NameChange> pending_names_;
  std::map<io::Handle, int> handles_;
  std::uint64_t events_ = 0;
  int next_inode_ = 1;
  io::Handle next_handle_ = 3;
  std::deque<Request> requests_;
  std::deque<Completion> completions_;
};

}  // namespace shmq::testing
