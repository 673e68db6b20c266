// SPDX-License-Identifier: Apache-2.0
//
// What killed processes leave behind is found and cleared away; what is in use never is.
#include <fcntl.h>
#include <gtest/gtest.h>
#include <signal.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "shm/naming.hpp"
#include "shm/segment.hpp"
#include "support/small_queue.hpp"

namespace {

using namespace shmq;
using shmq::testing::SmallQueue;
using Kind = StaleObject::Kind;

struct Housekeeping : ::testing::Test {
  std::vector<StaleObject> clear(bool dry_run = false) const {
    auto found = clear_stale({.name_space = small.scratch.name_space}, dry_run);
    EXPECT_TRUE(found);
    return found ? *found : std::vector<StaleObject>{};
  }
  [[nodiscard]] std::string path(const std::string& queue) const {
    return "/dev/shm/shmq." + small.scratch.name_space + "." + queue;
  }
  static bool exists(const std::string& path) { return access(path.c_str(), F_OK) == 0; }
  static void touch(const std::string& path) { close(open(path.c_str(), O_CREAT | O_RDWR, 0600)); }

  SmallQueue small;
};

TEST_F(Housekeeping, a_queue_in_use_is_not_stale) {
  auto producer = small.producer();
  auto consumer = small.consumer();
  ASSERT_TRUE(producer.publish("x"));
  EXPECT_TRUE(clear().empty());
  EXPECT_TRUE(exists(path("q")) && exists(path("q.lock")));
  EXPECT_EQ(consumer.try_receive()->text(), "x");
}

TEST_F(Housekeeping, a_dead_participant_is_told_and_then_cleared) {
  const pid_t pid = fork();
  if (pid == 0) {
    auto queue = small.open_again();
    auto consumer = queue->consumer("default");
    raise(SIGKILL);
  }
  int status = 0;
  ASSERT_EQ(waitpid(pid, &status, 0), pid);
  for (const bool dry_run : {true, false}) {
    const auto found = clear(dry_run);
    ASSERT_EQ(found.size(), 1U);
    EXPECT_EQ(found[0].kind, Kind::dead_participant);
    EXPECT_EQ(found[0].queue, "q");
    EXPECT_EQ(found[0].object, "#0 consumer, pid " + std::to_string(pid));
    EXPECT_EQ(found[0].cleared, !dry_run);
    EXPECT_EQ(found[0].why_not, "");
  }
  EXPECT_TRUE(clear().empty());
  EXPECT_TRUE(small.queue->participants().empty());
}

TEST_F(Housekeeping, companions_without_a_segment_go) {
  touch(path("gone.lock"));
  touch(path("gone.mark"));
  auto found = clear(true);
  ASSERT_EQ(found.size(), 2U);
  EXPECT_TRUE(exists(path("gone.lock")) && exists(path("gone.mark")));
  found = clear();
  ASSERT_EQ(found.size(), 2U);
  for (const auto& stale : found) {
    EXPECT_EQ(stale.kind, Kind::companion);
    EXPECT_TRUE(stale.cleared) << stale.why_not;
  }
  EXPECT_FALSE(exists(path("gone")) || exists(path("gone.lock")) || exists(path("gone.mark")));
  EXPECT_TRUE(clear().empty());
}

TEST_F(Housekeeping, a_half_removed_queue_is_finished) {
  ASSERT_TRUE(shm::link_tombstone(small.scratch.name_space, "half"));
  touch(path("half.lock"));
  auto found = clear(true);
  ASSERT_EQ(found.size(), 1U);
  EXPECT_EQ(found[0].kind, Kind::half_removed);
  EXPECT_TRUE(exists(path("half")));
  found = clear();
  ASSERT_EQ(found.size(), 1U);
  EXPECT_TRUE(found[0].cleared) << found[0].why_not;
  EXPECT_FALSE(exists(path("half")) || exists(path("half.lock")));
}

// Killed between the two, it leaves a half-removed queue: the name can be taken, with companions of
// its own.
TEST_F(Housekeeping, a_name_is_free_again_whenever_the_clearing_was_cut_short) {
  touch(path("again.lock"));
  struct stat before {};
  ASSERT_EQ(stat(path("again.lock").c_str(), &before), 0);
  ASSERT_TRUE(shm::link_tombstone(small.scratch.name_space, "again"));
  QueueOptions options = SmallQueue::options();
  options.name_space = small.scratch.name_space;
  auto queue = Queue::create("again", options);
  ASSERT_TRUE(queue) << queue.error().message();
  auto producer = queue->producer();
  ASSERT_TRUE(producer) << producer.error().message();
  EXPECT_TRUE(producer->publish("x"));
  EXPECT_TRUE(clear().empty());
}

TEST_F(Housekeeping, a_tombstone_never_takes_the_place_of_a_queue) {
  const auto linked = shm::link_tombstone(small.scratch.name_space, "q");
  ASSERT_FALSE(linked);
  EXPECT_TRUE(linked.error() == Errc::already_exists);
  EXPECT_FALSE(shm::is_half_removed(small.scratch.name_space, "q"));
}

TEST_F(Housekeeping, what_is_no_queue_is_left_alone) {
  touch(path("strange"));
  EXPECT_TRUE(clear().empty());
  EXPECT_TRUE(exists(path("strange")));
}

TEST_F(Housekeeping, what_belongs_to_another_is_told_and_stays) {
  if (geteuid() != 0) GTEST_SKIP() << "needs root, to become another user";
  touch(path("theirs.lock"));
  const pid_t pid = fork();
  if (pid == 0) {
    if (setresuid(65534, 65534, 65534) != 0) _exit(2);
    const auto found = clear_stale({.name_space = small.scratch.name_space}, false);
    const bool is_told = found && found->size() == 1 && !found->front().cleared &&
                         found->front().why_not.find("another user") != std::string::npos;
    _exit(is_told ? 0 : 1);
  }
  int status = 0;
  ASSERT_EQ(waitpid(pid, &status, 0), pid);
  EXPECT_TRUE(WIFEXITED(status) && WEXITSTATUS(status) == 0) << status;
  EXPECT_TRUE(exists(path("theirs.lock")));
  EXPECT_FALSE(exists(path("theirs")));
}

TEST(HousekeepingNames, a_namespace_that_is_none_is_an_error) {
  EXPECT_FALSE(clear_stale({.name_space = "A B"}, true));
}

}  // namespace
