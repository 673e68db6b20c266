// SPDX-License-Identifier: Apache-2.0
//
// Races made certain: at a named point of one operation another one runs to its end. Builds without
// crash points (release) have nothing to hook, and skip.
#include <gtest/gtest.h>
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cstring>
#include <functional>

#include "base/mutant.hpp"
#include "support/at_point.hpp"
#include "support/fake_clock.hpp"
#include "support/shared_look.hpp"
#include "support/small_queue.hpp"

namespace {

using namespace shmq;
using namespace std::chrono_literals;
using shmq::testing::FakeClock;
using shmq::testing::look_at_group;
using shmq::testing::segment_of;
using shmq::testing::SmallQueue;

#ifdef SHMQ_CRASH_POINTS
using shmq::testing::at_point;
using shmq::testing::hits;

void overrun(Producer& producer) {
  // Three laps of the arena, chunk by chunk.
  for (int i = 0; i < 200; ++i) ASSERT_TRUE(producer.publish(std::string(1000, 'x')));
}

// c1: a head computed before a birth must not land after it.
TEST(Races, a_group_born_while_head_is_computed_keeps_its_messages) {
  SmallQueue small;
  auto producer = small.producer();
  auto consumer = small.consumer();
  for (int i = 0; i < 16; ++i) ASSERT_TRUE(producer.publish(std::to_string(i)));
  for (int i = 0; i < 16; ++i) ASSERT_EQ(consumer.try_receive()->ack(), Settlement::settled);
  at_point("head.before_cas", [&] { ASSERT_TRUE(small.queue->create_group({.name = "late"})); });
  EXPECT_EQ(producer.publish("m").code(), Errc::full) << "the new group wants the old messages";
  ASSERT_EQ(hits, 1);
  const auto late = small.group("late");
  EXPECT_EQ(late.floor.value, 0U);
  EXPECT_LE(small.queue->stats().head, late.floor);
  EXPECT_EQ(small.consumer("late").try_receive()->text(), "0");
}

// c2: between the look at the slot and the pin the message is dropped and its chunk used again.
TEST(Races, a_message_dropped_before_the_pin_is_not_handed_out) {
  SmallQueue small{Overflow::drop_oldest};
  auto producer = small.producer();
  auto consumer = small.consumer();
  ASSERT_TRUE(producer.publish(std::string(1000, 'a')));
  at_point("receive.before_pin", [&] { overrun(producer); });
  auto delivery = consumer.try_receive();
  ASSERT_EQ(hits, 1);
  ASSERT_TRUE(delivery) << delivery.error().message();
  ASSERT_FALSE(delivery->empty());
  EXPECT_EQ(delivery->text(), std::string(1000, delivery->seq().value == 0 ? 'a' : 'x'));
  EXPECT_GT(delivery->seq().value, 0U);
}

TEST(Races, a_message_dropped_while_it_is_peeked_at_is_not_shown) {
  SmallQueue small{Overflow::drop_oldest};
  auto producer = small.producer();
  ASSERT_TRUE(producer.publish(std::string(1000, 'a')));
  at_point("peek.before_copy", [&] { overrun(producer); });
  auto messages = small.queue->peek({0}, 1);
  ASSERT_EQ(hits, 1);
  ASSERT_TRUE(messages) << messages.error().message();
  for (const auto& message : *messages) {
    const std::byte expected{static_cast<unsigned char>(message.seq.value == 0 ? 'a' : 'x')};
    for (const std::byte byte : message.payload) ASSERT_EQ(byte, expected);
  }
}

// --- Shared groups -----------------------------------------------------------------------------

constexpr auto settled = Settlement::settled;

struct SharedRaces : ::testing::Test {
  void publish(int first, int end) {
    for (int i = first; i < end; ++i) ASSERT_TRUE(producer.publish(std::to_string(i))) << i;
  }
  Delivery receive(const char* text) {
    auto delivery = std::move(consumer.try_receive().value());
    EXPECT_EQ(delivery.text(), text);
    return delivery;
  }
  queue::SharedGroup::Eviction evict(std::uint64_t seq) { return group.evict(seq, 0); }

