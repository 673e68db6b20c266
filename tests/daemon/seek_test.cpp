// SPDX-License-Identifier: Apache-2.0
//
// Groups that begin, and begin again, at a seq or a time, with the real shmqd.
#include <gtest/gtest.h>

#include <chrono>
#include <shmq/shmq.hpp>
#include <thread>

#include "durable/real_daemon.hpp"
#include "journal/seek_time.hpp"

namespace {

using namespace shmq;
using namespace shmq::testing;
using namespace std::chrono_literals;
using Clock = std::chrono::system_clock;

template <typename Condition>
bool await(Condition condition) {
  const auto end = std::chrono::steady_clock::now() + 60s;
  while (!condition()) {
    if (std::chrono::steady_clock::now() > end) return false;
    std::this_thread::sleep_for(1ms);
  }
  return true;
}

class Seek : public ::testing::Test {
 protected:
  void SetUp() override {
    daemon.start();
    ASSERT_TRUE(await([&] { return daemon_status().has_value(); })) << daemon.log();
    queue.emplace(make("q", true));
  }
  static Queue make(const std::string& name, bool durable) {
    auto made = Queue::create(
        name, {.slots = 4096,
               .arena_bytes = 1ULL << 20,
               .chunk_bytes = 65536,
               .max_groups = 8,
               .max_participants = 8,
               .window_entries = 64,
               .durable = durable,
               .groups = {{.name = "g", .mode = GroupMode::shared}, {.name = "holds"}}});
    if (!made) throw std::runtime_error{made.error().message()};
    return std::move(*made);
  }
  static void publish(Queue& queue, int count, bool with_time = false) {
    auto producer = queue.producer({.publish_time = with_time}).value();
    for (int i = 0; i < count; ++i) {
      const std::string text = "m";
      ASSERT_TRUE(producer.publish(std::as_bytes(std::span{text})));
    }
  }
  static std::vector<std::uint64_t> consume(Consumer& consumer) {
    std::vector<std::uint64_t> seqs;
    for (;;) {
      auto delivery = consumer.try_receive();
      if (!delivery || delivery->empty()) return seqs;
      seqs.push_back(delivery->seq().value);
      EXPECT_EQ(delivery->ack(), Settlement::settled);
    }
  }
  static std::vector<std::uint64_t> seqs(std::uint64_t first, std::uint64_t end) {
    std::vector<std::uint64_t> all;
    for (; first < end; ++first) all.push_back(first);
    return all;
  }
  // A moment that is behind all that was written and before all that will be.
  Clock::time_point moment_between() {
    EXPECT_TRUE(queue->sync(30s));
    const auto moment = Clock::now();
    std::this_thread::sleep_for(2ms);  // nothing depends on it but that the clock moves
    return moment;
  }

