// SPDX-License-Identifier: Apache-2.0
//
// Reading a journal from any seq on: over rotation, errors, new incarnations, gaps and damage,
// while its files come and go.
#include "journal/cursor.hpp"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <cerrno>
#include <filesystem>

#include "daemon/io/plain_disk.hpp"
#include "daemon/journal/writer.hpp"
#include "journal/standstill_clock.hpp"
#include "support/sim_disk.hpp"

namespace {

using namespace shmq;
using namespace shmq::journal;
using namespace shmq::testing;

constexpr std::uint64_t ms = 1'000'000;

std::string text_of_seq(std::uint64_t seq) { return "message " + std::to_string(seq) + " "; }

// Publishes as many as the test says, each with its seq in it. `first`: after a gap.
class Queue final : public MessageSource {
 public:
  std::uint64_t end = 0;
  std::size_t bytes = 300;
  std::vector<Change> changes;
  std::size_t changes_taken = 0;
  Progress progress;

  bool message(std::uint64_t seq, MessageView& view) override {
    if (seq >= end) return false;
    payload_.assign(bytes, static_cast<char>('a' + seq % 26));
    payload_.replace(0, text_of_seq(seq).size(), text_of_seq(seq));
    view = {.seq = seq,
            .publish_realtime_ns = 5,
            .flags = 1,
            .attributes = {},
            .payload = std::as_bytes(std::span{payload_})};
    return true;
  }
  bool next_change(std::uint64_t, Change& change) override {
    if (changes_taken == changes.size()) return false;
    change = changes[changes_taken++];
    return true;
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
  std::string payload_;
};

class CursorTest : public ::testing::Test {
 protected:
  CursorTest() {
    identity_.queue = "q";
    identity_.queue_uuid[0] = 9;
    options_.files.first_file_bytes = 65536;
    options_.files.usual_file_bytes_max = 131072;
    options_.batch_bytes_max = 32768;
    options_.write_piece_bytes = 8192;
    options_.ring_slots = 50;
  }

  virtual io::Disk& disk() { return sim_; }
  virtual std::unique_ptr<DirectorySource> directory() {
    return std::make_unique<DiskDirectory>(disk());
  }

  void start(bool memory_is_newer = false) {
    RecoverOptions options{.identity = identity_, .first_file_bytes = 65536, .initial = {}};
    options.initial.groups[Uuid{1}].incarnation = 1;
    options.memory_is_newer = memory_is_newer;
    auto recovered = recover(disk(), options);
    ASSERT_TRUE(recovered) << recovered.error().message();
    ASSERT_TRUE(recovered->start);
    queue_.changes_taken = 0;
    queue_.end = std::max(queue_.end, recovered->start->watermark);
    writer_ = std::make_unique<Writer>(disk(), queue_, options_, std::move(*recovered->start));
    run();
  }
  void run() {
    writer_->pump();
    while (disk().poll(true)) {
    }
  }
  // In batches of `step`.
  void publish(std::uint64_t count, std::uint64_t step) {
    for (const std::uint64_t goal = queue_.end + count; queue_.end < goal;) {
      queue_.end = std::min(goal, queue_.end + step);
      run();
    }
    ASSERT_EQ(queue_.progress.watermark, queue_.end);
  }

  // Everything from `from` to the watermark, or up to the error; checks that nothing is left out.
  std::uint64_t read_from(Cursor& cursor, std::uint64_t from,
                          std::optional<Error>* error = nullptr) {
    cursor.seek(from);
    std::uint64_t seq = from;
    BatchBuffer batch;
    for (;;) {
      auto got = cursor.next(batch, queue_.progress.watermark);
      if (!got) {
        if (error != nullptr) {
          *error = got.error();
        } else {
          ADD_FAILURE() << got.error().message();
        }
        return seq;
      }
      if (!*got) return seq;
      EXPECT_TRUE(batch.holds(seq)) << seq;
      for (const Record& record : batch.records) {
        if (record.type == RecordType::gap) {
          const auto gap = load<GapRecord>(record.bytes);
          gaps_ += gap.end_seq - gap.first_seq;
          if (gap.first_seq <= seq) seq = std::max(seq, gap.end_seq);
        }
        if (record.type != RecordType::message) continue;
        const MessageView message = message_of(record);
        if (message.seq < seq) continue;
        EXPECT_EQ(message.seq, seq);
        const std::string_view text{reinterpret_cast<const char*>(message.payload.data()),
                                    message.payload.size()};
        EXPECT_TRUE(text.starts_with(text_of_seq(seq))) << text;
        ++seq;
      }
    }
  }
  void expect_all(std::uint64_t first = 0) {
    Cursor cursor{directory(), identity_.queue_uuid};
    for (std::uint64_t from = first; from < queue_.progress.watermark; from += 37) {
      EXPECT_EQ(read_from(cursor, from), queue_.progress.watermark) << "from " << from;
    }
  }

