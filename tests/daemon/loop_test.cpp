// SPDX-License-Identifier: Apache-2.0
//
// The loop's claims, each with io_uring and without.
#include "daemon/loop/loop.hpp"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <atomic>
#include <thread>
#include <vector>

#include "base/clock.hpp"
#include "daemon/io/ring.hpp"
#include "daemon/loop/helper.hpp"

namespace {

using namespace shmq;

struct Pipe {
  Pipe() { EXPECT_EQ(::pipe2(ends, O_CLOEXEC | O_NONBLOCK), 0); }
  Pipe(const Pipe&) = delete;
  Pipe& operator=(const Pipe&) = delete;
  ~Pipe() {
    ::close(ends[0]);
    ::close(ends[1]);
  }
  void write() const { EXPECT_EQ(::write(ends[1], "x", 1), 1); }
  [[nodiscard]] int reading() const { return ends[0]; }
  void drain() const {
    char bytes[64];
    while (::read(ends[0], bytes, sizeof(bytes)) > 0) {
    }
  }
  int ends[2] = {-1, -1};
};

constexpr std::uint64_t second_ns = 1'000'000'000;
std::uint64_t in(std::uint64_t ns) { return base::clock->monotonic_ns() + ns; }

class Loop : public testing::TestWithParam<io::BackendChoice> {
 protected:
  void SetUp() override {
    auto made = io::Backend::create(GetParam(), [](const std::string&) {});
    if (!made) GTEST_SKIP() << made.error().message();
    backend = std::make_unique<io::Backend>(std::move(*made));
    loop = std::move(*loop::Loop::create(*backend));
  }
  std::unique_ptr<io::Backend> backend;
  std::unique_ptr<loop::Loop> loop;
};

TEST_P(Loop, a_turn_ends_at_its_deadline_and_not_before) {
  const std::uint64_t deadline = in(5'000'000);
  loop->turn(deadline);
  EXPECT_GE(base::clock->monotonic_ns(), deadline);
}

TEST_P(Loop, an_event_ends_the_sleep_and_is_delivered_as_long_as_it_holds) {
  const Pipe pipe;
  int calls = 0;
  ASSERT_TRUE(loop->watch(pipe.reading(), EPOLLIN, [&](std::uint32_t events) {
    EXPECT_NE(events & EPOLLIN, 0U);
    ++calls;
  }));
  loop->turn(0);
  EXPECT_EQ(calls, 0);
  pipe.write();
  loop->turn(in(600 * second_ns));
  EXPECT_EQ(calls, 1);
  loop->turn(in(600 * second_ns));
  EXPECT_EQ(calls, 2);
  pipe.drain();
  loop->turn(in(1'000'000));
  EXPECT_EQ(calls, 2);
  pipe.write();
  loop->turn(in(600 * second_ns));
  EXPECT_EQ(calls, 3);
}

TEST_P(Loop, what_was_unwatched_by_a_callback_before_it_is_not_delivered) {
  const Pipe one;
  const Pipe two;
  int calls = 0;
  for (const Pipe* pipe : {&one, &two}) {
    ASSERT_TRUE(loop->watch(pipe->reading(), EPOLLIN, [&](auto) {
      ++calls;
      loop->unwatch(one.reading());
      loop->unwatch(two.reading());
    }));
    pipe->write();
  }
  loop->turn(in(second_ns));
  loop->turn(0);
  EXPECT_EQ(calls, 1);
  EXPECT_EQ(loop->watched(), 0U);
}

TEST_P(Loop, an_event_does_not_meet_another_descriptor_of_the_same_number) {
  const Pipe first;
  auto second = std::make_unique<Pipe>();
  const int number = second->reading();
  int late = 0;
  int fresh = 0;
  Pipe* reborn = nullptr;
  // Delivered in the order of their readiness: the first one exchanges the second.
  ASSERT_TRUE(loop->watch(first.reading(), EPOLLIN, [&](auto) {
    first.drain();
    if (!second) return;
    loop->unwatch(number);
    second.reset();
    reborn = new Pipe;
    EXPECT_TRUE(loop->watch(reborn->reading(), EPOLLIN, [&](auto) { ++fresh; }));
  }));
  ASSERT_TRUE(loop->watch(number, EPOLLIN, [&](auto) { ++late; }));
  first.write();
  second->write();
  loop->turn(in(second_ns));
  loop->turn(0);
  EXPECT_EQ(fresh, 0) << "nothing was written to the new one";
  EXPECT_LE(late, 1);
  ASSERT_NE(reborn, nullptr);
  loop->unwatch(reborn->reading());
  delete reborn;
}

TEST_P(Loop, writability_is_told_when_asked_for) {
  const Pipe pipe;
  int calls = 0;
  ASSERT_TRUE(loop->watch(pipe.ends[1], 0, [&](auto) { ++calls; }));
  loop->turn(0);
  EXPECT_EQ(calls, 0);
  loop->change(pipe.ends[1], EPOLLOUT);
  loop->turn(in(second_ns));
  EXPECT_EQ(calls, 1);
  loop->unwatch(pipe.ends[1]);
}

TEST_P(Loop, a_completion_of_the_disk_ends_the_sleep) {
  if (backend->ring() == nullptr) GTEST_SKIP() << "each call waits by itself";
  const Pipe pipe;
  bool is_done = false;
  auto operation = std::make_unique<io::Ring::Operation>();
  operation->done = [&](std::int64_t) { is_done = true; };
  char byte = 0;
  backend->ring()->start(std::move(operation), [&](io_uring_sqe* entry, io::Ring::Operation&) {
    io_uring_prep_nop(entry);
    (void)byte;
  });
  loop->turn(in(600 * second_ns));
  loop->turn(0);
  EXPECT_TRUE(is_done);
}

TEST_P(Loop, it_ends_though_it_was_waiting) {
  const Pipe pipe;
  ASSERT_TRUE(loop->watch(pipe.reading(), EPOLLIN, [](auto) {}));
  loop->turn(in(1'000'000));  // the operation that waits is outstanding from now on
  loop.reset();
  backend.reset();
}

INSTANTIATE_TEST_SUITE_P(Backends, Loop,
                         testing::Values(io::BackendChoice::io_uring, io::BackendChoice::plain),
                         [](const auto& choice) {
                           return choice.param == io::BackendChoice::plain ? "plain" : "io_uring";
                         });

TEST_P(Loop, a_helper_works_beside_the_loop_and_answers_on_it) {
  auto helper = std::move(*loop::Helper::create(*loop));
  const auto here = std::this_thread::get_id();
  std::thread::id there;
  std::vector<int> order;
  for (int i = 0; i < 3; ++i) {
    helper->run([&, i] {
      there = std::this_thread::get_id();
      return [&, i] {
        EXPECT_EQ(std::this_thread::get_id(), here);
        order.push_back(i);
      };
    });
  }
  EXPECT_EQ(helper->outstanding(), 3U);
  while (helper->outstanding() != 0) loop->turn(in(second_ns));
  EXPECT_NE(there, here);
  EXPECT_EQ(order, (std::vector{0, 1, 2}));
}

TEST_P(Loop, a_helper_that_goes_waits_for_its_job_and_drops_the_rest) {
  auto helper = std::move(*loop::Helper::create(*loop));
  std::atomic<bool> has_begun = false;
  bool has_ended = false;
  bool was_dropped = true;
  bool was_told = false;
  helper->run([&, self = helper.get()] {
    has_begun = true;
    has_begun.notify_all();
    while (!self->is_stopping()) std::this_thread::yield();
    has_ended = true;
    return [&] { was_told = true; };
  });
  helper->run([&] {
    was_dropped = false;
    return [] {};
  });
  has_begun.wait(false);
  const std::size_t watched = loop->watched();
  helper.reset();
  EXPECT_TRUE(has_ended);
  EXPECT_TRUE(was_dropped);
  EXPECT_FALSE(was_told);
  EXPECT_EQ(loop->watched(), watched - 1);
}

}  // namespace
