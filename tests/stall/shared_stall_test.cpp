// SPDX-License-Identifier: Apache-2.0
//
// STALL in a shared group: a process is frozen at each distinct state of ack, claim and eviction,
// its leases end, the others run two laps and more, then it goes on. What it does late lands as it
// should or is refused; no byte of the others changes (G4, G10, G11).
#include <sys/mman.h>

#include <array>

#include "step/shared_steps.hpp"

namespace {

using namespace shmq;
using namespace shmq::testing;
using namespace std::chrono_literals;

constexpr auto settled = Settlement::settled;
constexpr std::size_t seqs_max = 256;

// What the frozen process reports once it goes on.
struct Report {
  std::array<std::uint64_t, seqs_max> settled;
  std::array<std::uint64_t, seqs_max> lost;
  std::uint64_t damaged;
};

class Shared {
 public:
  Shared() {
    void* place =
        mmap(nullptr, sizeof(Report), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    if (place == MAP_FAILED) throw std::runtime_error{"mmap failed"};
    report_ = static_cast<Report*>(place);
  }
  Shared(const Shared&) = delete;
  Shared& operator=(const Shared&) = delete;
  ~Shared() { munmap(report_, sizeof(Report)); }
  Report* operator->() const { return report_; }
  void clear() const { *report_ = Report{}; }

 private:
  Report* report_;
};

// What is published while somebody is frozen: who, number, and bytes that tell whether it is whole.
std::string own_text(char who, std::uint64_t number) {
  return who + std::to_string(number) + std::string(600, static_cast<char>('a' + number % 26));
}

// The parts of the segment that a refused settlement may not touch.
std::vector<std::byte> shared_bytes(const shm::Segment& segment, bool with_leases) {
  std::vector<std::byte> bytes;
  const shm::Limits& limits = segment.limits();
  const auto add = [&](const void* begin, std::size_t count) {
    const auto* first = static_cast<const std::byte*>(begin);
    bytes.insert(bytes.end(), first, first + count);
  };
  add(segment.slots(), limits.slots * sizeof(sync::Word16));
  add(&segment.chunk(0), limits.chunks * sizeof(sync::Word16));
  add(segment.arena(), limits.arena_bytes);
  if (with_leases) {
    add(segment.window(0), limits.window_entries * sizeof(sync::Word16));
    add(segment.stragglers(0), limits.straggler_entries * sizeof(shm::Straggler));
  }
  return bytes;
}

struct Stall {
  const char* what;
  std::function<std::unique_ptr<SmallQueue>()> fresh;
  std::function<Stepper::Operation(const SmallQueue&)> prepare;
  /// What the others do while it is frozen.
  std::function<void(SmallQueue&)> others;
  /// After it went on, and ended well.
  std::function<void(SmallQueue&)> check;
  bool touches_no_lease = false;
  std::size_t states_max = 60;
};

void run_stalls(const Stall& stall, const Shared& report, std::uint64_t& stalls) {
  std::vector<std::uint64_t> states;
  report.clear();
  {
    auto small = stall.fresh();
    states = Stepper{
        "shmq." + small->scratch.name_space + ".q", [&] {
          return stall.prepare(*small);
        }}.record();
  }
  ASSERT_FALSE(states.empty());
  std::uint64_t done = 0;
  for (const std::uint64_t state : sampled(states, stall.states_max)) {
    SCOPED_TRACE(std::string{stall.what} + " frozen after " + std::to_string(state) +
                 " instructions");
    report.clear();
    auto small = stall.fresh();
    Stepper stepper{"shmq." + small->scratch.name_space + ".q",
                    [&] { return stall.prepare(*small); }};
    if (!stepper.run_for(state)) continue;
    stall.others(*small);
    if (::testing::Test::HasFailure()) return;
    const auto segment = segment_of(*small);
    const auto before = shared_bytes(*segment, stall.touches_no_lease);
    ASSERT_TRUE(stepper.resume()) << "what was frozen went wrong";
    if (stall.touches_no_lease) {
      ASSERT_TRUE(before == shared_bytes(*segment, true)) << "a refused settlement changed bytes";
    }
    ASSERT_EQ(report->damaged, 0U);
    stall.check(*small);
    if (::testing::Test::HasFailure()) return;
    ++done;
  }
  std::printf("%s: %llu distinct states, %llu stalls, each checked\n", stall.what,
              static_cast<unsigned long long>(states.size()),
              static_cast<unsigned long long>(done));
  ASSERT_GT(done, 4U);
  stalls += done;
}

// The parent's side: settles, counts, holds.
struct Others {
  explicit Others(const Shared& shared) : report(shared) {}

