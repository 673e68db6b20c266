// SPDX-License-Identifier: Apache-2.0
//
// The engine, killed at each named step of a creation, a removal and a recovery. What was answered
// holds; what was not has happened wholly or not at all; and the name can be used.
#include <gtest/gtest.h>
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include <atomic>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <optional>
#include <shmq/shmq.hpp>

#include "base/clock.hpp"
#include "base/mutant.hpp"
#include "daemon/engine/engine.hpp"
#include "shm/segment.hpp"
#include "support/scratch.hpp"

namespace {

using namespace shmq;
using namespace shmq::testing;
using namespace std::chrono_literals;
namespace fs = std::filesystem;

QueueOptions small() {
  QueueOptions options;
  options.slots = 256;
  options.arena_bytes = 1 << 18;
  options.chunk_bytes = 4096;
  options.max_participants = 8;
  options.max_groups = 2;
  options.window_entries = 64;
  options.straggler_entries = 64;
  return options;
}

// An engine with its loop, driven by hand.
class Driven {
 public:
  Driven(const std::string& name_space, const fs::path& data, std::uint64_t sweep_ns = 100'000'000)
      : backend(*io::Backend::create(io::BackendChoice::automatic, [](const std::string&) {})),
        loop(std::move(*loop::Loop::create(backend))) {
    engine::EngineOptions options;
    options.name_space = name_space;
    options.data_dir = data;
    options.sweep_ns = sweep_ns;
    auto made = engine::Engine::create(
        std::move(options), *loop, backend,
        [](engine::Level, const std::string& sentence) { std::printf("%s\n", sentence.c_str()); });
    if (!made) throw std::runtime_error{made.error().message()};
    engine = std::move(*made);
  }
  template <typename Condition>
  bool until(Condition condition) {
    const auto end = std::chrono::steady_clock::now() + 30s;
    while (!condition()) {
      if (std::chrono::steady_clock::now() > end) return false;
      engine->work(base::clock->monotonic_ns());
      const bool may_sleep = engine->prepare_sleep();
      loop->turn(may_sleep ? base::clock->monotonic_ns() + 5'000'000 : 0);
    }
    return true;
  }
  Result<void> create(const std::string& name) {
    std::optional<Result<void>> outcome;
    engine->create_queue(name, small(), [&](Result<void> result) { outcome = std::move(result); });
    if (!until([&] { return outcome.has_value(); })) return tl::unexpected{Error{Errc::timed_out}};
    return *outcome;
  }
  Result<void> remove(const std::string& name) {
    std::optional<Result<void>> outcome;
    engine->remove_queue(name, [&](Result<void> result) { outcome = std::move(result); });
    return *outcome;
  }
  [[nodiscard]] std::string state_of(const std::string& name) const {
    for (const engine::QueueStatus& queue : engine->status()) {
      if (queue.name == name) return queue.state + queue.why;
    }
    return "";
  }

  io::Backend backend;
  std::unique_ptr<loop::Loop> loop;
  std::unique_ptr<engine::Engine> engine;
};

enum Answer : char { created = 'c', published = 'p', removed = 'r' };

class Crash : public ::testing::Test {
 protected:
  Crash() {
    std::string pattern = (fs::temp_directory_path() / "shmq-crash.XXXXXX").string();
    if (::mkdtemp(pattern.data()) == nullptr) throw std::runtime_error{"mkdtemp failed"};
    data = pattern;
    ::setenv("SHMQ_NAMESPACE", scratch.name_space.c_str(), 1);
  }
  ~Crash() override {
    std::error_code ignored;
    fs::remove_all(data, ignored);
  }

  [[maybe_unused]] static inline const char* target = nullptr;

  // A whole life in a child that dies at `point`, once `arm_after` was answered. Gives what was
  // answered before; nothing if the point was not met.
  template <typename Life>
  std::optional<std::string> die_at(const char* point, Life life) {
    int ends[2];
    if (::pipe(ends) != 0) return std::nullopt;
    const pid_t child = ::fork();
    if (child == 0) {
#ifdef SHMQ_CRASH_POINTS
      target = point;
      base::crash_hook = [](const char* here) {
        if (std::strcmp(here, target) == 0) ::kill(::getpid(), SIGKILL);
      };
#else
      (void)point;
#endif
      Driven driven{scratch.name_space, data};
      life(driven, [&](Answer answer) { EXPECT_EQ(::write(ends[1], &answer, 1), 1); });
      ::_exit(0);
    }
    ::close(ends[1]);
    std::string answers;
    char answer = 0;
    while (::read(ends[0], &answer, 1) == 1) answers.push_back(answer);
    ::close(ends[0]);
    int status = 0;
    ::waitpid(child, &status, 0);
    if (!WIFSIGNALED(status)) return std::nullopt;
    return answers;
  }

