// SPDX-License-Identifier: Apache-2.0
//
// The real shmqd and its queues: made, written, killed, recovered from memory and from disk,
// refused, removed. Each with io_uring, with it denied by a seccomp filter, and by plain calls.
#include <gtest/gtest.h>
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include <chrono>
#include <fstream>
#include <nlohmann/json.hpp>
#include <optional>
#include <shmq/shmq.hpp>
#include <thread>

#include "daemon/raw_client.hpp"
#include "durable/real_daemon.hpp"
#include "shm/segment.hpp"

namespace {

using namespace shmq;
using namespace shmq::testing;
using namespace std::chrono_literals;
using nlohmann::json;
namespace fs = std::filesystem;

// Until `condition`, at most half a minute; false: it did not come.
template <typename Condition>
bool await(Condition condition) {
  const auto end = std::chrono::steady_clock::now() + 30s;
  while (!condition()) {
    if (std::chrono::steady_clock::now() > end) return false;
    std::this_thread::sleep_for(1ms);
  }
  return true;
}

enum class How { io_uring, denied, plain };

class Queues : public ::testing::TestWithParam<How> {
 protected:
  void SetUp() override {
    if (GetParam() == How::denied) daemon.deny_io_uring();
    if (GetParam() == How::plain) daemon.set_arguments({"--backend", "plain"});
    start();
  }
  void start() {
    daemon.start();
    ASSERT_TRUE(await([&] { return status().value("state", "") == "serving"; })) << daemon.log();
  }
  json ask(json request) const {
    request["version"] = 1;
    const std::string response = shmq::testing::ask(daemon.control_socket(), request.dump());
    return response.empty() ? json::object() : json::parse(response);
  }
  json status() const { return ask({{"verb", "status"}}); }
  json status_of(const std::string& name) const {
    for (const json& queue : status().value("queues", json::array())) {
      if (queue.at("name") == name) return queue;
    }
    return json::object();
  }
  json create(const std::string& name) const {
    return ask({{"verb", "create"},
                {"queue", name},
                {"options",
                 {{"slots", 1024},
                  {"arena_bytes", 1 << 20},
                  {"chunk_bytes", 4096},
                  {"max_participants", 16},
                  {"window_entries", 64},
                  {"straggler_entries", 64},
                  {"max_groups", 2}}}});
  }
  void publish(const std::string& name, int first, int end) const {
    auto queue = Queue::open(name);
    ASSERT_TRUE(queue) << queue.error().message();
    auto producer = queue->producer();
    ASSERT_TRUE(producer) << producer.error().message();
    for (int i = first; i < end; ++i) {
      const std::string text = "message " + std::to_string(i);
      ASSERT_TRUE(producer->publish(std::as_bytes(std::span{text})));
    }
  }
  // Everything that there is for the default group, acked.
  std::vector<std::string> consume(const std::string& name) const {
    std::vector<std::string> texts;
    auto queue = Queue::open(name);
    if (!queue) return {queue.error().message()};
    auto consumer = queue->consumer("default");
    if (!consumer) return {consumer.error().message()};
    for (;;) {
      auto delivery = consumer->try_receive();
      if (!delivery || delivery->empty()) return texts;
      const auto payload = delivery->payload();
      texts.emplace_back(reinterpret_cast<const char*>(payload.data()), payload.size());
      EXPECT_EQ(delivery->ack(), Settlement::settled);
    }
  }
  bool await_watermark(const std::string& name, std::uint64_t seq) const {
    return await([&] { return status_of(name).value("watermark", 0ULL) >= seq; });
  }
  void forget_memory() { daemon.forget_memory(); }

