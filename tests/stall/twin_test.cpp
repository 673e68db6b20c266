// SPDX-License-Identifier: Apache-2.0
//
// A million numbers go through while the publisher's twin is stopped in the middle of publish again
// and again: it delays nobody, and its messages arrive whole (G1, G11).
#include <gtest/gtest.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include "support/small_queue.hpp"

namespace {

using namespace shmq;
using namespace shmq::testing;
using namespace std::chrono_literals;

constexpr std::uint64_t numbers = 1'000'000;

struct Shared {
  std::uint64_t inside;     // the twin is in publish
  std::uint64_t published;  // by the twin
  std::uint64_t end;
};

std::string twin_text(std::uint64_t i) {
  return "twin " + std::to_string(i) + std::string(200, static_cast<char>('a' + i % 26));
}

void be_the_twin(const std::string& name_space, Shared& shared) {
  auto queue = Queue::open("q", {.name_space = name_space});
  auto producer = queue->producer();
  if (!producer) _exit(2);
  for (std::uint64_t i = 0; __atomic_load_n(&shared.end, __ATOMIC_ACQUIRE) == 0; ++i) {
    const std::string text = twin_text(i);
    __atomic_store_n(&shared.inside, 1, __ATOMIC_RELEASE);
    const auto result = producer->publish(text);
    __atomic_store_n(&shared.inside, 0, __ATOMIC_RELEASE);
    if (!result) _exit(3);
    __atomic_store_n(&shared.published, i + 1, __ATOMIC_RELEASE);
  }
  producer->close();
  _exit(0);
}

void publish_numbers(const std::string& name_space) {
  auto queue = Queue::open("q", {.name_space = name_space});
  auto producer = queue->producer();
  if (!producer) _exit(2);
  for (std::uint64_t i = 1; i <= numbers; ++i) {
    if (!producer->publish(std::to_string(i))) _exit(3);
  }
  producer->close();
  _exit(0);
}

bool stopped(pid_t pid) {
  int status = 0;
  return waitpid(pid, &status, WUNTRACED | WNOHANG) == pid && WIFSTOPPED(status);
}

TEST(Stall, a_million_numbers_pass_a_twin_that_is_stopped_in_the_middle_of_publish) {
  SmallQueue small{QueueOptions{.slots = 4096, .arena_bytes = 4 << 20, .chunk_bytes = 64 << 10}};
  auto* shared = static_cast<Shared*>(
      mmap(nullptr, sizeof(Shared), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0));
  const pid_t twin = fork();
  if (twin == 0) be_the_twin(small.scratch.name_space, *shared);
  const pid_t publisher = fork();
  if (publisher == 0) publish_numbers(small.scratch.name_space);

  auto consumer = small.consumer();
  std::uint64_t next_number = 1;
  std::uint64_t next_twin = 0;
  std::uint64_t stops = 0;
  std::uint64_t stops_inside = 0;
  std::uint64_t batches = 0;
  bool is_stopped = false;
  std::vector<Delivery> batch(64);
  const auto take = [&](const Delivery& delivery) {
    if (delivery.text().starts_with("twin ")) {
      ASSERT_EQ(delivery.text(), twin_text(next_twin));
      ++next_twin;
    } else {
      ASSERT_EQ(delivery.text(), std::to_string(next_number));
      ++next_number;
    }
  };
  while (next_number <= numbers) {
    const auto count = consumer.receive_batch(batch, 60s);
    ASSERT_TRUE(count);
    ASSERT_GT(*count, 0U) << "somebody was delayed";
    for (std::size_t i = 0; i < *count; ++i) {
      take(batch[i]);
      if (HasFatalFailure()) break;
    }
    if (HasFatalFailure()) break;
    ASSERT_EQ(consumer.ack_through(batch[*count - 1].seq()), Settlement::settled);
    // The twin stands still for two laps of the ring, then runs for a little.
    if (++batches % 32 != 0) continue;
    if (is_stopped) {
      kill(twin, SIGCONT);
      is_stopped = false;
    } else {
      kill(twin, SIGSTOP);
      while (!stopped(twin)) {
      }
      ++stops;
      stops_inside += __atomic_load_n(&shared->inside, __ATOMIC_ACQUIRE);
      is_stopped = true;
    }
  }
  __atomic_store_n(&shared->end, 1, __ATOMIC_RELEASE);
  kill(twin, SIGCONT);
  int status = 0;
  waitpid(publisher, &status, 0);
  EXPECT_EQ(status, 0);
  // What the twin publishes while it ends is taken, too: it may wait for room.
  bool twin_ended = false;
  while (!HasFailure() && (!twin_ended || next_twin < shared->published)) {
    const auto count = consumer.receive_batch(batch, 10ms);
    ASSERT_TRUE(count);
    for (std::size_t i = 0; i < *count; ++i) take(batch[i]);
    if (*count != 0) (void)consumer.ack_through(batch[*count - 1].seq());
    if (!twin_ended) twin_ended = waitpid(twin, &status, WNOHANG) == twin && WIFEXITED(status);
  }
  if (!twin_ended) {
    kill(twin, SIGKILL);
    waitpid(twin, &status, 0);
  }
  EXPECT_EQ(next_number, numbers + 1);
  EXPECT_EQ(next_twin, shared->published);
  std::printf(
      "%llu numbers in order; %llu stops of the twin, %llu inside publish; %llu of its messages\n",
      static_cast<unsigned long long>(next_number - 1), static_cast<unsigned long long>(stops),
      static_cast<unsigned long long>(stops_inside), static_cast<unsigned long long>(next_twin));
  EXPECT_GT(stops_inside, 10U);
  EXPECT_GT(next_twin, 100U);
  munmap(shared, sizeof(Shared));
}

}  // namespace
