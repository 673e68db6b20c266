// SPDX-License-Identifier: Apache-2.0
//
// Groups that fall behind the ring: the same order, leases, acks and stragglers as ever; and back
// to the ring by themselves.
#include <gtest/gtest.h>

#include <deque>
#include <fstream>
#include <set>

#include "journal/cursor.hpp"
#include "spill/numbered.hpp"
#include "support/fake_clock.hpp"

namespace {

using namespace shmq;
using namespace shmq::testing;
using namespace std::chrono_literals;

constexpr auto settled = Settlement::settled;

Delivery receive(Consumer& consumer) {
  auto delivery = consumer.try_receive();
  if (!delivery) {
    ADD_FAILURE() << delivery.error().message();
    return {};
  }
  return std::move(*delivery);
}

void consume_in_order(Consumer& consumer, std::uint64_t first, std::uint64_t end) {
  for (std::uint64_t number = first; number < end; ++number) {
    Delivery delivery = receive(consumer);
    ASSERT_FALSE(delivery.empty()) << "at " << number;
    ASSERT_EQ(delivery.seq().value, number);
    ASSERT_EQ(fault_of(delivery, number), "");
    ASSERT_EQ(delivery.ack(), settled);
  }
}

std::vector<GroupOptions> both() {
  return {{.name = "one", .mode = GroupMode::exclusive},
          {.name = "many", .mode = GroupMode::shared, .delivery_limit = 60}};
}

struct Spill : ::testing::Test {
  Consumer consumer(const std::string& group) {
    return std::move(publishing.queue().consumer(group).value());
  }
  std::uint64_t head() { return publishing.queue().stats().head.value; }

