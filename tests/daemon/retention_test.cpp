// SPDX-License-Identifier: Apache-2.0
//
// The real shmqd and what it lets go: journal files by retention and at the limit of the disk,
// groups that nobody uses.
#include <gtest/gtest.h>

#include <chrono>
#include <nlohmann/json.hpp>
#include <shmq/shmq.hpp>
#include <thread>

#include "daemon/raw_client.hpp"
#include "durable/real_daemon.hpp"

namespace {

using namespace shmq;
using namespace shmq::testing;
using namespace std::chrono_literals;
using nlohmann::json;

template <typename Condition>
bool await(Condition condition) {
  const auto end = std::chrono::steady_clock::now() + 60s;
  while (!condition()) {
    if (std::chrono::steady_clock::now() > end) return false;
    std::this_thread::sleep_for(1ms);
  }
  return true;
}

class Retention : public ::testing::Test {
 protected:
  void SetUp() override { restart(); }
  void restart() {
    daemon.start();
    ASSERT_TRUE(await([&] { return status().value("state", "") == "serving"; })) << daemon.log();
  }
  json status() const {
    const std::string response =
        shmq::testing::ask(daemon.control_socket(), R"({"version": 1, "verb": "status"})");
    return response.empty() ? json::object() : json::parse(response);
  }
  std::uint64_t figure(const std::string& name) const {
    for (const json& queue : status().value("queues", json::array())) {
      if (queue.at("name") == "q") return queue.value(name, std::uint64_t{0});
    }
    return 0;
  }
  static QueueOptions options() {
    return {.slots = 4096,
            .arena_bytes = 4ULL << 20,
            .chunk_bytes = 65536,
            .max_participants = 16,
            .max_message_bytes = 65536,
            .durable = true};
  }
  static Queue make(const QueueOptions& options) {
    auto queue = Queue::create("q", options);
    if (!queue) throw std::runtime_error{queue.error().message()};
    return std::move(*queue);
  }
  // Gives how many were published before there was no room for so long.
  static std::uint64_t publish(Producer& producer, std::uint64_t count,
                               std::chrono::nanoseconds timeout = 30s) {
    const std::vector<std::byte> payload(16'000);
    for (std::uint64_t i = 0; i < count; ++i) {
      const auto end = std::chrono::steady_clock::now() + timeout;
      // A queue that drops waits for nobody, also where nothing is on disk yet that may go.
      while (!producer.publish(payload, {.timeout = timeout})) {
        if (std::chrono::steady_clock::now() >= end) return i;
      }
    }
    return count;
  }
  static std::uint64_t consume(Consumer& consumer, std::uint64_t count) {
    for (std::uint64_t i = 0; i < count; ++i) {
      auto delivery = consumer.receive(30s);
      if (!delivery || delivery->empty() || delivery->ack() != Settlement::settled) return i;
    }
    return count;
  }

  RealDaemon daemon;
};

TEST_F(Retention, files_stay_as_chosen_and_go_when_it_is_over) {
  QueueOptions wanted = options();
  wanted.retention = {.messages = 1000};
  Queue queue = make(wanted);
  EXPECT_EQ(queue.info().retention.messages, 1000U);
  auto producer = queue.producer();
  auto consumer = queue.consumer("default");
  ASSERT_TRUE(producer && consumer);
  for (int round = 0; round < 6; ++round) {
    ASSERT_EQ(publish(*producer, 200), 200U);
    ASSERT_EQ(consume(*consumer, 200), 200U);
  }
  ASSERT_TRUE(queue.sync(30s));
  EXPECT_LE(figure("first_retained"), 200U);
  for (int round = 0; round < 45; ++round) {
    ASSERT_EQ(publish(*producer, 200), 200U);
    ASSERT_EQ(consume(*consumer, 200), 200U);
  }
  ASSERT_TRUE(queue.sync(30s));
  EXPECT_TRUE(await([&] { return figure("first_retained") > 2000; }));
  EXPECT_LE(figure("first_retained"), 51U * 200 - 1000);
  EXPECT_EQ(queue.stats().dropped_total, 0U);
}

TEST_F(Retention, at_the_limit_publishers_wait_until_consumers_have_acked) {
  QueueOptions wanted = options();
  wanted.arena_bytes = 32ULL << 20;  // memory has more room than the disk
  wanted.max_disk_bytes = 8ULL << 20;
  Queue queue = make(wanted);
  auto producer = queue.producer();
  auto consumer = queue.consumer("default");
  ASSERT_TRUE(producer && consumer);
  const std::uint64_t most = wanted.arena_bytes / 16'000;
  std::uint64_t published = 0;
  const bool is_full = await([&] {
    published += publish(*producer, most, 100ms);
    return published > most || status().at("queues").at(0).at("state") == "no_space";
  });
  ASSERT_TRUE(is_full) << daemon.log() << published << status().dump();
  EXPECT_LE(figure("disk_bytes"), wanted.max_disk_bytes);
  EXPECT_GT(figure("lag"), 0U);
  ASSERT_EQ(consume(*consumer, published), published);
  EXPECT_TRUE(queue.sync(30s)) << status().dump();
  EXPECT_LE(figure("disk_bytes"), wanted.max_disk_bytes);
  EXPECT_EQ(queue.stats().dropped_total, 0U);
}

TEST_F(Retention, at_the_limit_drop_oldest_drops_and_counts) {
  QueueOptions wanted = options();
  wanted.arena_bytes = 32ULL << 20;
  wanted.max_disk_bytes = 8ULL << 20;
  wanted.overflow = Overflow::drop_oldest;
  wanted.groups = {{.name = "a"}, {.name = "b", .mode = GroupMode::shared}};
  Queue queue = make(wanted);
  auto producer = queue.producer();
  ASSERT_TRUE(producer);
  // More than the disk has room for, less than the ring; nobody acks.
  ASSERT_EQ(publish(*producer, 1800), 1800U) << daemon.log();
  ASSERT_TRUE(queue.sync(30s)) << daemon.log() << status().dump();
  EXPECT_LE(figure("disk_bytes"), wanted.max_disk_bytes);
  EXPECT_GT(figure("dropped_for_disk"), 0U) << daemon.log() << status().dump();
  auto reader = queue.consumer("a");
  ASSERT_TRUE(reader);
  std::uint64_t seen = 0;
  for (;;) {
    auto next = reader->receive(0s);
    if (!next || next->empty()) break;
    EXPECT_EQ(next->ack(), Settlement::settled);
    ++seen;
  }
  for (const GroupInfo& group : queue.groups()) {
    if (group.name == "a") {
      EXPECT_EQ(seen + group.dropped_total, 1800U);
    }
  }
}

TEST_F(Retention, a_group_without_consumers_is_removed_and_counted) {
  QueueOptions wanted = options();
  wanted.groups = {{.name = "keeps"},
                   {.name = "used", .expire_idle = 1s},
                   {.name = "idle", .mode = GroupMode::shared, .expire_idle = 1s}};
  Queue queue = make(wanted);
  auto producer = queue.producer();
  auto used = queue.consumer("used");
  ASSERT_TRUE(producer && used);
  ASSERT_EQ(publish(*producer, 5), 5U);
  EXPECT_TRUE(await([&] { return figure("expired_groups") == 1; })) << daemon.log();
  EXPECT_NE(daemon.log().find("group 'idle' was removed"), std::string::npos) << daemon.log();
  std::vector<std::string> names;
  for (const GroupInfo& group : queue.groups()) names.push_back(group.name);
  EXPECT_EQ(names, (std::vector<std::string>{"keeps", "used"}));
  // The choice outlasts the memory.
  ASSERT_TRUE(queue.sync(30s));
  used->close();
  EXPECT_TRUE(await([&] { return figure("expired_groups") == 2; })) << daemon.log();
  EXPECT_EQ(queue.groups().size(), 1U);
}

}  // namespace
