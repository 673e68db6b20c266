// SPDX-License-Identifier: Apache-2.0
#include "shm/mapping.hpp"

#include <fcntl.h>
#include <unistd.h>

#include <boost/interprocess/mapped_region.hpp>
#include <boost/interprocess/shared_memory_object.hpp>
#include <utility>

namespace shmq::shm {
namespace {

namespace ipc = boost::interprocess;

// What mapped_region asks of a mappable thing, over a descriptor that has no name yet.
class Descriptor {
 public:
  explicit Descriptor(int descriptor) noexcept : descriptor_(descriptor) {}
  [[nodiscard]] ipc::mapping_handle_t get_mapping_handle() const noexcept {
    return {descriptor_, false};
  }

 private:
  int descriptor_;
};

std::error_code code_of(const ipc::interprocess_exception& error) noexcept {
  const int native = error.get_native_error();
  return {native != 0 ? native : EIO, std::generic_category()};
}

}  // namespace

void Mapping::Unmap::operator()(void* region) const noexcept {
  delete static_cast<ipc::mapped_region*>(region);
}

tl::expected<Mapping, std::error_code> Mapping::map(int descriptor, bool writable,
                                                    std::uint64_t offset, std::uint64_t bytes) {
  try {
    auto region = std::make_unique<ipc::mapped_region>(Descriptor{descriptor},
                                                       writable ? ipc::read_write : ipc::read_only,
                                                       static_cast<ipc::offset_t>(offset), bytes);
    Mapping mapping;
    mapping.data_ = static_cast<std::byte*>(region->get_address());
    mapping.region_.reset(region.release());
    return mapping;
  } catch (const ipc::interprocess_exception& error) {
    return tl::unexpected(code_of(error));
  } catch (const std::bad_alloc&) {
    return tl::unexpected(std::make_error_code(std::errc::not_enough_memory));
  }
}

SharedObject& SharedObject::operator=(SharedObject&& other) noexcept {
  std::swap(descriptor_, other.descriptor_);
  return *this;
}

SharedObject::~SharedObject() {
  if (descriptor_ >= 0) ::close(descriptor_);
}

int SharedObject::release() noexcept { return std::exchange(descriptor_, -1); }

tl::expected<SharedObject, std::error_code> SharedObject::open(const char* name, bool writable) {
  try {
    const ipc::shared_memory_object object(ipc::open_only, name,
                                           writable ? ipc::read_write : ipc::read_only);
    const int copy = ::fcntl(object.get_mapping_handle().handle, F_DUPFD_CLOEXEC, 0);
    if (copy < 0) return tl::unexpected(std::error_code{errno, std::generic_category()});
    return SharedObject{copy};
  } catch (const ipc::interprocess_exception& error) {
    return tl::unexpected(code_of(error));
  } catch (const std::bad_alloc&) {
    return tl::unexpected(std::make_error_code(std::errc::not_enough_memory));
  }
}

}  // namespace shmq::shm
