// SPDX-License-Identifier: Apache-2.0
#include <gtest/gtest.h>
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include <functional>
#include <map>
#include <thread>

#include "support/small_queue.hpp"

namespace {

using namespace shmq;
using namespace std::chrono_literals;
using shmq::testing::SmallQueue;

// Runs `body` in a child that then stands still until it is killed or its pipe is closed.
class Child {
 public:
  explicit Child(const std::function<void()>& body) {
    int ready[2];
    EXPECT_EQ(pipe(ready), 0);
    pid_ = fork();
    if (pid_ == 0) {
      close(ready[0]);
      body();
      const char done = 'd';
      if (write(ready[1], &done, 1) != 1) _exit(2);
      for (;;) pause();
    }
    close(ready[1]);
    char done = 0;
    EXPECT_EQ(read(ready[0], &done, 1), 1) << "the child failed";
    close(ready[0]);
  }
  ~Child() { kill(); }
  void kill() {
    if (pid_ <= 0) return;
    ::kill(pid_, SIGKILL);
    waitpid(pid_, nullptr, 0);
    pid_ = -1;
  }
  void stop() {
    ::kill(pid_, SIGSTOP);
    int status = 0;
    waitpid(pid_, &status, WUNTRACED);
  }

 private:
  pid_t pid_;
};

void require(bool condition) {
  if (!condition) _exit(1);
}

TEST(Former, who_died_is_told_from_who_left) {
  SmallQueue small;
  { auto producer = small.queue->producer({.name = "leaves"}); }
  {
    Child child{[&] {
      static auto queue = small.open_again();
      require(queue.has_value());
      static auto producer = queue->producer({.name = "dies"});
      require(producer.has_value());
    }};
    child.kill();
  }
  ASSERT_TRUE(small.queue->reclaim().has_value());
  std::map<std::string, bool> died;
  for (const ParticipantInfo& each : small.queue->former_participants()) {
    if (each.role == Role::producer) died[each.name] = each.died;
  }
  EXPECT_TRUE(died.contains("dies") && died["dies"]);
  // Its entry may have been the one that the other left.
  EXPECT_FALSE(died.contains("leaves") && died["leaves"]);
  {
    auto producer = small.queue->producer({.name = "leaves"});
    auto other = small.queue->producer({.name = "leaves, too"});
  }
  for (const ParticipantInfo& each : small.queue->former_participants()) {
    EXPECT_FALSE(each.died) << each.name;
  }
}

// G5: what was in flight at the kill, and only that, comes again, at once.
TEST(Death, a_killed_consumers_successor_gets_what_was_in_flight) {
  SmallQueue small;
  auto producer = small.producer();
  for (int i = 0; i < 8; ++i) ASSERT_TRUE(producer.publish(std::to_string(i)));
  auto standby = small.consumer();
  Child child{[&] {
    auto queue = small.open_again();
    auto consumer = queue->consumer("default");
    static std::vector<Delivery> held(4);
    static auto keep = std::move(*consumer);
    require(keep.receive_batch(held).value() == 4);
    require(held[0].ack() == Settlement::settled);
    require(held[2].ack() == Settlement::settled);
    (void)queue->groups();
    static auto keep_queue = std::move(*queue);
  }};
  EXPECT_TRUE(standby.receive(300ms)->empty()) << "taken over from the living";
  child.kill();
  auto first = standby.receive(10s);
  ASSERT_TRUE(first && !first->empty());
  EXPECT_EQ(first->text(), "1");
  EXPECT_EQ(first->hand_outs(), 2U);
  auto second = standby.receive(10s);
  EXPECT_EQ(second->text(), "3");
  EXPECT_EQ(second->hand_outs(), 2U);
  auto third = standby.receive(10s);
  EXPECT_EQ(third->text(), "4");
  EXPECT_EQ(third->hand_outs(), 1U);
  EXPECT_EQ(third->ack(), Settlement::settled);
  EXPECT_EQ(second->ack(), Settlement::settled);
  EXPECT_EQ(first->ack(), Settlement::settled);
  EXPECT_EQ(small.group().redelivered_death_total, 2U);
}

// G10: stopped is not dead.
TEST(Death, a_stopped_participant_is_not_reclaimed) {
  SmallQueue small;
  Child child{[&] {
    auto queue = small.open_again();
    static auto producer = std::move(queue->producer().value());
    require(producer.publish("from the stopped").has_value());
    static auto consumer = std::move(queue->consumer("default").value());
    require(!consumer.try_receive()->empty());
  }};
  child.stop();
  EXPECT_EQ(small.queue->reclaim().value(), 0U);
  auto standby = small.consumer();
  EXPECT_TRUE(standby.receive(250ms)->empty());
  EXPECT_EQ(small.queue->stats().producers, 1U);
  child.kill();
  EXPECT_EQ(small.queue->reclaim().value(), 2U);
  EXPECT_EQ(small.queue->stats().producers, 0U);
  EXPECT_EQ(small.queue->stats().chunks_open, 0U);
  EXPECT_FALSE(standby.receive(10s)->empty());
}

// A dead producer's chunk is sealed at the real tail: what it published last is not overwritten.
TEST(Death, the_last_messages_of_a_killed_producer_stay_whole) {
  for (int round = 0; round < 5; ++round) {
    QueueOptions options = SmallQueue::options(Overflow::fail);
    options.arena_bytes = 8 * 4096;  // so few chunks that the dead one's turn comes soon
    options.max_producers = 4;
    SmallQueue small{options};
    auto consumer = small.consumer();
    Child child{[&] {
      auto queue = small.open_again();
      static auto producer = std::move(queue->producer().value());
      for (int i = 0; i < 3; ++i) require(producer.publish(std::string(700, 'D')).has_value());
    }};
    child.kill();
    ASSERT_EQ(small.queue->reclaim().value(), 1U);
    // Two of the three are settled, so head may pass them, not the third.
    ASSERT_EQ(consumer.try_receive()->ack(), Settlement::settled);
    ASSERT_EQ(consumer.try_receive()->ack(), Settlement::settled);
    consumer.close();  // no pin but the last message itself
    auto producer = small.producer();
    int published = 0;
    while (published < 13 && producer.publish(std::string(3000, 'N'))) ++published;
    ASSERT_GT(published, 5);
    auto successor = small.consumer();
    auto last = successor.try_receive();
    ASSERT_TRUE(last) << last.error().message();
    ASSERT_EQ(last->text(), std::string(700, 'D'));
    ASSERT_EQ(last->ack(), Settlement::settled);
  }
}

TEST(Death, entries_and_chunks_of_the_dead_are_used_again) {
  SmallQueue small;
  for (int round = 0; round < 40; ++round) {
    Child child{[&] {
      auto queue = small.open_again();
      static auto producer = std::move(queue->producer().value());
      require(producer.publish("m").has_value());
      static auto consumer = std::move(queue->consumer("default").value());
      auto delivery = consumer.receive(10s);
      require(delivery && delivery->ack() == Settlement::settled);
    }};
    child.kill();
  }
  EXPECT_GE(small.queue->reclaim().value(), 2U);
  EXPECT_TRUE(small.queue->participants().empty());
  EXPECT_EQ(small.queue->stats().chunks_open, 0U);
}

TEST(Fork, a_childs_use_of_its_parents_handles_is_an_error) {
  SmallQueue small;
  auto producer = small.producer();
  auto consumer = small.consumer();
  ASSERT_TRUE(producer.publish("m"));
  auto delivery = consumer.try_receive();
  const pid_t pid = fork();
  if (pid == 0) {
    const bool refused = producer.publish("from the child").code() == Errc::forked &&
                         consumer.try_receive().error() == Errc::forked &&
                         delivery->ack() == Settlement::lease_lost;
    producer.close();
    consumer.close();
    _exit(refused ? 0 : 1);
  }
  int status = 0;
  waitpid(pid, &status, 0);
  EXPECT_EQ(status, 0);
  EXPECT_EQ(delivery->ack(), Settlement::settled) << "the parent's are untouched";
  EXPECT_TRUE(producer.publish("m2"));
}

// A forked child must not keep its dead parent alive by the inherited descriptor.
TEST(Fork, a_child_is_no_proof_of_life_of_its_parent) {
  SmallQueue small;
  int pids[2];
  ASSERT_EQ(pipe(pids), 0);
  Child child{[&] {
    auto queue = small.open_again();
    static auto consumer = std::move(queue->consumer("default").value());
    (void)consumer.try_receive();
    const pid_t grandchild = fork();
    if (grandchild == 0) {
      const pid_t self = getpid();  // it runs, so its fork handler has run
      require(write(pids[1], &self, sizeof(self)) == sizeof(self));
      for (;;) pause();
    }
  }};
  pid_t grandchild = 0;
  ASSERT_EQ(read(pids[0], &grandchild, sizeof(grandchild)),
            static_cast<ssize_t>(sizeof(grandchild)));
  child.kill();
  EXPECT_EQ(small.queue->reclaim().value(), 1U);
  ::kill(grandchild, SIGKILL);
  close(pids[0]);
  close(pids[1]);
}

TEST(Participants, more_than_the_limit_are_refused) {
  SmallQueue small;
  std::vector<Consumer> consumers;
  for (int i = 0; i < 8; ++i) consumers.push_back(small.consumer());
  EXPECT_EQ(small.queue->consumer("default").error().code(),
            make_error_code(Errc::too_many_participants));
  consumers.pop_back();
  EXPECT_TRUE(small.queue->consumer("default"));
}

TEST(Participants, more_producers_than_the_arena_carries_are_refused) {
  QueueOptions options = SmallQueue::options();
  options.max_producers = 2;
  SmallQueue small{options};
  auto one = small.producer();
  auto two = small.producer();
  EXPECT_EQ(small.queue->producer().error().code(), make_error_code(Errc::too_many_producers));
  two.close();
  EXPECT_TRUE(small.queue->producer());
}

}  // namespace
