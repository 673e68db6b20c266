// SPDX-License-Identifier: Apache-2.0
//
// CORRUPT: every byte of a 64 KiB journal flipped, every length it can be cut to, and payloads that
// are whole batches.
#include <gtest/gtest.h>

#include "daemon/journal/writer.hpp"
#include "journal/world.hpp"
#include "journal/standstill_clock.hpp"
#include "support/sim_disk.hpp"

namespace {

using namespace shmq;
using namespace shmq::journal;
using namespace shmq::testing;

constexpr std::uint64_t journal_bytes = 65536;
constexpr std::uint64_t messages = 28;
const std::string name = file_name(1);

class MemoryFile final : public ByteSource {
 public:
  explicit MemoryFile(const std::vector<std::byte>& bytes) : bytes_(bytes) {}
  [[nodiscard]] std::uint64_t size() const override { return bytes_.size(); }
  std::error_code read(std::uint64_t offset, std::span<std::byte> into) override {
    if (offset + into.size() > bytes_.size()) return std::make_error_code(std::errc::io_error);
    std::memcpy(into.data(), bytes_.data() + offset, into.size());
    return {};
  }

 private:
  const std::vector<std::byte>& bytes_;
};

// One file, without a disk.
class OneFile final : public DirectorySource {
 public:
  std::vector<std::byte> bytes;
  [[nodiscard]] std::string path() const override { return "memory"; }
  Result<std::vector<std::string>> list() override { return std::vector{name}; }
  Result<std::unique_ptr<ByteSource>> open(const std::string&) override {
    return std::make_unique<MemoryFile>(bytes);
  }
};

class CorruptTest : public ::testing::Test {
 protected:
  // A journal of several batches whose last one is not proven durable by another.
  void SetUp() override {
    // The first seed whose messages fit into the one file.
    for (std::uint64_t seed = 1; end_seq_ != messages && seed < 100; ++seed) write_journal(seed);
    ASSERT_EQ(end_seq_, messages);
    const auto scan = scan_file(*directory_.open(name).value(), name, 1, {});
    for (const Stretch& stretch : scan->stretches) {
      if (stretch.kind == StretchKind::batch) batches_.push_back(stretch.header);
    }
    ASSERT_GT(batches_.size(), 8U);
    EXPECT_EQ(batches_.back().flags & batch_closing, 0U);
  }

  void write_journal(std::uint64_t seed) {
    const StandstillClock clock;
    SimDisk disk{seed};
    World world{seed};
    Identity identity;
    identity.queue = "q";
    auto recovered = recover(disk, {.identity = identity,
                                    .first_file_bytes = journal_bytes,
                                    .initial = world.initial_state()});
    ASSERT_TRUE(recovered && recovered->start);
    WriterOptions options;
    options.ring_slots = 1000;
    options.files.first_file_bytes = journal_bytes;
    options.files.max_disk_bytes = journal_bytes;  // no second file
    Writer writer{disk, world, options, std::move(*recovered->start)};
    const auto run = [&] {
      writer.pump();
      while (disk.poll(true)) {
      }
    };
    run();
    std::vector<std::byte> decoy;
    for (int i = 0; i < 7; ++i) {
      world.publish(4, decoy);
      world.settle_some();
      run();
      const auto bytes = disk.content(name);
      decoy.assign(bytes.begin() + block_bytes, bytes.begin() + 2 * block_bytes);
    }
    directory_.bytes = disk.content(name);
    const Plan plan = look();
    ASSERT_FALSE(plan.is_refused);
    end_seq_ = plan.end_seq;
  }

  Plan look() {
    auto plan = analyse(directory_, {});
    EXPECT_TRUE(plan);
    return *plan;
  }

  static bool names_exactly(const Plan& plan, std::uint64_t first, std::uint64_t end) {
    for (const Finding& finding : plan.findings) {
      if (finding.action == Action::refuse && finding.first_seq == first &&
          finding.end_seq == end) {
        return finding.text().find("nothing was changed") != std::string::npos;
      }
    }
    return false;
  }

  static bool cuts(const Plan& plan) {
    for (const Finding& finding : plan.findings) {
      if (finding.action == Action::cut && finding.bytes > 0) return true;
    }
    return false;
  }

  // What must come of a damaged byte at `offset`.
  void check_flip(std::uint64_t offset) {
    const Plan plan = look();
    const BatchHeader& last = batches_.back();
    if (offset < block_bytes) {
      ASSERT_TRUE(plan.is_refused) << offset;
      ASSERT_TRUE(names_exactly(plan, 0, end_seq_)) << offset;
      return;
    }
    if (offset >= last.file_offset) {
      // Not proven durable: cut, and said so. What lies behind it takes nothing along.
      const bool is_behind = offset >= last.file_offset + last.total_bytes;
      ASSERT_FALSE(plan.is_refused) << offset;
      ASSERT_TRUE(cuts(plan)) << offset;
      ASSERT_EQ(plan.end_seq, is_behind ? end_seq_ : last.first_seq) << offset;
      return;
    }
    const auto hit = std::find_if(batches_.begin(), batches_.end(), [&](const BatchHeader& batch) {
      return offset < batch.file_offset + batch.total_bytes;
    });
    ASSERT_TRUE(plan.is_refused) << offset;
    ASSERT_TRUE(names_exactly(plan, hit->first_seq, hit->end_seq)) << offset;
  }

