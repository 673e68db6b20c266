// SPDX-License-Identifier: Apache-2.0
//
// The writer, one promise at a time, over a simulated disk and a clock that stands still.
#include "daemon/journal/writer.hpp"

#include <gtest/gtest.h>

#include <cerrno>

#include "journal/standstill_clock.hpp"
#include "support/sim_disk.hpp"

namespace {

using namespace shmq;
using namespace shmq::journal;
using namespace shmq::testing;

constexpr std::uint64_t ms = 1'000'000;

// Publishes what the test says; keeps the progress that it is told.
class Queue final : public MessageSource {
 public:
  std::vector<std::string> messages;
  std::vector<Change> changes;
  std::size_t changes_taken = 0;
  Progress progress;

  bool message(std::uint64_t seq, MessageView& view) override {
    if (seq >= messages.size()) return false;
    view = {.seq = seq,
            .publish_realtime_ns = 5,
            .flags = 3,
            .attributes = std::as_bytes(std::span{attribute_}),
            .payload = std::as_bytes(std::span{messages[seq]})};
    return true;
  }
  bool next_change(std::uint64_t, Change& change) override {
    if (changes_taken == changes.size()) return false;
    change = changes[changes_taken++];
    return true;
  }
  bool may_remove = true;
  std::uint64_t first_retained = 0;
  bool on_removal(std::uint64_t first) override {
    if (may_remove) first_retained = first;
    return may_remove;
  }
  void on_progress(const Progress& now) override { progress = now; }

  void settle(std::uint64_t end_seq) {
    Change change;
    change.group.group[0] = 1;
    change.group.incarnation = 1;
    change.group.floor = end_seq;
    changes.push_back(change);
  }

 private:
  std::string attribute_ = "k=v";
};

class WriterTest : public ::testing::Test {
 protected:
  WriterTest() {
    identity_.queue = "q";
    identity_.queue_uuid[0] = 9;
    options_.files.first_file_bytes = 65536;
    options_.files.usual_file_bytes_max = 131072;
    options_.batch_bytes_max = 32768;
    options_.write_piece_bytes = 8192;
  }

  RecoverOptions recover_options() {
    RecoverOptions options{.identity = identity_, .first_file_bytes = 65536, .initial = {}};
    options.initial.groups[Uuid{1}].incarnation = 1;
    return options;
  }

  void start(bool memory_is_newer = false) {
    auto options = recover_options();
    options.memory_is_newer = memory_is_newer;
    auto recovered = recover(disk_, options);
    ASSERT_TRUE(recovered) << recovered.error().message();
    ASSERT_TRUE(recovered->start);
    writer_ = std::make_unique<Writer>(disk_, queue_, options_, std::move(*recovered->start));
    run();
  }

  void run() {
    writer_->pump();
    while (disk_.poll(true)) {
    }
  }

  void publish(std::size_t count, std::size_t bytes = 100) {
    for (std::size_t i = 0; i < count; ++i) {
      queue_.messages.emplace_back(bytes, static_cast<char>('a' + queue_.messages.size() % 26));
    }
  }

  Plan look(bool memory_is_newer = false) {
    DiskDirectory directory{disk_};
    auto plan = analyse(directory,
                        {.queue_uuid = identity_.queue_uuid, .memory_is_newer = memory_is_newer});
    EXPECT_TRUE(plan);
    return *plan;
  }

  void fail_next(SimOperation operation, int error, bool stays = false) {
    disk_.faults.push_back(
        {.operation = operation, .nth = disk_.operations() + 1, .error = error, .stays = stays});
  }

