// SPDX-License-Identifier: Apache-2.0
//
// shmqd is killed with SIGKILL again and again under 200,000 messages/s. Publishers and a consumer
// never notice; the watermark never goes back; in the end memory is taken away, and what a second
// group has not consumed comes back from disk, each message once and in order.
#include <gtest/gtest.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <cstring>
#include <random>
#include <shmq/shmq.hpp>
#include <thread>

#include "durable/real_daemon.hpp"
#include "shm/segment.hpp"

namespace {

using namespace shmq;
using namespace shmq::testing;
using namespace std::chrono_literals;
using Clock = std::chrono::steady_clock;

constexpr int publishers = 2;
constexpr std::uint64_t messages_per_second = 200'000;
constexpr std::uint64_t slots = 1U << 21;
constexpr std::uint64_t lag_messages = 200'000;  // that the second group keeps behind

// What the processes tell each other; in anonymous shared memory.
struct Board {
  std::atomic<bool> stop{false};
  std::atomic<std::uint64_t> published[publishers]{};
  std::atomic<std::uint64_t> refused{
      0};  // publishes that found no room, though they would not wait
  std::atomic<std::uint64_t> consumed{0};
  std::atomic<std::uint64_t> late_consumed{0};
  std::atomic<std::uint64_t> broken{0};  // seqs or payloads that were not the next ones
};

struct Message {
  std::uint64_t publisher;
  std::uint64_t number;
  std::uint64_t filling[6];
};
static_assert(sizeof(Message) == 64);

void publish(Board& board, int self) {
  auto queue = Queue::open("q");
  auto producer = queue.value().producer();
  std::uint64_t number = 0;
  auto due = Clock::now();
  constexpr auto per_millisecond = messages_per_second / publishers / 1000;
  while (!board.stop.load()) {
    due += 1ms;
    for (std::uint64_t i = 0; i < per_millisecond; ++i) {
      Message message{static_cast<std::uint64_t>(self), number, {}};
      for (std::uint64_t& word : message.filling) word = number * 0x9e3779b97f4a7c15 + self;
      const auto result =
          producer->publish(std::as_bytes(std::span{&message, 1}), {.timeout = 0ns});
      if (result) {
        ++number;
      } else {
        board.refused.fetch_add(1);
      }
    }
    board.published[self].store(number);
    std::this_thread::sleep_until(due);
  }
}

// Checks that seqs are dense, that each publisher's messages come in order, and that all of them
// are whole.
class Expectation {
 public:
  bool is_next(const Delivery& delivery) {
    if (delivery.payload().size() != sizeof(Message)) return false;
    Message message;
    std::memcpy(&message, delivery.payload().data(), sizeof(message));
    if (message.publisher >= publishers) return false;
    std::uint64_t& number = number_[message.publisher];
    const bool first = number == unknown;
    bool fine =
        (seq_ == unknown || delivery.seq().value == seq_) && (first || message.number == number);
    for (const std::uint64_t word : message.filling) {
      fine &= word == message.number * 0x9e3779b97f4a7c15 + message.publisher;
    }
    seq_ = delivery.seq().value + 1;
    number = message.number + 1;
    return fine;
  }
  [[nodiscard]] std::uint64_t number(int publisher) const { return number_[publisher]; }

