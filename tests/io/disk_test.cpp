// SPDX-License-Identifier: Apache-2.0
//
// The real disks behave alike, and the journal works on both of them.
#include <fcntl.h>
#include <gtest/gtest.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <filesystem>

#include "daemon/io/aligned_buffer.hpp"
#include "daemon/io/backend.hpp"
#include "daemon/journal/writer.hpp"

namespace {

using namespace shmq;
using namespace shmq::io;

// On the file system of the build, which is a real one.
class Place {
 public:
  Place() {
    char pattern[] = "disk_test.XXXXXX";
    path = std::filesystem::absolute(mkdtemp(pattern)).string();
  }
  Place(const Place&) = delete;
  Place& operator=(const Place&) = delete;
  ~Place() { std::filesystem::remove_all(path); }
  std::string path;
};

std::int64_t wait_for(Disk& disk, const std::function<void(Done)>& operation) {
  bool is_done = false;
  std::int64_t outcome = 0;
  operation([&](std::int64_t result) {
    is_done = true;
    outcome = result;
  });
  EXPECT_FALSE(is_done) << "a completion came from within the call";
  while (!is_done) disk.poll(true);
  return outcome;
}

class DiskTest : public ::testing::TestWithParam<BackendChoice> {
 protected:
  void SetUp() override {
    auto backend = Backend::create(GetParam(), [](const std::string&) {});
    if (!backend) GTEST_SKIP() << backend.error().message();
    disk_ = std::move(*backend->open(place_.path));
  }
  std::int64_t create(const std::string& name) {
    return wait_for(*disk_, [&](Done done) { disk_->create(name, 0640, std::move(done)); });
  }

  Place place_;
  std::unique_ptr<Disk> disk_;
};

TEST_P(DiskTest, a_file_is_created_written_synced_renamed_and_read) {
  const auto file = static_cast<Handle>(create("a"));
  ASSERT_GT(file, 0);
  EXPECT_EQ(create("a"), -EEXIST);
  EXPECT_EQ(wait_for(*disk_, [&](Done d) { disk_->allocate(file, 8192, std::move(d)); }), 0);
  AlignedBuffer buffer;
  buffer.append_zeros(4096);
  std::memset(buffer.data(), 'x', 4096);
  const std::span<const std::byte> bytes = std::as_const(buffer).bytes();
  EXPECT_EQ(wait_for(*disk_, [&](Done d) { disk_->write(file, 4096, bytes, std::move(d)); }), 4096);
  EXPECT_EQ(wait_for(*disk_, [&](Done d) { disk_->sync(file, std::move(d)); }), 0);
  EXPECT_EQ(wait_for(*disk_, [&](Done d) { disk_->rename("a", "b", std::move(d)); }), 0);
  EXPECT_EQ(wait_for(*disk_, [&](Done d) { disk_->sync_directory(std::move(d)); }), 0);
  EXPECT_EQ(disk_->list().value(), std::vector<std::string>{"b"});
  const auto reading = static_cast<Handle>(disk_->open_for_reading("b"));
  ASSERT_GT(reading, 0);
  EXPECT_EQ(disk_->size(reading), 8192);
  char byte = 0;
  EXPECT_EQ(disk_->read(reading, 8191, std::as_writable_bytes(std::span{&byte, 1})), 1);
  EXPECT_EQ(byte, 'x');
  EXPECT_EQ(disk_->read(reading, 8192, std::as_writable_bytes(std::span{&byte, 1})), 0);
  EXPECT_EQ(wait_for(*disk_, [&](Done d) { disk_->unlink("b", std::move(d)); }), 0);
  EXPECT_TRUE(disk_->list().value().empty());
}

TEST_P(DiskTest, errors_are_errno_values) {
  EXPECT_EQ(wait_for(*disk_, [&](Done d) { disk_->open("none", std::move(d)); }), -ENOENT);
  EXPECT_EQ(wait_for(*disk_, [&](Done d) { disk_->unlink("none", std::move(d)); }), -ENOENT);
  EXPECT_EQ(disk_->open_for_reading("none"), -ENOENT);
  create("a");
  create("b");
  EXPECT_EQ(wait_for(*disk_, [&](Done d) { disk_->rename("a", "b", std::move(d)); }), -EEXIST);
  EXPECT_EQ(wait_for(*disk_, [&](Done d) { disk_->sync(999, std::move(d)); }), -EBADF);
}

TEST_P(DiskTest, permission_bits_do_not_depend_on_the_umask) {
  const mode_t before = umask(077);
  create("a");
  umask(before);
  struct stat status {};
  ASSERT_EQ(stat((place_.path + "/a").c_str(), &status), 0);
  EXPECT_EQ(status.st_mode & 0777U, 0640U);
}

TEST_P(DiskTest, a_file_that_another_holds_is_not_opened) {
  const auto file = static_cast<Handle>(create("a"));
  auto other = Backend::create(BackendChoice::plain, [](const std::string&) {})->open(place_.path);
  ASSERT_TRUE(other);
  const auto open = [&] {
    return wait_for(**other, [&](Done d) { (*other)->open("a", std::move(d)); });
  };
  EXPECT_EQ(open(), -EWOULDBLOCK);
  disk_->close(file);
  EXPECT_GT(open(), 0);
}

TEST_P(DiskTest, a_link_is_not_followed) {
  ASSERT_EQ(symlink("/etc/hostname", (place_.path + "/a").c_str()), 0);
  EXPECT_EQ(wait_for(*disk_, [&](Done d) { disk_->open("a", std::move(d)); }), -ELOOP);
  EXPECT_EQ(disk_->open_for_reading("a"), -ELOOP);
}

TEST_P(DiskTest, more_operations_than_the_rings_are_deep_all_complete) {
  const auto file = static_cast<Handle>(create("a"));
  AlignedBuffer buffer;
  buffer.append_zeros(4096);
  int completed = 0;
  constexpr int writes = 3000;
  for (int i = 0; i < writes; ++i) {
    disk_->write(file, static_cast<std::uint64_t>(i % 8) * 4096, std::as_const(buffer).bytes(),
                 [&](std::int64_t result) { completed += result == 4096 ? 1 : 0; });
  }
  while (disk_->poll(true)) {
  }
  EXPECT_EQ(completed, writes);
}

// --- The journal on a real disk ------------------------------------------------------------------

class Numbers final : public journal::MessageSource {
 public:
  std::uint64_t published = 0;
  journal::Progress progress;

