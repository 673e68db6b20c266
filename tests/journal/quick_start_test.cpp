// SPDX-License-Identifier: Apache-2.0
//
// A quick start: of a long journal the newest file is read, and of the others their two ends. It
// comes to the plan that reading everything comes to, or says no.
#include <gtest/gtest.h>

#include "daemon/journal/writer.hpp"
#include "journal/standstill_clock.hpp"
#include "journal/world.hpp"
#include "support/sim_disk.hpp"

namespace {

using namespace shmq;
using namespace shmq::journal;
using namespace shmq::testing;

constexpr std::uint64_t file_bytes = 1ULL << 18;

// Counts what is read.
class CountingDirectory final : public DirectorySource {
 public:
  explicit CountingDirectory(SimDisk& disk) : directory_(disk) {}
  std::uint64_t bytes = 0;

  [[nodiscard]] std::string path() const override { return directory_.path(); }
  Result<std::vector<std::string>> list() override { return directory_.list(); }
  Result<std::unique_ptr<ByteSource>> open(const std::string& name) override {
    auto source = directory_.open(name);
    if (!source) return tl::unexpected{source.error()};
    return std::make_unique<File>(std::move(*source), bytes);
  }

 private:
  class File final : public ByteSource {
   public:
    File(std::unique_ptr<ByteSource> source, std::uint64_t& bytes)
        : source_(std::move(source)), bytes_(bytes) {}
    [[nodiscard]] std::uint64_t size() const override { return source_->size(); }
    std::error_code read(std::uint64_t offset, std::span<std::byte> into) override {
      bytes_ += into.size();
      return source_->read(offset, into);
    }

   private:
    std::unique_ptr<ByteSource> source_;
    std::uint64_t& bytes_;
  };
  DiskDirectory directory_;
};

class QuickStart : public ::testing::Test {
 protected:
  void SetUp() override {
    const StandstillClock clock;
    World world{7};
    Identity identity;
    identity.queue = "q";
    auto recovered = recover(
        disk_,
        {.identity = identity, .first_file_bytes = file_bytes, .initial = world.initial_state()});
    ASSERT_TRUE(recovered && recovered->start);
    WriterOptions options;
    options.ring_slots = 100'000;
    options.files = {.first_file_bytes = file_bytes, .usual_file_bytes_max = file_bytes};
    Writer writer{disk_, world, options, std::move(*recovered->start)};
    const auto run = [&] {
      writer.pump();
      while (disk_.poll(true)) {
      }
    };
    run();
    for (int i = 0; i < 400; ++i) {
      world.publish(4, {});
      run();
    }
    ASSERT_GT(writer.files().older().size(), 6U);
    plan_ = look(true);
    ASSERT_FALSE(plan_.is_refused);
  }

  Plan look(bool check_all_bodies) {
    CountingDirectory directory{disk_};
    auto plan = analyse(directory, {.queue_uuid = {}, .check_all_bodies = check_all_bodies});
    EXPECT_TRUE(plan);
    bytes_read_ = directory.bytes;
    return std::move(*plan);
  }

  // Batches of file `index` of the chain.
  std::vector<BatchHeader> batches_of(std::size_t index) {
    DiskDirectory directory{disk_};
    const ChainFile& file = plan_.chain[index];
    const auto scan = scan_file(**directory.open(file.name), file.name, file.file_number, {});
    std::vector<BatchHeader> batches;
    for (const Stretch& stretch : scan->stretches) {
      if (stretch.kind == StretchKind::batch) batches.push_back(stretch.header);
    }
    return batches;
  }

  SimDisk disk_{3};
  Plan plan_;
  std::uint64_t bytes_read_ = 0;
};

TEST_F(QuickStart, reads_the_newest_file_and_the_ends_of_the_others) {
  const std::uint64_t all = bytes_read_;
  const Plan quick = look(false);
  EXPECT_FALSE(quick.is_refused);
  EXPECT_EQ(quick.end_seq, plan_.end_seq);
  EXPECT_EQ(quick.next_seq, plan_.next_seq);
  EXPECT_EQ(quick.state, plan_.state);
  EXPECT_EQ(quick.removable, plan_.removable);
  ASSERT_EQ(quick.chain.size(), plan_.chain.size());
  for (std::size_t i = 0; i < quick.chain.size(); ++i) {
    EXPECT_EQ(quick.chain[i].first_seq, plan_.chain[i].first_seq);
    EXPECT_EQ(quick.chain[i].end_seq, plan_.chain[i].end_seq);
    EXPECT_EQ(quick.chain[i].end_offset, plan_.chain[i].end_offset);
  }
  const std::uint64_t ends = block_bytes + 2 * sizeof(BatchHeader);
  EXPECT_LE(bytes_read_, 3 * file_bytes + plan_.chain.size() * ends) << "of " << all;
  EXPECT_GT(all, plan_.chain.size() * file_bytes);
}

TEST_F(QuickStart, believes_what_is_between_the_ends_until_it_is_read) {
  const auto batches = batches_of(1);
  ASSERT_GT(batches.size(), 4U);
  disk_.content(plan_.chain[1].name)[batches[2].file_offset + 300] ^= std::byte{1};
  const Plan quick = look(false);
  EXPECT_FALSE(quick.is_refused);
  DiskDirectory directory{disk_};
  const auto read = read_messages(directory, quick, 0, [](const Record&) {});
  ASSERT_FALSE(read);
  EXPECT_NE(read.error().why().find("from seq " + std::to_string(batches[2].first_seq)),
            std::string::npos)
      << read.error().why();
  EXPECT_TRUE(look(true).is_refused);
}

TEST_F(QuickStart, refuses_ends_that_are_not_whole) {
  const auto batches = batches_of(1);
  std::uint64_t checks = 0;
  for (const BatchHeader& end : {batches.front(), batches.back()}) {
    for (std::uint64_t at = 0; at < sizeof(BatchHeader); ++at, ++checks) {
      std::byte& byte = disk_.content(plan_.chain[1].name)[end.file_offset + at];
      byte ^= std::byte{4};
      const Plan quick = look(false);
      ASSERT_TRUE(quick.is_refused) << end.file_offset + at;
      const bool is_named =
          std::any_of(quick.findings.begin(), quick.findings.end(), [&](const Finding& finding) {
            return finding.action == Action::refuse && finding.first_seq == end.first_seq &&
                   finding.end_seq == end.end_seq;
          });
      ASSERT_TRUE(is_named) << end.file_offset + at;
      byte ^= std::byte{4};
    }
  }
  EXPECT_EQ(checks, 2 * sizeof(BatchHeader));
}

TEST_F(QuickStart, refuses_a_file_that_is_gone_or_another) {
  const auto bytes = disk_.content(plan_.chain[2].name);
  disk_.remove(plan_.chain[2].name);
  EXPECT_TRUE(look(false).is_refused);
  disk_.put(plan_.chain[2].name, disk_.content(plan_.chain[1].name));
  EXPECT_TRUE(look(false).is_refused);
  disk_.put(plan_.chain[2].name, bytes);
  EXPECT_FALSE(look(false).is_refused);
}

}  // namespace