  StandstillClock clock_;
  SimDisk sim_{11};
  Queue queue_;
  Identity identity_;
  WriterOptions options_;
  std::unique_ptr<Writer> writer_;
  std::uint64_t gaps_ = 0;
};

TEST_F(CursorTest, every_seq_is_found_over_many_files) {
  start();
  publish(300, 1);
  publish(1500, 70);
  EXPECT_GT(writer_->figures().files, 4U);
  expect_all();
}

TEST_F(CursorTest, it_follows_the_writer) {
  start();
  Cursor cursor{directory(), identity_.queue_uuid};
  BatchBuffer batch;
  std::uint64_t seen = 0;
  for (int round = 0; round < 400; ++round) {
    publish(1 + round % 9, 3);
    while (seen < queue_.progress.watermark) {
      auto got = cursor.next(batch, queue_.progress.watermark);
      ASSERT_TRUE(got) << got.error().message();
      ASSERT_TRUE(*got);
      ASSERT_TRUE(batch.holds(seen));
      seen = batch.header.end_seq;
    }
    auto at_end = cursor.next(batch, queue_.progress.watermark);
    ASSERT_TRUE(at_end);
    EXPECT_FALSE(*at_end);
  }
  EXPECT_GT(writer_->figures().files, 4U);
}

TEST_F(CursorTest, a_batch_that_was_given_up_after_an_error_is_replaced) {
  for (const auto operation : {SimOperation::write, SimOperation::sync}) {
    sim_ = SimDisk{11};
    queue_ = {};
    start();
    for (int round = 0; round < 12; ++round) {
      publish(20, 7);
      sim_.faults.push_back({.operation = operation, .nth = sim_.operations() + 2, .error = EIO});
      publish(20, 9);
    }
    EXPECT_GT(writer_->figures().errors, 5U);
    expect_all();
    writer_.reset();
  }
}

TEST_F(CursorTest, new_incarnations_and_gaps_are_followed) {
  for (int life = 0; life < 6; ++life) {
    start();
    publish(90, 13);
    writer_.reset();
    if (life % 2 == 0) {
      sim_.kill_process();
      start(true);
      publish(10, 3);
      writer_.reset();
      sim_.kill_process();
    } else {
      sim_.cut_power();
    }
  }
  start();
  Cursor cursor{directory(), identity_.queue_uuid};
  EXPECT_EQ(read_from(cursor, 0), queue_.progress.watermark);
  EXPECT_GT(gaps_, 0U);
  expect_all();
}

TEST_F(CursorTest, what_is_below_the_oldest_file_is_not_retained) {
  options_.files.recycles = false;
  start();
  publish(2000, 70);
  queue_.settle(1500);
  run();
  Cursor cursor{directory(), identity_.queue_uuid};
  auto first = cursor.first_seq();
  ASSERT_TRUE(first);
  EXPECT_GT(*first, 0U);
  EXPECT_LE(*first, 1500U);
  std::optional<Error> error;
  EXPECT_EQ(read_from(cursor, *first - 1, &error), *first - 1);
  ASSERT_TRUE(error);
  EXPECT_TRUE(*error == Errc::not_retained) << error->message();
  expect_all(*first);
}

TEST_F(CursorTest, files_that_are_gone_are_skipped_over_and_no_others) {
  options_.files.recycles = false;
  start();
  publish(300, 20);
  Cursor cursor{directory(), identity_.queue_uuid};
  BatchBuffer batch;
  ASSERT_TRUE(cursor.next(batch, queue_.progress.watermark).value_or(false));
  const std::uint64_t file_number = batch.header.file_number;
  const auto kept = sim_.content(file_name(file_number));
  publish(2500, 50);
  queue_.settle(2400);
  run();
  ASSERT_FALSE(sim_.exists(file_name(file_number)));
  sim_.put(file_name(file_number), kept);  // as one that is still waiting to be used again
  cursor.skip_to(2500);
  ASSERT_TRUE(cursor.next(batch, queue_.progress.watermark).value_or(false));
  EXPECT_TRUE(batch.holds(2500));
}

// Flips a byte of a batch, or of its header, and sees that exactly its range is named.
TEST_F(CursorTest, damage_is_named_exactly_and_nothing_else_is_affected) {
  start();
  publish(1000, 20);
  std::vector<BatchHeader> batches;
  {
    Cursor cursor{directory(), identity_.queue_uuid};
    BatchBuffer batch;
    while (true) {
      auto got = cursor.next(batch, queue_.progress.watermark);
      ASSERT_TRUE(got);
      if (!*got) break;
      batches.push_back(batch.header);
    }
  }
  ASSERT_GT(batches.size(), 20U);
  for (const bool in_header : {false, true}) {
    for (std::size_t i = 1; i + 1 < batches.size(); i += 3) {
      const BatchHeader& broken = batches[i];
      auto& content = sim_.content(file_name(broken.file_number));
      const std::uint64_t place = broken.file_offset + (in_header ? 40 : 700);
      content[place] ^= std::byte{1};
      const std::string what = "batch " + std::to_string(i) + (in_header ? " header" : " body");
      Cursor cursor{directory(), identity_.queue_uuid};
      std::optional<Error> error;
      // Up to it all is well; within it the range is told; behind it all is well again.
      EXPECT_EQ(read_from(cursor, 0, &error), broken.first_seq) << what;
      ASSERT_TRUE(error) << what;
      EXPECT_TRUE(*error == Errc::corrupt);
      ASSERT_TRUE(cursor.damage());
      EXPECT_EQ(cursor.damage()->first_seq, broken.first_seq) << what << ": " << error->message();
      EXPECT_EQ(cursor.damage()->end_seq, broken.end_seq) << what << ": " << error->message();
      EXPECT_EQ(read_from(cursor, broken.end_seq - 1, &error), broken.end_seq - 1);
      EXPECT_EQ(cursor.damage()->end_seq, broken.end_seq) << what;
      EXPECT_EQ(read_from(cursor, broken.end_seq), queue_.progress.watermark) << what;
      content[place] ^= std::byte{1};
    }
  }
}

TEST_F(CursorTest, a_missing_file_is_an_exact_range) {
  start();
  publish(3000, 60);
  Cursor cursor{directory(), identity_.queue_uuid};
  auto names = sim_.list();
  ASSERT_TRUE(names);
  std::sort(names->begin(), names->end());
  ASSERT_GT(names->size(), 4U);
  sim_.remove((*names)[2]);
  std::optional<Error> error;
  const std::uint64_t first = read_from(cursor, 0, &error);
  ASSERT_TRUE(error);
  EXPECT_TRUE(*error == Errc::corrupt) << error->message();
  ASSERT_TRUE(cursor.damage());
  EXPECT_EQ(cursor.damage()->first_seq, first);
  EXPECT_EQ(read_from(cursor, cursor.damage()->end_seq), queue_.progress.watermark);
}

TEST_F(CursorTest, above_the_bound_nothing_is_looked_at) {
  start();
  publish(10, 10);
  Cursor cursor{directory(), identity_.queue_uuid};
  BatchBuffer batch;
  for (const std::uint64_t seq : {10ULL, 11ULL, 1000ULL}) {
    cursor.seek(seq);
    auto got = cursor.next(batch, 10);
    ASSERT_TRUE(got);
    EXPECT_FALSE(*got);
  }
}

// On a real directory, with the locks that keep a file from being used again.
class LockedCursorTest : public CursorTest {
 protected:
  LockedCursorTest() {
    std::string pattern = (std::filesystem::temp_directory_path() / "shmq-cursor.XXXXXX").string();
    if (::mkdtemp(pattern.data()) == nullptr) throw std::runtime_error{"mkdtemp failed"};
    path_ = pattern;
    auto opened = io::Directory::open(path());
    plain_ = std::make_unique<io::PlainDisk>(std::move(*opened));
  }
  ~LockedCursorTest() override {
    writer_.reset();
    std::filesystem::remove_all(path_);
  }
  [[nodiscard]] const std::string& path() const { return path_; }
  io::Disk& disk() override { return *plain_; }
  std::unique_ptr<DirectorySource> directory() override {
    return open_directory(path(), ReadLock::yes);
  }

