// SPDX-License-Identifier: Apache-2.0
//
// The daemon inside a program: one a namespace, drained, stopped, killed with its program, started
// again; what is the program's stays the program's. That it is a library that an outside project
// can link is tests/install's.
#include <fcntl.h>
#include <gtest/gtest.h>
#include <poll.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include <atomic>
#include <cstdlib>
#include <filesystem>
#include <shmq/embedded_daemon.hpp>
#include <shmq/shmq.hpp>
#include <string>
#include <thread>

#include "support/scratch.hpp"

namespace {

using namespace shmq;
using namespace std::chrono_literals;
namespace fs = std::filesystem;

// Children that end with the test, however it ends.
class LeftOver {
 public:
  LeftOver() = default;
  LeftOver(const LeftOver&) = delete;
  LeftOver& operator=(const LeftOver&) = delete;
  ~LeftOver() {
    for (const pid_t each : pids_) ::kill(each, SIGKILL);
  }
  void add(pid_t pid) { pids_.push_back(pid); }

 private:
  std::vector<pid_t> pids_;
};

class Embedded : public ::testing::Test {
 protected:
  void SetUp() override {
    std::string pattern = (fs::temp_directory_path() / "shmq-embedded.XXXXXX").string();
    ASSERT_NE(::mkdtemp(pattern.data()), nullptr);
    directory = pattern;
    ::setenv("SHMQ_NAMESPACE", scratch.name_space.c_str(), 1);
    ::setenv("SHMQ_RUNTIME_DIR", (directory / "run").c_str(), 1);
  }
  void TearDown() override {
    std::error_code ignored;
    fs::remove_all(directory, ignored);
  }
  EmbeddedDaemonOptions options() const {
    return {.data_dir = directory / "data", .runtime_dir = directory / "run"};
  }
  EmbeddedDaemon start() const {
    auto daemon = EmbeddedDaemon::start(options());
    if (!daemon) throw std::runtime_error{daemon.error().message()};
    if (auto ready = daemon->wait_ready(30s); !ready) throw std::runtime_error{"not ready"};
    return std::move(*daemon);
  }
  static Result<Queue> make_queue() {
    QueueOptions small;
    small.slots = 1024;
    small.arena_bytes = 1 << 20;
    small.chunk_bytes = 4096;
    small.max_participants = 16;
    small.durable = true;
    // A ring that was rebuilt may be larger.
    auto there = Queue::open("q");
    return there ? std::move(there) : Queue::create("q", small);
  }
  // The seq of the last one; throws where a publish fails.
  static void publish(Queue& queue, int first, int end, Durability durability) {
    auto producer = queue.producer();
    if (!producer) throw std::runtime_error{producer.error().message()};
    for (int i = first; i < end; ++i) {
      const std::string text = "message " + std::to_string(i);
      const auto seq = producer->publish(std::as_bytes(std::span{text}),
                                         {.durability = durability, .timeout = 30s});
      if (!seq) throw std::runtime_error{seq.error().message()};
    }
  }
  static int consumed() {
    auto queue = Queue::open("q");
    if (!queue) throw std::runtime_error{queue.error().message()};
    auto consumer = queue->consumer("default");
    for (int i = 0;; ++i) {
      auto delivery = consumer->try_receive();
      if (!delivery || delivery->empty()) return i;
      EXPECT_EQ(delivery->text(), "message " + std::to_string(i));
      EXPECT_EQ(delivery->ack(), Settlement::settled);
    }
  }
  // Says on `to` the pid of a child of its own, and then each number that was confirmed.
  int host_and_publish(int to, int next) const {
    ::prctl(PR_SET_PDEATHSIG, SIGKILL);
    try {
      EmbeddedDaemon daemon = start();
      auto queue = make_queue();
      const pid_t grandchild = ::fork();
      if (grandchild == 0) {
        ::close_range(0, ~0U, 0);
        for (;;) ::pause();
      }
      if (::write(to, &grandchild, sizeof(grandchild)) < 0) return 2;
      for (int i = next;; ++i) {
        publish(*queue, i, i + 1, Durability::synced);
        if (::write(to, &i, sizeof(i)) < 0) return 3;
      }
    } catch (const std::exception& error) {
      std::fprintf(stderr, "host: %s\n", error.what());
    }
    return 1;
  }
  void forget_memory() const {
    for (const auto& entry : fs::directory_iterator{"/dev/shm"}) {
      const std::string name = entry.path().filename();
      if (name.starts_with("shmq." + scratch.name_space + ".")) fs::remove(entry.path());
    }
  }

