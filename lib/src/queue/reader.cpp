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

PastLook Reader::take_past(std::uint64_t seq, Past::Way way, HandOut& out) noexcept {
  PastMessage message;
  const PastLook look = past_->find(seq, way, message);
  if (look != PastLook::found) return look;
  out.seq = seq;
  out.payload_offset =
      reinterpret_cast<std::uintptr_t>(message.payload) - reinterpret_cast<std::uintptr_t>(arena_);
  out.payload_bytes = message.payload_bytes;
  out.head_bytes = message.head_bytes;
  out.hand_outs = 1;
  out.failures = 0;
  switch (message.memory) {
    case PastMessage::Memory::none: out.pin = Pins::no_bytes; break;
    case PastMessage::Memory::batch: out.pin = Pins::of_batch; break;
    case PastMessage::Memory::copy: out.pin = Pins::private_copy; break;
  }
  return look;
}

void free_private(std::uint32_t pin, const std::byte* record) noexcept {
  if (pin == Pins::private_copy) std::free(const_cast<std::byte*>(record));
  if (pin == Pins::of_batch) Past::release(record);
}

}  // namespace shmq::queue
