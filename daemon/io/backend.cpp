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

Result<std::unique_ptr<Disk>> Backend::open(const std::string& path) const {
  auto directory = Directory::open(path);
  if (!directory) return tl::unexpected{directory.error()};
  if (ring_ == nullptr) return std::make_unique<PlainDisk>(std::move(*directory));
  return std::make_unique<UringDisk>(ring_, std::move(*directory));
}

}  // namespace shmq::io