  FakeClock clock;
  SmallQueue small{Overflow::fail, {{.name = "default", .mode = GroupMode::shared}}};
  Producer producer = small.producer();
  Consumer consumer = small.consumer();
  std::shared_ptr<shm::Segment> segment = segment_of(small);
  queue::SharedGroup group{*segment, 0};
};

// An evictor that read the lease long ago reserves in the entry that another evictor used, and that
// the ack has freed: the window still names the entry, but another generation of it.
TEST_F(SharedRaces, a_stale_reservation_brings_no_acked_message_back) {
  publish(0, 2);
  Delivery first = receive("0");
  at_point("evict.looked", [&] {
    ASSERT_EQ(evict(0), queue::SharedGroup::Eviction::evicted);
    ASSERT_EQ(first.ack(), settled);
    at_point("evict.reserved", [&] { ASSERT_EQ(group.advance_floor(), 1U); });
  });
  EXPECT_EQ(evict(0), queue::SharedGroup::Eviction::changed);
  EXPECT_EQ(hits, 1) << "of the second point";
  clock.advance(1min);
  EXPECT_EQ(receive("1").ack(), settled);
  EXPECT_TRUE(consumer.try_receive()->empty()) << "acked, and came again";
  EXPECT_EQ(look_at_group(*segment).in_table, 0U);
}

// Between the eviction's CAS and its end the floor passes, the window entry is used a lap later,
// and the holder acks.
TEST_F(SharedRaces, a_moved_message_is_live_before_the_floor_passes_it) {
  publish(0, 16);
  Delivery first = receive("0");
  bool acked = false;
  at_point("evict.moved", [&] {
    auto other = small.consumer();
    for (int i = 1; i < 20; ++i) {
      ASSERT_EQ(other.try_receive()->ack(), settled) << i;
      group.advance_floor();
      publish(15 + i, 16 + i);
    }
    acked = first.ack() == settled;
  });
  EXPECT_EQ(evict(0), queue::SharedGroup::Eviction::evicted);
  ASSERT_EQ(hits, 1);
  EXPECT_TRUE(acked) << "a valid lease was lost";
  EXPECT_EQ(look_at_group(*segment).in_table, 0U);
}

// An ack between the reservation and the eviction's CAS.
TEST_F(SharedRaces, an_eviction_fails_if_the_lease_has_changed_since_it_was_copied) {
  publish(0, 2);
  Delivery first = receive("0");
  at_point("evict.reserved", [&] { ASSERT_EQ(first.ack(), settled); });
  EXPECT_EQ(evict(0), queue::SharedGroup::Eviction::changed);
  ASSERT_EQ(hits, 1);
  clock.advance(1min);
  EXPECT_EQ(receive("1").ack(), settled);
  EXPECT_TRUE(consumer.try_receive()->empty()) << "acked, and came again";
  EXPECT_EQ(look_at_group(*segment).in_table, 0U);
}

// Somebody reclaims another one while an evictor, who lives, is between reservation and CAS.
TEST_F(SharedRaces, the_reservation_of_a_living_evictor_is_left_alone) {
  publish(0, 3);
  Delivery first = receive("0");
  const pid_t pid = fork();
  if (pid == 0) {
    auto queue = small.open_again();
    auto dying = queue->consumer("default");
    auto delivery = dying->try_receive();
    raise(delivery && delivery->text() == "1" ? SIGKILL : SIGTERM);
  }
  int status = 0;
  ASSERT_EQ(waitpid(pid, &status, 0), pid);
  ASSERT_EQ(WTERMSIG(status), SIGKILL);
  at_point("evict.reserved", [&] { ASSERT_EQ(small.queue->reclaim().value(), 1U); });
  EXPECT_EQ(evict(0), queue::SharedGroup::Eviction::evicted);
  ASSERT_EQ(hits, 1);
  EXPECT_EQ(group.advance_floor(), 1U);
  EXPECT_EQ(receive("1").ack(), settled);
  EXPECT_EQ(receive("2").ack(), settled);
  EXPECT_EQ(first.ack(), settled) << "a valid lease was lost";
}

// A lease of the dead is moved to the table just before the look at the window: the look at the
// table has to come after.
TEST_F(SharedRaces, reclaim_misses_no_lease_that_is_moved_meanwhile) {
  publish(0, 3);
  const pid_t pid = fork();
  if (pid == 0) {
    auto queue = small.open_again();
    auto dying = queue->consumer("default");
    std::vector<Delivery> held(2);
    raise(dying->receive_batch(held, 0ns).value() == 2 ? SIGKILL : SIGTERM);
  }
  int status = 0;
  ASSERT_EQ(waitpid(pid, &status, 0), pid);
  ASSERT_EQ(WTERMSIG(status), SIGKILL);
  ASSERT_EQ(evict(1),
            queue::SharedGroup::Eviction::evicted);  // so that there is a table to look at
  at_point("reclaim.before_window",
           [&] { ASSERT_EQ(evict(0), queue::SharedGroup::Eviction::evicted); });
  ASSERT_EQ(small.queue->reclaim().value(), 1U);
  ASSERT_EQ(hits, 1);
  EXPECT_EQ(look_at_group(*segment).of_the_dead, 0U);
  for (const char* text : {"0", "1", "2"}) EXPECT_EQ(receive(text).ack(), settled);
}

// Another consumer looks between a nack's announcement and the nack.
TEST_F(SharedRaces, a_nacked_message_is_not_forgotten_by_who_looked_too_early) {
  publish(0, 1);
  Delivery first = receive("0");
  auto other = small.consumer();
  at_point("give_back.announced", [&] { ASSERT_TRUE(other.try_receive()->empty()); });
  ASSERT_EQ(first.nack(), settled);
  ASSERT_EQ(hits, 1);
  auto again = other.try_receive();
  ASSERT_FALSE(again->empty()) << "it is due, and nobody looks";
  EXPECT_EQ(again->ack(), settled);
}

TEST_F(SharedRaces, a_group_that_is_removed_during_a_claim_hands_nothing_out) {
  publish(0, 1);
  at_point("claim.claimed", [&] { ASSERT_TRUE(small.queue->remove_group("default")); });
  auto delivery = consumer.try_receive();
  ASSERT_EQ(hits, 1);
  ASSERT_FALSE(delivery) << "nothing holds its bytes any more";
  EXPECT_EQ(delivery.error().code(), Errc::removed);
}

// A producer moves a straggler's record elsewhere, and writes over its old place, between a
// consumer's look at the place and its claim.
TEST_F(SharedRaces, the_bytes_of_a_claimed_straggler_are_those_of_its_new_place) {
  const std::string text(1000, 's');
  ASSERT_TRUE(producer.publish(text));
  ASSERT_EQ(consumer.try_receive()->nack(10s), settled);
  ASSERT_EQ(evict(0), queue::SharedGroup::Eviction::evicted);
  ASSERT_EQ(group.advance_floor(), 1U);
  const auto index = group.table().find(0);
  ASSERT_TRUE(index);
  std::byte* arena = segment->writable_arena().value();
  clock.advance(20s);
  at_point("claim_straggler.pinned", [&] {
    const std::uint64_t from = group.table().place(*index);
    const std::uint64_t old_place = (from & shm::ref_mask) << shm::ref_unit_shift;
    const std::uint64_t new_place = segment->limits().arena_bytes - 4096;  // nobody is there
    std::memcpy(arena + new_place, arena + old_place, 1100);
    ASSERT_TRUE(group.table().move_place(*index, from, new_place >> shm::ref_unit_shift));
    std::memset(arena + old_place + sizeof(shm::Record), '#', 1000);
  });
  auto delivery = consumer.try_receive();
  ASSERT_EQ(hits, 1);
  ASSERT_FALSE(delivery->empty());
  EXPECT_EQ(delivery->text(), text);
  EXPECT_EQ(delivery->ack(), settled);
}
#else
TEST(Races, need_a_build_with_crash_points) { GTEST_SKIP() << "nothing to hook in this build"; }
#endif

}  // namespace
