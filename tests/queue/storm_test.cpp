// SPDX-License-Identifier: Apache-2.0
//
// Random operations on a tiny queue with random pauses at every named point.
#include <gtest/gtest.h>
#include <time.h>

#include <atomic>
#include <cstdlib>
#include <random>
#include <thread>

#include "base/clock.hpp"
#include "base/mutant.hpp"
#include "queue/shared_group.hpp"
#include "shm/segment.hpp"
#include "support/small_queue.hpp"

namespace {
using namespace shmq;
using namespace std::chrono_literals;
using shmq::testing::SmallQueue;

thread_local std::minstd_rand rng{std::random_device{}()};
unsigned pick(unsigned n) { return static_cast<unsigned>(rng()) % n; }

std::string body(std::uint64_t id) {
  std::string text = std::to_string(id) + ":";
  const std::size_t size = 20 + (id * 7919) % 480;
  while (text.size() < size) text += static_cast<char>('a' + (id + text.size()) % 26);
  return text;
}
bool whole(std::string_view text) {
  return text == body(std::strtoull(std::string{text.substr(0, 12)}.c_str(), nullptr, 10));
}

const std::size_t hold_max = std::getenv("HOLD") != nullptr ? 12 : 3;

void storm(std::uint64_t slots, std::uint32_t window, std::uint32_t stragglers, Overflow overflow,
           bool purges, int groups, int seconds) {
#ifdef SHMQ_CRASH_POINTS
  base::crash_hook = [](const char*) {
    const unsigned dice = pick(512);
    if (dice == 0) {
      timespec t{0, static_cast<long>(pick(300) * 1000)};
      nanosleep(&t, nullptr);
    } else if (dice < 8) {
      sched_yield();
    }
  };
#endif
  std::vector<GroupOptions> chosen;
  for (int g = 0; g < groups; ++g) {
    chosen.push_back({.name = "g" + std::to_string(g),
                      .mode = GroupMode::shared,
                      .lease = std::chrono::seconds{std::getenv("LEASE") != nullptr
                                                        ? std::atoi(std::getenv("LEASE"))
                                                        : 30},
                      .delivery_limit = 63});
  }
  auto options = SmallQueue::options(overflow, chosen);
  options.slots = slots;
  options.window_entries = window;
  options.straggler_entries = stragglers;
  options.max_participants = 32;
  options.max_producers = 8;
  SmallQueue small{options};
  constexpr std::uint64_t most = 4'000'000;
  std::vector<std::vector<std::atomic<std::uint8_t>>> acked;
  for (int g = 0; g < groups; ++g) acked.emplace_back(most);
  std::atomic<bool> stop{false};
  std::atomic<std::uint64_t> ids{0}, published{0}, bad_bytes{0}, back{0}, refused{0}, full{0},
      odd{0};
  std::vector<std::thread> producers, consumers;
  for (int p = 0; p < 3; ++p) {
    producers.emplace_back([&] {
      auto producer = small.producer();
      while (!stop) {
        PublishOptions how;
        how.timeout = 20ms;
        const auto result = producer.publish(body(ids++), how);
        if (result) {
          ++published;
        } else if (result.code() == Errc::full || result.code() == Errc::timed_out) {
          ++full;
          sched_yield();
        } else {
          ++odd;
        }
      }
    });
  }
  for (int g = 0; g < groups; ++g) {
    for (int c = 0; c < 3; ++c) {
      consumers.emplace_back([&, g] {
        auto consumer = std::make_unique<Consumer>(small.consumer("g" + std::to_string(g)));
        std::vector<Delivery> held;
        std::vector<Delivery> batch(8);
        while (!stop) {
          auto count = consumer->receive_batch(std::span{batch.data(), 1 + pick(8)}, 1ms);
          if (!count) {
            ++odd;
            continue;
          }
          for (std::size_t i = 0; i < *count; ++i) {
            Delivery& d = batch[i];
            if (!whole(d.text())) ++bad_bytes;
            if (acked[g][d.seq().value] != 0) ++back;
            switch (pick(10)) {
              case 0:
                if (d.nack(std::chrono::milliseconds{pick(40)}) != Settlement::settled) ++refused;
                break;
              case 1:
                if (d.release() != Settlement::settled) ++refused;
                break;
              case 2:
              case 3: held.push_back(std::move(d)); break;
              default:
                if (d.ack() != Settlement::settled)
                  ++refused;
                else
                  ++acked[g][d.seq().value];
            }
          }
          while (held.size() > hold_max || (!held.empty() && pick(4) == 0)) {
            const std::size_t i = pick(static_cast<unsigned>(held.size()));
            Delivery& d = held[i];
            if (!whole(d.text())) ++bad_bytes;
            if (d.ack() != Settlement::settled)
              ++refused;
            else
              ++acked[g][d.seq().value];
            if (!whole(d.text())) ++bad_bytes;
            held.erase(held.begin() + static_cast<std::ptrdiff_t>(i));
          }
          if (pick(2000) == 0) {
            held.clear();
            for (auto& d : batch) d = Delivery{};
            consumer.reset();
            consumer = std::make_unique<Consumer>(small.consumer("g" + std::to_string(g)));
          }
        }
        for (auto& d : held) {
          if (d.ack() != Settlement::settled)
            ++refused;
          else
            ++acked[g][d.seq().value];
        }
        held.clear();
        batch.clear();
      });
    }
  }
  std::thread purger{[&] {
    while (!stop) {
      std::this_thread::sleep_for(10ms);
      if (purges) (void)small.queue->purge();
      (void)small.queue->reclaim();
    }
  }};
  std::this_thread::sleep_for(std::chrono::seconds{seconds});
  stop = true;
  for (auto& t : producers) t.join();
  for (auto& t : consumers) t.join();
  purger.join();
  for (int g = 0; g < groups; ++g) {
    auto consumer = small.consumer("g" + std::to_string(g));
    const auto end = std::chrono::steady_clock::now() + 8s;
    for (;;) {
      auto d = consumer.receive(300ms);
      if (!d) {
        ADD_FAILURE() << d.error().message();
        break;
      }
      if (d->empty()) {
        const auto info = small.group("g" + std::to_string(g));
        if (info.ready + info.delayed + info.in_flight == 0 ||
            std::chrono::steady_clock::now() > end)
          break;
        continue;
      }
      if (acked[g][d->seq().value] != 0) ++back;
      if (!whole(d->text())) ++bad_bytes;
      if (d->ack() == Settlement::settled) ++acked[g][d->seq().value];
    }
    const auto info = small.group("g" + std::to_string(g));
    std::uint64_t lost = 0, twice = 0, sum = 0;
    for (std::uint64_t s = 0; s < published; ++s) {
      if (acked[g][s] == 0) ++lost;
      if (acked[g][s] > 1) ++twice;
      sum += acked[g][s];
    }
    std::printf(
        "group %d: published %lu acked %lu lost %lu dropped %lu twice %lu | in_flight %lu ready "
        "%lu delayed %lu dead %lu stragglers %lu\n",
        g, published.load(), sum, lost, info.dropped_total, twice, info.in_flight, info.ready,
        info.delayed, info.dead, info.stragglers);
    EXPECT_EQ(lost, info.dropped_total + info.dead);
    EXPECT_EQ(twice, 0U);
    EXPECT_EQ(info.in_flight + info.ready + info.delayed, 0U);
  }
  OpenOptions how;
  how.name_space = small.scratch.name_space;
  auto segment = shm::Segment::open("q", how).value();
  for (int g = 0; g < groups; ++g) {
    const queue::StragglerTable table{*segment, static_cast<std::uint32_t>(g)};
    unsigned used = 0;
    for (std::uint32_t i = 0; i < table.size(); ++i) {
      const auto seen = table.read(i);
      if (seen.low != shm::straggler_free_seq &&
          shm::unpack_lease(seen.high).state != shm::LeaseState::dead)
        ++used;
    }
    EXPECT_EQ(used, 0U);
  }
#ifdef SHMQ_CRASH_POINTS
  base::crash_hook = nullptr;
#endif
  std::printf("bad bytes %lu back %lu refused %lu full %lu odd %lu\n", bad_bytes.load(),
              back.load(), refused.load(), full.load(), odd.load());
  EXPECT_EQ(bad_bytes, 0U);
  EXPECT_EQ(back, 0U);
  EXPECT_EQ(refused, 0U);
  EXPECT_EQ(odd, 0U);
}

int seconds() {
  const char* s = std::getenv("STORM");
  return s != nullptr ? std::atoi(s) : 4;
}
TEST(Storm, block_small_window) { storm(64, 16, 16, Overflow::block, false, 1, seconds()); }
TEST(Storm, block_small_ring) { storm(16, 64, 16, Overflow::block, false, 1, seconds()); }
TEST(Storm, block_two_groups) { storm(16, 16, 64, Overflow::block, false, 2, seconds()); }
TEST(Storm, fail_purge) { storm(16, 16, 32, Overflow::fail, true, 2, seconds()); }
TEST(Storm, drop_oldest) { storm(16, 64, 32, Overflow::drop_oldest, false, 2, seconds()); }
TEST(Storm, drop_oldest_purge) { storm(64, 16, 16, Overflow::drop_oldest, true, 1, seconds()); }
}  // namespace
