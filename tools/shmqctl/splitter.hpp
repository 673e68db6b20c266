// SPDX-License-Identifier: Apache-2.0
//
// Cuts a byte stream into messages: lines, NUL-ended pieces, or frames with a length before them.
//
// Used by `shmqctl publish` alone. The views that it gives point into its buffer and end with the
// next call of room(). It never holds back a message that has arrived.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

#include "output.hpp"

namespace shmqctl {

class Splitter {
 public:
  /// `max_message_bytes` bounds the buffer: a longer message is `too_large` as soon as it is known.
  Splitter(Framing framing, std::uint64_t max_message_bytes);

  enum class Next {
    message,    ///< `payload` is one
    need_more,  ///< read into room(), then tell added(); or tell ended()
    end,        ///< after ended(): nothing is left
    too_large,  ///< this message is larger than the queue takes
    truncated,  ///< after ended(): the stream stops in the middle of a frame
  };

  /// Where to read to; never empty. Moves what is left over, so views given before are gone.
  std::span<char> room();
  void added(std::size_t bytes) { filled_ += bytes; }
  void ended() { ended_ = true; }
  Next next(std::span<const std::byte>& payload);

 private:
  Next next_line(std::span<const std::byte>& payload);
  Next next_frame(std::span<const std::byte>& payload);
  [[nodiscard]] std::span<const std::byte> view(std::size_t from, std::size_t bytes) const;

  Framing framing_;
  std::uint64_t max_message_bytes_;
  std::vector<char> buffer_;
  std::size_t begin_ = 0;   ///< of what is not given out yet
  std::size_t filled_ = 0;  ///< end of what was read
  std::size_t seen_ = 0;    ///< no separator between begin_ and here
  bool ended_ = false;
};

}  // namespace shmqctl
