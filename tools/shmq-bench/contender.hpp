// SPDX-License-Identifier: Apache-2.0
//
// What is compared: something that carries messages from the child process to the parent, and for
// round trips both ways. Every message is stamped, counted and checked here, the same for all.
//
// A contender is made before the fork; what it maps or opens then is shared by both processes.
#pragma once

#include <sys/mman.h>

#include <array>
#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <map>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "backoff.hpp"

namespace shmq_bench {

inline constexpr std::size_t line_bytes = 64;
inline constexpr std::size_t payload_max_bytes = 64 << 10;

enum class Mode : std::uint32_t { throughput = 1, round_trip = 2 };

/// The queue will be removed at the end, whatever that is.
void note_shmq_queue(const std::string& name_space, const std::string& name);
/// Async-signal-safe.
void remove_shmq_queues() noexcept;

/// Ends this process with 1 and leaves nothing behind; the other process ends by it.
[[noreturn]] inline void fail(const std::string& text) {
  std::fprintf(stderr, "shmq-bench: %s\n", text.c_str());
  remove_shmq_queues();
  std::_Exit(1);
}

/// Where the last line's word stands in a payload.
constexpr std::size_t last_word_offset(std::size_t bytes) noexcept {
  return bytes <= line_bytes ? (bytes - 8) & ~std::size_t{7}
                             : (bytes - 1) / line_bytes * line_bytes;
}

inline void stamp(std::byte* payload, std::size_t bytes, std::uint64_t index) noexcept {
  std::memcpy(payload, &index, 8);
  std::memcpy(payload + last_word_offset(bytes), &index, 8);
}

inline void check(const std::byte* payload, std::size_t bytes, std::uint64_t index) {
  std::uint64_t first = 0;
  std::uint64_t last = 0;
  std::memcpy(&first, payload, 8);
  std::memcpy(&last, payload + last_word_offset(bytes), 8);
  if (first != index || last != index) {
    fail("message " + std::to_string(index) + " arrived as " + std::to_string(first) + "/" +
         std::to_string(last));
  }
}

class Contender {
 public:
  explicit Contender(std::string name) : name_(std::move(name)) {}
  Contender(const Contender&) = delete;
  Contender& operator=(const Contender&) = delete;
  virtual ~Contender() = default;

  [[nodiscard]] const std::string& name() const noexcept { return name_; }
  [[nodiscard]] virtual bool supports(Mode mode, std::size_t bytes) const = 0;
  /// Throughput: the child sends, the parent receives.
  virtual void send_all(std::uint64_t count, std::size_t bytes) = 0;
  virtual void receive_all(std::uint64_t count, std::size_t bytes) = 0;
  /// Round trip: the parent pings, the child pongs.
  virtual void ping(std::uint64_t count, std::size_t bytes) = 0;
  virtual void pong(std::uint64_t count, std::size_t bytes) = 0;

 private:
  std::string name_;
};

/// Zeroed memory that a forked child shares.
inline std::byte* map_shared(std::size_t bytes) {
  void* place = mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
  if (place == MAP_FAILED) fail("cannot map shared memory");
  return static_cast<std::byte*>(place);
}

/// A buffer that does not share a line with others.
struct alignas(4096) Buffer {
  std::array<std::byte, payload_max_bytes> bytes{};
};

/// A contender made of one-way links. Link: static possible(bytes); Link(bytes, purpose);
/// send(payload, bytes), receive(payload, bytes), both waiting.
template <typename Link>
class LinkContender final : public Contender {
 public:
  LinkContender(std::string name, const std::vector<std::size_t>& sizes)
      : Contender(std::move(name)), buffer_(std::make_unique<Buffer>()) {
    for (const std::size_t bytes : sizes) {
      if (Link::possible(bytes)) links_.emplace(bytes, std::make_unique<Links>(bytes));
    }
  }
  [[nodiscard]] bool supports(Mode, std::size_t bytes) const override {
    return links_.count(bytes) != 0;
  }
  void send_all(std::uint64_t count, std::size_t bytes) override {
    send_range(links_.at(bytes)->stream, count, bytes);
  }
  void receive_all(std::uint64_t count, std::size_t bytes) override {
    Link& link = links_.at(bytes)->stream;
    std::byte* payload = buffer_->bytes.data();
    for (std::uint64_t i = 0; i < count; ++i) {
      link.receive(payload, bytes);
      check(payload, bytes, i);
    }
  }
  void ping(std::uint64_t count, std::size_t bytes) override {
    Links& links = *links_.at(bytes);
    std::byte* payload = buffer_->bytes.data();
    for (std::uint64_t i = 0; i < count; ++i) {
      stamp(payload, bytes, i);
      links.there.send(payload, bytes);
      links.back.receive(payload, bytes);
      check(payload, bytes, i);
    }
  }
  void pong(std::uint64_t count, std::size_t bytes) override {
    Links& links = *links_.at(bytes);
    std::byte* payload = buffer_->bytes.data();
    for (std::uint64_t i = 0; i < count; ++i) {
      links.there.receive(payload, bytes);
      links.back.send(payload, bytes);
    }
  }

 private:
  struct Links {
    explicit Links(std::size_t bytes)
        : stream(bytes, Mode::throughput),
          there(bytes, Mode::round_trip),
          back(bytes, Mode::round_trip) {}
    Link stream, there, back;
  };
  void send_range(Link& link, std::uint64_t count, std::size_t bytes) {
    std::byte* payload = buffer_->bytes.data();
    for (std::uint64_t i = 0; i < count; ++i) {
      stamp(payload, bytes, i);
      link.send(payload, bytes);
    }
  }
  std::unique_ptr<Buffer> buffer_;
  std::map<std::size_t, std::unique_ptr<Links>> links_;
};

using Contenders = std::vector<std::unique_ptr<Contender>>;

void add_ring_peers(Contenders& contenders, const std::vector<std::size_t>& sizes);
void add_system_peers(Contenders& contenders, const std::vector<std::size_t>& sizes);
void add_limits(Contenders& contenders);
/// Creates its queues in namespace `name_space`.
void add_shmq(Contenders& contenders, const std::string& name_space);

}  // namespace shmq_bench
