// SPDX-License-Identifier: Apache-2.0
//
// Kills at each state of attach, detach, create, remove, group create and delete, purge, and of
// reclaim itself.
#include <gtest/gtest.h>
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include <filesystem>

#include "support/step_campaign.hpp"

namespace {

using namespace shmq;
using namespace shmq::testing;

std::unique_ptr<SmallQueue> plain_queue() {
  auto small = std::make_unique<SmallQueue>();
  auto producer = small->producer();
  (void)producer.publish("m0");
  return small;
}

void expect_usable(SmallQueue& small) {
  expect_nothing_leaked(small);
  expect_two_laps(small);
}

TEST(StepLife, a_killed_attach_or_detach_leaks_no_entry) {
  for (const bool as_producer : {true, false}) {
    run_campaign({.what = as_producer ? "producer attach, detach" : "consumer attach, detach",
                  .fresh = plain_queue,
                  .prepare = [as_producer](const SmallQueue& small) -> Stepper::Operation {
                    static std::unique_ptr<Queue> queue;
                    queue = std::make_unique<Queue>(std::move(*small.open_again()));
                    return [as_producer] {
                      if (as_producer) {
                        auto producer = queue->producer({.name = "stepped"});
                        if (!producer || !producer->publish("m1")) _exit(1);
                      } else {
                        auto consumer = queue->consumer("default");
                        if (!consumer || consumer->try_receive()->empty()) _exit(1);
                      }
                    };
                  },
                  .check = [](SmallQueue& small, bool) { expect_usable(small); },
                  .states_max = 20});
  }
}

TEST(StepLife, a_killed_group_creation_leaves_a_whole_group_or_none) {
  run_campaign({.what = "group create",
                .fresh = plain_queue,
                .prepare = [](const SmallQueue& small) -> Stepper::Operation {
                  static auto queue = std::move(*small.open_again());
                  return [] {
                    if (!queue.create_group({.name = "g"})) _exit(1);
                  };
                },
                .check =
                    [](SmallQueue& small, bool finished) {
                      const auto groups = small.queue->groups();
                      ASSERT_TRUE(groups.size() == 2 || (!finished && groups.size() == 1));
                      if (groups.size() == 2) {
                        ASSERT_EQ(small.consumer("g").try_receive()->text(), "m0");
                      } else {
                        ASSERT_TRUE(small.queue->create_group({.name = "g"}));
                      }
                      expect_usable(small);
                      for (const char* more : {"h", "i"}) {
                        ASSERT_TRUE(small.queue->create_group({.name = more})) << "an entry leaked";
                      }
                    },
                .states_max = 150});
}

TEST(StepLife, a_killed_group_removal_leaves_the_group_or_its_room) {
  run_campaign({.what = "group remove",
                .fresh =
                    [] {
                      auto small = plain_queue();
                      (void)small->queue->create_group({.name = "g"});
                      return small;
                    },
                .prepare = [](const SmallQueue& small) -> Stepper::Operation {
                  static auto queue = std::move(*small.open_again());
                  return [] {
                    if (!queue.remove_group("g")) _exit(1);
                  };
                },
                .check =
                    [](SmallQueue& small, bool finished) {
                      const auto groups = small.queue->groups();
                      ASSERT_TRUE(groups.size() == 1 || (!finished && groups.size() == 2));
                      if (groups.size() == 2) {
                        ASSERT_TRUE(small.queue->remove_group("g"));
                      }
                      for (const char* more : {"g", "h", "i"}) {
                        ASSERT_TRUE(small.queue->create_group({.name = more})) << "an entry leaked";
                      }
                      expect_usable(small);
                    },
                .states_max = 150});
}

TEST(StepLife, a_killed_purge_can_be_done_again) {
  run_campaign({.what = "purge",
                .fresh =
                    [] {
                      auto small = std::make_unique<SmallQueue>(
                          Overflow::fail, std::vector<GroupOptions>{{.name = "a"}, {.name = "b"}});
                      auto producer = small->producer();
                      for (int i = 0; i < 5; ++i) (void)producer.publish("m");
                      return small;
                    },
                .prepare = [](const SmallQueue& small) -> Stepper::Operation {
                  static auto queue = std::move(*small.open_again());
                  return [] {
                    if (!queue.purge()) _exit(1);
                  };
                },
                .check =
                    [](SmallQueue& small, bool) {
                      ASSERT_TRUE(small.queue->purge());
                      ASSERT_EQ(small.queue->stats().messages_held, 0U);
                      expect_usable(small);
                    }});
}

std::size_t objects_of(const Scratch& scratch) {
  std::size_t count = 0;
  for (const auto& entry : std::filesystem::directory_iterator{"/dev/shm"}) {
    count +=
        entry.path().filename().string().starts_with("shmq." + scratch.name_space + ".") ? 1 : 0;
  }
  return count;
}

TEST(StepLife, a_killed_creator_leaves_a_whole_queue_or_nothing) {
  if (!Stepper::available()) GTEST_SKIP() << "ptrace is refused here";
  QueueOptions options = SmallQueue::options();
  options.window_entries = 16;
  std::uint64_t kills = 0;
  std::uint64_t whole = 0;
  // Creation writes each slot and entry where nobody sees it; states are its system calls and, once
  // it is linked, its stores.
  const auto prepare = [&]() -> Stepper::Operation {
    return [&options] {
      if (!Queue::create("q", options)) _exit(1);
    };
  };
  std::vector<std::uint64_t> states;
  {
    Scratch scratch;
    options.name_space = scratch.name_space;
    states = Stepper{"shmq." + scratch.name_space + ".q", prepare}.record();
  }
  for (const std::uint64_t state : sampled(states, 24)) {
    Scratch scratch;
    options.name_space = scratch.name_space;
    Stepper stepper{"shmq." + scratch.name_space + ".q", prepare};
    stepper.run_for(state);
    stepper.kill();
    ++kills;
    auto opened = Queue::open("q", {.name_space = scratch.name_space});
    if (opened) {
      ++whole;
      ASSERT_TRUE(opened->producer()->publish("m"));
      ASSERT_EQ(opened->consumer("default")->try_receive()->text(), "m");
    } else {
      ASSERT_TRUE(opened.error() == Errc::no_such_queue) << opened.error().message();
      ASSERT_EQ(objects_of(scratch), 0U) << "a killed creator left something";
      ASSERT_TRUE(Queue::create("q", options));
    }
    ASSERT_TRUE(Queue::remove("q", {.name_space = scratch.name_space}));
    ASSERT_EQ(objects_of(scratch), 0U);
  }
  std::printf("create: %llu kills, %llu left a whole queue\n",
              static_cast<unsigned long long>(kills), static_cast<unsigned long long>(whole));
  ASSERT_GT(kills, 10U);
  ASSERT_GT(whole, 0U);
}

TEST(StepLife, a_killed_remover_leaves_the_queue_or_nothing) {
  if (!Stepper::available()) GTEST_SKIP() << "ptrace is refused here";
  std::uint64_t kills = 0;
  const auto prepare = [](const Scratch& scratch) -> Stepper::Operation {
    return [&scratch] {
      if (!Queue::remove("q", {.name_space = scratch.name_space})) _exit(1);
    };
  };
  std::vector<std::uint64_t> states;
  {
    auto small = plain_queue();
    states = Stepper{
        "shmq." + small->scratch.name_space + ".q", [&] {
          return prepare(small->scratch);
        }}.record();
  }
  for (const std::uint64_t state : sampled(states, 24)) {
    auto small = plain_queue();
    const Scratch& scratch = small->scratch;
    Stepper stepper{"shmq." + scratch.name_space + ".q", [&] { return prepare(scratch); }};
    stepper.run_for(state);
    stepper.kill();
    ++kills;
    auto opened = Queue::open("q", {.name_space = scratch.name_space});
    if (opened) {
      ASSERT_EQ(opened->consumer("default")->try_receive()->text(), "m0");
      ASSERT_TRUE(Queue::remove("q", {.name_space = scratch.name_space}));
    } else {
      ASSERT_TRUE(opened.error() == Errc::no_such_queue) << opened.error().message();
    }
    ASSERT_EQ(objects_of(scratch), 0U) << "killed at state " << state;
    QueueOptions options = SmallQueue::options();
    options.name_space = scratch.name_space;
    ASSERT_TRUE(Queue::create("q", options));
    ASSERT_TRUE(Queue::remove("q", {.name_space = scratch.name_space}));
  }
  std::printf("remove: %llu kills\n", static_cast<unsigned long long>(kills));
  ASSERT_GT(kills, 10U);
}

// STEP on STEP: the one who reclaims is killed while it reclaims.
TEST(StepLife, a_killed_reclaimer_leaves_the_rest_to_the_next) {
  run_campaign({.what = "reclaim of a dead producer and a dead consumer",
                .fresh =
                    [] {
                      auto small = std::make_unique<SmallQueue>();
                      const pid_t pid = fork();
                      if (pid == 0) {
                        auto queue = small->open_again();
                        auto producer = queue->producer();
                        auto consumer = queue->consumer("default");
                        for (int i = 0; i < 4; ++i) {
                          (void)producer->publish("m" + std::to_string(i));
                        }
                        std::vector<Delivery> batch(3);
                        (void)consumer->receive_batch(batch);
                        (void)batch[0].ack();
                        raise(SIGKILL);
                      }
                      waitpid(pid, nullptr, 0);
                      return small;
                    },
                .prepare = [](const SmallQueue& small) -> Stepper::Operation {
                  static auto queue = std::move(*small.open_again());
                  return [] {
                    if (queue.reclaim().value() != 2) _exit(1);
                  };
                },
                .check =
                    [](SmallQueue& small, bool) {
                      expect_nothing_leaked(small);
                      ASSERT_EQ(small.queue->reclaim().value(), 0U) << "twice changes nothing";
                      auto consumer = small.consumer();
                      for (int i = 1; i < 4; ++i) {
                        auto delivery = consumer.try_receive();
                        ASSERT_EQ(delivery->text(), "m" + std::to_string(i));
                        ASSERT_EQ(delivery->hand_outs(), i < 3 ? 2U : 1U);
                        ASSERT_EQ(delivery->ack(), Settlement::settled);
                      }
                      consumer.close();
                      expect_usable(small);
                    },
                .states_max = 200});
}

}  // namespace
