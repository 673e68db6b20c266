// SPDX-License-Identifier: Apache-2.0
#include <gtest/gtest.h>

#include "daemon/feed/restore.hpp"
#include "daemon/feed/segment_source.hpp"
#include "queue/groups.hpp"
#include "queue/stragglers.hpp"
#include "support/durable_queue.hpp"

namespace {

using namespace shmq;
using namespace shmq::testing;
using journal::Change;

std::span<const std::byte> bytes(std::string_view text) {
  return std::as_bytes(std::span{text.data(), text.size()});
}

struct Fed : DurableQueue {
  explicit Fed(GroupMode mode = GroupMode::exclusive)
      : DurableQueue(SmallQueue::options(Overflow::fail, {{.name = "g", .mode = mode}})),
        state(feed::initial_state(*segment)) {
    begin_journal();
    queue = std::make_unique<Queue>(need(open()));
    restart();
  }
  // As a daemon that starts again: what was taken is on disk.
  void restart() {
    source = std::make_unique<feed::SegmentSource>(*segment, *mark, state, watermark);
    changes = 0;
  }
  // One look, taken and durable.
  std::vector<Change> take(std::uint64_t end_seq) {
    std::vector<Change> taken;
    Change change;
    while (source->next_change(end_seq, change)) {
      if (change.kind == Change::Kind::group) state.apply(change.group);
      if (change.kind == Change::Kind::removed) state.remove(change.group.group, 1);
      if (change.kind == Change::Kind::settings) {
        state.settings[change.group.group] = change.settings;
      }
      taken.push_back(change);
    }
    changes += taken.size();
    return taken;
  }
  void sync(std::uint64_t seq) {
    watermark = seq;
    source->on_progress(
        {.watermark = seq, .seq_ceiling = seq + segment->limits().slots, .changes = changes});
  }
  void publish(int count) {
    auto producer = queue->producer().value();
    for (int i = 0; i < count; ++i) ASSERT_TRUE(producer.publish(bytes("m")));
  }
  journal::GroupState& only_group() { return state.groups.begin()->second; }
  std::uint64_t acks_synced() const { return sync::load_relaxed(mark->mark().acks_synced); }
  std::uint64_t acks_looked() const { return sync::load_relaxed(mark->mark().acks_looked); }

