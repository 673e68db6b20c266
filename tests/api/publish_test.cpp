// SPDX-License-Identifier: Apache-2.0
#include <gtest/gtest.h>

#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <thread>

#include "support/small_queue.hpp"

namespace {

using namespace shmq;
using namespace std::chrono_literals;
using shmq::testing::SmallQueue;

std::string text_of(std::size_t bytes, char first) {
  std::string text(bytes, first);
  for (std::size_t i = 0; i < bytes; ++i) text[i] = static_cast<char>(first + i % 23);
  return text;
}

TEST(Publish, messages_of_every_size_arrive_whole_and_in_order) {
  SmallQueue small;
  auto producer = small.producer();
  auto consumer = small.consumer();
  std::size_t checked = 0;
  for (std::size_t bytes = 0; bytes <= 8192; bytes = bytes < 300 ? bytes + 1 : bytes + 397) {
    const std::string text = text_of(bytes, 'a');
    ASSERT_TRUE(producer.publish(text)) << bytes;
    auto delivery = consumer.try_receive();
    ASSERT_TRUE(delivery && !delivery->empty()) << bytes;
    ASSERT_EQ(delivery->text(), text);
    ASSERT_EQ(delivery->ack(), Settlement::settled);
    ++checked;
  }
  EXPECT_GT(checked, 300U);
}

TEST(Publish, a_message_beyond_the_limit_is_refused_and_changes_nothing) {
  SmallQueue small;
  auto producer = small.producer();
  const std::string text(8193, 'x');
  EXPECT_EQ(producer.publish(text).code(), Errc::message_too_large);
  EXPECT_EQ(producer.loan(8193).error().code(), make_error_code(Errc::message_too_large));
  EXPECT_EQ(small.queue->stats().tail.value, 0U);
}

TEST(Publish, a_full_ring_is_refused_and_room_is_used_again) {
  SmallQueue small;
  auto producer = small.producer();
  for (int lap = 0; lap < 5; ++lap) {
    auto consumer = small.consumer();
    for (int i = 0; i < 16; ++i) ASSERT_TRUE(producer.publish("m"));
    ASSERT_EQ(producer.publish("m").code(), Errc::full);
    for (int i = 0; i < 16; ++i) {
      auto delivery = consumer.try_receive();
      ASSERT_EQ(delivery->seq().value, static_cast<std::uint64_t>(lap * 16 + i));
      ASSERT_EQ(delivery->ack(), Settlement::settled);
    }
  }
}

TEST(Publish, attributes_and_publish_time_travel_with_the_message) {
  SmallQueue small;
  auto producer = small.queue->producer({.name = "p", .publish_time = true}).value();
  const Attribute attributes[] = {{"key", "value"}, {"", ""}, {"empty", ""}};
  const auto before = std::chrono::system_clock::now();
  ASSERT_TRUE(producer.publish("payload", {.attributes = attributes}));
  auto consumer = small.consumer();
  auto delivery = consumer.try_receive();
  const auto received = delivery->attributes();
  ASSERT_EQ(received.size(), 3U);
  EXPECT_EQ(received[0].key, "key");
  EXPECT_EQ(received[0].value, "value");
  EXPECT_EQ(received[2].key, "empty");
  EXPECT_EQ(delivery->text(), "payload");
  ASSERT_TRUE(delivery->publish_time());
  EXPECT_GE(*delivery->publish_time(), before);
  EXPECT_EQ(delivery->ack(), Settlement::settled);
}

TEST(Publish, a_loan_is_seen_only_once_committed_and_others_pass_it) {
  SmallQueue small;
  auto slow = small.producer();
  auto fast = small.producer();
  auto consumer = small.consumer();
  auto loan = slow.loan(100);
  ASSERT_TRUE(loan);
  std::memset(loan->bytes().data(), 'L', 100);
  // Three laps of the ring and more than the arena, while the loan is held.
  for (int i = 0; i < 48; ++i) {
    ASSERT_TRUE(fast.publish(text_of(2000, 'b'))) << i;
    ASSERT_TRUE(slow.publish(text_of(1500, 'c'))) << i;
    for (int k = 0; k < 2; ++k) {
      auto delivery = consumer.try_receive();
      ASSERT_FALSE(delivery->empty());
      ASSERT_NE(delivery->text()[0], 'L');
      ASSERT_EQ(delivery->ack(), Settlement::settled);
    }
  }
  const auto seq = loan->commit();
  ASSERT_TRUE(seq);
  EXPECT_EQ(seq.seq().value, 96U);
  auto delivery = consumer.try_receive();
  EXPECT_EQ(delivery->text(), std::string(100, 'L'));
  EXPECT_EQ(delivery->ack(), Settlement::settled);
}

TEST(Publish, abandoned_loans_leave_no_trace) {
  SmallQueue small;
  auto producer = small.producer();
  for (int i = 0; i < 1000; ++i) ASSERT_TRUE(producer.loan(1000)) << i;
  EXPECT_EQ(small.queue->stats().tail.value, 0U);
  producer.close();
  EXPECT_EQ(small.queue->stats().chunks_open, 0U);
}

TEST(Publish, a_batch_is_many_publishes_and_says_how_many) {
  SmallQueue small;
  auto producer = small.producer();
  std::vector<std::span<const std::byte>> payloads;
  const std::string text = "batch";
  for (int i = 0; i < 20; ++i) payloads.push_back(std::as_bytes(std::span{text}));
  const auto result = producer.publish_batch(payloads);
  EXPECT_EQ(result.published, 16U);
  EXPECT_EQ(result.last.value, 15U);
  EXPECT_EQ(result.code, Errc::full);
}

// Four chunks of four messages: a chunk is taken again only when its very last message is settled.
TEST(Publish, the_last_message_of_a_chunk_holds_it) {
  QueueOptions options = SmallQueue::options();
  options.arena_bytes = 4 * 4096;
  options.max_producers = 1;
  SmallQueue small{options};
  auto producer = small.producer();
  auto consumer = small.consumer();
  for (int i = 0; i < 16; ++i)
    ASSERT_TRUE(producer.publish(text_of(1000, static_cast<char>('A' + i))));
  for (int i = 0; i < 3; ++i) ASSERT_EQ(consumer.try_receive()->ack(), Settlement::settled);
  consumer.close();  // no pin but the last message itself
  EXPECT_EQ(producer.publish(text_of(1000, 'z')).code(), Errc::full);
  {
    auto another = small.consumer();
    auto last = another.try_receive();
    ASSERT_TRUE(last) << last.error().message();
    EXPECT_EQ(last->text(), text_of(1000, 'D'));
    EXPECT_EQ(last->ack(), Settlement::settled);
  }
  EXPECT_TRUE(producer.publish(text_of(1000, 'z')));
}

TEST(Publish, a_run_of_chunks_carries_a_large_message) {
  SmallQueue small;
  auto producer = small.producer();
  auto consumer = small.consumer();
  const std::string text = text_of(8000, 'r');
  for (int i = 0; i < 50; ++i) {
    ASSERT_TRUE(producer.publish(text)) << i;
    ASSERT_TRUE(producer.publish("small"));
    auto large = consumer.try_receive();
    ASSERT_EQ(large->text(), text);
    auto little = consumer.try_receive();
    ASSERT_EQ(little->text(), "small");
    ASSERT_EQ(consumer.ack_through(little->seq()), Settlement::settled);
  }
}

// The bytes of a delivery that is held are never written again, whatever runs over it. A thousand
// laps of the arena; a minute with SHMQ_LONG.
TEST(DropOldest, a_held_delivery_keeps_its_bytes) {
  SmallQueue small{Overflow::drop_oldest};
  auto producer = small.producer();
  auto consumer = small.consumer();
  auto bystander = small.consumer();  // stands by: it gets nothing as long as the holder lives
  const std::string held_text = text_of(1000, 'h');
  ASSERT_TRUE(producer.publish(held_text));
  auto held = consumer.try_receive();
  ASSERT_FALSE(held->empty());
  const auto still_whole = [&] { return held->text() == held_text; };
  const bool whole_minute = std::getenv("SHMQ_LONG") != nullptr;
  const auto end = std::chrono::steady_clock::now() + std::chrono::seconds{60};
  constexpr std::uint64_t laps = 1000;
  constexpr std::uint64_t messages_a_lap = 64;  // four in each of 16 chunks
  std::uint64_t published = 0;
  std::uint64_t looks = 0;
  std::uint64_t taken = 0;
  while (published < laps * messages_a_lap ||
         (whole_minute && std::chrono::steady_clock::now() < end)) {
    const std::string text = text_of(900, static_cast<char>('a' + published % 7));
    ASSERT_TRUE(producer.publish(text));
    if (++published % messages_a_lap != 0) continue;
    ASSERT_TRUE(still_whole()) << "after " << published << " messages";
    ++looks;
    // The holder goes on receiving: other pins come and go beside the one that is held.
    auto other = consumer.try_receive();
    ASSERT_TRUE(other) << other.error().message();
    ASSERT_FALSE(other->empty());
    ASSERT_TRUE(producer.publish(text));
    ASSERT_EQ(other->payload().size(), 900U);
    ASSERT_EQ(other->ack(), Settlement::settled);
    ++taken;
    ASSERT_TRUE(bystander.try_receive()->empty());
  }
  EXPECT_TRUE(still_whole());
  EXPECT_EQ(held->ack(), Settlement::lease_lost);
  EXPECT_TRUE(still_whole());
  const auto group = small.group();
  EXPECT_EQ(group.acked_total, taken);
  EXPECT_EQ(group.dropped_total + group.acked_total + group.ready + group.in_flight,
            published + taken + 1);
  std::printf("%llu messages over a held one, %llu looks at it\n",
              static_cast<unsigned long long>(published), static_cast<unsigned long long>(looks));
}

TEST(DropOldest, a_consumer_goes_on_at_the_oldest_that_is_left_and_each_drop_is_counted) {
  SmallQueue small{Overflow::drop_oldest};
  auto producer = small.producer();
  auto consumer = small.consumer();
  std::uint64_t received = 0;
  std::uint64_t last = 0;
  constexpr std::uint64_t published = 5000;
  for (std::uint64_t i = 0; i < published; ++i) {
    ASSERT_TRUE(producer.publish("m" + std::to_string(i)));
    if (i % 50 != 0) continue;
    auto delivery = consumer.try_receive();
    ASSERT_TRUE(delivery) << delivery.error().message();
    ASSERT_FALSE(delivery->empty());
    ASSERT_EQ(delivery->text(), "m" + std::to_string(delivery->seq().value));
    ASSERT_TRUE(received == 0 || delivery->seq().value > last);
    last = delivery->seq().value;
    ASSERT_EQ(delivery->ack(), Settlement::settled);
    ++received;
  }
  const auto group = small.group();
  EXPECT_EQ(received, group.acked_total);
  EXPECT_EQ(published, group.acked_total + group.dropped_total + group.ready + group.in_flight);
}

// Readers without a lease copy, and then see whether the message was still held.
TEST(Peek, a_copy_is_never_of_another_message) {
  SmallQueue small{Overflow::drop_oldest};
  auto producer = small.producer();
  std::atomic<bool> stop{false};
  std::thread writer{[&] {
    for (std::uint64_t i = 0; !stop; ++i) {
      const std::string text(1500, static_cast<char>('a' + i % 26));
      (void)producer.publish(text);
    }
  }};
  std::uint64_t checked = 0;
  for (std::uint64_t i = 0; checked < 5000 && i < 100'000'000; ++i) {
    auto messages = small.queue->peek({0}, 4);
    if (!messages) {
      ADD_FAILURE() << messages.error().message();
      break;
    }
    for (const auto& message : *messages) {
      const char expected = static_cast<char>('a' + message.seq.value % 26);
      ASSERT_EQ(message.payload.size(), 1500U);
      for (const std::byte byte : message.payload) {
        if (static_cast<char>(byte) != expected) {
          stop = true;
          writer.join();
          FAIL() << "seq " << message.seq.value << " shows another message's bytes";
        }
      }
      ++checked;
    }
  }
  stop = true;
  writer.join();
  EXPECT_GT(checked, 1000U);
}

}  // namespace