  RealDaemon daemon;
};

std::vector<std::string> messages(int first, int end) {
  std::vector<std::string> texts;
  for (int i = first; i < end; ++i) texts.push_back("message " + std::to_string(i));
  return texts;
}

TEST_P(Queues, it_says_how_it_writes) {
  EXPECT_EQ(status().at("backend"), GetParam() == How::io_uring ? "io_uring" : "plain");
  const bool says_denied = daemon.log().find("io_uring is not available") != std::string::npos;
  EXPECT_EQ(says_denied, GetParam() == How::denied) << daemon.log();
}

TEST_P(Queues, memory_is_kept_when_the_daemon_is_killed) {
  ASSERT_EQ(create("q").value("ok", false), true);
  publish("q", 0, 100);
  ASSERT_TRUE(await_watermark("q", 100)) << daemon.log();
  daemon.kill();
  publish("q", 100, 200);  // without a daemon
  start();
  ASSERT_TRUE(await_watermark("q", 200)) << daemon.log();
  EXPECT_EQ(consume("q"), messages(0, 200));
  EXPECT_EQ(daemon.drain(), 0);
}

TEST_P(Queues, what_was_below_the_watermark_comes_back_from_disk) {
  ASSERT_EQ(create("q").value("ok", false), true);
  publish("q", 0, 100);
  ASSERT_TRUE(await_watermark("q", 100)) << daemon.log();
  daemon.kill();
  forget_memory();
  start();
  EXPECT_EQ(consume("q"), messages(0, 100)) << daemon.log();
  // And once more, with what was acked since; a drain writes it.
  publish("q", 100, 110);
  EXPECT_EQ(daemon.drain(), 0);
  forget_memory();
  start();
  EXPECT_EQ(consume("q"), messages(100, 110)) << daemon.log();
}

TEST_P(Queues, a_drain_writes_what_was_published_before_it) {
  ASSERT_EQ(create("q").value("ok", false), true);
  publish("q", 0, 500);
  EXPECT_EQ(daemon.drain(), 0);
  EXPECT_FALSE(fs::exists(daemon.control_socket()));
  forget_memory();
  start();
  EXPECT_EQ(consume("q"), messages(0, 500)) << daemon.log();
}

TEST_P(Queues, a_damaged_one_is_refused_beside_a_sound_one) {
  ASSERT_EQ(create("bad").value("ok", false), true);
  ASSERT_EQ(create("good").value("ok", false), true);
  publish("bad", 0, 100);
  ASSERT_TRUE(await_watermark("bad", 100));
  publish("good", 0, 10);
  ASSERT_EQ(daemon.drain(), 0);
  forget_memory();
  const fs::path file = daemon.journal_of("bad") / "journal.0000000000000001";
  {
    // In the second batch: the first one is the incarnation's, the marker follows.
    std::fstream stream{file, std::ios::in | std::ios::out | std::ios::binary};
    std::string bytes((std::istreambuf_iterator<char>(stream)), {});
    const auto at = bytes.find("message 50");
    ASSERT_NE(at, std::string::npos);
    stream.clear();
    stream.seekp(static_cast<std::streamoff>(at));
    stream.put('M');
  }
  start();
  const json bad = status_of("bad");
  EXPECT_EQ(bad.value("state", ""), "refused") << status();
  EXPECT_NE(bad.value("why", "").find("seqs "), std::string::npos) << bad;
  EXPECT_NE(bad.value("remedy", ""), "") << bad;
  EXPECT_EQ(create("bad").value("ok", true), false);
  EXPECT_EQ(consume("good"), messages(0, 10));
  // Given up, it makes room for a new one.
  EXPECT_EQ(ask({{"verb", "remove"}, {"queue", "bad"}}).value("ok", false), true);
  EXPECT_EQ(create("bad").value("ok", false), true);
}

TEST_P(Queues, a_removed_one_leaves_nothing) {
  ASSERT_EQ(create("q").value("ok", false), true);
  EXPECT_EQ(create("q").value("ok", true), false);
  publish("q", 0, 10);
  EXPECT_EQ(ask({{"verb", "remove"}, {"queue", "q"}}).value("ok", false), true);
  EXPECT_FALSE(Queue::open("q"));
  const fs::path directory = daemon.journal_of("q").parent_path();
  EXPECT_TRUE(await([&] {
    return std::distance(fs::directory_iterator{directory}, fs::directory_iterator{}) == 1;
  })) << "the lock alone stays";
  EXPECT_EQ(ask({{"verb", "remove"}, {"queue", "q"}}).value("ok", true), false);
  ASSERT_EQ(create("q").value("ok", false), true);
  EXPECT_EQ(consume("q"), std::vector<std::string>{});
}

TEST_P(Queues, what_a_creation_or_a_removal_left_half_way_is_finished) {
  ASSERT_EQ(create("q").value("ok", false), true);
  ASSERT_EQ(create("gone").value("ok", false), true);
  daemon.kill();
  const fs::path directory = daemon.journal_of("q").parent_path();
  fs::create_directory(directory / "empty");
  fs::create_directory(directory / "begun");
  { std::ofstream{directory / "begun" / "prepare.0000000000000001.tmp"}; }
  fs::rename(directory / "gone", directory / ".removed.gone:1");
  start();
  EXPECT_EQ(status().at("queues").size(), 1U) << status();
  EXPECT_FALSE(Queue::open("gone"));
  EXPECT_TRUE(await([&] {
    return std::distance(fs::directory_iterator{directory}, fs::directory_iterator{}) == 2;
  }));
  for (const char* name : {"empty", "begun", "gone"}) {
    EXPECT_EQ(create(name).value("ok", false), true) << name;
  }
}

TEST_P(Queues, the_journal_of_a_queue_in_use_is_missed_and_memory_stays_as_it_is) {
  ASSERT_EQ(create("q").value("ok", false), true);
  publish("q", 0, 100);
  ASSERT_TRUE(await_watermark("q", 100));
  daemon.kill();
  const fs::path aside = daemon.journal_of("q").parent_path() / "aside.d";
  fs::create_directory(aside);
  for (const auto& entry : fs::directory_iterator{daemon.journal_of("q")}) {
    fs::rename(entry.path(), aside / entry.path().filename());
  }
  const fs::path outside = daemon.journal_of("q").parent_path().parent_path() / "outside";
  fs::rename(aside, outside);
  start();
  EXPECT_EQ(status_of("q").value("state", ""), "refused") << status();
  for (const auto& entry : fs::directory_iterator{outside}) {
    fs::rename(entry.path(), daemon.journal_of("q") / entry.path().filename());
  }
  EXPECT_EQ(ask({{"verb", "reload"}}).value("ok", false), true);
  ASSERT_TRUE(await([&] { return status_of("q").value("state", "") == "ok"; })) << status();
  EXPECT_EQ(consume("q"), messages(0, 100));
}

TEST_P(Queues, a_dead_consumers_participation_is_over_at_once) {
  ASSERT_EQ(create("q").value("ok", false), true);
  publish("q", 0, 1);
  const pid_t child = ::fork();
  if (child == 0) {
    auto queue = Queue::open("q");
    auto consumer = queue->consumer("default");
    auto delivery = consumer->receive(10s);
    ::raise(delivery && !delivery->empty() ? SIGSTOP : SIGKILL);
    ::_exit(0);
  }
  int state = 0;
  ASSERT_EQ(::waitpid(child, &state, WUNTRACED), child);
  ASSERT_TRUE(WIFSTOPPED(state));
  auto segment = shm::Segment::open("q", {});
  ASSERT_TRUE(segment);
  const auto alive = [&] {
    int count = 0;
    for (std::uint32_t i = 0; i < (*segment)->limits().max_participants; ++i) {
      const auto word = sync::load_acquire((*segment)->participant(i).word);
      count += shm::participant_state(word) == shm::ParticipantState::alive ? 1 : 0;
    }
    return count;
  };
  ASSERT_EQ(alive(), 1);
  std::this_thread::sleep_for(1500ms);  // it is watched within a second
  ::kill(child, SIGKILL);
  ASSERT_EQ(::waitpid(child, &state, 0), child);
  EXPECT_TRUE(await([&] { return alive() == 0; })) << "nobody but the daemon looks";
}

TEST_P(Queues, wrong_requests_are_answered_with_what_is_wrong) {
  EXPECT_EQ(shmq::testing::ask(daemon.control_socket(), "{").find("{\"category\""), 0U);
  for (const char* request :
       {R"({"verb":"create","queue":"../q"})", R"({"verb":"create","queue":"q","options":5})",
        R"({"verb":"create","queue":"q","options":{"slots":-1}})", R"({"verb":"create"})",
        R"({"verb":"create","queue":7})", R"({"verb":"remove","queue":"nothing"})",
        R"({"verb":"dance"})", R"({"verb":["status"]})",
        R"({"verb":"create","queue":"q","options":{"slots":1e300}})",
        R"({"verb":"create","queue":"q","options":{"arena_bytes":9223372036854775808}})"}) {
    json object = json::parse(request);
    const json response = ask(object);
    EXPECT_EQ(response.value("ok", true), false) << request << response;
    EXPECT_NE(response.value("why", "") + response.value("what", ""), "") << request;
  }
  EXPECT_TRUE(status().at("queues").empty()) << status();
}

TEST_P(Queues, a_second_daemon_is_refused) {
  RealDaemon other;  // the environment's namespace is its own now
  // Another runtime directory, the same data.
  const std::string data = daemon.journal_of("q").parent_path().parent_path();
  other.set_arguments({"--namespace", daemon.name_space(), "--data-dir", data});
  other.start();
  EXPECT_EQ(WEXITSTATUS(other.wait_for_end()), 1);
  EXPECT_NE(other.log().find("another daemon"), std::string::npos) << other.log();
}

TEST_P(Queues, clients_see_whether_it_serves_or_has_stopped) {
  ASSERT_EQ(create("q").value("ok", false), true);
  auto segment = shm::Segment::open("q", {});
  ASSERT_TRUE(segment);
  const auto state = [&] {
    return static_cast<shm::DaemonState>(sync::load_acquire((*segment)->mark()->daemon_state));
  };
  EXPECT_EQ(state(), shm::DaemonState::serving);
  EXPECT_TRUE((*segment)->lock_is_held(shm::lock_byte_daemon));
  EXPECT_EQ(daemon.drain(), 0);
  EXPECT_EQ(state(), shm::DaemonState::stopped);
  EXPECT_FALSE((*segment)->lock_is_held(shm::lock_byte_daemon));
}

TEST_P(Queues, strangers_may_look_and_nothing_else) {
  if (::geteuid() != 0) GTEST_SKIP() << "needs another user";
  const fs::path socket{daemon.control_socket()};
  fs::permissions(socket.parent_path().parent_path().parent_path(), fs::perms::others_exec,
                  fs::perm_options::add);
  const pid_t child = ::fork();
  if (child == 0) {
    if (::setgid(65534) != 0 || ::setuid(65534) != 0) ::_exit(10);
    if (status().value("state", "") != "serving") ::_exit(11);
    int code = 0;
    for (const char* verb : {"create", "remove", "reload", "drain"}) {
      ++code;
      const json response = ask({{"verb", verb}, {"queue", "q"}});
      if (response.value("ok", true) || response.value("why", "").empty()) ::_exit(code);
    }
    ::_exit(0);
  }
  int state = 0;
  ASSERT_EQ(::waitpid(child, &state, 0), child);
  EXPECT_EQ(WEXITSTATUS(state), 0);
  EXPECT_TRUE(status().at("queues").empty()) << status();
}

TEST_P(Queues, idle_ones_are_left_alone) {
  ASSERT_EQ(create("q").value("ok", false), true);
  publish("q", 0, 10);
  ASSERT_TRUE(await_watermark("q", 10));
  std::this_thread::sleep_for(300ms);  // the closing batch
  const json before = status_of("q");
  std::this_thread::sleep_for(500ms);
  EXPECT_EQ(status_of("q").at("batches"), before.at("batches"));
}

INSTANTIATE_TEST_SUITE_P(Backends, Queues,
                         ::testing::Values(How::io_uring, How::denied, How::plain),
                         [](const auto& choice) {
                           switch (choice.param) {
                             case How::io_uring: return "io_uring";
                             case How::denied: return "denied";
                             default: return "plain";
                           }
                         });

}  // namespace