  journal::CheckpointState state;
  std::unique_ptr<Queue> queue;
  std::unique_ptr<feed::SegmentSource> source;
  std::uint64_t watermark = 0;
  std::uint64_t changes = 0;
};

TEST(Source, gives_a_message_as_it_was_published) {
  Fed fed;
  auto producer = fed.queue->producer().value();
  ASSERT_TRUE(producer.publish(bytes("hello")));
  journal::MessageView view{};
  ASSERT_TRUE(fed.source->message(0, view));
  EXPECT_EQ(std::string(reinterpret_cast<const char*>(view.payload.data()), view.payload.size()),
            "hello");
  EXPECT_FALSE(fed.source->message(1, view));
  EXPECT_FALSE(fed.source->damage());
}

TEST(Source, a_wrong_stamp_or_length_is_damage_and_the_end) {
  for (const bool stamp : {true, false}) {
    Fed fed;
    fed.publish(1);
    sync::Word16& slot = fed.segment->slots()[0];
    if (stamp) {
      slot.low = 77;
    } else {
      slot.high = fed.segment->limits().arena_bytes;
    }
    journal::MessageView view{};
    EXPECT_FALSE(fed.source->message(0, view));
    ASSERT_TRUE(fed.source->damage());
    Change change;
    EXPECT_FALSE(fed.source->next_change(1, change));
  }
}

TEST(Source, tells_what_was_settled_once_and_nothing_above_the_end) {
  for (const GroupMode mode : {GroupMode::exclusive, GroupMode::shared}) {
    Fed fed{mode};
    fed.publish(6);
    auto consumer = fed.queue->consumer("g").value();
    std::vector<Delivery> held;
    for (int i = 0; i < 6; ++i) held.push_back(std::move(consumer.try_receive().value()));
    for (const int i : {1, 4, 5}) ASSERT_EQ(held[i].ack(), Settlement::settled);
    EXPECT_TRUE(fed.source->has_news());
    fed.take(5);
    EXPECT_EQ(fed.only_group().floor, 0U);
    EXPECT_TRUE(fed.only_group().is_settled(1));
    EXPECT_TRUE(fed.only_group().is_settled(4));
    EXPECT_FALSE(fed.only_group().is_settled(5));
    EXPECT_TRUE(fed.take(5).empty());
    ASSERT_EQ(held[0].ack(), Settlement::settled);
    fed.take(6);
    EXPECT_EQ(fed.only_group().floor, 2U);
    EXPECT_TRUE(fed.only_group().is_settled(5));
    EXPECT_FALSE(fed.only_group().is_settled(2));
    fed.sync(6);
    EXPECT_FALSE(fed.source->has_news());
    fed.restart();
    EXPECT_TRUE(fed.take(6).empty()) << "told again what the disk knows";
  }
}

TEST(Source, acks_count_as_synced_once_what_was_left_out_is_told_too) {
  Fed fed{GroupMode::shared};
  fed.publish(2);
  auto consumer = fed.queue->consumer("g").value();
  ASSERT_EQ(consumer.try_receive().value().ack(), Settlement::settled);
  ASSERT_EQ(consumer.try_receive().value().ack(), Settlement::settled);
  fed.take(1);
  const std::uint64_t clipped = fed.acks_looked();
  fed.sync(1);
  EXPECT_LT(fed.acks_synced(), clipped);
  fed.take(2);
  EXPECT_LT(fed.acks_synced(), clipped) << "not durable yet";
  fed.sync(2);
  EXPECT_GE(fed.acks_synced(), clipped);
}

TEST(Source, counts_and_delays_are_told) {
  Fed fed{GroupMode::shared};
  fed.publish(1);
  auto consumer = fed.queue->consumer("g").value();
  ASSERT_EQ(consumer.try_receive().value().nack(std::chrono::hours{1}), Settlement::settled);
  fed.take(1);
  ASSERT_EQ(fed.only_group().entries.size(), 1U);
  const journal::EntryState& entry = fed.only_group().entries.at(0);
  EXPECT_EQ(entry.hand_outs, 1U);
  EXPECT_EQ(entry.failures, 1U);
  EXPECT_EQ(entry.condition, static_cast<std::uint8_t>(journal::EntryCondition::delayed));
  const std::uint64_t hour = 3'600'000'000'000;
  EXPECT_GT(entry.due_realtime_ns, base::clock->realtime_ns() + hour - 5'000'000'000);
  EXPECT_TRUE(fed.take(1).empty()) << "the same delay is told again";
}

TEST(Source, groups_that_come_and_go_are_told) {
  Fed fed;
  ASSERT_TRUE(queue::create_group(*fed.segment, {.name = "other", .mode = GroupMode::shared}));
  EXPECT_TRUE(fed.source->has_news());
  fed.take(0);
  EXPECT_EQ(fed.state.groups.size(), 2U);
  EXPECT_EQ(fed.state.settings.size(), 3U);
  ASSERT_TRUE(queue::remove_group(*fed.segment, "other"));
  EXPECT_TRUE(fed.source->has_news());
  fed.take(0);
  EXPECT_EQ(fed.state.groups.size(), 1U);
  EXPECT_FALSE(fed.source->has_news());
}

TEST(Source, no_seq_is_given_out_at_or_above_the_ceiling) {
  DurableQueue low;
  low.mark->advance({.seq_ceiling = 3});
  Queue queue = DurableQueue::need(low.open());
  auto producer = queue.producer().value();
  for (int i = 0; i < 3; ++i) EXPECT_TRUE(producer.publish(bytes("m")));
  EXPECT_FALSE(producer.publish(bytes("m")));
  low.mark->advance({.seq_ceiling = 4});
  EXPECT_TRUE(producer.publish(bytes("m")));
}

// An evictor died between its reservation and the window's CAS, and the message was acked since.
TEST(Source, a_reservation_in_vain_does_not_bring_a_settled_message_back) {
  Fed fed{GroupMode::shared};
  fed.publish(1);
  auto consumer = fed.queue->consumer("g").value();
  auto held = consumer.try_receive().value();
  queue::StragglerTable table{*fed.segment, 0};
  const shm::Lease lease = shm::unpack_lease(fed.segment->window(0)[0].high);
  ASSERT_TRUE(table.reserve(0, lease, 0, 1));
  ASSERT_EQ(held.ack(), Settlement::settled);
  fed.take(1);
  EXPECT_TRUE(fed.only_group().is_settled(0));
}

// The group is not on disk yet, so the writer knows nothing of it.
TEST(Source, no_file_goes_that_a_new_group_needs) {
  Fed fed;
  fed.publish(5);
  fed.sync(5);
  auto consumer = fed.queue->consumer("g").value();
  for (int i = 0; i < 5; ++i) EXPECT_EQ(consumer.try_receive()->ack(), Settlement::settled);
  ASSERT_TRUE(queue::create_group(*fed.segment, {.name = "new"}));  // head lags behind: from 0
  EXPECT_FALSE(fed.source->on_removal(5));
  EXPECT_EQ(fed.mark->mark().first_retained, 0U) << "nothing has gone";
  ASSERT_TRUE(queue::remove_group(*fed.segment, "new"));
  EXPECT_TRUE(fed.source->on_removal(5));
  EXPECT_EQ(fed.mark->mark().first_retained, 5U);
}

}  // namespace
