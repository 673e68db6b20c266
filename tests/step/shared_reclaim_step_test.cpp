// SPDX-License-Identifier: Apache-2.0
//
// The one who gives back the leases of the dead is killed while it does so, and so is the next one
// (G5): whoever comes after them finishes.
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include "step/shared_steps.hpp"

namespace {

using namespace shmq;
using namespace shmq::testing;

constexpr std::uint64_t published = 20;

std::uint32_t entry_of_own_producer(const Queue& queue) {
  for (const auto& participant : queue.participants()) {
    if (participant.role == Role::producer &&
        participant.pid == static_cast<std::uint32_t>(getpid())) {
      return participant.entry;
    }
  }
  throw std::runtime_error{"no producer"};
}

// Dies as the consumer that holds leases in the table and in the window, and as the producer that
// was evicting two of them: one was moved and not made live, one was only reserved for.
[[noreturn]] void die_with_everything(const SmallQueue& small) {
  Holder& holder = child_holder(small);
  auto* producer = new Producer{std::move(*holder.queue.producer())};
  holder.take(4);
  publish_up_to(*producer, 4, published);
  holder.take(4);
  auto* segment = new std::shared_ptr<shm::Segment>{segment_of(small)};
  const std::uint32_t evictor = entry_of_own_producer(holder.queue);
  new queue::GroupVisit{**segment, (*segment)->participant(evictor), 0};
  queue::SharedGroup group{**segment, 0};
  for (const std::uint64_t seq : {4U, 5U}) {
    sync::Word16& entry = group.window(seq);
    const sync::Word16 seen = sync::read_halves(entry);
    const std::uint64_t ref = (*segment)->slots()[seq & 15].high;
    const auto reservation =
        group.table().reserve(seq, shm::unpack_lease(seen.high), ref, evictor + 1);
    if (!reservation) _exit(1);
    if (seq == 4 &&
        !sync::compare_and_swap(
            entry, seen, {seq, shm::moved_word(reservation->index, reservation->generation)})) {
      _exit(1);
    }
  }
  raise(SIGKILL);
  _exit(1);
}

// A living one holds a lease behind those of the dead.
struct Scene {
  std::unique_ptr<SmallQueue> fresh() {
    living.reset();
    auto small = shared_queue(4);
    const pid_t pid = fork();
    if (pid == 0) die_with_everything(*small);
    int status = 0;
    waitpid(pid, &status, 0);
    if (!WIFSIGNALED(status)) throw std::runtime_error{"the setting failed"};
    living = std::make_unique<Holder>(*small);
    living->take(2);
    return small;
  }
  void check(SmallQueue& small, FakeClock& clock) {
    ASSERT_TRUE(small.queue->reclaim());
    const SharedLook look = look_at_group(*segment_of(small));
    ASSERT_EQ(look.leased, 2U) << "only the living hold something";
    ASSERT_EQ(look.reserved, 0U);
    Seqs gone;
    for (Delivery& delivery : living->held) {
      gone.insert(delivery.seq().value);
      ASSERT_EQ(delivery.ack(), Settlement::settled) << "a valid lease was lost";
    }
    living.reset();
    expect_the_rest(small, clock, {.published = published, .gone = gone});
  }
  std::unique_ptr<Holder> living;
};

Stepper::Operation prepare_reclaim(const SmallQueue& small) {
  auto* queue = new Queue{std::move(*small.open_again())};
  return [queue] {
    if (!queue->reclaim()) _exit(1);
  };
}

TEST(StepShared, a_killed_reclaimer_leaves_the_rest_to_the_next) {
  FakeClock clock;
  Scene scene;
  run_campaign({.what = "reclaim of leases, stragglers and reservations",
                .fresh = [&] { return scene.fresh(); },
                .prepare = prepare_reclaim,
                .check = [&](SmallQueue& small, bool) { scene.check(small, clock); },
                .states_max = 150});
}

// STEP on STEP: two reclaimers are killed one after the other, each in every state of its own.
TEST(StepShared, two_killed_reclaimers_leave_the_rest_to_the_third) {
  if (!Stepper::available()) GTEST_SKIP() << "ptrace is refused here";
  FakeClock clock;
  Scene scene;
  const auto stepper_on = [](const SmallQueue& small) {
    return std::make_unique<Stepper>("shmq." + small.scratch.name_space + ".q",
                                     [&small] { return prepare_reclaim(small); });
  };
  std::vector<std::uint64_t> first_states;
  {
    auto small = scene.fresh();
    first_states = stepper_on(*small)->record();
  }
  std::uint64_t pairs = 0;
  for (const std::uint64_t first : sampled(first_states, 8)) {
    std::vector<std::uint64_t> second_states;
    {
      auto small = scene.fresh();
      auto stepper = stepper_on(*small);
      if (!stepper->run_for(first)) continue;
      stepper->kill();
      second_states = stepper_on(*small)->record();
    }
    ASSERT_FALSE(second_states.empty());
    for (const std::uint64_t second : sampled(second_states, 6)) {
      SCOPED_TRACE("killed after " + std::to_string(first) + " and " + std::to_string(second) +
                   " instructions");
      auto small = scene.fresh();
      for (const std::uint64_t state : {first, second}) {
        auto stepper = stepper_on(*small);
        stepper->run_for(state);
        stepper->kill();
      }
      scene.check(*small, clock);
      if (HasFailure()) return;
      ++pairs;
    }
  }
  std::printf("%llu pairs of kills, each checked\n", static_cast<unsigned long long>(pairs));
  ASSERT_GT(pairs, 20U);
}

}  // namespace
