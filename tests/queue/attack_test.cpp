// SPDX-License-Identifier: Apache-2.0
//
// Shared groups under attack: stale evictors, stopped consumers, old clocks, crowded tables.
#include <gtest/gtest.h>
#include <poll.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include <array>
#include <atomic>
#include <csignal>
#include <cstring>
#include <fstream>
#include <functional>
#include <string>
#include <thread>

#include "base/clock.hpp"
#include "base/mutant.hpp"
#include "queue/participants.hpp"
#include "queue/shared.hpp"
#include "queue/shared_group.hpp"
#include "shm/segment.hpp"
#include "support/at_point.hpp"
#include "support/fake_clock.hpp"
#include "support/shared_look.hpp"
#include "support/small_queue.hpp"

namespace {

using namespace shmq;
using namespace std::chrono_literals;
using shmq::testing::FakeClock;
using shmq::testing::segment_of;
using shmq::testing::SmallQueue;

GroupOptions shared(std::chrono::nanoseconds lease = 30s) {
  return {.name = "default", .mode = GroupMode::shared, .lease = lease};
}

// Until somebody has announced its sleep on this word.
void await_sleeper(const SmallQueue& small, std::uint32_t shm::Control::*word) {
  const auto segment = segment_of(small);
  while ((sync::load_acquire(segment->control().*word) & sync::event_sleeper_bit) == 0) {
    std::this_thread::yield();
  }
}

// Until the kernel says that this thread sleeps.
void await_sleep(const std::atomic<pid_t>& thread) {
  for (char state = 0; state != 'S'; std::this_thread::yield()) {
    std::ifstream stat{"/proc/self/task/" + std::to_string(thread) + "/stat"};
    std::string text;
    std::getline(stat, text);
    const std::size_t end = text.rfind(')');
    if (end != std::string::npos && end + 2 < text.size()) state = text[end + 2];
  }
}

#ifdef SHMQ_CRASH_POINTS
using shmq::testing::at_point;
using shmq::testing::hits;

// Two evictors of one message. The second read the window before the first one's eviction, and
// reserves the same table entry after the message was acked; before it has written the entry's
// generation, somebody moves the floor.
TEST(Attack, a_late_reservation_does_not_bring_an_acked_message_back) {
  SmallQueue small{Overflow::fail, {shared()}};
  auto producer = small.producer();
  auto other = small.producer();
  auto consumer = small.consumer();
  ASSERT_TRUE(producer.publish("m"));
  auto held = consumer.try_receive();
  const auto segment = segment_of(small);
  queue::SharedGroup group{*segment, 0};
  const sync::Word16 seen = sync::read_halves(group.window(0));  // the second evictor, then stopped
  ASSERT_EQ(group.evict(0, 1), queue::SharedGroup::Eviction::evicted);
  ASSERT_EQ(held->ack(), Settlement::settled);
  ASSERT_EQ(small.group().in_flight, 0U);
  const std::uint64_t ref = sync::load_acquire(segment->slots()[0].high);
  at_point("evict.reserved", [&] { group.advance_floor(); });
  const auto reservation = group.table().reserve(0, shm::unpack_lease(seen.high), ref, 2);
  base::crash_hook = nullptr;
  ASSERT_EQ(hits, 1);
  ASSERT_TRUE(reservation);
  group.table().cancel(*reservation);  // its CAS on the window fails
  EXPECT_EQ(small.group().in_flight, 0U) << "the acked message is leased again";
  EXPECT_EQ(group.table().in_use(), 0U);
}

// The same, but the second evictor dies there: reclaim brings the message back.
TEST(Attack, reclaim_of_a_dead_evictor_does_not_bring_an_acked_message_back) {
  SmallQueue small{Overflow::fail, {shared()}};
  auto producer = small.producer();
  auto consumer = small.consumer();
  ASSERT_TRUE(producer.publish("m"));
  auto held = consumer.try_receive();
  const auto segment = segment_of(small);
  queue::SharedGroup group{*segment, 0};
  const sync::Word16 seen = sync::read_halves(group.window(0));
  ASSERT_EQ(group.evict(0, 1), queue::SharedGroup::Eviction::evicted);
  ASSERT_EQ(held->ack(), Settlement::settled);
  const std::uint64_t ref = sync::load_acquire(segment->slots()[0].high);
  at_point("evict.reserved", [&] {
    group.table().settle_reservations(segment->window(0), segment->limits().window_entries, 7);
  });
  (void)group.table().reserve(0, shm::unpack_lease(seen.high), ref, 7);
  base::crash_hook = nullptr;
  ASSERT_EQ(hits, 1);
  EXPECT_EQ(small.group().in_flight, 0U);
}

// The same, after the acked message's chunk was used again: the group is damaged for ever.
TEST(Attack, reclaim_of_a_dead_evictor_does_not_damage_the_group) {
  FakeClock clock;
  auto options = SmallQueue::options(Overflow::fail, {shared()});
  options.slots = 64;
  options.window_entries = 64;
  SmallQueue small{options};
  auto producer = small.producer();
  auto consumer = small.consumer();
  ASSERT_TRUE(producer.publish(std::string(4000, 'a')));
  auto held = consumer.try_receive();
  const auto segment = segment_of(small);
  queue::SharedGroup group{*segment, 0};
  const sync::Word16 seen = sync::read_halves(group.window(0));  // the second evictor
  const std::uint64_t ref = sync::load_acquire(segment->slots()[0].high);
  ASSERT_EQ(group.evict(0, 1), queue::SharedGroup::Eviction::evicted);
  ASSERT_EQ(held->ack(), Settlement::settled);
  *held = Delivery{};
  for (int i = 0; i < 40; ++i) {
    ASSERT_TRUE(producer.publish(std::string(4000, 'b'))) << i;
    ASSERT_EQ(consumer.try_receive()->ack(), Settlement::settled);
  }
  at_point("evict.reserved", [&] {  // killed here; then reclaimed
    group.table().settle_reservations(segment->window(0), segment->limits().window_entries, 7);
  });
  (void)group.table().reserve(0, shm::unpack_lease(seen.high), ref, 7);
  base::crash_hook = nullptr;
  for (int i = 0; i < 3; ++i) {
    clock.advance(31s);
    auto delivery = consumer.try_receive();
    EXPECT_TRUE(delivery) << delivery.error().message();
  }
}

// The one that found the death is stopped in the middle: it keeps the lock of the dead's byte.
TEST(Attack, a_stopped_reclaimer_does_not_keep_what_the_dead_held) {
  SmallQueue small{Overflow::fail, {shared(0s)}};  // only death counts
  auto producer = small.producer();
  ASSERT_TRUE(producer.publish("m"));
  const pid_t child = fork();
  if (child == 0) {
    auto queue = small.open_again();
    auto consumer = std::move(queue->consumer("default").value());
    auto delivery = consumer.try_receive();
    _exit(delivery->empty() ? 1 : 0);
  }
  int status = 0;
  waitpid(child, &status, 0);
  ASSERT_EQ(WEXITSTATUS(status), 0);
  auto consumer = small.consumer();
  bool found = false;
  at_point("reclaim.sealed", [&] {  // stopped here, for as long as this takes
    ASSERT_TRUE(small.queue->reclaim());
    found = !consumer.try_receive()->empty();
  });
  ASSERT_TRUE(small.queue->reclaim());
  base::crash_hook = nullptr;
  ASSERT_EQ(hits, 1);
  EXPECT_TRUE(found);
}

// Killed between "dead" and its count; then a purge takes away what was never counted.
TEST(Attack, the_count_of_the_dead_does_not_wrap) {
  SmallQueue small{Overflow::fail, {shared()}};
  auto producer = small.producer();
  ASSERT_TRUE(producer.publish("m"));
  const pid_t child = fork();
  if (child == 0) {
    auto queue = small.open_again();
    auto consumer = std::move(queue->consumer("default").value());
    for (int i = 0; i < 5; ++i) {
      auto delivery = consumer.try_receive();
      if (delivery->empty()) _exit(3);
      if (i == 4) at_point("give_back.done", [] { _exit(0); });
      (void)delivery->nack();
    }
    _exit(4);
  }
  int status = 0;
  waitpid(child, &status, 0);
  ASSERT_EQ(WEXITSTATUS(status), 0);
  ASSERT_TRUE(small.queue->reclaim());
  ASSERT_EQ(small.group().dead, 1U);
  ASSERT_TRUE(small.queue->purge());
  auto consumer = small.consumer();
  ASSERT_TRUE(producer.publish("n"));
  for (int i = 0; i < 5; ++i) ASSERT_EQ(consumer.try_receive()->nack(), Settlement::settled);
  EXPECT_EQ(small.group().dead, 1U);
  EXPECT_TRUE(consumer.try_receive()->empty()) << "no message of this group can die any more";
}
#endif

TEST(Attack, a_delay_that_ended_long_ago_is_over) {
  FakeClock clock;
  SmallQueue small{Overflow::fail, {shared()}};
  auto producer = small.producer();
  auto consumer = small.consumer();
  ASSERT_TRUE(producer.publish("m"));
  ASSERT_EQ(consumer.try_receive()->nack(10s), Settlement::settled);
  clock.advance(10h);  // a night without consumers
  EXPECT_FALSE(consumer.try_receive()->empty());
}

TEST(Attack, a_lease_that_ended_long_ago_is_over) {
  FakeClock clock;
  SmallQueue small{Overflow::fail, {shared()}};
  auto producer = small.producer();
  auto stopped = small.consumer();
  auto consumer = small.consumer();
  ASSERT_TRUE(producer.publish("m"));
  auto held = stopped.try_receive();
  clock.advance(19h);  // stopped
  EXPECT_FALSE(consumer.try_receive()->empty());
}

// The clock is read before the sleep; what comes with the wake-up is leased from there on.
TEST(Attack, a_lease_begins_when_the_message_is_handed_out) {
  FakeClock clock;
  SmallQueue small{Overflow::fail, {shared(1s)}};
  auto producer = small.producer();
  auto other = small.consumer();
  auto sleeper = small.consumer();
  for (int round = 0; round < 5; ++round) {
    std::atomic<pid_t> sleeping_thread{0};
    std::atomic<int> phase{0};
    Settlement outcome{};
    std::thread thread{[&] {
      sleeping_thread = gettid();
      auto delivery = sleeper.receive(10s);
      phase = 1;
      while (phase != 2) std::this_thread::yield();
      outcome = delivery->ack();
    }};
    await_sleeper(small, &shm::Control::message_event);
    await_sleep(sleeping_thread);
    clock.advance(2s);
    ASSERT_TRUE(producer.publish("m"));
    while (phase != 1) std::this_thread::yield();
    auto again = other.try_receive();  // not a tick has passed since the hand-out
    phase = 2;
    thread.join();
    EXPECT_TRUE(again->empty()) << "the lease counts from before the sleep";
    EXPECT_EQ(outcome, Settlement::settled) << round;
    if (!again->empty()) (void)again->ack();
  }
}

// Idle and asleep, stopped for two hours, continued: it still has the old time, to which a lease of
// now seems so far ahead that it must be from before the wrap.
TEST(Attack, a_consumer_that_was_stopped_takes_no_valid_lease) {
  FakeClock clock;
  SmallQueue small{Overflow::fail, {shared()}};
  auto producer = small.producer();
  auto owner = small.consumer();
  auto sleeper = small.consumer();
  ASSERT_TRUE(producer.publish("0"));
  ASSERT_TRUE(producer.publish("1"));
  auto first = owner.try_receive();
  auto second = owner.try_receive();
  std::string got;
  std::thread thread{[&] {
    auto delivery = sleeper.receive(10s);
    got = delivery->text();
    (void)delivery->ack();
  }};
  await_sleeper(small, &shm::Control::message_event);
  clock.advance(2h);
  ASSERT_EQ(first->extend(), Settlement::settled);  // valid for 30 s from now on
  ASSERT_EQ(second->release(), Settlement::settled);
  thread.join();
  EXPECT_EQ(got, "1");
  EXPECT_EQ(first->ack(), Settlement::settled);
}

// The same without any stop: with the longest lease, a nap of 60 ms is enough.
TEST(Attack, a_consumer_that_slept_takes_no_valid_lease) {
  FakeClock clock;
  SmallQueue small{Overflow::fail, {shared(1h)}};
  auto producer = small.producer();
  auto owner = small.consumer();
  auto sleeper = small.consumer();
  ASSERT_TRUE(producer.publish("0"));
  ASSERT_TRUE(producer.publish("1"));
  auto first = owner.try_receive();
  auto second = owner.try_receive();
  std::string got;
  std::thread thread{[&] {
    auto delivery = sleeper.receive(10s);
    got = delivery->text();
    (void)delivery->ack();
  }};
  await_sleeper(small, &shm::Control::message_event);
  clock.advance(80ms);
  ASSERT_EQ(first->extend(), Settlement::settled);  // valid for an hour from now on
  ASSERT_EQ(second->release(), Settlement::settled);
  thread.join();
  EXPECT_EQ(got, "1");
  EXPECT_EQ(first->ack(), Settlement::settled);
}

TEST(Attack, a_producers_descriptor_tells_of_room_that_acks_have_made) {
  SmallQueue small{Overflow::fail, {shared()}};
  auto producer = small.producer();
  auto consumer = small.consumer();
  for (int i = 0; i < 16; ++i) ASSERT_TRUE(producer.publish("m"));
  for (int i = 0; i < 16; ++i) ASSERT_EQ(consumer.try_receive()->ack(), Settlement::settled);
  pollfd poller{producer.fd().value(), POLLIN, 0};
  EXPECT_EQ(poll(&poller, 1, 1000), 1) << "all is settled, but nobody moves the floor";
  EXPECT_TRUE(producer.publish("m"));
}

TEST(Attack, a_producers_descriptor_does_not_wait_for_a_slow_consumer) {
  SmallQueue small{Overflow::fail, {shared()}};
  auto producer = small.producer();
  auto slow = small.consumer();
  auto consumer = small.consumer();
  for (int i = 0; i < 16; ++i) ASSERT_TRUE(producer.publish("m"));
  auto held = slow.try_receive();
  pollfd poller{producer.fd().value(), POLLIN, 0};
  for (int i = 1; i < 16; ++i) ASSERT_EQ(consumer.try_receive()->ack(), Settlement::settled);
  EXPECT_EQ(poll(&poller, 1, 1000), 1);
}

// Every 7,037th message is slow.
TEST(Attack, sixty_stragglers_fit_into_a_table_of_4096) {
  auto options = SmallQueue::options(Overflow::fail, {shared(1h)});
  options.slots = 64;
  options.window_entries = 64;
  options.straggler_entries = 4096;
  options.arena_bytes = 256 * 4096;
  SmallQueue small{options};
  auto producer = small.producer();
  auto consumer = small.consumer();
  std::vector<Delivery> held;
  for (int i = 0; held.size() < 60; ++i) {
    ASSERT_TRUE(producer.publish("m"))
        << i << ": full with " << held.size()
        << " stragglers; at_in_flight_limit: " << small.group().at_in_flight_limit;
    auto delivery = consumer.try_receive();
    if (delivery->empty()) continue;
    if (delivery->seq().value % 7037 == 0) {
      held.push_back(std::move(*delivery));
    } else {
      ASSERT_EQ(delivery->ack(), Settlement::settled);
    }
  }
}

void dead_ones_do_not_fill_the_arena(Overflow overflow) {
  auto options = SmallQueue::options(overflow, {shared()});
  options.straggler_entries = 64;
  SmallQueue small{options};
  auto producer = small.producer();
  auto consumer = small.consumer();
  for (int i = 0; i < 100; ++i) {
    ASSERT_TRUE(producer.publish(std::string(3000, 'x')))
        << i << ": full for ever with " << small.group().dead << " dead messages";
    auto delivery = consumer.try_receive();
    if (!delivery->empty()) {
      ASSERT_EQ(delivery->reject(), Settlement::settled);
    }
  }
}
TEST(Attack, dead_messages_do_not_stop_the_producers) {
  dead_ones_do_not_fill_the_arena(Overflow::fail);
}
TEST(Attack, dead_messages_do_not_stop_the_producers_of_drop_oldest) {
  dead_ones_do_not_fill_the_arena(Overflow::drop_oldest);
}

// Small ones, one in a chunk: what compaction is for.
TEST(Attack, small_delayed_messages_do_not_hold_a_chunk_each) {
  auto options = SmallQueue::options(Overflow::fail, {shared()});
  options.straggler_entries = 64;
  SmallQueue small{options};
  auto producer = small.producer();
  auto consumer = small.consumer();
  for (int i = 0; i < 6000; ++i) {
    ASSERT_TRUE(producer.publish(std::string(50, 'x')))
        << i << ": full with " << small.group().delayed << " delayed messages of 50 bytes";
    auto delivery = consumer.try_receive();
    if (delivery->empty()) continue;
    if (i % 150 == 0) {
      ASSERT_EQ(delivery->nack(1h), Settlement::settled);
    } else {
      ASSERT_EQ(delivery->ack(), Settlement::settled);
    }
  }
}

TEST(Attack, consumers_that_hold_nothing_do_not_hold_the_arena) {
  auto options = SmallQueue::options(Overflow::fail, {shared()});
  options.arena_bytes = 4 * 4096;
  SmallQueue small{options};
  auto producer = small.producer();
  std::vector<Consumer> consumers;
  for (int i = 0; i < 5; ++i) consumers.push_back(small.consumer());
  for (auto& consumer : consumers) {
    for (int i = 0; i < 2; ++i) {
      ASSERT_TRUE(producer.publish(std::string(2000, 'x'))) << "everything is settled";
      auto delivery = consumer.try_receive();
      ASSERT_FALSE(delivery->empty());
      ASSERT_EQ(delivery->ack(), Settlement::settled);
    }
  }
}

// One message of eight crashes whoever gets it.
TEST(Attack, a_poisonous_message_takes_no_others_with_it) {
  SmallQueue small{Overflow::fail, {shared()}};
  auto producer = small.producer();
  for (int i = 0; i < 8; ++i) ASSERT_TRUE(producer.publish(i == 0 ? "poison" : "fine"));
  for (int life = 0; life < 20; ++life) {
    const pid_t child = fork();
    if (child == 0) {
      auto queue = small.open_again();
      auto consumer = std::move(queue->consumer("default").value());
      std::vector<Delivery> batch(8);
      const auto count = consumer.receive_batch(batch, 0ns).value();
      for (std::size_t i = 0; i < count; ++i) {
        if (batch[i].text() == "poison") _exit(0);
        (void)batch[i].ack();
      }
      _exit(0);
    }
    waitpid(child, nullptr, 0);
    ASSERT_TRUE(small.queue->reclaim());
  }
  EXPECT_EQ(small.group().dead, 1U);
  EXPECT_EQ(small.group().acked_total, 7U);
}

std::function<void()> at_fault;
std::byte* guarded = nullptr;

// A hint from 0 to 0: who looks takes the announcement back. The look is stopped in the middle by a
// page of the window that may not be read.
TEST(Attack, what_is_released_during_a_look_is_found_at_once) {
  FakeClock clock;
  auto options = SmallQueue::options(Overflow::fail, {shared()});
  options.slots = 4096;
  options.window_entries = 4096;
  options.arena_bytes = 1ULL << 20;
  SmallQueue small{options};
  auto producer = small.producer();
  auto holder = small.consumer();
  for (int i = 0; i < 4000; ++i) ASSERT_TRUE(producer.publish("m"));
  ASSERT_EQ(holder.try_receive()->nack(1h), Settlement::settled);
  auto other = holder.try_receive();
  auto held = holder.try_receive();
  for (int i = 3; i < 4000; ++i) ASSERT_EQ(holder.try_receive()->ack(), Settlement::settled);
  const auto segment = segment_of(small);
  const std::uint64_t word = sync::load_acquire(segment->group(0).word);
  auto life = queue::Participation::attach(segment, Role::consumer, "",
                                           (shm::group_incarnation(word) << 16) | 1);
  ASSERT_TRUE(life);
  queue::SharedConsumer looker{*segment, 0, word, life->entry_number() + 1, life->generation()};
  ASSERT_EQ(other->release(), Settlement::settled);  // the hint is 0, and stays so: it is found,
  std::array<queue::HandOut, 4> out;
  std::size_t count = 0;
  looker.read_clock();
  ASSERT_EQ(looker.fetch(out.data(), 1, count), queue::Fetch::some);
  ASSERT_LE(sync::load_acquire(segment->group(0).next_due_tick), base::coarse_tick_64());
  // The next look finds nothing; while it is half-way through the window, a message that it has
  // passed is released.
  guarded = reinterpret_cast<std::byte*>(segment->window(0) + 2048);
  at_fault = [&] {
    mprotect(guarded, 4096, PROT_READ | PROT_WRITE);
    ASSERT_EQ(held->release(), Settlement::settled);
  };
  struct sigaction action {};
  action.sa_handler = [](int) { at_fault(); };
  action.sa_flags = SA_NODEFER;
  struct sigaction before {};
  sigaction(SIGSEGV, &action, &before);
  mprotect(guarded, 4096, PROT_NONE);
  const queue::Fetch look = looker.fetch(out.data(), 1, count);
  sigaction(SIGSEGV, &before, nullptr);
  auto found = holder.try_receive();
  EXPECT_TRUE(look == queue::Fetch::some || !found->empty())
      << "released 200 ms ago, nobody holds it, and nobody looks";
}

TEST(Attack, an_interrupt_ends_a_wait_at_the_in_flight_limit_at_once) {
  SmallQueue small{Overflow::fail, {shared()}};
  auto producer = small.producer();
  auto holder = small.consumer();
  auto waiter = small.consumer();
  std::vector<Delivery> held;
  for (int i = 0; i < 100; ++i) {
    (void)producer.publish("m");
    auto delivery = holder.try_receive();
    if (!delivery) break;  // in_flight_limit
    if (!delivery->empty()) held.push_back(std::move(*delivery));
  }
  ASSERT_EQ(held.size(), 32U);
  std::thread thread{[&] { EXPECT_EQ(waiter.receive().error(), Errc::interrupted); }};
  await_sleeper(small, &shm::Control::room_event);
  const auto segment = segment_of(small);
  const std::uint32_t before = sync::load_acquire(segment->control().room_event);
  waiter.interrupt();
  EXPECT_NE(sync::load_acquire(segment->control().room_event), before) << "nobody woke it";
  thread.join();
}

TEST(Attack, a_delay_is_not_cut_short) {
  FakeClock clock;
  // Just before a tick ends.
  clock.advance(std::chrono::nanoseconds{(1ULL << 24) - 1 - (base::clock->coarse_ns() & 0xffffff)});
  SmallQueue small{Overflow::fail, {shared()}};
  auto producer = small.producer();
  auto consumer = small.consumer();
  ASSERT_TRUE(producer.publish("m"));
  ASSERT_EQ(consumer.try_receive()->nack(30ms), Settlement::settled);
  clock.advance(17ms);
  EXPECT_TRUE(consumer.try_receive()->empty()) << "13 ms early";
}

// --- Scribbled words ---------------------------------------------------------------------------

TEST(Attack, a_due_hint_from_nowhere_does_not_stop_redelivery) {
  FakeClock clock;
  SmallQueue small{Overflow::fail, {shared(1s)}};
  auto producer = small.producer();
  auto holder = small.consumer();
  auto consumer = small.consumer();
  ASSERT_TRUE(producer.publish("m"));
  auto held = holder.try_receive();
  EXPECT_TRUE(consumer.try_receive()->empty());
  sync::store_relaxed(segment_of(small)->group(0).next_due_tick, ~std::uint64_t{0});
  clock.advance(1h);
  EXPECT_FALSE(consumer.try_receive()->empty());
}

TEST(Attack, a_tail_hint_from_nowhere_does_not_make_a_purge_settle_what_is_not_there) {
  SmallQueue small{Overflow::fail, {shared()}};
  auto producer = small.producer();
  auto consumer = small.consumer();
  ASSERT_TRUE(producer.publish("m"));
  constexpr std::uint64_t hint = 1U << 20;
  sync::store_relaxed(segment_of(small)->control().tail_hint, hint);
  const auto begin = base::system_clock.monotonic_ns();
  const auto dropped = small.queue->purge().value();
  const auto took = base::system_clock.monotonic_ns() - begin;
  EXPECT_LE(dropped, 1U) << "took " << took / 1000 << " us, as long as the hint is great";
  EXPECT_TRUE(producer.publish("n"));
  EXPECT_FALSE(consumer.try_receive()->empty());
}

TEST(Attack, a_next_hint_from_nowhere_hides_nothing) {
  SmallQueue small{Overflow::fail, {shared()}};
  auto producer = small.producer();
  for (int i = 0; i < 8; ++i) ASSERT_TRUE(producer.publish("m"));
  sync::store_relaxed(segment_of(small)->group(0).next_hint, 12);
  auto consumer = small.consumer();
  EXPECT_FALSE(consumer.try_receive()->empty());
}

}  // namespace
