// SPDX-License-Identifier: Apache-2.0
//
// Leases of processes that die or are stopped while all others are busy: nobody waits idle for them
// (G4, G5). Real processes, the real clock.
#include <gtest/gtest.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <array>

#include "kill/actors.hpp"
#include "support/shared_look.hpp"
#include "support/small_queue.hpp"

namespace {

using namespace shmq;
using namespace shmq::testing;
using namespace std::chrono_literals;

constexpr std::size_t lease_count = 32;

// Between the processes; every word is written by one of them only, or by atomic adds.
struct Board {
  std::array<std::uint64_t, lease_count> victim_seqs;
  std::uint64_t victim_ready;  // count of the above
  std::uint64_t came_back;     // of these, by others
  std::uint64_t last_back_ns;
  std::uint64_t busy;  // messages of the others meanwhile
  std::uint64_t wrong;
  std::uint64_t stop;
};

std::uint64_t load(const std::uint64_t& word) { return __atomic_load_n(&word, __ATOMIC_ACQUIRE); }
void store(std::uint64_t& word, std::uint64_t value) {
  __atomic_store_n(&word, value, __ATOMIC_RELEASE);
}
void add(std::uint64_t& word) { __atomic_fetch_add(&word, 1, __ATOMIC_ACQ_REL); }

template <typename T>
class OnBoard {
 public:
  OnBoard() {
    void* place =
        mmap(nullptr, sizeof(T), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    if (place == MAP_FAILED) throw std::runtime_error{"mmap failed"};
    board_ = static_cast<T*>(place);
  }
  OnBoard(const OnBoard&) = delete;
  OnBoard& operator=(const OnBoard&) = delete;
  ~OnBoard() { munmap(board_, sizeof(T)); }
  T& operator*() const { return *board_; }
  T* operator->() const { return board_; }

 private:
  T* board_;
};

// Ends the children that a test started.
struct Children {
  ~Children() {
    for (const pid_t pid : pids) {
      ::kill(pid, SIGKILL);
      waitpid(pid, nullptr, 0);
    }
  }
  template <typename Body>
  pid_t start(Body body) {
    const pid_t pid = fork();
    if (pid == 0) {
      body();
      _exit(0);
    }
    pids.push_back(pid);
    return pid;
  }
  void kill(pid_t pid) {
    ::kill(pid, SIGKILL);
    waitpid(pid, nullptr, 0);
    pids.erase(std::find(pids.begin(), pids.end(), pid));
  }
  std::vector<pid_t> pids;
};

void be_busy_producer(const std::string& name_space, const Board& board) {
  auto queue = Queue::open("q", {.name_space = name_space});
  auto producer = queue->producer();
  while (load(board.stop) == 0) (void)producer->publish("work", {.timeout = 50ms});
}

void be_victim(const std::string& name_space, Board& board) {
  auto queue = Queue::open("q", {.name_space = name_space});
  auto consumer = queue->consumer("default");
  std::vector<Delivery> held;
  while (held.size() < lease_count) {
    auto delivery = consumer->receive();
    board.victim_seqs[held.size()] = delivery->seq().value;
    held.push_back(std::move(*delivery));
  }
  store(board.victim_ready, lease_count);
  for (;;) pause();
}

void be_busy_consumer(const std::string& name_space, Board& board) {
  auto queue = Queue::open("q", {.name_space = name_space});
  auto consumer = queue->consumer("default");
  std::vector<Delivery> batch(8);
  while (load(board.stop) == 0) {
    const auto count = consumer->receive_batch(batch, 50ms);
    for (std::size_t i = 0; i < *count; ++i) {
      const auto& seqs = board.victim_seqs;
      if (batch[i].hand_outs() == 1) {
        add(board.busy);
      } else if (std::find(seqs.begin(), seqs.end(), batch[i].seq().value) == seqs.end() ||
                 batch[i].hand_outs() != 2) {
        add(board.wrong);
      } else {
        store(board.last_back_ns, now_ns());
        add(board.came_back);
      }
      if (batch[i].ack() != Settlement::settled) add(board.wrong);
    }
  }
}

// The lease is an hour: only the proof of death brings them back. Each round is measured; that the
// best one is quick does not hang on the machine, and would not be so if anybody waited for a
// time-out.
TEST(Leases, of_a_killed_consumer_come_back_at_once_while_all_others_are_busy) {
  QueueOptions options = SmallQueue::options(
      Overflow::block, {{.name = "default", .mode = GroupMode::shared, .lease = 1h}});
  options.slots = 1024;
  options.window_entries = 1024;
  options.straggler_entries = 256;
  options.arena_bytes = 64 * 4096;
  options.max_participants = 16;
  SmallQueue small{options};
  const std::string& name_space = small.scratch.name_space;
  const OnBoard<Board> board;
  Children children;
  children.start([&] { be_busy_producer(name_space, *board); });
  for (int i = 0; i < 3; ++i) children.start([&] { be_busy_consumer(name_space, *board); });

  std::vector<double> milliseconds;
  std::uint64_t busy_least = ~std::uint64_t{0};
  for (int round = 0; round < 10; ++round) {
    store(board->victim_ready, 0);
    store(board->came_back, 0);
    const pid_t victim = children.start([&] { be_victim(name_space, *board); });
    while (load(board->victim_ready) == 0) sched_yield();
    const std::uint64_t busy_before = load(board->busy);
    const std::uint64_t begin_ns = now_ns();
    children.kill(victim);
    while (load(board->came_back) < lease_count && load(board->wrong) == 0) sched_yield();
    ASSERT_EQ(load(board->wrong), 0U);
    milliseconds.push_back(static_cast<double>(load(board->last_back_ns) - begin_ns) * 1e-6);
    busy_least = std::min(busy_least, load(board->busy) - busy_before);
  }
  store(board->stop, 1);
  std::sort(milliseconds.begin(), milliseconds.end());
  std::printf("32 leases came back after %.0f ms (best), %.0f (median), %.0f (worst of %zu)\n",
              milliseconds.front(), milliseconds[milliseconds.size() / 2], milliseconds.back(),
              milliseconds.size());
  EXPECT_LE(milliseconds.front(), 200.0);
  EXPECT_GT(busy_least, 0U) << "the others were to be busy";
}

// --- Stopped past the lease --------------------------------------------------------------------

constexpr std::size_t calls = 5;

struct Late {
  std::uint64_t holds;
  std::array<std::uint64_t, calls> refused;
  std::uint64_t whole;
};

void be_late(const std::string& name_space, Late& late) {
  auto queue = Queue::open("q", {.name_space = name_space});
  auto consumer = queue->consumer("default");
  std::vector<Delivery> held(calls);
  if (consumer->receive_batch(held).value() != calls) _exit(2);
  late.holds = calls;
  raise(SIGSTOP);
  const auto lost = [](Settlement settlement) -> std::uint64_t {
    return settlement == Settlement::lease_lost ? 1 : 0;
  };
  late.refused = {lost(held[0].ack()), lost(held[1].nack()), lost(held[2].extend()),
                  lost(held[3].release()), lost(held[4].reject())};
  for (std::size_t i = 0; i < calls; ++i) {
    late.whole += held[i].text() == std::string(1000, static_cast<char>('a' + i)) ? 1 : 0;
  }
  _exit(0);
}

TEST(Leases, of_a_consumer_that_is_stopped_past_them_are_lost_to_it) {
  SmallQueue small{Overflow::fail, {{.name = "default", .mode = GroupMode::shared, .lease = 50ms}}};
  auto producer = small.producer();
  for (std::size_t i = 0; i < calls; ++i) {
    ASSERT_TRUE(producer.publish(std::string(1000, static_cast<char>('a' + i))));
  }
  const OnBoard<Late> late;
  Children children;
  const pid_t pid = children.start([&] { be_late(small.scratch.name_space, *late); });
  int status = 0;
  ASSERT_EQ(waitpid(pid, &status, WUNTRACED), pid);
  ASSERT_TRUE(WIFSTOPPED(status));
  ASSERT_EQ(late->holds, calls);
  // The others have them, and every settlement of theirs counts.
  auto other = small.consumer();
  std::vector<Delivery> taken;
  while (taken.size() < calls) {
    auto delivery = other.receive(30s);
    ASSERT_TRUE(delivery && !delivery->empty());
    ASSERT_EQ(delivery->seq().value, taken.size());
    ASSERT_EQ(delivery->hand_outs(), 2U);
    ASSERT_EQ(delivery->extend(1h), Settlement::settled);
    taken.push_back(std::move(*delivery));
  }
  const auto before = small.group();
  ::kill(pid, SIGCONT);
  ASSERT_EQ(waitpid(pid, &status, 0), pid);
  children.pids.clear();
  ASSERT_TRUE(WIFEXITED(status) && WEXITSTATUS(status) == 0);
  for (const std::uint64_t refused : late->refused) EXPECT_EQ(refused, 1U);
  EXPECT_EQ(late->whole, calls) << "its bytes are its own until it lets go";
  const auto after = small.group();
  EXPECT_EQ(after.in_flight, before.in_flight);
  EXPECT_EQ(after.acked_total, 0U);
  EXPECT_EQ(after.dead + after.delayed + after.ready, 0U);
  for (Delivery& delivery : taken) EXPECT_EQ(delivery.ack(), Settlement::settled);
  EXPECT_EQ(small.group().acked_total, calls);
}

}  // namespace