  bool message(std::uint64_t seq, journal::MessageView& view) override {
    if (seq >= published) return false;
    text_ = std::string(seq % 2000, 'n') + std::to_string(seq);
    view = {.seq = seq,
            .publish_realtime_ns = 0,
            .flags = 0,
            .attributes = {},
            .payload = std::as_bytes(std::span{text_})};
    return true;
  }
  bool next_change(std::uint64_t, journal::Change&) override { return false; }
  void on_progress(const journal::Progress& now) override { progress = now; }

 private:
  std::string text_;
};

TEST_P(DiskTest, the_journal_survives_incarnation_after_incarnation) {
  Numbers numbers;
  journal::CheckpointState initial;
  initial.groups[journal::Uuid{1}].incarnation = 1;  // it settles nothing: all is kept
  for (int life = 0; life < 3; ++life) {
    auto recovered = journal::recover(*disk_, {.identity = {.name_space = "n", .queue = "q"},
                                               .memory_is_newer = life > 0,
                                               .initial = initial});
    ASSERT_TRUE(recovered) << recovered.error().message();
    ASSERT_TRUE(recovered->start);
    EXPECT_EQ(recovered->plan.end_seq, numbers.published);
    journal::Writer writer{*disk_, numbers, {}, std::move(*recovered->start)};
    for (int round = 0; round < 10; ++round) {
      numbers.published += 300;
      writer.pump();
      while (numbers.progress.watermark < numbers.published) disk_->poll(true);
    }
    writer.stop();
    while (!writer.is_stopped()) disk_->poll(true);
    while (disk_->poll(true)) {  // a file may still be getting ready, and would get its name later
    }
  }
  const auto directory = journal::open_directory(place_.path);
  const auto plan = journal::analyse(*directory, {});
  ASSERT_TRUE(plan);
  EXPECT_FALSE(plan->is_refused);
  EXPECT_EQ(plan->end_seq, numbers.published);
  std::uint64_t expected = 0;
  ASSERT_TRUE(journal::read_messages(*directory, *plan, 0, [&](const journal::Record& record) {
    const auto view = journal::message_of(record);
    EXPECT_EQ(view.seq, expected++);
    EXPECT_EQ(view.payload.size(), view.seq % 2000 + std::to_string(view.seq).size());
  }));
  EXPECT_EQ(expected, 9000U);
}

INSTANTIATE_TEST_SUITE_P(Backends, DiskTest,
                         ::testing::Values(BackendChoice::io_uring, BackendChoice::plain),
                         [](const auto& parameter) {
                           return parameter.param == BackendChoice::plain ? "plain" : "io_uring";
                         });

// --- Denied
// ----------------------------------------------------------------------------------------

bool deny_io_uring() {
  sock_filter filter[] = {
      BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(seccomp_data, nr)),
      BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_io_uring_setup, 0, 1),
      BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | EPERM),
      BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
  };
  const sock_fprog program{static_cast<unsigned short>(std::size(filter)), filter};
  return prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == 0 &&
         prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &program) == 0;
}

TEST(Backend, where_io_uring_is_denied_it_says_so_once_and_goes_on) {
  const Place place;
  const pid_t child = fork();
  ASSERT_GE(child, 0);
  if (child == 0) {
    if (!deny_io_uring()) _exit(2);
    int said = 0;
    const auto say = [&said](const std::string& sentence) {
      said += sentence.find("io_uring") != std::string::npos ? 1 : 100;
    };
    auto backend = Backend::create(BackendChoice::automatic, say);
    if (!backend || backend->uses_io_uring()) _exit(3);
    auto first = backend->open(place.path);
    auto second = backend->open(place.path);
    if (!first || !second || said != 1) _exit(4);
    if (wait_for(**first, [&](Done d) { (*first)->create("a", 0600, std::move(d)); }) < 0) _exit(5);
    if (Backend::create(BackendChoice::io_uring, say)) _exit(6);
    _exit(0);
  }
  int status = 0;
  ASSERT_EQ(waitpid(child, &status, 0), child);
  EXPECT_TRUE(WIFEXITED(status));
  EXPECT_EQ(WEXITSTATUS(status), 0);
}

}  // namespace
