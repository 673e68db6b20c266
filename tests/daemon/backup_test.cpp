// SPDX-License-Identifier: Apache-2.0
//
// The real shmqd, backups of its queues while they run, and what it makes of them.
#include <gtest/gtest.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <atomic>
#include <chrono>
#include <filesystem>
#include <fstream>
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
namespace fs = std::filesystem;

template <typename Condition>
bool await(Condition condition) {
  const auto end = std::chrono::steady_clock::now() + 60s;
  while (!condition()) {
    if (std::chrono::steady_clock::now() > end) return false;
    std::this_thread::sleep_for(1ms);
  }
  return true;
}

class BackupTest : public ::testing::Test {
 protected:
  void SetUp() override {
    daemon.start();
    ASSERT_TRUE(await([&] { return daemon_status().has_value(); })) << daemon.log();
    file = daemon.journal_of("x").parent_path() / ".." / "backup";
  }
  static QueueOptions options() {
    return {.slots = 4096,
            .arena_bytes = 4ULL << 20,
            .chunk_bytes = 65536,
            .max_participants = 16,
            .window_entries = 64,
            .durable = true,
            .groups = {{.name = "alone"}, {.name = "many", .mode = GroupMode::shared}},
            .mode = 0640};
  }
  static Queue make(const std::string& name, const QueueOptions& options) {
    auto queue = Queue::create(name, options);
    if (!queue) throw std::runtime_error{queue.error().message()};
    return std::move(*queue);
  }
  static std::string text_of(std::uint64_t i) { return "message " + std::to_string(i); }
  static void publish(Queue& queue, std::uint64_t first, std::uint64_t end) {
    auto producer = queue.producer({.publish_time = true}).value();
    for (std::uint64_t i = first; i < end; ++i) {
      const std::string text = text_of(i);
      ASSERT_TRUE(producer.publish(std::as_bytes(std::span{text})));
    }
  }
  static std::vector<std::string> consume(Queue& queue, const std::string& group,
                                          std::size_t most = 100'000) {
    std::vector<std::string> texts;
    auto consumer = queue.consumer(group).value();
    while (texts.size() < most) {
      auto delivery = consumer.try_receive();
      if (!delivery || delivery->empty()) break;
      texts.emplace_back(delivery->text());
      EXPECT_EQ(delivery->ack(), Settlement::settled);
    }
    return texts;
  }
  static std::vector<std::string> messages(std::uint64_t first, std::uint64_t end) {
    std::vector<std::string> texts;
    for (std::uint64_t i = first; i < end; ++i) texts.push_back(text_of(i));
    return texts;
  }
  std::size_t directories() const {
    std::size_t count = 0;
    for (const auto& entry : fs::directory_iterator{daemon.journal_of("x").parent_path()}) {
      count += entry.is_directory() ? 1 : 0;
    }
    return count;
  }

  RealDaemon daemon;
  fs::path file;
};

