// SPDX-License-Identifier: Apache-2.0
#include "support/sim_disk.hpp"

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <set>

namespace shmq::testing {

SimDisk::SimDisk(std::uint64_t seed) : random_(seed) {}

int SimDisk::inode_of(io::Handle file) const {
  const auto found = handles_.find(file);
  return found == handles_.end() ? -1 : found->second;
}

std::uint64_t SimDisk::random(std::uint64_t below) { return random_() % below; }

// --- Cuts --------------------------------------------------------------------------------------

void SimDisk::apply_by_chance(std::vector<std::byte>& stable, const Write& write) {
  if (stable.size() < write.offset + write.bytes.size()) {
    stable.resize(write.offset + write.bytes.size());
  }
  const auto copy = [&](std::uint64_t from, std::uint64_t to) {
    std::copy(write.bytes.begin() + static_cast<std::ptrdiff_t>(from),
              write.bytes.begin() + static_cast<std::ptrdiff_t>(to),
              stable.begin() + static_cast<std::ptrdiff_t>(write.offset + from));
  };
  const std::uint64_t length = write.bytes.size();
  const std::uint64_t unit = random(2) == 0 ? 512 : 4096;
  switch (random(5)) {
    case 0: return;                                                 // lost
    case 1: return copy(0, length);                                 // whole
    case 2: return copy(0, random(length / unit + 1) * unit);       // the first part
    case 3: return copy(random(length / unit + 1) * unit, length);  // the last part
    default:
      for (std::uint64_t at = 0; at < length; at += unit) {
        if (random(2) == 0) copy(at, std::min(at + unit, length));
      }
  }
}

void SimDisk::change_names(std::map<std::string, int>& names, const NameChange& change) const {
  if (!change.from.empty()) {
    const auto found = names.find(change.from);
    if (found == names.end() || found->second != change.inode) {
      // The change before it was lost; only what can happen to a directory happens.
      if (change.to.empty()) return;
    } else {
      names.erase(found);
    }
  }
  if (!change.to.empty()) names[change.to] = change.inode;
}

void SimDisk::forget_nameless() {
  std::set<int> named;
  for (const auto* names : {&names_, &stable_names_}) {
    for (const auto& [name, inode] : *names) named.insert(inode);
  }
  for (const auto& change : pending_names_) named.insert(change.inode);
  for (const auto& [handle, inode] : handles_) named.insert(inode);
  for (const auto& request : requests_) named.insert(request.inode);
  std::erase_if(inodes_, [&](const auto& entry) { return !named.contains(entry.first); });
}

void SimDisk::cut_power() {
  // What was in flight may have reached the disk as well as what was executed.
  for (const Request& request : requests_) {
    if (request.operation != SimOperation::write || !inodes_.contains(request.inode)) continue;
    inodes_[request.inode].pending.push_back(
        {request.offset, {request.bytes, request.bytes + request.length}});
  }
  requests_.clear();
  completions_.clear();
  handles_.clear();
  for (const NameChange& change : pending_names_) {
    if (random(2) == 0) change_names(stable_names_, change);
  }
  pending_names_.clear();
  names_ = stable_names_;
  for (auto& [number, inode] : inodes_) {
    std::shuffle(inode.pending.begin(), inode.pending.end(), random_);
    for (const Write& write : inode.pending) apply_by_chance(inode.stable, write);
    inode.pending.clear();
    inode.cached = inode.stable;
  }
  forget_nameless();
  cut_after.reset();
}

void SimDisk::kill_process() {
  std::shuffle(requests_.begin(), requests_.end(), random_);
  for (Request& request : requests_) {
    if (random(2) == 0) execute(request);
  }
  requests_.clear();
  completions_.clear();
  handles_.clear();
  forget_nameless();
  cut_after.reset();
}

// --- Damage ------------------------------------------------------------------------------------

std::vector<std::byte>& SimDisk::content(const std::string& name) {
  return inodes_.at(names_.at(name)).cached;
}

void SimDisk::put(const std::string& name, std::vector<std::byte> bytes) {
  const int number = next_inode_++;
  Inode& inode = inodes_[number];
  inode.allocated = bytes.size();
  inode.stable = bytes;
  inode.cached = std::move(bytes);
  names_[name] = stable_names_[name] = number;
}

void SimDisk::remove(const std::string& name) {
  names_.erase(name);
  stable_names_.erase(name);
}

std::map<std::string, std::vector<std::byte>> SimDisk::snapshot() const {
  std::map<std::string, std::vector<std::byte>> files;
  for (const auto& [name, inode] : names_) files[name] = inodes_.at(inode).cached;
  return files;
}

// --- Execution ---------------------------------------------------------------------------------

const SimFault* SimDisk::fault_of(SimOperation operation) {
  for (SimFault& fault : faults) {
    if (fault.operation != operation || events_ + 1 < fault.nth) continue;
    if (fault.is_used && !fault.stays) continue;
    fault.is_used = true;
    return &fault;
  }
  return nullptr;
}

std::uint64_t SimDisk::bytes_in_use() const {
  std::uint64_t sum = 0;
  for (const auto& [number, inode] : inodes_) sum += inode.allocated;
  return sum;
}

std::int64_t SimDisk::execute_write(Inode& inode, const Request& request, const SimFault* fault) {
  std::uint64_t length = request.length;
  if (fault != nullptr && fault->error == 0) {
    length = random(length / 4096) * 4096;
    if (length == 0) length = std::min<std::uint64_t>(512, request.length);
  }
  const bool failed = fault != nullptr && fault->error != 0;
  const bool tries = failed && (fault->error == EIO);
  if (failed && !tries) return -fault->error;
  Write write{request.offset, {request.bytes, request.bytes + length}};
  if (inode.cached.size() < write.offset + length) inode.cached.resize(write.offset + length);
  if (write.offset + length > inode.allocated) return -ENOSPC;
  if (failed) {
    apply_by_chance(inode.cached, write);
    apply_by_chance(inode.stable, write);
    return -fault->error;
  }
  std::copy(write.bytes.begin(), write.bytes.end(),
            inode.cached.begin() + static_cast<std::ptrdiff_t>(write.offset));
  inode.pending.push_back(std::move(write));
  return static_cast<std::int64_t>(length);
}

void SimDisk::fail_sync(Inode& inode) {
  for (const Write& write : inode.pending) apply_by_chance(inode.stable, write);
  inode.pending.clear();  // clean, says the kernel
}

std::int64_t SimDisk::execute(Request& request) {
  const SimFault* fault = fault_of(request.operation);
  const auto inode = inodes_.find(request.inode);
  if (request.operation == SimOperation::write) {
    return inode == inodes_.end() ? -EBADF : execute_write(inode->second, request, fault);
  }
  const bool needs_inode =
      request.operation == SimOperation::allocate || request.operation == SimOperation::sync;
  if (needs_inode && inode == inodes_.end()) return -EBADF;
  if (fault != nullptr && fault->error != 0) {
    if (request.operation == SimOperation::sync && fault->error == EIO) fail_sync(inode->second);
    return -fault->error;
  }
  switch (request.operation) {
    case SimOperation::allocate:
      if (request.length > inode->second.allocated) {
        if (bytes_in_use() - inode->second.allocated + request.length > capacity_bytes) {
          return -ENOSPC;
        }
        inode->second.allocated = request.length;
      }
      return 0;
    case SimOperation::sync: make_stable(inode->second); return 0;
    case SimOperation::sync_directory:
      stable_names_ = names_;
      pending_names_.clear();
      forget_nameless();
      return 0;
    default: return execute_on_name(request);
  }
}

void SimDisk::make_stable(Inode& inode) {
  for (const Write& write : inode.pending) {
    const std::uint64_t end = write.offset + write.bytes.size();
    if (inode.stable.size() < end) inode.stable.resize(end);
    std::copy(write.bytes.begin(), write.bytes.end(),
              inode.stable.begin() + static_cast<std::ptrdiff_t>(write.offset));
  }
  inode.pending.clear();
}

std::int64_t SimDisk::execute_on_name(const Request& request) {
  const auto found = names_.find(request.name);
  if (request.operation == SimOperation::create) {
    if (found != names_.end()) return -EEXIST;
    const int number = next_inode_++;
    inodes_[number];
    names_[request.name] = number;
    pending_names_.push_back({.from = "", .to = request.name, .inode = number});
    handles_[next_handle_] = number;
    return next_handle_++;
  }
  if (found == names_.end()) return -ENOENT;
  if (request.operation == SimOperation::open) {
    handles_[next_handle_] = found->second;
    return next_handle_++;
  }
  // A rename, or an unlink, whose `to` is empty.
  if (!request.to.empty() && names_.contains(request.to)) return -EEXIST;
  const NameChange change{request.name, request.to, found->second};
  change_names(names_, change);
  pending_names_.push_back(change);
  return 0;
}

bool SimDisk::poll(bool) {
  if (requests_.empty() && completions_.empty()) return false;
  // Executed is not yet told: the cut may fall between the two.
  if (!requests_.empty() && (completions_.empty() || random(2) == 0)) {
    const auto chosen = requests_.begin() + static_cast<std::ptrdiff_t>(random(requests_.size()));
    Request request = std::move(*chosen);
    requests_.erase(chosen);
    const std::int64_t result = execute(request);
    ++events_;
    completions_.push_back({std::move(request.done), result});
    if (cut_after && (*cut_after)-- == 0) throw SimCut{};
    if (random(4) == 0) return true;
  }
  const auto chosen =
      completions_.begin() + static_cast<std::ptrdiff_t>(random(completions_.size()));
  const Completion completion = std::move(*chosen);
  completions_.erase(chosen);
  completion.done(completion.result);
  return true;
}

// --- Calls -------------------------------------------------------------------------------------

void SimDisk::create(const std::string& name, std::uint32_t, io::Done done) {
  submit({.operation = SimOperation::create, .name = name, .to = {}, .done = std::move(done)});
}

void SimDisk::open(const std::string& name, io::Done done) {
  submit({.operation = SimOperation::open, .name = name, .to = {}, .done = std::move(done)});
}

void SimDisk::allocate(io::Handle file, std::uint64_t bytes, io::Done done) {
  submit({.operation = SimOperation::allocate,
          .inode = inode_of(file),
          .name = {},
          .to = {},
          .length = bytes,
          .done = std::move(done)});
}

void SimDisk::write(io::Handle file, std::uint64_t offset, std::span<const std::byte> bytes,
                    io::Done done) {
  if (offset % 4096 != 0 || bytes.size() % 512 != 0) std::abort();  // O_DIRECT would refuse
  submit({.operation = SimOperation::write,
          .inode = inode_of(file),
          .name = {},
          .to = {},
          .offset = offset,
          .length = bytes.size(),
          .bytes = bytes.data(),
          .done = std::move(done)});
}

void SimDisk::sync(io::Handle file, io::Done done) {
  submit({.operation = SimOperation::sync,
          .inode = inode_of(file),
          .name = {},
          .to = {},
          .done = std::move(done)});
}

void SimDisk::sync_directory(io::Done done) {
  submit(
      {.operation = SimOperation::sync_directory, .name = {}, .to = {}, .done = std::move(done)});
}

void SimDisk::rename(const std::string& from, const std::string& to, io::Done done) {
  submit({.operation = SimOperation::rename, .name = from, .to = to, .done = std::move(done)});
}

void SimDisk::unlink(const std::string& name, io::Done done) {
  submit({.operation = SimOperation::unlink, .name = name, .to = {}, .done = std::move(done)});
}

void SimDisk::close(io::Handle file) { handles_.erase(file); }

Result<std::vector<std::string>> SimDisk::list() {
  std::vector<std::string> names;
  for (const auto& [name, inode] : names_) names.push_back(name);
  std::shuffle(names.begin(), names.end(), random_);
  return names;
}

std::int64_t SimDisk::open_for_reading(const std::string& name) {
  const auto found = names_.find(name);
  if (found == names_.end()) return -ENOENT;
  handles_[next_handle_] = found->second;
  return next_handle_++;
}

std::int64_t SimDisk::lock_against_readers(const std::string& name) {
  return readers.contains(name) ? -EWOULDBLOCK : open_for_reading(name);
}

std::int64_t SimDisk::size(io::Handle file) {
  return static_cast<std::int64_t>(inodes_.at(inode_of(file)).cached.size());
}

std::int64_t SimDisk::read(io::Handle file, std::uint64_t offset, std::span<std::byte> into) {
  const auto& cached = inodes_.at(inode_of(file)).cached;
  if (offset >= cached.size()) return 0;
  const std::uint64_t count = std::min<std::uint64_t>(into.size(), cached.size() - offset);
  std::memcpy(into.data(), cached.data() + offset, count);
  return static_cast<std::int64_t>(count);
}

}  // namespace shmq::testing
