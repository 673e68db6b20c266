// SPDX-License-Identifier: Apache-2.0
#include "daemon/io/backend.hpp"

#include "daemon/io/plain_disk.hpp"
#include "daemon/io/uring_disk.hpp"

namespace shmq::io {

Result<Backend> Backend::create(BackendChoice choice, const Say& say) {
  Backend backend;
  if (choice == BackendChoice::plain) return backend;
  auto ring = Ring::create();
  if (ring) {
    backend.ring_ = std::move(*ring);
    return backend;
  }
  if (choice == BackendChoice::io_uring) return tl::unexpected{ring.error()};
  say("io_uring is not available (" + ring.error().why() +
      "); writing with pwrite and fdatasync instead, which is slower with many queues");
  return backend;
}

Result<std::unique_ptr<PlainDisk>> Backend::open_waiting(const std::string& path) const {
  auto directory = Directory::open(path);
  if (!directory) return tl::unexpected{directory.error()};
  return std::make_unique<PlainDisk>(std::move(*directory));
}

std::unique_ptr<Disk> Backend::take_over(std::unique_ptr<PlainDisk> disk) const {
  if (ring_ == nullptr) return disk;
  return std::make_unique<UringDisk>(ring_, std::move(*disk));
}

Result<std::unique_ptr<Disk>> Backend::open(const std::string& path) const {
  auto disk = open_waiting(path);
  if (!disk) return tl::unexpected{disk.error()};
  return take_over(std::move(*disk));
}

}  // namespace shmq::io
