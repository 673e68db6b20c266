// SPDX-License-Identifier: Apache-2.0
//
// The pin rule (lib/src/queue/past.hpp), made certain: at each point of a hand-out the message is
// spilled and its chunk used again. Builds without crash points have nothing to hook, and skip.
#include <gtest/gtest.h>

#include "queue/groups.hpp"
#include "queue/shared_group.hpp"
#include "spill/numbered.hpp"
#include "support/at_point.hpp"
#include "support/fake_clock.hpp"

namespace {

using namespace shmq;
using namespace shmq::testing;
using namespace std::chrono_literals;

#ifdef SHMQ_CRASH_POINTS
constexpr auto settled = Settlement::settled;

struct SpillRaces : ::testing::Test {
  Consumer consumer(const std::string& group) {
    return std::move(publishing.queue().consumer(group).value());
  }
  // Laps of ring and arena.
  void overrun() {
    for (int i = 0; i < 40; ++i) {
      journaled.pump();  // so that there is always something to spill, and nothing is set aside
      publishing.publish(8);
    }
  }

  FakeClock clock;
  JournaledQueue journaled{
      spill_options({{.name = "one", .mode = GroupMode::exclusive},
                     {.name = "many", .mode = GroupMode::shared, .delivery_limit = 60}})};
  Publishing publishing{journaled};
};

struct Case {
  const char* group;
  const char* point;
};

void expect_next(Consumer& consumer, std::uint64_t number) {
  auto delivery = consumer.try_receive();
  ASSERT_TRUE(delivery) << delivery.error().message();
  ASSERT_FALSE(delivery->empty());
  EXPECT_EQ(delivery->seq().value, number);
  EXPECT_EQ(fault_of(*delivery, number), "");
  EXPECT_EQ(delivery->ack(), settled);
}

TEST_F(SpillRaces, a_message_that_is_spilled_before_the_pin_is_read_from_the_journal) {
  for (const Case& each : {Case{"one", "receive.before_pin"}, Case{"many", "claim.before_pin"}}) {
    {
      auto reader = consumer(each.group);
      const std::size_t group = each.group == std::string{"one"} ? 0 : 1;
      for (std::uint64_t number = publishing.queue().groups()[group].floor.value;
           number < publishing.next(); ++number) {
        expect_next(reader, number);
      }
    }
    auto reader = consumer(each.group);  // one that has pinned nothing
    const std::uint64_t number = publishing.next();
    publishing.publish(3);
    at_point(each.point, [&] { overrun(); });
    expect_next(reader, number);
    EXPECT_EQ(hits, 1) << each.point;
    for (std::uint64_t next = number + 1; next < publishing.next(); ++next) {
      expect_next(reader, next);
      if (::testing::Test::HasFailure()) return;
    }
  }
}

TEST_F(SpillRaces, one_that_is_spilled_after_the_pin_stays_whole) {
  auto many = consumer("many");
  publishing.publish(3);
  at_point("claim.pinned", [&] { overrun(); });
  expect_next(many, 0);
  EXPECT_EQ(hits, 1);
  for (std::uint64_t next = 1; next < publishing.next(); ++next) {
    expect_next(many, next);
    if (::testing::Test::HasFailure()) return;
  }
}

TEST_F(SpillRaces, one_that_comes_again_is_spilled_before_the_pin) {
  auto many = consumer("many");
  publishing.publish(3);
  {
    auto delivery = many.try_receive();
    ASSERT_TRUE(delivery);
    ASSERT_EQ(delivery->release(), settled);
  }
  {
    auto other = many.try_receive();  // takes it, and gives it back: nothing is pinned after
    ASSERT_TRUE(other);
    ASSERT_EQ(other->release(), settled);
  }
  at_point("claim_again.pinned", [&] { overrun(); });
  expect_next(many, 0);
  for (std::uint64_t next = 1; next < publishing.next(); ++next) {
    expect_next(many, next);
    if (::testing::Test::HasFailure()) return;
  }
}

// Between the look at the slot and the reservation the chunk is judged free, and used again.
TEST_F(SpillRaces, a_straggler_that_is_spilled_while_it_is_set_aside_stays_in_the_journal) {
  auto many = consumer("many");
  publishing.publish(3);
  std::vector<Delivery> held(3);
  ASSERT_EQ(many.receive_batch(held, 0ns).value(), 3U);
  held.clear();  // nacked, so that no pin keeps their chunk
  queue::SharedGroup group{*journaled.segment(), 1};
  at_point("evict.looked", [&] { overrun(); });
  EXPECT_EQ(group.evict(0, 0), queue::SharedGroup::Eviction::evicted);
  EXPECT_EQ(hits, 1);
  overrun();
  clock.advance(1min);
  for (std::uint64_t next = 0; next < publishing.next(); ++next) {
    expect_next(many, next);
    if (::testing::Test::HasFailure()) return;
  }
}

// Spilled between the reservation and the look at head.
TEST_F(SpillRaces, a_straggler_that_is_spilled_after_its_reservation_is_kept) {
  auto many = consumer("many");
  publishing.publish(3);
  std::vector<Delivery> held(3);
  ASSERT_EQ(many.receive_batch(held, 0ns).value(), 3U);
  held.clear();
  queue::SharedGroup group{*journaled.segment(), 1};
  at_point("evict.reserved", [&] { overrun(); });
  EXPECT_EQ(group.evict(0, 0), queue::SharedGroup::Eviction::evicted);
  EXPECT_EQ(hits, 1);
  overrun();
  clock.advance(1min);
  for (std::uint64_t next = 0; next < publishing.next(); ++next) {
    expect_next(many, next);
    if (::testing::Test::HasFailure()) return;
  }
}

TEST_F(SpillRaces, a_group_born_while_head_is_moved_on_keeps_its_messages) {
  publishing.publish(64);
  journaled.pump();
  at_point("spill.before_cas",
           [&] { ASSERT_TRUE(queue::create_group(*journaled.segment(), {.name = "late"})); });
  publishing.publish(300);
  ASSERT_EQ(hits, 1);
  auto late = consumer("late");
  const std::uint64_t first = publishing.queue().groups()[2].floor.value;
  for (std::uint64_t next = first; next < publishing.next(); ++next) expect_next(late, next);
}

#else
TEST(SpillRaces, need_crash_points) { GTEST_SKIP() << "a build without crash points"; }
#endif

}  // namespace