  Scratch scratch;
  fs::path data;
};

bool has(const std::string& answers, Answer answer) {
  return answers.find(answer) != std::string::npos;
}

TEST_F(Crash, at_each_step_of_a_creation_and_a_removal) {
#ifndef SHMQ_CRASH_POINTS
  GTEST_SKIP() << "built without crash points";
#endif
  int met = 0;
  for (const char* point :
       {"daemon.directory_made", "daemon.segment_made", "daemon.journal_begun",
        "daemon.epoch_begun", "daemon.generation_set", "daemon.asleep", "journal.before_write",
        "journal.before_sync", "journal.before_watermark", "mark.before_watermark", "daemon.buried",
        "remove.marked", "remove.between_unlinks", "daemon.removed"}) {
    SCOPED_TRACE(point);
    const auto answers = die_at(point, [](Driven& driven, auto tell) {
      if (driven.create("q")) tell(created);
      if (driven.remove("q")) tell(removed);
    });
    ASSERT_TRUE(answers) << "the point was not met";
    ++met;
    Driven again{scratch.name_space, data};
    ASSERT_TRUE(again.until([&] { return again.engine->is_ready(); }));
    const std::string state = again.state_of("q");
    const bool is_buried = std::strcmp(point, "daemon.buried") == 0 ||
                           std::strncmp(point, "remove.", 7) == 0 ||
                           std::strcmp(point, "daemon.removed") == 0;
    if (is_buried || has(*answers, removed)) {
      EXPECT_EQ(state, "");
    } else if (has(*answers, created)) {
      EXPECT_EQ(state, "ok");
    } else {
      EXPECT_TRUE(state.empty() || state == "ok") << state;
    }
    // Wholly or not at all, and the name is free for a new one in the end.
    if (state == "ok") {
      ASSERT_TRUE(again.until([&] { return Queue::open("q").has_value(); }));
      EXPECT_TRUE(again.remove("q"));
    }
    EXPECT_FALSE(Queue::open("q"));
    const auto made = again.create("q");
    EXPECT_TRUE(made) << made.error().message();
    EXPECT_TRUE(Queue::open("q"));
    EXPECT_TRUE(again.remove("q"));
  }
  EXPECT_EQ(met, 14);
}

// What a daemon that was killed while it rebuilt a segment leaves: some of it is there.
TEST_F(Crash, a_segment_that_was_not_rebuilt_to_the_end_is_thrown_away) {
  {
    Driven driven{scratch.name_space, data};
    ASSERT_TRUE(driven.create("q"));
    auto queue = Queue::open("q");
    ASSERT_TRUE(queue);
    auto producer = queue->producer();
    ASSERT_TRUE(producer);
    for (int i = 0; i < 10; ++i) {
      ASSERT_TRUE(producer->publish(std::as_bytes(std::span{"x", 1})));
    }
    ASSERT_TRUE(driven.until([&] { return driven.engine->status()[0].figures.watermark == 10; }));
    auto segment = shm::Segment::open("q", {});
    ASSERT_TRUE(segment);
    sync::store_release((*segment)->control().daemon_generation, 0);
    for (std::uint64_t i = 0; i < (*segment)->limits().slots; ++i) {
      sync::store_release((*segment)->slots()[i].low, i - (*segment)->limits().slots);
    }
  }
  Driven again{scratch.name_space, data};
  ASSERT_TRUE(again.until([&] { return again.engine->is_ready(); }));
  ASSERT_EQ(again.state_of("q"), "ok");
  const auto peeked = Queue::open("q")->peek(Seq{0}, 10);
  ASSERT_TRUE(peeked) << peeked.error().message();
  EXPECT_EQ(peeked->size(), 10U);
}

TEST_F(Crash, what_comes_between_the_flag_and_the_sleep_is_seen) {
#ifndef SHMQ_CRASH_POINTS
  GTEST_SKIP() << "built without crash points";
#else
  // No sweep comes to the rescue.
  Driven driven{scratch.name_space, data, 3'600'000'000'000};
  ASSERT_TRUE(driven.create("q"));
  auto queue = Queue::open("q");
  ASSERT_TRUE(queue);
  static std::optional<Producer> producer;
  auto made = queue->producer();
  ASSERT_TRUE(made);
  producer = std::move(*made);
  ASSERT_TRUE(driven.until([&] {
    return driven.engine->next_timer_ns() > base::clock->monotonic_ns() + 1'000'000'000;
  }));
  static int published = 0;
  published = 0;
  base::crash_hook = [](const char* here) {
    if (std::strcmp(here, "daemon.asleep") != 0 || published > 0) return;
    ++published;
    EXPECT_TRUE(producer->publish(std::as_bytes(std::span{"x", 1})));
  };
  driven.engine->rung("q");  // it wakes, finds nothing, and goes to sleep
  const auto end = std::chrono::steady_clock::now() + 5s;
  driven.until([&] {
    return driven.engine->status()[0].figures.watermark == 1 ||
           std::chrono::steady_clock::now() > end;
  });
  base::crash_hook = nullptr;
  producer.reset();
  EXPECT_EQ(published, 1);
  EXPECT_EQ(driven.engine->status()[0].figures.watermark, 1U);
#endif
}

TEST_F(Crash, nobody_waits_for_a_queue_that_is_being_rebuilt) {
#ifndef SHMQ_CRASH_POINTS
  GTEST_SKIP() << "built without crash points";
#else
  {
    Driven driven{scratch.name_space, data};
    ASSERT_TRUE(driven.create("slow"));
  }
  for (const auto& entry : fs::directory_iterator{"/dev/shm"}) {
    const std::string name = entry.path().filename();
    if (name.starts_with("shmq." + scratch.name_space + ".")) fs::remove(entry.path());
  }
  static std::atomic<bool> is_there;
  static std::atomic<bool> may_go_on;
  is_there = may_go_on = false;
  base::crash_hook = [](const char* reached) {
    if (std::strcmp(reached, "daemon.before_restore") != 0) return;
    is_there = true;
    is_there.notify_all();
    may_go_on.wait(false);
  };
  {
    Driven driven{scratch.name_space, data};
    driven.engine->work(base::clock->monotonic_ns());
    is_there.wait(false);
    EXPECT_EQ(driven.state_of("slow"), "recovering");
    EXPECT_FALSE(driven.engine->is_ready());
    const auto busy = driven.remove("slow");
    ASSERT_FALSE(busy);
    EXPECT_EQ(busy.error(), Errc::busy);
    ASSERT_TRUE(driven.create("quick"));
    EXPECT_EQ(driven.state_of("slow"), "recovering");
    may_go_on = true;
    may_go_on.notify_all();
    EXPECT_TRUE(driven.until([&] { return driven.engine->is_ready(); }));
    EXPECT_EQ(driven.state_of("slow"), "ok");
  }
  base::crash_hook = nullptr;
#endif
}

TEST_F(Crash, at_each_step_of_a_recovery) {
#ifndef SHMQ_CRASH_POINTS
  GTEST_SKIP() << "built without crash points";
#endif
  {
    Driven driven{scratch.name_space, data};
    ASSERT_TRUE(driven.create("q"));
    auto queue = Queue::open("q");
    ASSERT_TRUE(queue);
    auto producer = queue->producer();
    ASSERT_TRUE(producer);
    ASSERT_TRUE(producer->publish(std::as_bytes(std::span{"x", 1})));
    ASSERT_TRUE(driven.until([&] { return driven.engine->status()[0].figures.watermark == 1; }));
  }
  for (const bool memory_is_gone : {false, true}) {
    for (const char* point :
         {"daemon.before_restore", "daemon.epoch_begun", "daemon.generation_set",
          "journal.before_write", "journal.before_sync", "journal.before_watermark"}) {
      if (!memory_is_gone && std::strcmp(point, "daemon.before_restore") == 0) continue;
      SCOPED_TRACE(std::string{point} + (memory_is_gone ? ", memory gone" : ", memory kept"));
      if (memory_is_gone) {
        for (const auto& entry : fs::directory_iterator{"/dev/shm"}) {
          const std::string name = entry.path().filename();
          if (name.starts_with("shmq." + scratch.name_space + ".")) fs::remove(entry.path());
        }
      }
      ASSERT_TRUE(die_at(point, [](Driven& driven, auto) {
        driven.until([&] {
          const auto all = driven.engine->status();
          return !all.empty() && all[0].figures.writer.batches > 0;
        });
      })) << "the point was not met";
      Driven again{scratch.name_space, data};
      ASSERT_TRUE(again.until([&] { return again.state_of("q") == "ok"; })) << again.state_of("q");
      EXPECT_GE(again.engine->status()[0].figures.watermark, 1U);
      ASSERT_TRUE(again.until([&] { return Queue::open("q").has_value(); }));
      auto queue = Queue::open("q");
      const auto peeked = queue->peek(Seq{0}, 1);
      ASSERT_TRUE(peeked) << peeked.error().message();
      ASSERT_EQ(peeked->size(), 1U);
      EXPECT_EQ(peeked->at(0).seq.value, 0U);
    }
  }
}

}  // namespace
