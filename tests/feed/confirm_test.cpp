// SPDX-License-Identifier: Apache-2.0
//
// Durability of publishes and acks, as a client sees it; the daemon is played by the test.
#include <gtest/gtest.h>
#include <sys/wait.h>

#include <algorithm>
#include <chrono>
#include <thread>

#include "support/at_point.hpp"
#include "support/fake_daemon.hpp"

namespace {
using namespace shmq;
using namespace std::chrono_literals;
using Clock = std::chrono::steady_clock;
using shmq::testing::DurableQueue;
using shmq::testing::FakeDaemon;
using shmq::testing::SmallQueue;

constexpr auto synced = Durability::synced;
constexpr auto flushed = Durability::flushed;

struct Served {
  explicit Served(std::vector<GroupOptions> groups = {})
      : durable(SmallQueue::options(Overflow::fail, std::move(groups))) {
    queue = std::make_unique<Queue>(DurableQueue::need(durable.open()));
  }
  Producer producer(std::chrono::nanoseconds spin = 50us) {
    return DurableQueue::need(queue->producer({.confirm_spin = spin}));
  }
  Consumer consumer() { return DurableQueue::need(queue->consumer("default")); }

  DurableQueue durable;
  FakeDaemon daemon{durable};
  std::unique_ptr<Queue> queue;
};

// A call in another thread; the test knows that it blocks by the doorbell that it rings.
template <typename Call>
auto in_thread(Call call) {
  struct Running {
    explicit Running(Call call) : thread([this, call] { result = call(); }) {}
    decltype(call()) get() {
      thread.join();
      return result;
    }
    decltype(call()) result{Errc::ok};
    std::thread thread;
  };
  return std::make_unique<Running>(call);
}

TEST(Confirm, a_transient_queue_refuses_what_it_cannot_give) {
  SmallQueue small;
  auto producer = small.producer();
  for (const Durability durability : {flushed, synced}) {
    const PublishResult result = producer.publish("x", {.durability = durability});
    EXPECT_EQ(result.code(), Errc::not_durable);
    EXPECT_NE(result.error().message().find("durable = true"), std::string::npos);
  }
  EXPECT_EQ(producer.wait_synced({0}, 0s).error(), Errc::not_durable);
  EXPECT_EQ(small.queue->stats().tail.value, 0U);
  ASSERT_TRUE(producer.publish("y"));
  auto consumer = small.consumer();
  auto delivery = consumer.try_receive();
  EXPECT_EQ(delivery->ack({.durability = synced}), Settlement::not_durable);
  EXPECT_EQ(consumer.ack_through({0}, {.durability = flushed}), Settlement::not_durable);
  EXPECT_EQ(consumer.wait_acks_synced(0s).error(), Errc::not_durable);
  EXPECT_EQ(delivery->ack(), Settlement::settled);
}

TEST(Confirm, a_synced_publish_returns_once_the_watermark_has_passed_it_and_not_before) {
  for (const auto spin : {0us, 1000000us}) {
    Served served;
    auto producer = served.producer(spin);
    ASSERT_TRUE(producer.publish("first"));
    served.daemon.listen();
    auto call = in_thread([&] { return producer.publish("x", {.durability = synced}); });
    EXPECT_EQ(served.daemon.await_ring(), "q");
    served.durable.move_watermark(1);  // of the one before
    served.daemon.forget_rings();
    auto second = in_thread([&] {
      auto other = served.producer(spin);
      return other.publish("y", {.durability = synced, .timeout = 30s});
    });
    EXPECT_EQ(served.daemon.await_ring(), "q");
    served.durable.move_watermark(2);
    EXPECT_EQ(call->get().seq().value, 1U);
    served.durable.move_watermark(3);
    EXPECT_TRUE(second->get());
  }
}

TEST(Confirm, a_publish_whose_time_is_over_gives_its_seq_and_can_be_awaited) {
  Served served;
  auto producer = served.producer();
  for (const auto timeout : {0ns, std::chrono::nanoseconds{3ms}}) {
    const PublishResult result = producer.publish("x", {.durability = synced, .timeout = timeout});
    EXPECT_EQ(result.code(), Errc::published_unconfirmed);
    EXPECT_EQ(producer.wait_synced(result.seq(), timeout).error(), Errc::timed_out);
    EXPECT_EQ(producer.synced_end(), result.seq());
    served.durable.move_watermark(result.seq().value + 1);
    EXPECT_TRUE(producer.wait_synced(result.seq(), 0s));
    EXPECT_EQ(producer.synced_end(), result.seq() + 1);
  }
}

TEST(Confirm, without_a_daemon_nothing_is_published_and_memory_goes_on) {
  Served served;
  auto producer = served.producer();
  served.daemon.die();
  for (const Durability durability : {flushed, synced}) {
    EXPECT_EQ(producer.publish("x", {.durability = durability}).code(), Errc::not_published);
  }
  EXPECT_EQ(producer.publish("x").seq().value, 0U);
  EXPECT_EQ(producer.wait_synced({0}).error(), Errc::daemon_away);
  served.daemon.come();
  EXPECT_EQ(producer.publish("x", {.durability = flushed}).seq().value, 1U);
}

TEST(Confirm, a_daemon_that_dies_under_a_wait_is_told_within_200_ms) {
  Served served;
  auto producer = served.producer();
  served.daemon.listen();
  auto call = in_thread([&] { return producer.publish("x", {.durability = synced}); });
  EXPECT_EQ(served.daemon.await_ring(), "q");
  const auto died = Clock::now();
  served.daemon.die();
  const PublishResult result = call->get();
  const auto told = Clock::now() - died;
  EXPECT_EQ(result.code(), Errc::published_unconfirmed);
  EXPECT_EQ(result.seq().value, 0U);
  std::printf("told after %.1f ms\n", std::chrono::duration<double, std::milli>(told).count());
}

TEST(Confirm, what_a_daemon_confirmed_before_it_died_counts) {
  Served served;
  auto producer = served.producer();
  ASSERT_TRUE(producer.publish("x"));
  served.durable.move_watermark(1);
  served.daemon.die();
  EXPECT_TRUE(producer.wait_synced({0}));
}

TEST(Confirm, a_degraded_daemon_fails_synced_at_once_and_comes_back) {
  Served served;
  auto producer = served.producer();
  served.daemon.listen();
  auto call = in_thread([&] { return producer.publish("x", {.durability = synced}); });
  EXPECT_EQ(served.daemon.await_ring(), "q");
  served.durable.mark->set_state(shm::DaemonState::degraded);
  EXPECT_EQ(call->get().code(), Errc::published_unconfirmed);
  EXPECT_EQ(producer.publish("y", {.durability = synced}).code(), Errc::not_published);
  EXPECT_EQ(producer.wait_synced({0}).error(), Errc::degraded);
  EXPECT_EQ(producer.publish("y").seq().value, 1U);
  served.durable.mark->set_state(shm::DaemonState::serving);
  served.durable.move_watermark(2);
  EXPECT_TRUE(producer.wait_synced({1}));
  const PublishResult result = producer.publish("z", {.durability = synced, .timeout = 0s});
  EXPECT_EQ(result.code(), Errc::published_unconfirmed);
  EXPECT_EQ(result.seq().value, 2U);
}

TEST(Confirm, a_daemon_that_has_stopped_but_holds_its_lock_is_away) {
  Served served;
  auto producer = served.producer();
  served.durable.mark->set_state(shm::DaemonState::stopped);
  EXPECT_EQ(producer.publish("x", {.durability = synced}).code(), Errc::not_published);
}

TEST(Confirm, a_batch_and_a_loan_wait_once_for_their_last) {
  Served served;
  auto producer = served.producer();
  const std::byte bytes[3] = {};
  const std::span<const std::byte> payloads[] = {bytes, bytes, bytes};
  auto batch = producer.publish_batch(payloads, {.durability = synced, .timeout = 1ms});
  EXPECT_EQ(batch.code, Errc::published_unconfirmed);
  EXPECT_EQ(batch.published, 3U);
  EXPECT_EQ(batch.last.value, 2U);
  auto loan = producer.loan(5);
  const PublishResult committed = loan->commit(5, {.durability = synced, .timeout = 1ms});
  EXPECT_EQ(committed.code(), Errc::published_unconfirmed);
  EXPECT_EQ(committed.seq().value, 3U);
  EXPECT_TRUE(loan->bytes().empty()) << "it is published: a second commit would publish it twice";
  EXPECT_EQ(served.queue->stats().tail.value, 4U);
  served.durable.move_watermark(7);
  batch = producer.publish_batch(payloads, {.durability = synced});
  EXPECT_EQ(batch.code, Errc::ok);
  served.daemon.die();
  batch = producer.publish_batch(payloads, {.durability = synced});
  EXPECT_EQ(batch.code, Errc::not_published);
  EXPECT_EQ(batch.published, 0U);
  auto other = producer.loan(5);
  EXPECT_EQ(other->commit(5, {.durability = synced}).code(), Errc::not_published);
  EXPECT_EQ(other->bytes().size(), 5U) << "it may be committed again";
  EXPECT_TRUE(other->commit());
}

TEST(Confirm, waits_end_by_interrupt_close_and_stop_token) {
  Served served;
  auto producer = served.producer();
  served.daemon.listen();
  auto call = in_thread([&] { return producer.publish("a", {.durability = synced}); });
  EXPECT_EQ(served.daemon.await_ring(), "q");
  producer.interrupt();
  EXPECT_EQ(call->get().code(), Errc::published_unconfirmed);
  served.daemon.forget_rings();
  std::stop_source source;
  auto waiting = in_thread([&] {
    const auto done = producer.wait_synced({0}, forever, source.get_token());
    return done ? Errc::ok : static_cast<Errc>(done.error().code().value());
  });
  EXPECT_EQ(served.daemon.await_ring(), "q");
  source.request_stop();
  EXPECT_EQ(waiting->get(), Errc::interrupted);
  served.daemon.forget_rings();
  auto closing = in_thread([&] { return producer.publish("b", {.durability = synced}); });
  EXPECT_EQ(served.daemon.await_ring(), "q");
  producer.close();
  EXPECT_EQ(closing->get().code(), Errc::published_unconfirmed);
  EXPECT_EQ(producer.wait_synced({0}).error(), Errc::closed);
}

#ifdef SHMQ_CRASH_POINTS
// The waiter has looked whether it is interrupted, and has not yet fallen asleep. A sleep that was
// not cut short lasts 100 ms, never less; on a busy machine other things last as long, hence the
// attempts.
TEST(Confirm, an_interrupt_just_before_the_sleep_ends_it) {
  Served served;
  auto producer = served.producer(0us);
  const auto seq = producer.publish("x", {.durability = flushed});
  ASSERT_TRUE(seq);
  auto shortest = Clock::duration::max();
  for (int attempt = 0; attempt < 20 && shortest >= 100ms; ++attempt) {
    Clock::time_point interrupted_at;
    shmq::testing::at_point("confirms.before_sleep", [&] {
      interrupted_at = Clock::now();
      producer.interrupt();
    });
    EXPECT_EQ(producer.wait_synced(*seq, 30s).error(), Errc::interrupted);
    ASSERT_EQ(shmq::testing::hits, 1);
    shortest = std::min(shortest, Clock::now() - interrupted_at);
  }
  EXPECT_LT(shortest, 100ms);
}
#endif

TEST(Confirm, a_removed_queue_ends_the_wait) {
  Served served;
  auto producer = served.producer();
  served.daemon.listen();
  auto call = in_thread([&] { return producer.publish("a", {.durability = synced}); });
  EXPECT_EQ(served.daemon.await_ring(), "q");
  ASSERT_TRUE(shm::Segment::remove("q", {.name_space = served.durable.scratch.name_space},
                                   shm::Authority::daemon));
  EXPECT_EQ(call->get().code(), Errc::published_unconfirmed);
  EXPECT_EQ(producer.publish("b", {.durability = synced}).code(), Errc::removed);
}

TEST(Confirm, a_forked_child_may_not_use_its_parents_handles) {
  Served served;
  auto producer = served.producer();
  auto consumer = served.consumer();
  ASSERT_TRUE(producer.publish("a"));
  const pid_t child = ::fork();
  if (child == 0) {
    const bool refused = producer.publish("b", {.durability = synced}).code() == Errc::forked &&
                         producer.wait_synced({0}).error() == Errc::forked &&
                         consumer.wait_acks_synced().error() == Errc::forked;
    ::_exit(refused ? 0 : 1);
  }
  int status = 0;
  ASSERT_EQ(::waitpid(child, &status, 0), child);
  EXPECT_EQ(status, 0);
  EXPECT_EQ(producer.publish("b", {.durability = synced, .timeout = 0s}).code(),
            Errc::published_unconfirmed)
      << "the child's end is not the daemon's";
}

// --- Acks ----------------------------------------------------------------------------------------

class ConfirmAcks : public ::testing::TestWithParam<GroupMode> {
 protected:
  Served served{{{.name = "default", .mode = GetParam()}}};
  Producer producer = served.producer();
  Consumer consumer = served.consumer();
};

TEST_P(ConfirmAcks, an_ack_is_synced_by_a_look_that_began_after_it) {
  for (int i = 0; i < 3; ++i) ASSERT_TRUE(producer.publish("x"));
  served.durable.move_watermark(3);
  const std::uint64_t under_way = served.durable.mark->begin_look();
  auto first = consumer.try_receive();
  EXPECT_EQ(first->ack({.durability = synced, .timeout = 1ms}), Settlement::settled_unconfirmed);
  served.durable.mark->advance({.acks_synced = under_way});
  EXPECT_EQ(consumer.wait_acks_synced(1ms).error(), Errc::timed_out)
      << "that look may have passed the group before the ack";
  auto second = consumer.try_receive();
  served.daemon.listen();
  auto call = in_thread([&] {
    return second->ack({.durability = synced}) == Settlement::settled ? Errc::ok : Errc::timed_out;
  });
  EXPECT_EQ(served.daemon.await_ring(), "q");
  served.durable.mark->advance({.acks_synced = served.durable.mark->begin_look()});
  EXPECT_EQ(call->get(), Errc::ok);
  auto third = consumer.try_receive();
  EXPECT_EQ(consumer.ack_through({2}, {.durability = synced, .timeout = 1ms}),
            Settlement::settled_unconfirmed);
  EXPECT_EQ(third->ack({.durability = synced}), Settlement::lease_lost);
}

TEST_P(ConfirmAcks, an_ack_holds_in_memory_while_the_daemon_is_away) {
  for (int i = 0; i < 2; ++i) ASSERT_TRUE(producer.publish("x"));
  auto first = consumer.try_receive();
  served.daemon.die();
  EXPECT_EQ(first->ack({.durability = synced}), Settlement::settled_unconfirmed);
  auto second = consumer.try_receive();
  EXPECT_EQ(second->ack({.durability = flushed}), Settlement::settled_unconfirmed);
  EXPECT_EQ(consumer.wait_acks_synced().error(), Errc::daemon_away);
  EXPECT_TRUE(consumer.try_receive()->empty());
}

INSTANTIATE_TEST_SUITE_P(Modes, ConfirmAcks,
                         ::testing::Values(GroupMode::exclusive, GroupMode::shared),
                         [](const auto& tested) {
                           return tested.param == GroupMode::shared ? "shared" : "exclusive";
                         });

}  // namespace