  StandstillClock clock_;
  SimDisk disk_{7};
  Queue queue_;
  Identity identity_;
  WriterOptions options_;
  std::unique_ptr<Writer> writer_;
};

TEST_F(WriterTest, what_arrived_meanwhile_shares_one_barrier) {
  start();
  const auto before = writer_->figures().batches;
  publish(50);
  run();
  EXPECT_EQ(queue_.progress.watermark, 50U);
  EXPECT_EQ(writer_->figures().batches, before + 1);
}

TEST_F(WriterTest, the_watermark_waits_for_the_barrier) {
  start();
  publish(1);
  writer_->pump();
  const auto before = disk_.operations();
  while (queue_.progress.watermark == 0) ASSERT_TRUE(disk_.poll(false));
  EXPECT_GE(disk_.operations() - before, 2U) << "a write and a sync";
  disk_.cut_power();
  EXPECT_EQ(look().end_seq, 1U);
}

TEST_F(WriterTest, seqs_are_given_out_only_below_a_durable_ceiling) {
  start();
  EXPECT_EQ(queue_.progress.seq_ceiling, options_.ring_slots) << "after the first barrier";
  publish(3);
  run();
  EXPECT_EQ(queue_.progress.seq_ceiling, 3 + options_.ring_slots);
  disk_.cut_power();
  const Plan plan = look();
  EXPECT_TRUE(plan.writes_gap);
  EXPECT_EQ(plan.next_seq, 3 + options_.ring_slots);
}

TEST_F(WriterTest, ten_idle_milliseconds_close) {
  start();
  publish(1);
  run();
  EXPECT_EQ(look().tail->flags & batch_closing, 0U);
  StandstillClock::advance(9 * ms);
  run();
  EXPECT_EQ(look().tail->flags & batch_closing, 0U);
  EXPECT_NE(writer_->next_timer_ns(), ~0ULL);
  StandstillClock::advance(1 * ms);
  run();
  const Plan plan = look();
  EXPECT_EQ(plan.tail->flags & batch_closing, batch_closing);
  EXPECT_EQ(plan.tail->durable_upto, 1U);
  const auto batches = writer_->figures().batches;
  StandstillClock::advance(1000 * ms);
  run();
  EXPECT_EQ(writer_->figures().batches, batches) << "an idle queue writes nothing";
}

TEST_F(WriterTest, stopping_writes_what_is_there_and_closes) {
  start();
  publish(200, 1000);
  writer_->stop();
  EXPECT_FALSE(writer_->is_stopped());
  while (disk_.poll(true)) {
  }
  EXPECT_TRUE(writer_->is_stopped());
  disk_.cut_power();
  const Plan plan = look();
  EXPECT_EQ(plan.end_seq, 200U);
  EXPECT_EQ(plan.tail->flags & batch_closing, batch_closing);
}

TEST_F(WriterTest, a_big_batch_is_several_writes_and_one_barrier) {
  start();
  const auto before = disk_.operations();
  publish(20, 1000);
  run();
  EXPECT_EQ(writer_->figures().batches, 2U) << "the ceiling, and these";
  EXPECT_GE(disk_.operations() - before, 4U);
}

TEST_F(WriterTest, a_message_larger_than_any_file_gets_one_of_its_own) {
  start();
  publish(1, 1'000'000);
  publish(1);
  run();
  EXPECT_EQ(queue_.progress.watermark, 2U);
  disk_.cut_power();
  EXPECT_EQ(look().end_seq, 2U);
}

TEST_F(WriterTest, messages_and_acks_share_a_batch_and_come_back) {
  start();
  publish(10);
  queue_.settle(4);
  run();
  EXPECT_EQ(queue_.progress.changes, 1U);
  disk_.cut_power();
  const Plan plan = look();
  EXPECT_EQ(plan.state.groups.at(Uuid{1}).floor, 4U);
  DiskDirectory directory{disk_};
  std::uint64_t expected = 4;
  ASSERT_TRUE(read_messages(directory, plan, 4, [&](const Record& record) {
    const MessageView view = message_of(record);
    EXPECT_EQ(view.seq, expected);
    EXPECT_EQ(view.payload.size(), 100U);
    EXPECT_EQ(view.attributes.size(), 3U);
    EXPECT_EQ(view.flags, 3U);
    EXPECT_EQ(view.publish_realtime_ns, 5U);
    ++expected;
  }));
  EXPECT_EQ(expected, 10U);
}

TEST_F(WriterTest, files_go_when_every_group_is_past_them_and_one_is_reused) {
  start();
  for (int round = 0; round < 30; ++round) {
    publish(40, 1000);
    queue_.settle(queue_.messages.size());
    run();
  }
  EXPECT_GT(writer_->figures().files, 5U);
  EXPECT_GT(writer_->files().recycled(), 0U);
  EXPECT_LE(disk_.snapshot().size(), 5U);
  disk_.cut_power();
  EXPECT_EQ(look().end_seq, queue_.messages.size());
}

TEST_F(WriterTest, a_file_that_somebody_reads_is_removed_and_not_used_again) {
  start();
  for (std::uint64_t number = 1; number < 200; ++number) disk_.readers.insert(file_name(number));
  for (int round = 0; round < 40; ++round) {
    publish(300);
    run();
    queue_.settle(queue_.messages.size());
    run();
  }
  EXPECT_GT(writer_->figures().files, 5U);
  EXPECT_EQ(writer_->files().recycled(), 0U);
  EXPECT_LE(disk_.snapshot().size(), 5U);
  disk_.cut_power();
  EXPECT_EQ(look().end_seq, queue_.messages.size());
}

TEST_F(WriterTest, a_failed_write_goes_to_a_new_file_and_nothing_is_confirmed_before) {
  for (const auto operation : {SimOperation::write, SimOperation::sync}) {
    disk_ = SimDisk{7};
    queue_ = {};
    start();
    publish(5);
    fail_next(operation, EIO);
    run();
    EXPECT_EQ(writer_->figures().errors, 1U);
    EXPECT_EQ(writer_->health(), Health::ok);
    EXPECT_EQ(queue_.progress.watermark, 5U);
    disk_.cut_power();
    EXPECT_EQ(look().end_seq, 5U);
    writer_.reset();
  }
}

TEST_F(WriterTest, a_second_failure_degrades_and_a_retry_brings_it_back) {
  start();
  publish(5);
  fail_next(SimOperation::sync, EIO, true);
  run();
  EXPECT_EQ(writer_->health(), Health::degraded);
  EXPECT_EQ(writer_->last_error(), EIO);
  EXPECT_EQ(queue_.progress.watermark, 0U);
  disk_.faults.clear();
  StandstillClock::advance(59'000 * ms);
  run();
  EXPECT_EQ(writer_->health(), Health::degraded) << "once a minute";
  StandstillClock::advance(1'000 * ms);
  run();
  EXPECT_EQ(writer_->health(), Health::ok);
  EXPECT_EQ(queue_.progress.watermark, 5U);
}

TEST_F(WriterTest, reload_retries_at_once) {
  start();
  publish(5);
  fail_next(SimOperation::write, EIO, true);
  run();
  EXPECT_EQ(writer_->health(), Health::degraded);
  disk_.faults.clear();
  writer_->reload();
  run();
  EXPECT_EQ(writer_->health(), Health::ok);
  EXPECT_EQ(queue_.progress.watermark, 5U);
}

TEST_F(WriterTest, a_full_disk_is_waited_for_and_nothing_is_lost) {
  start();
  disk_.capacity_bytes = 65536;
  publish(300, 1000);
  run();
  EXPECT_EQ(writer_->health(), Health::no_space);
  EXPECT_LT(queue_.progress.watermark, 300U);
  EXPECT_EQ(writer_->figures().errors, 0U);
  const std::uint64_t confirmed = queue_.progress.watermark;
  EXPECT_GT(confirmed, 0U);
  EXPECT_EQ(look(true).end_seq, confirmed);
  disk_.capacity_bytes = ~0ULL;
  StandstillClock::advance(options_.files.no_space_retry_ns);
  run();
  EXPECT_EQ(writer_->health(), Health::ok);
  EXPECT_EQ(queue_.progress.watermark, 300U);
}

TEST_F(WriterTest, max_disk_bytes_holds_until_groups_move_on) {
  options_.files.max_disk_bytes = 65536 + 131072;
  start();
  publish(300, 1000);
  run();
  EXPECT_EQ(writer_->health(), Health::no_space);
  EXPECT_LE(writer_->files().disk_bytes(), options_.files.max_disk_bytes);
  EXPECT_LT(queue_.progress.watermark, 300U);
}

// The oldest seq in the directory.
std::uint64_t oldest_of(const Plan& plan) { return plan.chain.front().first_seq; }

TEST_F(WriterTest, a_full_journal_goes_on_once_groups_have_acked) {
  options_.files.max_disk_bytes = 65536 + 131072;
  start();
  publish(300, 1000);
  run();
  ASSERT_EQ(writer_->health(), Health::no_space);
  for (std::uint64_t acked = 40; acked < 300; acked += 40) {
    queue_.settle(acked);
    run();
    EXPECT_LE(writer_->files().disk_bytes(), options_.files.max_disk_bytes);
  }
  EXPECT_EQ(queue_.progress.watermark, 300U);
  EXPECT_EQ(writer_->health(), Health::ok);
  disk_.cut_power();
  EXPECT_EQ(look().end_seq, 300U);
}

TEST_F(WriterTest, acks_that_free_nothing_do_not_use_up_what_is_kept_for_those_that_do) {
  options_.files.max_disk_bytes = 65536 + 131072;
  start();
  publish(300, 1000);
  run();
  ASSERT_EQ(writer_->health(), Health::no_space);
  const std::uint64_t first_end = writer_->files().older().front().end_seq;
  for (std::uint64_t acked = 1; acked < first_end; ++acked) {
    queue_.settle(acked);
    run();
    ASSERT_EQ(writer_->health(), Health::no_space);
  }
  EXPECT_EQ(writer_->next_timer_ns(), ~0ULL);  // and nobody spins
  for (std::uint64_t acked = first_end; acked <= 300; ++acked) {
    queue_.settle(acked);
    run();
  }
  EXPECT_EQ(queue_.progress.watermark, 300U);
}

TEST_F(WriterTest, what_every_group_is_past_stays_as_long_as_newer_messages_are_few) {
  options_.files.keep.messages = 200;
  start();
  for (int round = 0; round < 12; ++round) {
    publish(50, 1000);
    run();
    queue_.settle(queue_.messages.size());
    run();
    const std::uint64_t tail = queue_.messages.size();
    ASSERT_LE(oldest_of(look(true)), tail < 200 ? 0 : tail - 200);
  }
  EXPECT_GT(oldest_of(look(true)), 0U);
  // What is promised no more may still wait to be recycled.
  EXPECT_GE(queue_.first_retained, oldest_of(look(true)));
  EXPECT_LE(queue_.first_retained, queue_.messages.size() - 200);
}

TEST_F(WriterTest, what_every_group_is_past_stays_as_long_as_newer_bytes_are_few) {
  options_.files.keep.bytes = 300'000;
  start();
  publish(200, 1000);
  queue_.settle(200);
  run();
  EXPECT_EQ(oldest_of(look(true)), 0U);
  publish(400, 1000);
  queue_.settle(600);
  run();
  const std::uint64_t oldest = oldest_of(look(true));
  EXPECT_GT(oldest, 0U);
  EXPECT_LE(oldest, 600U - 300'000 / 1100);
}

TEST_F(WriterTest, what_every_group_is_past_stays_until_it_is_old) {
  options_.files.keep.age_ns = 3600 * 1000 * ms;
  start();
  publish(300, 1000);
  queue_.settle(300);
  run();
  EXPECT_EQ(oldest_of(look(true)), 0U);
  EXPECT_FALSE(writer_->has_file_over_age());
  StandstillClock::advance(3599 * 1000 * ms);
  run();
  EXPECT_EQ(oldest_of(look(true)), 0U);
  StandstillClock::advance(2 * 1000 * ms);
  EXPECT_TRUE(writer_->has_file_over_age());
  run();
  EXPECT_GT(oldest_of(look(true)), 0U);
}

TEST_F(WriterTest, the_age_of_files_outlasts_the_writer) {
  options_.files.keep.age_ns = 3600 * 1000 * ms;
  start();
  publish(300, 1000);
  queue_.settle(300);
  run();
  writer_.reset();
  StandstillClock::advance(3601 * 1000 * ms);
  start(true);
  EXPECT_GT(oldest_of(look(true)), 0U);
}

TEST_F(WriterTest, what_a_group_needs_stays_however_old_it_is) {
  options_.files.keep = {.age_ns = 1, .bytes = 1, .messages = 1};
  start();
  publish(300, 1000);
  queue_.settle(70);
  run();
  StandstillClock::advance(3601 * 1000 * ms);
  run();
  EXPECT_LE(oldest_of(look(true)), 70U);
  EXPECT_GT(oldest_of(look(true)), 0U);
}

TEST_F(WriterTest, room_is_made_of_what_only_retention_keeps) {
  options_.files.keep.age_ns = 3600 * 1000 * ms;
  options_.files.max_disk_bytes = 5 * 131072;
  start();
  for (int round = 0; round < 30; ++round) {
    publish(50, 1000);
    run();
    queue_.settle(queue_.messages.size());
    run();
    ASSERT_EQ(queue_.progress.watermark, queue_.messages.size()) << round;
    ASSERT_LE(writer_->files().disk_bytes(), options_.files.max_disk_bytes);
  }
  EXPECT_GT(writer_->files().older().size(), 1U);  // and no more of it than was needed
}

TEST_F(WriterTest, a_full_disk_takes_what_only_retention_keeps) {
  options_.files.keep.age_ns = 3600 * 1000 * ms;
  start();
  disk_.capacity_bytes = 5 * 131072;
  for (int round = 0; round < 30; ++round) {
    publish(50, 1000);
    run();
    queue_.settle(queue_.messages.size());
    run();
    StandstillClock::advance(options_.files.no_space_retry_ns);
    run();
    ASSERT_EQ(queue_.progress.watermark, queue_.messages.size()) << round;
  }
}

TEST_F(WriterTest, a_group_that_comes_in_the_last_moment_keeps_the_files) {
  start();
  queue_.may_remove = false;
  publish(300, 1000);
  queue_.settle(300);
  run();
  EXPECT_EQ(oldest_of(look(true)), 0U);
  queue_.may_remove = true;
  run();
  EXPECT_GT(oldest_of(look(true)), 0U);
}

TEST_F(WriterTest, short_writes_and_interruptions_are_nothing) {
  start();
  publish(20, 1000);
  fail_next(SimOperation::write, 0);
  fail_next(SimOperation::write, EINTR);
  fail_next(SimOperation::sync, EAGAIN);
  run();
  EXPECT_EQ(writer_->figures().errors, 0U);
  disk_.cut_power();
  EXPECT_EQ(look().end_seq, 20U);
}

TEST_F(WriterTest, a_writer_that_is_gone_is_not_called) {
  start();
  publish(20, 1000);
  writer_->pump();
  writer_.reset();
  while (disk_.poll(true)) {
  }
  EXPECT_EQ(queue_.progress.watermark, 0U);
}

TEST_F(WriterTest, a_recovery_takes_the_room_of_a_file_that_was_being_prepared) {
  disk_.put(temporary_name(1), std::vector<std::byte>(65536));
  disk_.capacity_bytes = 65536 + 4096;
  start();
  EXPECT_FALSE(disk_.exists(temporary_name(1)));
}

TEST_F(WriterTest, a_new_incarnation_never_appends_to_an_old_file) {
  start();
  publish(5);
  run();
  const auto before = disk_.snapshot();
  writer_.reset();
  start(true);
  publish(5);
  run();
  EXPECT_EQ(queue_.progress.watermark, 10U);
  const auto after = disk_.snapshot();
  for (const auto& [name, bytes] : before) {
    const auto same = after.find(name);
    if (same != after.end()) {
      EXPECT_EQ(same->second, bytes) << name;
    }
  }
}

}  // namespace