  RealDaemon daemon;
  std::optional<Queue> queue;
};

TEST_F(Seek, a_group_goes_back_and_on) {
  publish(*queue, 20);
  auto before = queue->consumer("g").value();
  ASSERT_EQ(consume(before), seqs(0, 20));
  publish(*queue, 1);
  auto held = before.try_receive();
  ASSERT_TRUE(held && !held->empty());
  const auto begun = queue->seek_group("g", StartAt::at({5}));
  ASSERT_TRUE(begun) << begun.error().message();
  EXPECT_EQ(begun->value, 5U);
  // The late ack loses, and the consumer is told.
  EXPECT_EQ(held->ack(), Settlement::lease_lost);
  EXPECT_EQ(before.try_receive().error(), Errc::removed);
  auto after = queue->consumer("g").value();
  EXPECT_EQ(consume(after), seqs(5, 21));
  std::size_t named_g = 0;
  for (const GroupInfo& group : queue->groups()) named_g += group.name == "g" ? 1 : 0;
  EXPECT_EQ(named_g, 1U);
  publish(*queue, 5);
  ASSERT_TRUE(queue->seek_group("g", StartAt::latest()));
  publish(*queue, 2);
  auto last = queue->consumer("g").value();
  EXPECT_EQ(consume(last), seqs(26, 28));
  EXPECT_EQ(queue->seek_group("nobody", StartAt::latest()).error(), Errc::no_such_group);
  EXPECT_EQ(queue->seek_group("g", StartAt::at({99})).error(), Errc::invalid_argument);

  // And outlasts memory.
  ASSERT_TRUE(queue->seek_group("g", StartAt::at({10})));
  ASSERT_TRUE(queue->sync(30s));
  daemon.kill();
  daemon.forget_memory();
  daemon.start();
  ASSERT_TRUE(await([&] { return Queue::open("q").has_value(); })) << daemon.log();
  auto again = Queue::open("q").value();
  auto reader = again.consumer("g").value();
  EXPECT_EQ(consume(reader), seqs(10, 28));
}

TEST_F(Seek, a_time_is_found_in_the_journal) {
  std::vector<Clock::time_point> moments;
  for (int i = 0; i < 5; ++i) {
    moments.push_back(moment_between());
    publish(*queue, 100);
  }
  moments.push_back(moment_between());
  for (std::uint64_t i = 0; i < moments.size(); ++i) {
    const auto found = queue->find(StartAt::since(moments[i]));
    ASSERT_TRUE(found) << found.error().message();
    EXPECT_EQ(found->value, i * 100);
  }
  EXPECT_EQ(queue->find(StartAt::since(Clock::now() - 1h))->value, 0U);
  EXPECT_EQ(queue->find(StartAt::since(Clock::now() + 1h))->value, 500U);
  ASSERT_TRUE(queue->create_group({.name = "new", .from = StartAt::since(moments[3])}));
  auto consumer = queue->consumer("new").value();
  EXPECT_EQ(consume(consumer), seqs(300, 500));
  ASSERT_TRUE(queue->seek_group("new", StartAt::since(moments[1])));
  auto after = queue->consumer("new").value();
  EXPECT_EQ(consume(after), seqs(100, 500));
}

TEST_F(Seek, a_time_is_found_in_the_right_one_of_many_files) {
  // 60,000 bytes a message: 1 MiB, then 2 MiB, ... are full soon; nobody acks but the ring holds
  // all.
  auto many = Queue::create(
      "many", {.slots = 4096, .arena_bytes = 32ULL << 20, .max_participants = 8, .durable = true});
  ASSERT_TRUE(many) << many.error().message();
  auto producer = many->producer().value();
  const std::vector<std::byte> payload(60'000);
  std::vector<Clock::time_point> moments;
  for (int i = 0; i < 400; ++i) {
    if (i % 40 == 0) {
      ASSERT_TRUE(many->sync(30s));
      moments.push_back(Clock::now());
      std::this_thread::sleep_for(2ms);
    }
    ASSERT_TRUE(producer.publish(payload));
  }
  ASSERT_TRUE(many->sync(30s));
  for (std::uint64_t i = 0; i < moments.size(); ++i) {
    const auto found = many->find(StartAt::since(moments[i]));
    ASSERT_TRUE(found) << found.error().message();
    EXPECT_EQ(found->value, i * 40);
  }
}

TEST_F(Seek, a_transient_queue_knows_times_by_its_messages) {
  Queue memory = make("memory", false);
  publish(memory, 10);
  EXPECT_EQ(memory.find(StartAt::since(Clock::now() - 1h)).error(), Errc::invalid_argument);
  publish(memory, 10, true);
  std::this_thread::sleep_for(2ms);
  const auto moment = Clock::now();
  publish(memory, 10, true);
  EXPECT_EQ(memory.find(StartAt::since(moment))->value, 20U);
  EXPECT_EQ(memory.find(StartAt::since(Clock::now() + 1h))->value, 30U);
  ASSERT_TRUE(memory.seek_group("g", StartAt::since(moment)));
  auto consumer = memory.consumer("g").value();
  EXPECT_EQ(consume(consumer), seqs(20, 30));
}

}  // namespace
