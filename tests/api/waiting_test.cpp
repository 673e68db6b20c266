// SPDX-License-Identifier: Apache-2.0
//
// Sleeping, waking, interrupting, descriptors.
#include <gtest/gtest.h>
#include <poll.h>

#include <atomic>
#include <thread>

#include "support/small_queue.hpp"
#include "sync/event.hpp"

namespace {

using namespace shmq;
using namespace std::chrono_literals;
using shmq::testing::SmallQueue;

TEST(Event, a_notify_after_the_announcement_keeps_the_sleeper_awake) {
  std::uint32_t word = 0;
  const std::uint32_t ticket = sync::event_prepare(word);
  EXPECT_NE(word & sync::event_sleeper_bit, 0U) << "announced";
  sync::event_notify(word);
  EXPECT_NE(word, ticket) << "the word moved, so the sleep returns at once";
  EXPECT_EQ(word & sync::event_sleeper_bit, 0U);
  const std::uint32_t quiet = word;
  sync::event_notify(word);
  EXPECT_EQ(word, quiet) << "nobody sleeps: nothing is written";
}

TEST(Waiting, a_message_reaches_a_consumer_that_waits) {
  SmallQueue small;
  auto producer = small.producer();
  std::thread waiting{[&] {
    auto consumer = small.consumer();
    for (int i = 0; i < 2000; ++i) {
      auto delivery = consumer.receive(30s);
      ASSERT_TRUE(delivery && !delivery->empty());
      ASSERT_EQ(delivery->text(), std::to_string(i));
      ASSERT_EQ(delivery->ack(), Settlement::settled);
    }
  }};
  for (int i = 0; i < 2000; ++i) {
    while (producer.publish(std::to_string(i)).code() == Errc::full) std::this_thread::yield();
  }
  waiting.join();
}

TEST(Waiting, a_blocked_producer_goes_on_when_there_is_room) {
  SmallQueue small{Overflow::block};
  std::thread producing{[&] {
    auto producer = small.producer();
    for (int i = 0; i < 2000; ++i) ASSERT_TRUE(producer.publish(std::to_string(i)));
  }};
  auto consumer = small.consumer();
  for (int i = 0; i < 2000; ++i) {
    auto delivery = consumer.receive(30s);
    ASSERT_TRUE(delivery && !delivery->empty());
    ASSERT_EQ(delivery->text(), std::to_string(i));
    ASSERT_EQ(delivery->ack(), Settlement::settled);
  }
  producing.join();
}

TEST(Waiting, a_full_queue_times_out_or_says_full) {
  SmallQueue small{Overflow::block};
  auto producer = small.producer();
  for (int i = 0; i < 16; ++i) ASSERT_TRUE(producer.publish("m"));
  EXPECT_EQ(producer.publish("m", {.timeout = 0ns}).code(), Errc::full);
  EXPECT_EQ(producer.publish("m", {.timeout = 5ms}).code(), Errc::timed_out);
  EXPECT_EQ(small.queue->stats().tail.value, 16U);
}

TEST(Waiting, interrupt_close_and_stop_tokens_end_a_blocked_call) {
  SmallQueue small{Overflow::block};
  auto consumer = small.consumer();
  consumer.interrupt();
  EXPECT_EQ(consumer.receive().error().code(), make_error_code(Errc::interrupted));
  std::stop_source stop;
  std::atomic<bool> done{false};
  std::thread stopper{[&] {
    std::this_thread::yield();
    stop.request_stop();
    while (!done) std::this_thread::yield();
  }};
  EXPECT_EQ(consumer.receive(forever, stop.get_token()).error().code(),
            make_error_code(Errc::interrupted));
  done = true;
  stopper.join();
  std::thread closer{[&] { consumer.close(); }};
  auto result = consumer.receive();
  EXPECT_FALSE(result);
  closer.join();
  EXPECT_EQ(consumer.receive().error().code(), make_error_code(Errc::closed));

  auto producer = small.producer();
  for (int i = 0; i < 16; ++i) ASSERT_TRUE(producer.publish("m"));
  std::thread producer_closer{[&] { producer.close(); }};
  EXPECT_FALSE(producer.publish("one too many"));
  producer_closer.join();
  EXPECT_EQ(producer.publish("m").code(), Errc::closed);
}

TEST(Waiting, removal_ends_a_blocked_call) {
  SmallQueue small{Overflow::block};
  auto consumer = small.consumer();
  std::thread remover{
      [&] { ASSERT_TRUE(Queue::remove("q", {.name_space = small.scratch.name_space})); }};
  EXPECT_EQ(consumer.receive().error().code(), make_error_code(Errc::removed));
  remover.join();
  EXPECT_EQ(small.queue->producer().error().code(), make_error_code(Errc::removed));
}

bool readable(int descriptor, int timeout_ms) {
  pollfd poll_for{.fd = descriptor, .events = POLLIN, .revents = 0};
  return poll(&poll_for, 1, timeout_ms) == 1;
}

TEST(Descriptor, a_consumers_is_readable_while_there_is_something) {
  SmallQueue small;
  auto producer = small.producer();
  auto consumer = small.consumer();
  ASSERT_TRUE(consumer.try_receive()->empty());
  const int descriptor = consumer.fd().value();
  for (int i = 0; i < 50; ++i) {
    ASSERT_TRUE(producer.publish("m"));
    ASSERT_TRUE(readable(descriptor, 10000)) << i;
    auto delivery = consumer.try_receive();
    ASSERT_FALSE(delivery->empty());
    ASSERT_EQ(delivery->ack(), Settlement::settled);
    ASSERT_TRUE(consumer.try_receive()->empty());
  }
}

TEST(Descriptor, a_producers_is_readable_when_room_comes) {
  SmallQueue small;
  auto producer = small.producer();
  auto consumer = small.consumer();
  for (int i = 0; i < 16; ++i) ASSERT_TRUE(producer.publish("m"));
  const int descriptor = producer.fd().value();
  ASSERT_EQ(consumer.try_receive()->ack(), Settlement::settled);
  EXPECT_TRUE(readable(descriptor, 10000));
}

}  // namespace