TEST_F(BackupTest, a_queue_comes_back_as_it_was_under_another_name) {
  Queue queue = make("q", options());
  publish(queue, 0, 500);
  ASSERT_EQ(consume(queue, "alone", 200).size(), 200U);
  {
    auto consumer = queue.consumer("many").value();
    for (int i = 0; i < 100; ++i) {
      auto delivery = consumer.try_receive();
      ASSERT_TRUE(delivery && !delivery->empty());
      if (i == 99) {
        ASSERT_EQ(delivery->nack(), Settlement::settled);
      } else {
        ASSERT_EQ(delivery->ack(), Settlement::settled);
      }
    }
  }
  ASSERT_TRUE(queue.sync(30s));
  const auto made = backup_queue("q", file);
  ASSERT_TRUE(made) << made.error().message();
  EXPECT_EQ(made->end_seq, 500U);
  EXPECT_EQ(made->messages, 500U);
  EXPECT_EQ(made->groups, 2U);
  publish(queue, 500, 510);  // not in it
  ASSERT_EQ(consume(queue, "alone").size(), 310U);

  const auto verified = verify_backup(file);
  ASSERT_TRUE(verified) << verified.error().message();
  EXPECT_EQ(verified->bytes, fs::file_size(file));
  EXPECT_EQ(verified->queue, "q");

  const auto restored = restore_queue(file, {.queue = "copy"});
  ASSERT_TRUE(restored) << restored.error().message() << daemon.log();
  auto copy = Queue::open("copy");
  ASSERT_TRUE(copy) << copy.error().message();
  EXPECT_NE(copy->info().uuid, queue.info().uuid);
  EXPECT_EQ(copy->info().mode, 0640U);
  EXPECT_EQ(copy->stats().tail.value, 500U);  // no gap: nobody was given a seq beyond
  EXPECT_EQ(consume(*copy, "alone"), messages(200, 500));
  {
    auto consumer = copy->consumer("many").value();
    auto first = consumer.try_receive();
    ASSERT_TRUE(first && !first->empty());
    EXPECT_EQ(first->seq().value, 99U);
    EXPECT_EQ(first->failures(), 1U);
    EXPECT_TRUE(first->publish_time());
    EXPECT_EQ(first->ack(), Settlement::settled);
  }
  publish(*copy, 500, 520);
  EXPECT_EQ(consume(*copy, "alone"), messages(500, 520));
  EXPECT_EQ(consume(queue, "alone").size(), 0U);  // two queues
  ASSERT_TRUE(copy->sync(30s));

  // It is a durable queue like any other.
  daemon.kill();
  daemon.forget_memory();
  daemon.start();
  ASSERT_TRUE(await([&] { return Queue::open("copy").has_value(); })) << daemon.log();
  auto again = Queue::open("copy");
  EXPECT_EQ(consume(*again, "many").size(), 520U - 100);
}

TEST_F(BackupTest, a_backup_of_a_queue_that_runs_is_one_point) {
  Queue queue = make("q", options());
  std::atomic<bool> stop{false};
  std::atomic<std::uint64_t> published{0};
  std::thread writer{[&] {
    auto producer = queue.producer().value();
    while (!stop) {
      const std::string text = text_of(published) + std::string(3000, '.');
      if (producer.publish(std::as_bytes(std::span{text}), {.timeout = 1s})) ++published;
    }
  }};
  std::vector<std::thread> readers;
  for (const char* group : {"alone", "many"}) {
    readers.emplace_back([&, group] {
      auto consumer = queue.consumer(group).value();
      while (!stop) {
        auto delivery = consumer.receive(10ms);
        if (!delivery || delivery->empty()) continue;
        EXPECT_EQ(delivery->ack(), Settlement::settled);
      }
    });
  }
  int made = 0;
  for (int i = 0; i < 10; ++i) {
    const fs::path one = file.string() + std::to_string(i);
    EXPECT_TRUE(await([&, before = published.load()] { return published > before + 300; }));
    const auto info = backup_queue("q", one);
    // Files go and are used again all the time: one may have to give up.
    if (!info) {
      EXPECT_EQ(info.error(), Errc::busy) << info.error().message();
      continue;
    }
    ++made;
    const auto verified = verify_backup(one);
    EXPECT_TRUE(verified) << verified.error().message();
    const std::string name = "copy" + std::to_string(i);
    if (i % 4 != 0) continue;
    const auto restored = restore_queue(one, {.queue = name});
    EXPECT_TRUE(restored) << restored.error().message();
    auto copy = Queue::open(name);
    ASSERT_TRUE(copy);
    EXPECT_EQ(copy->stats().tail.value, info->end_seq);
  }
  stop = true;
  writer.join();
  for (std::thread& reader : readers) reader.join();
  EXPECT_GT(made, 5);
}

