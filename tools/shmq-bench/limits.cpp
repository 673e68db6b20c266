// SPDX-License-Identifier: Apache-2.0
//
// The limits that the machine sets: one line to and fro, and a stream of lines one way.
#include "limits.hpp"

#include <atomic>

namespace shmq_bench {

PingPong::PingPong()
    : Contender("ping-pong"),
      word_(*reinterpret_cast<std::atomic<std::uint64_t>*>(map_shared(128))) {}

bool PingPong::supports(Mode mode, std::size_t) const { return mode == Mode::round_trip; }
void PingPong::send_all(std::uint64_t, std::size_t) {}
void PingPong::receive_all(std::uint64_t, std::size_t) {}

void PingPong::ping(std::uint64_t count, std::size_t) {
  const std::uint64_t from = word_.load(std::memory_order_relaxed);
  for (std::uint64_t i = from; i < from + 2 * count; i += 2) {
    word_.store(i + 1, std::memory_order_release);
    while (word_.load(std::memory_order_acquire) != i + 2) {
    }
  }
}

void PingPong::pong(std::uint64_t count, std::size_t) {
  // The parent may have started already: its word is odd then.
  const std::uint64_t from = word_.load(std::memory_order_relaxed) & ~std::uint64_t{1};
  for (std::uint64_t i = from; i < from + 2 * count; i += 2) {
    while (word_.load(std::memory_order_acquire) != i + 1) {
    }
    word_.store(i + 2, std::memory_order_release);
  }
}

namespace {

/// Lines of {number, 7 words}; the reader tells how far it is once in a while.
class LineStream final : public Contender {
 public:
  static constexpr std::uint64_t lines = 65536, told_every = 1024;
  LineStream()
      : Contender("line-stream"), shared_(reinterpret_cast<Shared*>(map_shared(sizeof(Shared)))) {}
  [[nodiscard]] bool supports(Mode mode, std::size_t bytes) const override {
    return mode == Mode::throughput && bytes == line_bytes;
  }
  void send_all(std::uint64_t count, std::size_t) override {
    for (std::uint64_t i = 0; i < count; ++i, ++sent_) {
      while (sent_ - seen_ == lines) {
        seen_ = shared_->read.load(std::memory_order_acquire);
        if (sent_ - seen_ == lines) backoff_.wait();
      }
      backoff_.made_progress();
      Line& line = shared_->line[sent_ % lines];
      for (std::uint64_t& word : line.words) word = sent_;
      line.number.store(sent_ + 1, std::memory_order_release);
    }
  }
  void receive_all(std::uint64_t count, std::size_t) override {
    for (std::uint64_t i = 0; i < count; ++i, ++got_) {
      Line& line = shared_->line[got_ % lines];
      while (line.number.load(std::memory_order_acquire) != got_ + 1) backoff_.wait();
      backoff_.made_progress();
      if (line.words[0] != got_ || line.words[6] != got_) fail("line-stream: wrong line");
      if ((got_ + 1) % told_every == 0) shared_->read.store(got_ + 1, std::memory_order_release);
    }
  }
  void ping(std::uint64_t, std::size_t) override {}
  void pong(std::uint64_t, std::size_t) override {}

 private:
  struct alignas(line_bytes) Line {
    std::atomic<std::uint64_t> number;
    std::uint64_t words[7];
  };
  struct Shared {
    alignas(128) std::atomic<std::uint64_t> read;
    alignas(128) Line line[lines];
  };
  Shared* shared_;
  std::uint64_t sent_ = 0, seen_ = 0, got_ = 0;
  Backoff backoff_;
};

}  // namespace

void add_limits(Contenders& contenders) {
  contenders.push_back(std::make_unique<LineStream>());
  contenders.push_back(std::make_unique<PingPong>());
}

}  // namespace shmq_bench
