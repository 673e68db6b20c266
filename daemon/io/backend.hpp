// SPDX-License-Identifier: Apache-2.0
//
// Chooses the real disk at run time: io_uring, or plain calls where it is denied. The code above is
// the same, and says once which it is when it is not the first choice.
#pragma once

#include <memory>

#include "daemon/io/disk.hpp"

namespace shmq::io {

class PlainDisk;
class Ring;

enum class BackendChoice { automatic, io_uring, plain };

class Backend {
 public:
  using Say = std::function<void(const std::string& sentence)>;

  /// Fails only if io_uring was asked for by name and is not to be had.
  static Result<Backend> create(BackendChoice choice, const Say& say);

  [[nodiscard]] bool uses_io_uring() const noexcept { return ring_ != nullptr; }
  Result<std::unique_ptr<Disk>> open(const std::string& directory) const;
  /// For work that waits, on any thread; take_over() makes of it what open() gives, with the same
  /// handles, once nothing is outstanding.
  Result<std::unique_ptr<PlainDisk>> open_waiting(const std::string& directory) const;
  [[nodiscard]] std::unique_ptr<Disk> take_over(std::unique_ptr<PlainDisk> disk) const;
  /// Nothing: plain calls.
  [[nodiscard]] const std::shared_ptr<Ring>& ring() const noexcept { return ring_; }

 private:
  std::shared_ptr<Ring> ring_;  // nothing: plain calls
};

}  // namespace shmq::io
