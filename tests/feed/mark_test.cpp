// SPDX-License-Identifier: Apache-2.0
//
// The watermark object: who makes it, who believes it, who may write it.
#include "shm/mark.hpp"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <filesystem>
#include <fstream>

#include "support/durable_queue.hpp"
#include "sync/atomic16.hpp"

namespace {

using namespace shmq;
using namespace shmq::testing;

std::string path_of(const DurableQueue& queue) {
  return "/dev/shm/shmq." + queue.scratch.name_space + ".q.mark";
}

TEST(Mark, a_transient_queue_has_none) {
  const SmallQueue queue;
  EXPECT_FALSE(std::filesystem::exists("/dev/shm/shmq." + queue.scratch.name_space + ".q.mark"));
  auto segment = shm::Segment::open("q", {.name_space = queue.scratch.name_space});
  ASSERT_TRUE(segment);
  EXPECT_EQ((*segment)->mark(), nullptr);
}

TEST(Mark, a_client_cannot_create_or_remove_a_durable_queue) {
  QueueOptions options = SmallQueue::options();
  options.durable = true;
  const Scratch scratch;
  options.name_space = scratch.name_space;
  EXPECT_EQ(Queue::create("q", options).error(), Errc::daemon_away);
  DurableQueue queue;
  queue.begin_journal();
  EXPECT_EQ(Queue::remove("q", {.name_space = queue.scratch.name_space}).error(),
            Errc::daemon_away);
  EXPECT_TRUE(queue.open());
}

TEST(Mark, a_client_waits_for_the_first_durable_ceiling) {
  DurableQueue queue;
  EXPECT_EQ(queue.open().error(), Errc::daemon_away);
  queue.begin_journal();
  EXPECT_TRUE(queue.open());
}

TEST(Mark, it_goes_with_the_queue) {
  DurableQueue queue;
  EXPECT_TRUE(std::filesystem::exists(path_of(queue)));
  ASSERT_TRUE(
      shm::Segment::remove("q", {.name_space = queue.scratch.name_space}, shm::Authority::daemon));
  EXPECT_FALSE(std::filesystem::exists(path_of(queue)));
}

TEST(Mark, only_its_owner_may_write_it_whatever_the_mode_of_the_queue) {
  QueueOptions options = SmallQueue::options();
  options.mode = 0666;
  const DurableQueue queue{options};
  struct stat status {};
  ASSERT_EQ(stat(path_of(queue).c_str(), &status), 0);
  EXPECT_EQ(status.st_mode & 07777, 0644U);
}

TEST(Mark, participants_have_it_mapped_read_only) {
  DurableQueue queue;
  queue.begin_journal();
  auto segment = shm::Segment::open("q", {.name_space = queue.scratch.name_space});
  ASSERT_TRUE(segment);
  ASSERT_NE((*segment)->mark(), nullptr);
  queue.move_watermark(7);
  EXPECT_EQ((*segment)->mark()->watermark, 7U);
  EXPECT_DEATH(
      sync::store_relaxed(const_cast<shm::Mark*>((*segment)->mark())->watermark, std::uint64_t{9}),
      "");
  EXPECT_EQ((*segment)->mark()->watermark, 7U);
}

TEST(Mark, progress_never_goes_back_and_moves_the_event) {
  DurableQueue queue;
  const shm::Mark& mark = queue.mark->mark();
  const std::uint32_t before = mark.progress_event;
  queue.mark->advance({.watermark = 9, .seq_ceiling = 25, .acks_synced = 3});
  EXPECT_NE(mark.progress_event, before);
  queue.mark->advance({.watermark = 4, .seq_ceiling = 20, .acks_synced = 2});
  EXPECT_EQ(mark.watermark, 9U);
  EXPECT_EQ(mark.seq_ceiling, 25U);
  EXPECT_EQ(mark.acks_synced, 3U);
}

TEST(Mark, a_restarted_daemon_goes_on_with_it) {
  DurableQueue queue;
  queue.begin_journal();
  queue.move_watermark(5);
  const auto client = shm::Segment::open("q", {.name_space = queue.scratch.name_space}).value();
  queue.mark = std::make_unique<shm::MarkWriter>(*shm::MarkWriter::open(*queue.segment));
  EXPECT_EQ(queue.mark->mark().watermark, 5U);
  queue.move_watermark(6);
  EXPECT_EQ(client->mark()->watermark, 6U) << "who had it mapped still sees it move";
}

// Each byte of the fixed part is covered: a client refuses, and the daemon makes a new one.
TEST(Mark, a_damaged_one_is_refused_and_replaced) {
  DurableQueue queue;
  queue.begin_journal();
  for (std::size_t at = 0; at < offsetof(shm::Mark, watermark); ++at) {
    if (at >= offsetof(shm::Mark, checksum) + 8) continue;  // padding
    std::fstream file{path_of(queue), std::ios::in | std::ios::out | std::ios::binary};
    file.seekg(static_cast<std::streamoff>(at));
    const int byte = file.get();
    file.seekp(static_cast<std::streamoff>(at));
    file.put(static_cast<char>(byte ^ 0x40));
    file.close();
    EXPECT_EQ(queue.open().error(), Errc::daemon_away) << at;
    queue.mark = std::make_unique<shm::MarkWriter>(*shm::MarkWriter::open(*queue.segment));
    queue.begin_journal();
    EXPECT_TRUE(queue.open()) << at;
  }
}

TEST(Mark, what_others_may_write_or_is_no_file_is_not_believed) {
  DurableQueue queue;
  queue.begin_journal();
  ASSERT_EQ(chmod(path_of(queue).c_str(), 0664), 0);
  EXPECT_EQ(queue.open().error(), Errc::daemon_away);
  ASSERT_EQ(chmod(path_of(queue).c_str(), 0644), 0);
  EXPECT_TRUE(queue.open());
  ASSERT_EQ(truncate(path_of(queue).c_str(), 64), 0);
  EXPECT_EQ(queue.open().error(), Errc::daemon_away);
  ASSERT_EQ(unlink(path_of(queue).c_str()), 0);
  EXPECT_EQ(queue.open().error(), Errc::daemon_away);
  ASSERT_EQ(mkfifo(path_of(queue).c_str(), 0600), 0);
  EXPECT_FALSE(queue.open());
  ASSERT_EQ(unlink(path_of(queue).c_str()), 0);
  ASSERT_EQ(symlink("/etc/passwd", path_of(queue).c_str()), 0);
  EXPECT_FALSE(queue.open());
}

TEST(Mark, one_of_a_former_queue_of_the_name_is_replaced) {
  DurableQueue queue;
  queue.begin_journal();
  queue.move_watermark(100);
  ASSERT_EQ(unlink(("/dev/shm/shmq." + queue.scratch.name_space + ".q").c_str()), 0);
  ASSERT_EQ(unlink(("/dev/shm/shmq." + queue.scratch.name_space + ".q.lock").c_str()), 0);
  QueueOptions options = SmallQueue::options();
  options.durable = true;
  options.name_space = queue.scratch.name_space;
  auto again = shm::Segment::create("q", options, shm::Authority::daemon);
  ASSERT_TRUE(again);
  EXPECT_EQ(queue.open().error(), Errc::daemon_away);
  auto mark = shm::MarkWriter::open(**again);
  ASSERT_TRUE(mark);
  EXPECT_EQ(mark->mark().watermark, 0U);
}

TEST(Mark, an_untrusted_owner_is_refused) {
  if (geteuid() != 0) GTEST_SKIP() << "needs root to give a file away";
  DurableQueue queue;
  queue.begin_journal();
  ASSERT_EQ(chown(path_of(queue).c_str(), 12345, static_cast<gid_t>(-1)), 0);
  EXPECT_EQ(queue.open().error(), Errc::foreign_owner);
  EXPECT_TRUE(
      Queue::open("q", {.name_space = queue.scratch.name_space, .trusted_owners = {12345}}));
}

}  // namespace
