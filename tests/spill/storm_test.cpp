// SPDX-License-Identifier: Apache-2.0
//
// Producers, consumers of both modes, and the journal's writer at once, on a ring so small that all
// groups fall behind and catch up again and again. Each group sees each message, whole, in order
// where that is promised. SHMQ_SEED=n; SHMQ_LONG=1: a minute instead of two seconds.
#include <gtest/gtest.h>

#include <atomic>
#include <cstdlib>
#include <cstring>
#include <map>
#include <mutex>
#include <random>
#include <thread>

#include "spill/numbered.hpp"

namespace {

using namespace shmq;
using namespace shmq::testing;
using namespace std::chrono_literals;

constexpr int producers = 2;

struct Numbered {
  std::uint64_t producer;
  std::uint64_t number;
};

// Of a length and a filling that follow from what it is.
std::string make(int producer, std::uint64_t number) {
  const Numbered head{static_cast<std::uint64_t>(producer), number};
  std::string text(sizeof(head) + (number * 31 + static_cast<std::uint64_t>(producer)) % 900,
                   static_cast<char>('a' + number % 26));
  std::memcpy(text.data(), &head, sizeof(head));
  return text;
}

class Storm {
 public:
  explicit Storm(std::uint64_t seed) : seed_(seed) {}

  void run(std::chrono::nanoseconds time) {
    std::vector<std::thread> threads;
    std::thread writer{[this] { write(); }};
    for (int i = 0; i < producers; ++i) threads.emplace_back([this, i] { produce(i); });
    std::vector<std::thread> consumers;
    consumers.emplace_back([this] { consume_in_order(); });
    for (std::uint64_t i = 0; i < 3; ++i) consumers.emplace_back([this, i] { consume_shared(i); });
    std::this_thread::sleep_for(time);
    stop_ = true;
    for (std::thread& thread : threads) thread.join();
    tail_ = journaled_.open().stats().tail.value;
    for (std::thread& thread : consumers) thread.join();
    done_ = true;
    writer.join();
  }

  std::atomic<std::uint64_t> in_order{0};
  std::atomic<std::uint64_t> shared{0};
  std::atomic<std::uint64_t> far_behind{0};
  std::vector<std::string> faults;

  [[nodiscard]] std::uint64_t tail() const { return tail_; }

 private:
  void fail(std::string fault) {
    const std::lock_guard guard{mutex_};
    if (faults.size() < 20) faults.push_back(std::move(fault));
    broken_ = true;
  }
  void write() {
    while (!done_) {
      journaled_.pump();
      std::this_thread::yield();
    }
  }
  void produce(int self) {
    auto queue = journaled_.open();
    auto producer = std::move(queue.producer().value());
    for (std::uint64_t number = 0; !stop_; ++number) {
      const auto published = producer.publish(make(self, number), {.timeout = 20s});
      if (!published) return fail("publish: " + make_error_code(published.code()).message());
    }
  }
  bool is_whole(const Delivery& delivery, Numbered& head) {
    if (delivery.payload().size() < sizeof(head)) return false;
    std::memcpy(&head, delivery.payload().data(), sizeof(head));
    return head.producer < producers &&
           delivery.text() == make(static_cast<int>(head.producer), head.number);
  }
  void consume_in_order() {
    std::mt19937_64 random{seed_};
    auto queue = journaled_.open();
    auto consumer = std::make_unique<Consumer>(std::move(queue.consumer("one").value()));
    std::uint64_t next = 0;
    std::uint64_t numbers[producers] = {};
    while (!broken_) {
      if (tail_ != unknown && next >= tail_) return;
      if (random() % 2000 == 0) std::this_thread::sleep_for(20ms);
      auto delivery = consumer->receive(50ms);
      if (!delivery) return fail("one: " + delivery.error().message());
      if (delivery->empty()) continue;
      Numbered head{};
      if (!is_whole(*delivery, head)) return fail("one: not whole");
      if (delivery->seq().value != next) {
        return fail("one: seq " + std::to_string(delivery->seq().value) + " for " +
                    std::to_string(next));
      }
      if (random() % 300 == 0) {
        (void)delivery->release();
        continue;
      }
      if (head.number != numbers[head.producer]) return fail("one: out of order");
      if (queue.stats().head.value > next + 200) ++far_behind;
      if (delivery->ack() != Settlement::settled) return fail("one: lost");
      ++numbers[head.producer];
      ++next;
      ++in_order;
      if (random() % 5000 == 0) {
        *delivery = {};
        consumer.reset();
        consumer = std::make_unique<Consumer>(std::move(queue.consumer("one").value()));
      }
    }
  }
  void consume_shared(std::uint64_t self) {
    std::mt19937_64 random{seed_ * 31 + self};
    auto queue = journaled_.open();
    auto consumer = std::move(queue.consumer("many").value());
    std::vector<Delivery> held;
    while (!broken_) {
      if (tail_ != unknown && shared >= tail_) break;
      if (random() % 3000 == 0) std::this_thread::sleep_for(30ms);
      auto delivery = consumer.receive(5ms);
      if (!delivery) return fail("many: " + delivery.error().message());
      if (!delivery->empty()) held.push_back(std::move(*delivery));
      while (held.size() > 12 || (!held.empty() && (random() % 3 == 0 || tail_ != unknown))) {
        const std::size_t at = random() % held.size();
        Delivery each = std::move(held[at]);
        held.erase(held.begin() + static_cast<std::ptrdiff_t>(at));
        Numbered head{};
        if (!is_whole(each, head)) return fail("many: not whole");
        if (random() % 50 == 0) {
          if (each.release() != Settlement::settled) return fail("many: lost at release");
          continue;
        }
        const std::uint64_t seq = each.seq().value;
        if (each.ack() != Settlement::settled) return fail("many: lost at ack");
        const std::lock_guard guard{mutex_};
        if (seq >= seen_.size()) seen_.resize(seq + 1000);
        if (seen_[seq]) {
          broken_ = true;
          faults.push_back("many: seq " + std::to_string(seq) + " twice");
          return;
        }
        seen_[seq] = true;
        ++shared;
      }
    }
  }

  static constexpr std::uint64_t unknown = ~std::uint64_t{0};
  const std::uint64_t seed_;
  JournaledQueue journaled_{
      spill_options({{.name = "one", .mode = GroupMode::exclusive, .lease = 0s},
                     {.name = "many", .mode = GroupMode::shared, .lease = 0s}})};
  std::atomic<bool> stop_{false};
  std::atomic<bool> done_{false};
  std::atomic<bool> broken_{false};
  std::atomic<std::uint64_t> tail_{unknown};
  std::mutex mutex_;
  std::vector<bool> seen_;
};

TEST(SpillStorm, each_group_sees_each_message_whole) {
  const char* chosen = std::getenv("SHMQ_SEED");
  const std::uint64_t seed =
      chosen != nullptr ? std::strtoull(chosen, nullptr, 10) : std::random_device{}();
  std::printf("SHMQ_SEED=%llu\n", static_cast<unsigned long long>(seed));
  Storm storm{seed};
  storm.run(std::getenv("SHMQ_LONG") != nullptr ? 60s : 2s);
  for (const std::string& fault : storm.faults) ADD_FAILURE() << fault;
  EXPECT_EQ(storm.in_order.load(), storm.tail());
  EXPECT_EQ(storm.shared.load(), storm.tail());
  std::printf("%llu messages; %llu were read from far behind the ring\n",
              static_cast<unsigned long long>(storm.tail()),
              static_cast<unsigned long long>(storm.far_behind.load()));
}

}  // namespace
