// SPDX-License-Identifier: Apache-2.0
//
// Memory that may be written with O_DIRECT. It grows like a vector, and what it grows by is zeros.
#pragma once

#include <cstddef>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <new>
#include <span>

namespace shmq::io {

class AlignedBuffer {
 public:
  static constexpr std::size_t alignment = 4096;

  [[nodiscard]] std::size_t size() const noexcept { return size_; }
  [[nodiscard]] std::byte* data() noexcept { return bytes_.get(); }
  [[nodiscard]] std::span<std::byte> bytes() noexcept { return {bytes_.get(), size_}; }
  [[nodiscard]] std::span<const std::byte> bytes() const noexcept { return {bytes_.get(), size_}; }

  void clear() noexcept { size_ = 0; }

  /// The new bytes at the end, not yet set to anything.
  std::byte* extend(std::size_t count) {
    if (size_ + count > capacity_) grow(size_ + count);
    std::byte* place = bytes_.get() + size_;
    size_ += count;
    return place;
  }
  void append(const void* from, std::size_t count) {
    if (count != 0) std::memcpy(extend(count), from, count);
  }
  void append_zeros(std::size_t count) {
    if (count != 0) std::memset(extend(count), 0, count);
  }

 private:
  struct Free {
    void operator()(std::byte* bytes) const noexcept { std::free(bytes); }
  };

  void grow(std::size_t least) {
    std::size_t capacity = capacity_ == 0 ? 16 * alignment : capacity_;
    while (capacity < least) capacity *= 2;
    auto* bytes = static_cast<std::byte*>(std::aligned_alloc(alignment, capacity));
    if (bytes == nullptr) throw std::bad_alloc{};
    if (size_ != 0) std::memcpy(bytes, bytes_.get(), size_);
    bytes_.reset(bytes);
    capacity_ = capacity;
  }

  std::unique_ptr<std::byte, Free> bytes_;
  std::size_t size_ = 0;
  std::size_t capacity_ = 0;
};

}  // namespace shmq::io
