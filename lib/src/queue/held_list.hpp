// SPDX-License-Identifier: Apache-2.0
//
// What one consumer of a shared group was handed out and has neither settled nor let go, in the
// order of the hand-outs. Private to the consumer.
#pragma once

#include <bit>
#include <cstddef>
#include <cstdint>
#include <vector>

namespace shmq::queue {

class HeldList {
 public:
  struct Held {
    std::uint64_t seq;
    std::uint32_t token;
  };

  /// Allocates here, never later.
  explicit HeldList(std::size_t capacity) : ring_(std::bit_ceil(capacity)) {}

  /// How many more fit, counting the holes in between as taken.
  [[nodiscard]] std::size_t room() const noexcept { return ring_.size() - (end_ - begin_); }

  /// Nothing at all, not even a hole.
  [[nodiscard]] bool empty() const noexcept { return begin_ == end_; }

  void add(std::uint64_t seq, std::uint32_t token) noexcept { at(end_++) = {seq, token}; }

  /// The usual case, the oldest or the newest, takes constant time.
  void remove(std::uint64_t seq, std::uint32_t token) noexcept {
    if (begin_ == end_) return;
    if (is(begin_, seq, token)) {
      for (++begin_; begin_ != end_ && at(begin_).token == hole; ++begin_) {
      }
      return;
    }
    for (std::size_t i = end_; i-- != begin_;) {
      if (!is(i, seq, token)) continue;
      at(i).token = hole;
      while (begin_ != end_ && at(end_ - 1).token == hole) --end_;
      return;
    }
  }
  /// Closes the holes.
  void compact() noexcept {
    std::size_t to = begin_;
    for (std::size_t i = begin_; i != end_; ++i) {
      if (at(i).token != hole) at(to++) = at(i);
    }
    end_ = to;
  }

  template <typename Act>
  void for_each(Act act) const noexcept {
    for (std::size_t i = begin_; i != end_; ++i) {
      if (at(i).token != hole) act(at(i));
    }
  }
  /// Removes every one up to and including `seq`.
  void remove_through(std::uint64_t seq) noexcept {
    std::size_t to = begin_;
    for (std::size_t i = begin_; i != end_; ++i) {
      if (at(i).token != hole && at(i).seq > seq) at(to++) = at(i);
    }
    end_ = to;
  }
  void clear() noexcept { begin_ = end_ = 0; }

 private:
  static constexpr std::uint32_t hole = 0;  // hand-outs count from 1

  [[nodiscard]] Held& at(std::size_t i) noexcept { return ring_[i & (ring_.size() - 1)]; }
  [[nodiscard]] const Held& at(std::size_t i) const noexcept {
    return ring_[i & (ring_.size() - 1)];
  }
  [[nodiscard]] bool is(std::size_t i, std::uint64_t seq, std::uint32_t token) const noexcept {
    return at(i).seq == seq && at(i).token == token;
  }

  std::vector<Held> ring_;
  std::size_t begin_ = 0;
  std::size_t end_ = 0;
};

}  // namespace shmq::queue