  shmq::testing::Scratch scratch;
  fs::path directory;
};

TEST_F(Embedded, what_was_drained_is_on_disk) {
  {
    EmbeddedDaemon daemon = start();
    EXPECT_TRUE(daemon.runs());
    auto queue = make_queue();
    ASSERT_TRUE(queue) << queue.error().message();
    publish(*queue, 0, 10, Durability::synced);
    publish(*queue, 10, 100, Durability::memory);
    const auto done = daemon.drain();
    EXPECT_TRUE(done) << done.error().message();
    EXPECT_FALSE(daemon.runs());
    EXPECT_TRUE(daemon.drain()) << "it says what the first one said";
  }
  forget_memory();
  EmbeddedDaemon daemon = start();
  EXPECT_EQ(consumed(), 100);
}

TEST_F(Embedded, one_that_is_stopped_leaves_memory_to_the_next) {
  auto daemon = start();
  auto queue = make_queue();
  ASSERT_TRUE(queue) << queue.error().message();
  publish(*queue, 0, 10, Durability::synced);
  daemon.stop();
  EXPECT_FALSE(daemon.runs());
  EXPECT_TRUE(daemon.status().error() == Errc::daemon_away);
  publish(*queue, 10, 20, Durability::memory);
  auto producer = queue->producer();
  const auto refused = producer->publish("x", {.durability = Durability::synced, .timeout = 30s});
  EXPECT_FALSE(refused);
  daemon = start();
  publish(*queue, 20, 30, Durability::synced);
  EXPECT_EQ(consumed(), 30);
}

TEST_F(Embedded, a_second_one_is_refused) {
  EmbeddedDaemon daemon = start();
  const auto same = EmbeddedDaemon::start(options());
  ASSERT_FALSE(same);
  EXPECT_TRUE(same.error() == Errc::busy) << same.error().message();
  EmbeddedDaemonOptions other_place = options();
  other_place.runtime_dir = directory / "elsewhere";
  const auto same_data = EmbeddedDaemon::start(other_place);
  ASSERT_FALSE(same_data);
  EXPECT_TRUE(same_data.error() == Errc::busy) << same_data.error().message();
  EmbeddedDaemonOptions other_data = options();
  other_data.data_dir = directory / "other-data";
  const auto same_place = EmbeddedDaemon::start(other_data);
  ASSERT_FALSE(same_place);
  EXPECT_TRUE(same_place.error() == Errc::busy) << same_place.error().message();
  // The first one has noticed nothing.
  auto queue = make_queue();
  ASSERT_TRUE(queue) << queue.error().message();
  publish(*queue, 0, 1, Durability::synced);
  EXPECT_TRUE(daemon.drain());
  EXPECT_TRUE(EmbeddedDaemon::start(options())) << "once it has ended, there is room";
}

TEST_F(Embedded, bad_options_are_told) {
  EmbeddedDaemonOptions bad = options();
  bad.name_space = "Not a name";
  EXPECT_TRUE(EmbeddedDaemon::start(bad).error() == Errc::invalid_name);
  bad = options();
  bad.data_dir = "/proc/nothing";
  EXPECT_FALSE(EmbeddedDaemon::start(bad));
  bad = options();
  bad.drain_limit = -1s;
  EXPECT_TRUE(EmbeddedDaemon::start(bad).error() == Errc::invalid_argument);
}

TEST_F(Embedded, others_may_ask_and_drain_it) {
  EmbeddedDaemon daemon = start();
  const auto status = daemon.status();
  ASSERT_TRUE(status) << status.error().message();
  EXPECT_NE(status->find("\"pid\":" + std::to_string(::getpid())), std::string::npos) << *status;
  EXPECT_TRUE(daemon_drain({.runtime_dir = directory / "run"}));
  EXPECT_TRUE(daemon.drain());
  EXPECT_FALSE(daemon.runs());
}

// Rounds of: a child hosts the daemon and publishes, and is killed. What it said was confirmed is
// there for the next one, from memory or, in every second round, from disk. A child of its own,
// which lives on, keeps nobody out.
TEST_F(Embedded, killed_with_its_program_it_goes_on_in_the_next) {
  constexpr int rounds = 6;
  int next = 0;
  LeftOver left_over;
  for (int round = 0; round < rounds; ++round) {
    int ends[2];
    ASSERT_EQ(::pipe2(ends, O_CLOEXEC), 0);
    const pid_t host = ::fork();
    if (host == 0) {
      ::close(ends[0]);
      ::_exit(host_and_publish(ends[1], next));
    }
    left_over.add(host);
    ::close(ends[1]);
    pid_t grandchild = 0;
    ASSERT_EQ(::read(ends[0], &grandchild, sizeof(grandchild)), ssize_t{sizeof(grandchild)});
    left_over.add(grandchild);
    int last = -1;
    bool is_well = true;
    while (is_well && last < next + 20) {
      is_well = ::read(ends[0], &last, sizeof(last)) == ssize_t{sizeof(last)};
    }
    ::kill(host, SIGKILL);
    int status = -1;
    ::waitpid(host, &status, 0);
    ASSERT_TRUE(is_well) << "round " << round << ", the host's status " << status;
    while (::read(ends[0], &last, sizeof(last)) == ssize_t{sizeof(last)}) {
    }
    ::close(ends[0]);
    if (round % 2 == 1) forget_memory();
    EmbeddedDaemon daemon = start();
    auto queue = Queue::open("q");
    ASSERT_TRUE(queue) << queue.error().message();
    auto consumer = queue->consumer("default");
    ASSERT_TRUE(consumer) << consumer.error().message();
    for (int expected = next;; ++expected) {
      auto delivery = consumer->receive(0s);
      ASSERT_TRUE(delivery) << delivery.error().message();
      if (delivery->empty()) {
        // One more may have been confirmed whose number was not written yet.
        EXPECT_GT(expected, last) << "round " << round;
        next = expected;
        break;
      }
      EXPECT_EQ(delivery->text(), "message " + std::to_string(expected));
      EXPECT_EQ(delivery->ack(), Settlement::settled);
    }
    EXPECT_TRUE(consumer->wait_acks_synced(30s));
  }
  std::printf("%d rounds, %d messages\n", rounds, next);
  EXPECT_GT(next, rounds * 20);
}

TEST_F(Embedded, the_programs_descriptors_are_its_own) {
  int ends[2];
  ASSERT_EQ(::pipe2(ends, O_CLOEXEC), 0);
  EmbeddedDaemon daemon = start();
  auto queue = make_queue();
  ASSERT_TRUE(queue) << queue.error().message();
  ::close(ends[1]);
  pollfd waiting{.fd = ends[0], .events = POLLIN, .revents = 0};
  EXPECT_EQ(::poll(&waiting, 1, 0), 1) << "the daemon holds the program's pipe";
  ::close(ends[0]);
  // And the other way round: as daemonize() does.
  ::close_range(1000, ~0U, 0);
  for (int number = 3; number < 1000; ++number) {
    if (::fcntl(number, F_GETFD) < 0) continue;
    std::string path(256, '\0');
    const std::string link = "/proc/self/fd/" + std::to_string(number);
    const auto length = ::readlink(link.c_str(), path.data(), path.size());
    path.resize(length > 0 ? static_cast<std::size_t>(length) : 0);
    EXPECT_EQ(path.find((directory / "data").string()), std::string::npos) << path;
  }
  publish(*queue, 0, 10, Durability::synced);
  EXPECT_TRUE(daemon.drain());
}

TEST_F(Embedded, a_forked_childs_handle_is_inert) {
  EmbeddedDaemon daemon = start();
  auto queue = make_queue();
  ASSERT_TRUE(queue) << queue.error().message();
  const int open = ::open("/dev/null", O_RDONLY | O_CLOEXEC);
  const pid_t child = ::fork();
  if (child == 0) {
    bool is_well = !daemon.runs() && daemon.drain().error() == Errc::forked;
    daemon.stop();
    { const EmbeddedDaemon gone = std::move(daemon); }
    // No number of the daemon's was closed here.
    is_well = is_well && ::fcntl(open, F_GETFD) >= 0;
    ::_exit(is_well ? 0 : 1);
  }
  int status = -1;
  ASSERT_EQ(::waitpid(child, &status, 0), child);
  EXPECT_EQ(status, 0);
  EXPECT_TRUE(daemon.runs());
  publish(*queue, 0, 10, Durability::synced);
  EXPECT_TRUE(daemon.drain());
  ::close(open);
}

TEST_F(Embedded, what_it_logs_is_told_with_the_programs_descriptors) {
  EmbeddedDaemonOptions logging = options();
  const int open = ::open("/dev/null", O_WRONLY | O_CLOEXEC);
  std::atomic<int> told{0};
  logging.log = [&](LogLevel, const std::string& sentence) {
    if (::write(open, sentence.data(), sentence.size()) == static_cast<ssize_t>(sentence.size())) {
      ++told;
    }
  };
  {
    auto daemon = EmbeddedDaemon::start(logging);
    ASSERT_TRUE(daemon) << daemon.error().message();
    ASSERT_TRUE(make_queue());
    ASSERT_TRUE(Queue::remove("q"));
  }
  EXPECT_GT(told.load(), 0);
  ::close(open);
}

}  // namespace