TEST_F(BackupTest, what_is_damaged_or_cut_off_makes_nothing) {
  Queue queue = make("q", options());
  publish(queue, 0, 50);
  ASSERT_TRUE(queue.sync(30s));
  ASSERT_TRUE(backup_queue("q", file));
  const std::size_t before = directories();
  std::ifstream in{file, std::ios::binary};
  const std::string whole{std::istreambuf_iterator<char>{in}, {}};
  const fs::path bad = file.string() + ".bad";
  const auto refused = [&](const std::string& bytes) {
    std::ofstream{bad, std::ios::binary} << bytes;
    const auto verified = verify_backup(bad);
    if (verified) return false;
    EXPECT_EQ(verified.error().message().find('\n'), std::string::npos);
    return true;
  };
  for (std::size_t at = 0; at < whole.size(); at += at % 4096 < 512 ? 7 : 509) {
    std::string changed = whole;
    changed[at] = static_cast<char>(changed[at] ^ 0x10);
    EXPECT_TRUE(refused(changed)) << at;
  }
  for (std::size_t length = 0; length < whole.size(); length += 997) {
    EXPECT_TRUE(refused(whole.substr(0, length))) << length;
  }
  EXPECT_TRUE(refused(whole + "x"));
  // Whole pieces of two backups, which no checksum of their own tells apart.
  const fs::path other = file.string() + ".other";
  ASSERT_TRUE(backup_queue("q", other));
  std::ifstream in_other{other, std::ios::binary};
  const std::string head{std::istreambuf_iterator<char>{in_other}, {}};
  EXPECT_TRUE(refused(head.substr(0, 4096) + whole.substr(4096)));
  EXPECT_TRUE(refused(""));
  const auto restored = restore_queue(bad, {.queue = "copy"});
  ASSERT_FALSE(restored);
  std::ofstream{bad, std::ios::binary} << whole.substr(0, whole.size() - 10);
  const auto cut = restore_queue(bad, {.queue = "copy"});
  ASSERT_FALSE(cut);
  EXPECT_EQ(cut.error(), Errc::corrupt) << cut.error().message();
  EXPECT_EQ(directories(), before);
  EXPECT_FALSE(Queue::open("copy"));
}

TEST_F(BackupTest, never_a_second_queue_of_one_name_nor_a_second_file) {
  Queue queue = make("q", options());
  publish(queue, 0, 5);
  ASSERT_TRUE(queue.sync(30s));
  ASSERT_TRUE(backup_queue("q", file));
  EXPECT_EQ(backup_queue("q", file).error(), Errc::already_exists);
  EXPECT_EQ(restore_queue(file).error(), Errc::already_exists);
  EXPECT_EQ(backup_queue("nothing", file.string() + "2").error(), Errc::no_such_queue);
  EXPECT_FALSE(fs::exists(file.string() + "2"));
  ASSERT_TRUE(Queue::create("memory", {.slots = 16, .arena_bytes = 1 << 20, .chunk_bytes = 4096}));
  EXPECT_EQ(restore_queue(file, {.queue = "memory"}).error(), Errc::already_exists);
  ASSERT_TRUE(Queue::remove("q"));
  ASSERT_TRUE(restore_queue(file));
  Queue again = Queue::open("q").value();
  EXPECT_EQ(consume(again, "alone"), messages(0, 5));
  EXPECT_EQ(restore_queue("/dev/null").has_value(), false);
}

TEST_F(BackupTest, the_owner_is_who_restores_it) {
  if (::geteuid() != 0) GTEST_SKIP() << "needs root, to be somebody else";
  daemon.kill();
  const fs::path top = daemon.journal_of("x").parent_path().parent_path().parent_path();
  ASSERT_EQ(::chmod(top.c_str(), 0755), 0);  // for others to reach the sockets
  const fs::path config = top / "shmqd.toml";
  std::ofstream{config} << "[control]\ncreate_group = \"nogroup\"\n";
  daemon.set_arguments({"--config", config.string()});
  daemon.start();
  ASSERT_TRUE(await([&] { return daemon_status().has_value(); })) << daemon.log();
  Queue queue = make("q", options());  // root's
  publish(queue, 0, 5);
  ASSERT_TRUE(queue.sync(30s));
  ASSERT_TRUE(backup_queue("q", file));
  ASSERT_EQ(::chmod(file.c_str(), 0644), 0);
  const pid_t child = ::fork();
  if (child == 0) {
    if (::setgid(65534) != 0 || ::setuid(65534) != 0) ::_exit(3);
    const auto done = restore_queue(file, {.queue = "theirs", .daemon = {.trusted_owners = {0}}});
    ::_exit(done ? 0 : 4);
  }
  int status = 0;
  ASSERT_EQ(::waitpid(child, &status, 0), child);
  ASSERT_EQ(WEXITSTATUS(status), 0) << daemon.log();
  auto theirs = Queue::open("theirs", {.trusted_owners = {65534}});
  ASSERT_TRUE(theirs) << theirs.error().message();
  EXPECT_EQ(theirs->info().owner, 65534U);
}

}  // namespace