 private:
  static constexpr std::uint64_t unknown = ~std::uint64_t{0};
  std::uint64_t seq_ = unknown;
  std::uint64_t number_[publishers] = {unknown, unknown};
};

void consume(Board& board, const char* group, std::uint64_t stay_behind,
             std::atomic<std::uint64_t>& count) {
  auto queue = Queue::open("q");
  auto consumer = queue.value().consumer(group);
  Expectation expected;
  while (!board.stop.load()) {
    if (stay_behind != 0 && board.consumed.load() < count.load() + stay_behind) {
      std::this_thread::sleep_for(1ms);
      continue;
    }
    auto delivery = consumer->receive(10ms);
    if (!delivery || delivery->empty()) continue;
    if (!expected.is_next(*delivery) || delivery->ack() != Settlement::settled) {
      board.broken.fetch_add(1);
    }
    count.fetch_add(1);
  }
}

template <typename Work>
pid_t in_child(Work work) {
  const pid_t pid = ::fork();
  if (pid != 0) return pid;
  work();
  ::_exit(0);
}

// Until `condition`, at most half a minute; false: it did not come.
template <typename Condition>
bool await(Condition condition) {
  const auto end = Clock::now() + 30s;
  while (!condition()) {
    if (Clock::now() > end) return false;
    std::this_thread::sleep_for(200us);
  }
  return true;
}

TEST(DaemonKill, nobody_notices_and_nothing_is_lost) {
  const bool is_long = std::getenv("SHMQ_LONG") != nullptr;
  const int kills = is_long ? 2000 : 200;
  const char* chosen = std::getenv("SHMQ_SEED");
  const std::uint64_t seed =
      chosen != nullptr ? std::strtoull(chosen, nullptr, 10) : std::random_device{}();
  std::printf("SHMQ_SEED=%llu\n", static_cast<unsigned long long>(seed));
  std::mt19937_64 random{seed};

  RealDaemon daemon;
  daemon.start();
  const auto create = [] {
    return Queue::create("q", {.slots = slots,
                               .arena_bytes = 256_MiB,
                               .durable = true,
                               .groups = {{.name = "now"}, {.name = "late"}}});
  };
  std::optional<Queue> queue;
  ASSERT_TRUE(await([&] {
    auto made = create();
    if (made) queue = std::move(*made);
    return queue.has_value();
  })) << daemon.log();
  auto segment = shm::Segment::open("q", {});
  ASSERT_TRUE(segment);
  const shm::Mark& mark = *(*segment)->mark();

  auto* board = new (::mmap(nullptr, sizeof(Board), PROT_READ | PROT_WRITE,
                            MAP_SHARED | MAP_ANONYMOUS, -1, 0)) Board;
  std::vector<pid_t> children;
  for (int i = 0; i < publishers; ++i) {
    children.push_back(in_child([board, i] { publish(*board, i); }));
  }
  children.push_back(in_child([board] { consume(*board, "now", 0, board->consumed); }));
  children.push_back(
      in_child([board] { consume(*board, "late", lag_messages, board->late_consumed); }));

  std::uint64_t checks = 0;
  std::uint64_t went_back = 0;
  std::uint64_t watermark = 0;
  const auto look = [&] {
    const std::uint64_t now = sync::load_acquire(mark.watermark);
    if (now < watermark) ++went_back;
    watermark = now;
    ++checks;
    return now;
  };
  std::vector<double> restart_ms;
  std::uint64_t most_behind = 0;
  for (int kill = 0; kill < kills; ++kill) {
    std::this_thread::sleep_for(std::chrono::microseconds{random() % 30'000});
    const std::uint64_t before = look();
    daemon.kill();
    const auto killed = Clock::now();
    const std::uint64_t epoch = sync::load_acquire(mark.epoch);
    look();
    daemon.start();
    ASSERT_TRUE(await([&] { return look() > before && sync::load_acquire(mark.epoch) > epoch; }))
        << "kill " << kill << ": the watermark stands still at " << before << "\n"
        << daemon.log();
    restart_ms.push_back(std::chrono::duration<double, std::milli>(Clock::now() - killed).count());
    most_behind = std::max(most_behind, queue->stats().tail.value - watermark);
  }
  ASSERT_TRUE(await([&] { return board->late_consumed.load() > 0; }));
  board->stop.store(true);
  for (const pid_t child : children) {
    int status = 0;
    ASSERT_EQ(::waitpid(child, &status, 0), child);
    EXPECT_EQ(status, 0);
  }
  const std::uint64_t tail = queue->stats().tail.value;
  ASSERT_TRUE(await([&] { return look() == tail; })) << daemon.log();
  EXPECT_EQ(went_back, 0U);
  EXPECT_EQ(board->broken.load(), 0U);
  // The ring holds four times what comes during a restart, unless the machine was busy otherwise.
  const double longest_ms = *std::max_element(restart_ms.begin(), restart_ms.end());
  if (4 * longest_ms / 1e3 * messages_per_second < static_cast<double>(slots)) {
    EXPECT_EQ(board->refused.load(), 0U) << "a publisher met a full ring";
  } else {
    std::printf("a restart took %.0f ms: that publishers never stopped was not checked\n",
                longest_ms);
  }

  // Memory is gone; the second group's backlog is on disk.
  const std::uint64_t late_from = board->late_consumed.load();
  daemon.kill();
  queue.reset();
  segment->reset();
  daemon.forget_memory();
  daemon.start();
  std::optional<Queue> again;
  ASSERT_TRUE(await([&] {
    auto opened = Queue::open("q");
    if (opened) again = std::move(*opened);
    return again.has_value();
  })) << daemon.log();
  auto consumer = again->consumer("late");
  ASSERT_TRUE(consumer);
  Expectation expected;
  std::uint64_t first = ~std::uint64_t{0};
  std::uint64_t count = 0;
  for (;;) {
    auto delivery = consumer->receive(100ms);
    ASSERT_TRUE(delivery) << delivery.error().message();
    if (delivery->empty()) break;
    if (count == 0) first = delivery->seq().value;
    ASSERT_TRUE(expected.is_next(*delivery)) << "seq " << delivery->seq().value;
    ASSERT_EQ(delivery->ack(), Settlement::settled);
    ++count;
  }
  // What was acked within the last second may come again; what was not acked must come.
  EXPECT_LE(first, late_from);
  EXPECT_EQ(first + count, tail);
  for (int i = 0; i < publishers; ++i) {
    EXPECT_EQ(expected.number(i), board->published[i].load());
  }
  std::sort(restart_ms.begin(), restart_ms.end());
  std::printf(
      "%d kills, %llu messages, %llu from disk, %llu looks at the watermark; from kill to progress "
      "%.0f ms (median), %.0f ms at most; %llu messages behind at most\n",
      kills, static_cast<unsigned long long>(tail), static_cast<unsigned long long>(count),
      static_cast<unsigned long long>(checks), restart_ms[restart_ms.size() / 2], restart_ms.back(),
      static_cast<unsigned long long>(most_behind));
  EXPECT_GT(count, 0U);
  EXPECT_EQ(daemon.drain(), 0) << daemon.log();
}

}  // namespace