  void begin(const SmallQueue& small) {
    held.clear();
    texts.clear();
    holder.reset();
    settlements.fill(0);
    holder = std::make_unique<Holder>(small);
  }
  // Receives all there is; acks, or keeps every `keep`th.
  void take_all(std::uint64_t keep) {
    for (;;) {
      auto delivery = holder->consumer.try_receive();
      ASSERT_TRUE(delivery) << delivery.error().message();
      if (delivery->empty()) return;
      const std::uint64_t seq = delivery->seq().value;
      ASSERT_LT(seq, seqs_max);
      ASSERT_EQ(report->settled[seq], 0U) << "settled, and came again: " << seq;
      if (keep != 0 && seq % keep == 1) {
        texts.emplace_back(delivery->text());
        held.push_back(std::move(*delivery));
      } else {
        ASSERT_EQ(delivery->ack(), settled);
        ++settlements[seq];
      }
    }
  }
  // Two laps of the ring and of the arena pass what is held.
  void two_laps(SmallQueue& small) {
    auto producer = small.producer();
    for (int i = 0; i < 100; ++i) {
      ASSERT_TRUE(producer.publish(own_text('o', static_cast<std::uint64_t>(i)))) << i;
      take_all(0);
      if (::testing::Test::HasFatalFailure()) return;
    }
  }
  // The leases of the living held all the time; their bytes are whole.
  void settle_held() {
    ASSERT_EQ(held.size(), texts.size());
    for (std::size_t i = 0; i < held.size(); ++i) {
      ASSERT_EQ(held[i].text(), texts[i]) << "foreign bytes changed";
      ASSERT_EQ(held[i].ack(), settled) << "a valid lease was lost";
      ++settlements[held[i].seq().value];
    }
    held.clear();
    texts.clear();
  }
  // Every message was settled by exactly one.
  void expect_each_once(SmallQueue& small) {
    take_all(0);
    if (::testing::Test::HasFatalFailure()) return;
    const std::uint64_t tail = small.queue->stats().tail.value;
    ASSERT_LE(tail, seqs_max);
    for (std::uint64_t seq = 0; seq < tail; ++seq) {
      ASSERT_EQ(settlements[seq] + report->settled[seq], 1U) << "message " << seq;
    }
    ASSERT_EQ(small.group().floor.value, tail);
    ASSERT_EQ(look_at_group(*segment_of(small)).in_table, 0U);
    holder.reset();
    expect_nothing_leaked(small);
    expect_two_laps(small);
  }

