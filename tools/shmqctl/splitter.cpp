// SPDX-License-Identifier: Apache-2.0
//
// One buffer: messages are cut out of it in place, a rest is moved to the front before reading on.
#include "splitter.hpp"

#include <algorithm>
#include <cstring>

namespace shmqctl {
namespace {
constexpr std::size_t first_buffer_bytes = 1U << 20U;
constexpr std::size_t least_room_bytes = 1U << 16U;  // what a pipe holds
constexpr std::size_t frame_header_bytes = 4;
}  // namespace

Splitter::Splitter(Framing framing, std::uint64_t max_message_bytes)
    : framing_(framing), max_message_bytes_(max_message_bytes), buffer_(first_buffer_bytes) {}

std::span<char> Splitter::room() {
  if (begin_ > 0) {
    std::memmove(buffer_.data(), buffer_.data() + begin_, filled_ - begin_);
    filled_ -= begin_;
    seen_ -= std::min(seen_, begin_);
    begin_ = 0;
  }
  // Grows only while one message is larger than the buffer; next() refuses it past the maximum.
  if (buffer_.size() - filled_ < least_room_bytes) buffer_.resize(buffer_.size() * 2);
  return std::span{buffer_}.subspan(filled_);
}

std::span<const std::byte> Splitter::view(std::size_t from, std::size_t bytes) const {
  return std::as_bytes(std::span{buffer_}.subspan(from, bytes));
}

Splitter::Next Splitter::next(std::span<const std::byte>& payload) {
  return framing_ == Framing::length ? next_frame(payload) : next_line(payload);
}

Splitter::Next Splitter::next_line(std::span<const std::byte>& payload) {
  const char separator = framing_ == Framing::nul ? '\0' : '\n';
  const std::size_t from = std::max(begin_, seen_);
  const auto* found =
      static_cast<const char*>(std::memchr(buffer_.data() + from, separator, filled_ - from));
  const std::size_t end =
      found != nullptr ? static_cast<std::size_t>(found - buffer_.data()) : filled_;
  if (end - begin_ > max_message_bytes_) return Next::too_large;
  if (found == nullptr) {
    seen_ = filled_;
    if (!ended_) return Next::need_more;
    if (begin_ == filled_) return Next::end;
    payload = view(begin_, filled_ - begin_);  // a last line without a newline is a message, too
    begin_ = seen_ = filled_;
    return Next::message;
  }
  payload = view(begin_, end - begin_);
  begin_ = seen_ = end + 1;
  return Next::message;
}

Splitter::Next Splitter::next_frame(std::span<const std::byte>& payload) {
  const std::size_t there = filled_ - begin_;
  if (there == 0 && ended_) return Next::end;
  if (there >= frame_header_bytes) {
    std::size_t length = 0;
    for (unsigned i = 0; i < frame_header_bytes; ++i) {
      length |= static_cast<std::size_t>(static_cast<unsigned char>(buffer_[begin_ + i])) << 8 * i;
    }
    if (length > max_message_bytes_) return Next::too_large;
    if (there - frame_header_bytes >= length) {
      payload = view(begin_ + frame_header_bytes, length);
      begin_ += frame_header_bytes + length;
      return Next::message;
    }
  }
  return ended_ ? Next::truncated : Next::need_more;
}

}  // namespace shmqctl
