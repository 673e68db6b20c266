// SPDX-License-Identifier: Apache-2.0
#include "queue/reader.hpp"

#include <cstdlib>
#include <cstring>

namespace shmq::queue {

bool Reader::sees_further(std::uint64_t seq) noexcept {
  if (watermark_ == nullptr) return false;  // no honest seq is that high
  // [V1] acquire, pairs with M1: it is on stable storage.
  visible_end_ = sync::load_acquire(*watermark_);
  return seq < visible_end_ || base::mutant(84);
}

bool Reader::copy_record(const RecordView& record, std::uint64_t seq, HandOut& out) const noexcept {
  const std::uint64_t bytes = record.end - record.offset;
  auto* copy = static_cast<std::byte*>(std::malloc(bytes));
  if (copy == nullptr) return false;
  std::memcpy(copy, arena_ + record.offset, bytes);
  describe(record, seq, Pins::private_copy, out);
  out.payload_offset = reinterpret_cast<std::uintptr_t>(copy) + out.head_bytes -
                       reinterpret_cast<std::uintptr_t>(arena_);
  return true;
}

void free_copy(const std::byte* record) noexcept { std::free(const_cast<std::byte*>(record)); }

}  // namespace shmq::queue