  const Shared& report;
  std::unique_ptr<Holder> holder;
  std::vector<Delivery> held;
  std::vector<std::string> texts;
  std::array<std::uint64_t, seqs_max> settlements{};
};

// In the frozen process.
void ack_and_report(Delivery& delivery, const Shared& report) {
  const std::uint64_t seq = delivery.seq().value;
  (delivery.ack() == settled ? report->settled : report->lost)[seq] += 1;
}

TEST(StallShared, a_late_ack_was_in_time_or_is_refused) {
  if (!Stepper::available()) GTEST_SKIP() << "ptrace is refused here";
  FakeClock clock;
  const Shared report;
  Others others{report};
  std::uint64_t stalls = 0;
  for (const bool in_table : {false, true}) {
    run_stalls({.what = in_table ? "ack in the straggler table" : "ack in the window",
                .fresh = [] { return shared_queue(8); },
                .prepare = [&, in_table](const SmallQueue& small) -> Stepper::Operation {
                  Holder& child = child_holder(small);
                  child.take(6);
                  if (in_table) publish_up_to(child.queue.producer(), 8, 22);
                  return [&child, &report] {
                    for (const std::size_t i : {0U, 3U, 2U, 5U})
                      ack_and_report(child.held[i], report);
                  };
                },
                .others =
                    [&](SmallQueue& small) {
                      others.begin(small);
                      clock.advance(1min);
                      others.take_all(2);
                      if (!::testing::Test::HasFatalFailure()) others.two_laps(small);
                    },
                .check =
                    [&](SmallQueue& small) {
                      for (const std::size_t seq : {0U, 3U, 2U, 5U}) {
                        ASSERT_EQ(report->settled[seq] + report->lost[seq], 1U);
                      }
                      others.settle_held();
                      if (!::testing::Test::HasFatalFailure()) others.expect_each_once(small);
                    },
                .touches_no_lease = true},
               report, stalls);
    if (HasFailure()) return;
  }
  std::printf("%llu stalls in all\n", static_cast<unsigned long long>(stalls));
}

TEST(StallShared, a_late_claim_finds_whole_messages_or_none) {
  if (!Stepper::available()) GTEST_SKIP() << "ptrace is refused here";
  FakeClock clock;
  const Shared report;
  Others others{report};
  std::uint64_t stalls = 0;
  const auto claim_and_ack = [&report](Holder& child) -> Stepper::Operation {
    return [&child, &report] {
      const auto count = child.consumer.receive_batch(child.held, 0ns);
      if (!count) _exit(2);
      for (std::size_t i = 0; i < *count; ++i) {
        const std::string_view text = child.held[i].text();
        // Either of the two kinds, whole.
        const bool whole =
            text == text_of(child.held[i].seq().value) ||
            (text.size() > 1 && text == own_text('o', std::strtoull(text.data() + 1, nullptr, 10)));
        if (!whole) ++report->damaged;
      }
      for (std::size_t i = 0; i < *count; ++i) ack_and_report(child.held[i], report);
    };
  };
  const auto meanwhile = [&](SmallQueue& small) {
    others.begin(small);
    others.take_all(2);
    if (::testing::Test::HasFatalFailure()) return;
    others.settle_held();
    clock.advance(1min);  // what the frozen one had claimed
    others.take_all(2);
    if (::testing::Test::HasFatalFailure()) return;
    others.two_laps(small);
    // Something new for the late one.
    auto producer = small.producer();
    for (std::uint64_t i = 100; i < 103; ++i) ASSERT_TRUE(producer.publish(own_text('o', i)));
  };
  const auto check = [&](SmallQueue& small) {
    others.settle_held();
    if (!::testing::Test::HasFatalFailure()) others.expect_each_once(small);
  };
  run_stalls({.what = "claim",
              .fresh = [] { return shared_queue(8); },
              .prepare = [&](const SmallQueue& small) -> Stepper::Operation {
                Holder& child = child_holder(small);
                child.held.resize(4);
                return claim_and_ack(child);
              },
              .others = meanwhile,
              .check = check},
             report, stalls);
  if (HasFailure()) return;
  run_stalls({.what = "claim again, in the straggler table",
              .fresh = [] { return shared_queue(4); },
              .prepare = [&](const SmallQueue& small) -> Stepper::Operation {
                Holder& child = child_holder(small);
                child.take(3);
                publish_up_to(child.queue.producer(), 4, 19);
                for (Delivery& delivery : child.held) {
                  if (delivery.release() != settled) _exit(1);
                }
                child.held.clear();
                child.held.resize(4);
                return claim_and_ack(child);
              },
              .others = meanwhile,
              .check = check},
             report, stalls);
  std::printf("%llu stalls in all\n", static_cast<unsigned long long>(stalls));
}

TEST(StallShared, a_late_eviction_brings_nothing_back_and_loses_nothing) {
  if (!Stepper::available()) GTEST_SKIP() << "ptrace is refused here";
  FakeClock clock;
  const Shared report;
  Others others{report};
  std::uint64_t stalls = 0;
  const auto check = [&](SmallQueue& small) {
    others.settle_held();
    clock.advance(2min);
    if (!::testing::Test::HasFatalFailure()) others.expect_each_once(small);
  };
  // The parent holds some, and one is delayed, when the producer wants room.
  run_stalls({.what = "eviction by a producer",
              .fresh =
                  [&] {
                    auto small = shared_queue(16);
                    others.begin(*small);
                    for (int i = 0; i < 5; ++i) {
                      auto delivery = others.holder->consumer.try_receive();
                      others.texts.emplace_back(delivery->text());
                      others.held.push_back(std::move(*delivery));
                    }
                    if (others.held[2].nack(90s) != settled) throw std::runtime_error{"setting"};
                    others.held.erase(others.held.begin() + 2);
                    others.texts.erase(others.texts.begin() + 2);
                    return small;
                  },
              .prepare = [](const SmallQueue& small) -> Stepper::Operation {
                auto* queue = new Queue{std::move(*small.open_again())};
                auto* producer = new Producer{std::move(*queue->producer())};
                return [producer] {
                  for (std::uint64_t i = 0; i < 3; ++i) {
                    // The ring may be full for a moment, but the policy is to fail: try again.
                    while (!producer->publish(own_text('l', i))) {
                    }
                  }
                  producer->close();
                };
              },
              .others =
                  [&](SmallQueue& small) {
                    // One of the held ones is settled meanwhile, the others are held to the end.
                    ASSERT_EQ(others.held[1].ack(), settled);
                    ++others.settlements[others.held[1].seq().value];
                    others.held.erase(others.held.begin() + 1);
                    others.texts.erase(others.texts.begin() + 1);
                    others.take_all(0);
                    if (!::testing::Test::HasFatalFailure()) others.two_laps(small);
                  },
              .check = check,
              .states_max = 50},
             report, stalls);
  if (HasFailure()) return;
  // The frozen one is a consumer whose window is full; half of what it holds ends meanwhile.
  run_stalls({.what = "eviction by a consumer",
              .fresh = [] { return shared_queue(24, Overflow::fail, 32); },
              .prepare = [&](const SmallQueue& small) -> Stepper::Operation {
                Holder& child = child_holder(small);
                child.take(16);
                return [&child, &report] {
                  child.take(1);
                  for (Delivery& delivery : child.held) ack_and_report(delivery, report);
                };
              },
              .others =
                  [&](SmallQueue& small) {
                    others.begin(small);
                    clock.advance(1min);
                    others.take_all(2);
                    if (::testing::Test::HasFatalFailure()) return;
                    others.two_laps(small);
                    auto producer = small.producer();
                    ASSERT_TRUE(producer.publish(own_text('o', 100)));  // for the late one
                  },
              .check = check,
              .states_max = 50},
             report, stalls);
  std::printf("%llu stalls in all\n", static_cast<unsigned long long>(stalls));
}

}  // namespace