  OneFile directory_;
  std::vector<BatchHeader> batches_;
  std::uint64_t end_seq_ = 0;
};

TEST_F(CorruptTest, every_flipped_byte_is_named_or_cut) {
  std::uint64_t flips = 0;
  for (std::uint64_t offset = 0; offset < directory_.bytes.size(); ++offset, ++flips) {
    const std::byte before = directory_.bytes[offset];
    directory_.bytes[offset] ^= offset % 3 == 0 ? std::byte{0xff} : std::byte{1} << (offset % 8);
    check_flip(offset);
    if (HasFatalFailure()) return;
    directory_.bytes[offset] = before;
  }
  std::printf("%llu bytes flipped, %zu batches\n", static_cast<unsigned long long>(flips),
              batches_.size());
  EXPECT_EQ(flips, journal_bytes);
}

TEST_F(CorruptTest, every_length_it_is_cut_to_is_refused_with_what_is_gone) {
  const auto whole = directory_.bytes;
  std::uint64_t lengths = 0;
  for (std::uint64_t length = 0; length < whole.size(); ++length, ++lengths) {
    directory_.bytes.assign(whole.begin(), whole.begin() + static_cast<std::ptrdiff_t>(length));
    const Plan plan = look();
    ASSERT_TRUE(plan.is_refused) << length;
    std::uint64_t first_lost = end_seq_;
    for (const BatchHeader& batch : batches_) {
      if (batch.file_offset + batch.total_bytes > length) {
        first_lost = batch.first_seq;
        break;
      }
    }
    ASSERT_TRUE(names_exactly(plan, first_lost, unknown_end)) << length;
  }
  EXPECT_EQ(lengths, journal_bytes);
}

TEST_F(CorruptTest, a_tail_that_is_lost_block_by_block_is_cut) {
  const BatchHeader last = batches_.back();
  for (std::uint64_t sector = 0; sector < last.total_bytes; sector += sector_bytes) {
    auto whole = directory_.bytes;
    std::fill_n(directory_.bytes.begin() + static_cast<std::ptrdiff_t>(last.file_offset + sector),
                sector_bytes, std::byte{0});
    const Plan plan = look();
    ASSERT_FALSE(plan.is_refused);
    if (directory_.bytes != whole) {
      ASSERT_EQ(plan.end_seq, last.first_seq) << sector;
    }
    directory_.bytes = std::move(whole);
  }
}

// Payloads made of real batches of this very file, as somebody could publish who can read it: at
// the place that they will have on disk, and chained to the batch that they lie in.
TEST(Decoy, a_payload_that_contains_a_valid_batch_changes_nothing) {
  BatchBuilder inner;
  const auto frame = [](std::uint64_t offset, std::uint64_t number, std::uint64_t first_seq) {
    return BatchFrame{.queue_uuid = {},
                      .epoch = 1,
                      .file_number = 1,
                      .file_offset = offset,
                      .batch_number = number,
                      .first_seq = first_seq,
                      .previous = {1, offset - block_bytes, 1, first_seq}};
  };
  const auto seal = [](std::uint64_t first_seq) {
    return BatchBuilder::Seal{
        .flags = 0, .durable_upto = first_seq, .seq_ceiling = first_seq + 10, .realtime_ns = 1};
  };
  std::string payload(block_bytes - sizeof(BatchHeader) - sizeof(MessageRecord), 'p');
  for (std::uint64_t block = 2; block < 8; ++block) {
    inner.begin(frame(block * block_bytes, 2 + block, 1), block_bytes);
    const auto bytes = inner.finish(seal(1));
    payload.append(reinterpret_cast<const char*>(bytes.bytes().data()), bytes.size());
  }
  BatchBuilder outer;
  outer.begin(frame(block_bytes, 1, 0), journal_bytes);
  ASSERT_TRUE(outer.add_message({.seq = 0,
                                 .publish_realtime_ns = 0,
                                 .flags = 0,
                                 .attributes = {},
                                 .payload = std::as_bytes(std::span{payload})}));
  auto batch = outer.finish(seal(0));
  EXPECT_EQ(outer.header().escape_count, 6U);
  OneFile directory;
  FileHeader header{};
  header.magic = file_magic;
  header.version = format_version;
  header.header_bytes = sizeof(FileHeader);
  header.epoch = header.file_number = 1;
  header.file_bytes = journal_bytes;
  journal::seal(header);
  directory.bytes.resize(journal_bytes);
  std::memcpy(directory.bytes.data(), &header, sizeof(header));
  std::memcpy(directory.bytes.data() + block_bytes, batch.data(), batch.size());

  // Batch number 1 has no predecessor; the frame above gave it one, so it is put right here.
  auto first = load<BatchHeader>(batch.bytes());
  first.previous_file = first.previous_offset = first.previous_checksum = 0;
  first.previous_first_seq = 0;
  std::memcpy(directory.bytes.data() + block_bytes, &first, sizeof(first));
  seal_batch(std::span{directory.bytes}.subspan(block_bytes, batch.size()));

  const auto look = [&] { return analyse(directory, {}).value(); };
  Plan plan = look();
  EXPECT_FALSE(plan.is_refused);
  EXPECT_EQ(plan.end_seq, 1U);
  std::string read;
  ASSERT_TRUE(read_messages(directory, plan, 0, [&](const Record& record) {
    const MessageView view = message_of(record);
    read.assign(reinterpret_cast<const char*>(view.payload.data()), view.payload.size());
  }));
  EXPECT_EQ(read, payload);

  // Torn, with its own header lost, the batches inside are still none: nothing was confirmed.
  std::fill_n(directory.bytes.begin() + block_bytes, block_bytes, std::byte{0});
  plan = look();
  EXPECT_FALSE(plan.is_refused);
  EXPECT_TRUE(plan.is_new);
  EXPECT_EQ(plan.end_seq, 0U);
}

}  // namespace