  std::string path_;
  std::unique_ptr<io::PlainDisk> plain_;
};

TEST_F(LockedCursorTest, an_open_file_carries_a_read_lock) {
  start();
  publish(10, 10);
  const std::string file = path() + "/" + file_name(1);
  const int descriptor = ::open(file.c_str(), O_RDWR | O_CLOEXEC);
  ASSERT_GE(descriptor, 0);
  const auto may_write_lock = [&] {
    struct flock wanted {};
    wanted.l_type = F_WRLCK;
    wanted.l_whence = SEEK_SET;
    const bool may = ::fcntl(descriptor, F_OFD_SETLK, &wanted) == 0;
    wanted.l_type = F_UNLCK;
    (void)::fcntl(descriptor, F_OFD_SETLK, &wanted);
    return may;
  };
  EXPECT_TRUE(may_write_lock());
  Cursor cursor{directory(), identity_.queue_uuid};
  EXPECT_EQ(read_from(cursor, 0), 10U);
  EXPECT_FALSE(may_write_lock());
  cursor.close();
  EXPECT_TRUE(may_write_lock());
  ::close(descriptor);
}

TEST_F(LockedCursorTest, a_removed_file_is_read_to_its_end) {
  options_.files.recycles = false;
  start();
  publish(2000, 70);
  Cursor cursor{directory(), identity_.queue_uuid};
  BatchBuffer batch;
  ASSERT_TRUE(cursor.next(batch, queue_.progress.watermark).value_or(false));
  const std::uint64_t file_number = batch.header.file_number;
  queue_.settle(1900);
  run();
  EXPECT_FALSE(std::filesystem::exists(path() + "/" + file_name(file_number)));
  std::uint64_t seq = batch.header.end_seq;
  for (;;) {
    auto got = cursor.next(batch, queue_.progress.watermark);
    if (!got) {
      EXPECT_TRUE(got.error() == Errc::not_retained) << got.error().message();
      break;
    }
    ASSERT_TRUE(*got) << "files between are gone";
    ASSERT_EQ(batch.header.file_number, file_number);
    ASSERT_TRUE(batch.holds(seq));
    seq = batch.header.end_seq;
  }
}

}  // namespace
