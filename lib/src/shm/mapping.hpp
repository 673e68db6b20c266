// SPDX-License-Identifier: Apache-2.0
//
// Opening and mapping with Boost.Interprocess. Its exceptions stop in mapping.cpp.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <system_error>
#include <tl/expected.hpp>

namespace shmq::shm {

/// One mapped range. Unmapped when destroyed.
class Mapping {
 public:
  Mapping() noexcept = default;
  Mapping(Mapping&&) noexcept = default;
  Mapping& operator=(Mapping&&) noexcept = default;
  ~Mapping() = default;

  /// Shared between processes; `offset` a multiple of the page size. Keeps no use of `descriptor`.
  static tl::expected<Mapping, std::error_code> map(int descriptor, bool writable,
                                                    std::uint64_t offset, std::uint64_t bytes);
  [[nodiscard]] std::byte* data() const noexcept { return data_; }

 private:
  struct Unmap {
    void operator()(void* region) const noexcept;
  };
  std::unique_ptr<void, Unmap> region_;
  std::byte* data_ = nullptr;
};

/// An open shared-memory object; closes its descriptor.
class SharedObject {
 public:
  SharedObject() noexcept = default;
  explicit SharedObject(int descriptor) noexcept : descriptor_(descriptor) {}
  SharedObject(SharedObject&& other) noexcept : descriptor_(other.release()) {}
  SharedObject& operator=(SharedObject&& other) noexcept;
  ~SharedObject();

  /// `name` without a leading slash.
  static tl::expected<SharedObject, std::error_code> open(const char* name, bool writable);
  [[nodiscard]] int descriptor() const noexcept { return descriptor_; }
  int release() noexcept;

 private:
  int descriptor_ = -1;
};

}  // namespace shmq::shm