  FakeClock clock;
  JournaledQueue journaled{spill_options(both())};
  Publishing publishing{journaled};
};

TEST_F(Spill, without_a_consumer_publishers_go_on_and_nothing_is_lost) {
  publishing.publish(5000);
  EXPECT_GT(head(), 4000U);
  EXPECT_GT(journaled.writer().figures().files, 8U);
  EXPECT_EQ(journaled.mark().first_retained, 0U);
  for (const char* group : {"one", "many"}) {
    auto reader = consumer(group);
    consume_in_order(reader, 0, 5000);
    EXPECT_TRUE(receive(reader).empty());
  }
  // All are past it: the files go, and that is told.
  publishing.publish(200);
  journaled.pump();
  journaled.pump();
  EXPECT_GT(journaled.mark().first_retained, 4000U);
  EXPECT_LT(journaled.writer().files().older().size(), 4U);
}

TEST_F(Spill, it_waits_for_what_is_not_on_disk_and_for_nothing_else) {
  auto producer = std::move(publishing.queue().producer().value());
  std::uint64_t published = 0;
  while (producer.publish(std::string_view{"x"}, {.timeout = 0ns})) ++published;
  EXPECT_EQ(published, 64U) << "nothing of it is on disk";
  EXPECT_EQ(producer.publish(std::string_view{"x"}, {.timeout = 0ns}).code(), Errc::full);
  journaled.pump();
  EXPECT_TRUE(producer.publish(std::string_view{"x"}, {.timeout = 0ns}));
}

TEST_F(Spill, a_reader_comes_back_to_the_ring_and_falls_behind_again) {
  auto one = consumer("one");
  auto many = consumer("many");
  std::uint64_t seen_one = 0;
  std::uint64_t seen_many = 0;
  for (int round = 0; round < 30; ++round) {
    publishing.publish(round % 3 == 0 ? 400 : 7);
    consume_in_order(one, seen_one, publishing.next());
    seen_one = publishing.next();
    if (round % 2 == 0) {
      consume_in_order(many, seen_many, publishing.next());
      seen_many = publishing.next();
    }
    if (::testing::Test::HasFailure()) return;
  }
}

TEST_F(Spill, batches_cross_from_the_journal_into_the_ring) {
  publishing.publish(1000);
  for (const char* group : {"one", "many"}) {
    auto reader = consumer(group);
    std::vector<Delivery> deliveries(29);
    std::uint64_t number = 0;
    while (number < 1000) {
      auto count = reader.receive_batch(deliveries, 0ns);
      ASSERT_TRUE(count);
      ASSERT_GT(*count, 0U) << number;
      for (std::size_t i = 0; i < *count; ++i, ++number) {
        ASSERT_EQ(deliveries[i].seq().value, number);
        ASSERT_EQ(fault_of(deliveries[i], number), "");
      }
      ASSERT_EQ(reader.ack_through({number - 1}), settled);
    }
    deliveries.clear();
  }
}

TEST_F(Spill, bytes_stay_whole_for_their_holder) {
  publishing.publish(2000);
  auto many = consumer("many");
  std::deque<Delivery> held;
  for (std::uint64_t number = 0; number < 2000; ++number) {
    Delivery delivery = receive(many);
    ASSERT_FALSE(delivery.empty());
    ASSERT_EQ(delivery.ack(), settled);
    held.push_back(std::move(delivery));
    publishing.publish(1);
    if (held.size() < 500) continue;
    ASSERT_EQ(fault_of(held.front(), held.front().seq().value), "");
    held.pop_front();
  }
  for (const Delivery& delivery : held) ASSERT_EQ(fault_of(delivery, delivery.seq().value), "");
}

TEST_F(Spill, publish_times_come_from_the_journal) {
  Publishing timed{journaled, true};
  timed.publish(500);
  auto one = consumer("one");
  for (std::uint64_t number = 0; number < 500; ++number) {
    Delivery delivery = receive(one);
    ASSERT_EQ(fault_of(delivery, number), "");
    ASSERT_TRUE(delivery.publish_time());
    ASSERT_EQ(delivery.ack(), settled);
  }
}

TEST_F(Spill, what_is_given_back_comes_again_from_the_journal) {
  publishing.publish(2000);
  auto one = consumer("one");
  auto many = consumer("many");
  for (Consumer* reader : {&one, &many}) {
    for (std::uint64_t number = 0; number < 300; ++number) {
      Delivery delivery = receive(*reader);
      ASSERT_EQ(delivery.seq().value, number);
      ASSERT_EQ(fault_of(delivery, number), "");
      if (number % 10 == 3 && delivery.hand_outs() == 1) {
        ASSERT_EQ(number % 20 == 3 ? delivery.nack() : delivery.release(), settled);
        --number;
        continue;
      }
      ASSERT_EQ(delivery.hand_outs(), number % 10 == 3 ? 2U : 1U);
      ASSERT_EQ(delivery.ack(), settled);
    }
  }
}

TEST_F(Spill, stragglers_stay_in_the_journal_and_come_back_from_it) {
  publishing.publish(3000);
  auto many = consumer("many");
  std::vector<Delivery> held;
  std::uint64_t number = 0;
  for (; number < 1000; ++number) {
    Delivery delivery = receive(many);
    ASSERT_FALSE(delivery.empty()) << number;
    ASSERT_EQ(delivery.seq().value, number);
    if (number % 100 == 50) {
      held.push_back(std::move(delivery));
    } else {
      ASSERT_EQ(delivery.ack(), settled);
    }
  }
  const auto info = publishing.queue().groups()[1];
  EXPECT_GT(info.floor.value, 900U) << "the held ones are set aside";
  // Their files stay.
  consumer("one");
  journaled.pump();
  EXPECT_EQ(journaled.mark().first_retained, 0U);
  // Held ones are acked where they are, or come again.
  std::set<std::uint64_t> again;
  for (Delivery& delivery : held) {
    ASSERT_EQ(fault_of(delivery, delivery.seq().value), "");
    if (delivery.seq().value % 200 == 50) {
      ASSERT_EQ(delivery.ack(), settled);
    } else {
      again.insert(delivery.seq().value);
      ASSERT_EQ(delivery.release(), settled);
    }
  }
  held.clear();
  std::set<std::uint64_t> seen;
  while (number < 3000 || !again.empty()) {
    Delivery delivery = receive(many);
    ASSERT_FALSE(delivery.empty());
    const std::uint64_t seq = delivery.seq().value;
    ASSERT_EQ(fault_of(delivery, seq), "");
    if (seq == number) {
      ++number;
    } else {
      ASSERT_EQ(again.erase(seq), 1U) << seq;
    }
    ASSERT_EQ(delivery.ack(), settled);
  }
}

// More of them than the arena has chunks for: they are left to the journal, and stop nobody.
TEST_F(Spill, held_messages_stop_no_producer) {
  auto many = consumer("many");
  std::vector<Delivery> held;
  std::uint64_t number = 0;
  for (; held.size() < 30; ++number) {
    publishing.publish(1);
    journaled.pump();
    Delivery delivery = receive(many);
    ASSERT_EQ(delivery.seq().value, number);
    if (number % 12 == 5) {
      held.push_back(std::move(delivery));
    } else {
      ASSERT_EQ(delivery.ack(), settled);
    }
  }
  std::set<std::uint64_t> again;
  for (Delivery& delivery : held) {
    again.insert(delivery.seq().value);
    ASSERT_EQ(delivery.nack(1h), settled);
  }
  held.clear();
  publishing.publish(2000);
  clock.advance(2h);
  while (number < publishing.next() || !again.empty()) {
    Delivery delivery = receive(many);
    ASSERT_FALSE(delivery.empty());
    const std::uint64_t seq = delivery.seq().value;
    ASSERT_EQ(fault_of(delivery, seq), "");
    if (seq == number) {
      ++number;
    } else {
      ASSERT_EQ(again.erase(seq), 1U) << seq;
    }
    ASSERT_EQ(delivery.ack(), settled);
  }
}

// One that is held while the group is at the ring, and spilled under its holder.
TEST_F(Spill, a_message_that_is_held_in_the_ring_is_spilled_and_comes_again) {
  publishing.publish(20);
  auto many = consumer("many");
  std::vector<Delivery> held;
  for (int i = 0; i < 20; ++i) held.push_back(receive(many));
  publishing.publish(500);
  EXPECT_GT(head(), 20U);
  for (int i = 0; i < 20; ++i) ASSERT_EQ(fault_of(held[i], i), "") << "its chunk is pinned";
  for (Delivery& delivery : held) ASSERT_EQ(delivery.release(), settled);
  held.clear();
  for (std::uint64_t number = 0; number < 520; ++number) {
    Delivery delivery = receive(many);
    ASSERT_EQ(delivery.seq().value, number);
    ASSERT_EQ(fault_of(delivery, number), "");
    ASSERT_EQ(delivery.hand_outs(), number < 20 ? 2U : 1U);
    ASSERT_EQ(delivery.ack(), settled);
  }
}

TEST_F(Spill, a_successor_goes_on_in_the_journal) {
  publishing.publish(1000);
  {
    auto first = consumer("one");
    consume_in_order(first, 0, 100);
    std::vector<Delivery> held;
    for (int i = 0; i < 20; ++i) held.push_back(receive(first));
    held.clear();  // nacked
  }
  clock.advance(1h);
  auto second = consumer("one");
  for (std::uint64_t number = 100; number < 1000; ++number) {
    Delivery delivery = receive(second);
    ASSERT_EQ(delivery.seq().value, number);
    ASSERT_EQ(fault_of(delivery, number), "");
    ASSERT_EQ(delivery.ack(), settled);
  }
}

TEST_F(Spill, two_consumers_share_a_backlog) {
  publishing.publish(2000);
  auto first = consumer("many");
  auto second = consumer("many");
  std::set<std::uint64_t> seen;
  for (int i = 0; i < 1000; ++i) {
    for (Consumer* each : {&first, &second}) {
      Delivery delivery = receive(*each);
      ASSERT_FALSE(delivery.empty());
      ASSERT_EQ(fault_of(delivery, delivery.seq().value), "");
      ASSERT_TRUE(seen.insert(delivery.seq().value).second);
      ASSERT_EQ(delivery.ack(), settled);
    }
  }
  EXPECT_EQ(seen.size(), 2000U);
}

TEST_F(Spill, damage_is_told_with_its_seqs_and_nothing_is_skipped) {
  publishing.publish(3000);
  journaled.pump();
  // A batch in the middle.
  journal::Cursor cursor{journal::open_directory(journaled.path()),
                         journal::uuid_of(journaled.segment()->header().uuid)};
  journal::BatchBuffer batch;
  cursor.seek(1000);
  ASSERT_TRUE(cursor.next(batch, 3000).value());
  const auto broken = batch.header;
  const std::string file = journaled.path() + "/" + journal::file_name(broken.file_number);
  const auto flip = [&] {
    std::fstream stream{file, std::ios::in | std::ios::out | std::ios::binary};
    stream.seekg(static_cast<std::streamoff>(broken.file_offset + 600));
    const char byte = static_cast<char>(stream.get() ^ 1);
    stream.seekp(static_cast<std::streamoff>(broken.file_offset + 600));
    stream.put(byte);
  };
  flip();
  for (const char* group : {"one", "many"}) {
    auto reader = consumer(group);
    std::uint64_t number = 0;
    for (;; ++number) {
      auto delivery = reader.try_receive();
      if (!delivery) {
        EXPECT_TRUE(delivery.error() == Errc::corrupt);
        EXPECT_NE(delivery.error().message().find("seqs " + std::to_string(broken.first_seq) +
                                                  " to " + std::to_string(broken.end_seq - 1)),
                  std::string::npos)
            << delivery.error().message();
        break;
      }
      ASSERT_EQ(fault_of(*delivery, number), "");
      ASSERT_EQ(delivery->ack(), settled);
    }
    EXPECT_EQ(number, broken.first_seq);
    EXPECT_FALSE(reader.try_receive()) << "it is not skipped the second time either";
  }
  flip();
  for (const char* group : {"one", "many"}) {
    auto reader = consumer(group);
    consume_in_order(reader, broken.first_seq, 3000);
  }
}

TEST_F(Spill, an_unreadable_journal_is_an_error_until_it_is_back) {
  publishing.publish(1000);
  auto one = consumer("one");
  std::filesystem::rename(journaled.path(), journaled.path() + ".away");
  EXPECT_FALSE(one.try_receive());
  std::filesystem::rename(journaled.path() + ".away", journaled.path());
  consume_in_order(one, 0, 1000);
}

TEST_F(Spill, the_daemon_may_restart_while_groups_are_behind) {
  auto one = consumer("one");
  auto many = consumer("many");
  std::uint64_t seen = 0;
  for (int life = 0; life < 8; ++life) {
    publishing.publish(300);
    consume_in_order(one, seen, seen + 150);
    consume_in_order(many, seen, seen + 150);
    seen += 150;
    journaled.restart();
  }
  consume_in_order(one, seen, publishing.next());
  consume_in_order(many, seen, publishing.next());
}

TEST(SpillRestore, only_the_newest_part_comes_back_to_the_ring) {
  FakeClock clock;
  JournaledQueue journaled{spill_options(both())};
  std::set<std::uint64_t> open;
  std::uint64_t next_one = 0;
  {
    Publishing publishing{journaled};
    publishing.publish(3000);
    auto one = std::move(publishing.queue().consumer("one").value());
    consume_in_order(one, 0, 200);
    next_one = 200;
    auto many = std::move(publishing.queue().consumer("many").value());
    std::vector<Delivery> held;
    for (std::uint64_t number = 0; number < 1500; ++number) {
      Delivery delivery = receive(many);
      ASSERT_EQ(delivery.seq().value, number);
      if (number % 100 == 17) {
        open.insert(number);
        held.push_back(std::move(delivery));
      } else {
        ASSERT_EQ(delivery.ack(), settled);
      }
    }
    for (Delivery& delivery : held) ASSERT_EQ(delivery.release(), settled);
    held.clear();
    journaled.pump();
    journaled.pump();
  }
  journaled.lose_memory();
  journaled.pump();
  Publishing publishing{journaled};
  const auto info = publishing.queue().info();
  EXPECT_EQ(info.slots, 64U);
  EXPECT_EQ(info.arena_bytes, 16U * 4096);
  const std::uint64_t tail = publishing.queue().stats().tail.value;
  EXPECT_GE(tail, 3000U);
  auto one = std::move(publishing.queue().consumer("one").value());
  consume_in_order(one, next_one, 3000);
  auto many = std::move(publishing.queue().consumer("many").value());
  for (std::uint64_t number = 1500; number < 3000 || !open.empty();) {
    Delivery delivery = receive(many);
    ASSERT_FALSE(delivery.empty());
    const std::uint64_t seq = delivery.seq().value;
    ASSERT_EQ(fault_of(delivery, seq), "");
    ASSERT_EQ(delivery.ack(), settled);
    if (seq == number) {
      ++number;
    } else {
      ASSERT_EQ(open.erase(seq), 1U) << seq << " for " << number;
    }
  }
  // The gap that the loss left is passed unseen, from the journal as well as from the ring.
  publishing.set_next(tail);
  publishing.publish(500);
  consume_in_order(one, tail, tail + 500);
  consume_in_order(many, tail, tail + 500);
  // And again.
}

TEST(SpillRestore, gaps_far_behind_are_passed) {
  JournaledQueue journaled{spill_options(both())};
  std::vector<std::uint64_t> numbers;
  for (int life = 0; life < 4; ++life) {
    {
      Publishing publishing{journaled};
      publishing.set_next(publishing.queue().stats().tail.value);
      const std::uint64_t first = publishing.next();
      publishing.publish(200);
      for (std::uint64_t number = first; number < publishing.next(); ++number) {
        numbers.push_back(number);
      }
      journaled.pump();
    }
    journaled.lose_memory();
  }
  EXPECT_GT(numbers.back(), numbers.size()) << "there are gaps";
  auto queue = journaled.open();
  for (const char* group : {"one", "many"}) {
    auto reader = std::move(queue.consumer(group).value());
    for (const std::uint64_t number : numbers) {
      Delivery delivery = receive(reader);
      ASSERT_EQ(fault_of(delivery, number), "") << group;
      ASSERT_EQ(delivery.ack(), settled);
    }
    EXPECT_TRUE(receive(reader).empty());
  }
}

TEST(SpillOptions, a_transient_queue_cannot_spill) {
  Scratch scratch;
  auto options = spill_options({});
  options.name_space = scratch.name_space;
  auto made = Queue::create("q", options);
  ASSERT_FALSE(made);
  EXPECT_NE(made.error().message().find("spill needs a durable queue"), std::string::npos)
      << made.error().message();
}

}  // namespace
