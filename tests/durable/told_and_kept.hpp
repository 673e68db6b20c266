// SPDX-License-Identifier: Apache-2.0
//
// One queue of a real daemon, what its clients were told, and whether the disk alone says the same.
#pragma once

#include <gtest/gtest.h>

#include <chrono>
#include <fstream>
#include <map>
#include <shmq/shmq.hpp>
#include <string>
#include <thread>
#include <vector>

#include "durable/real_daemon.hpp"

namespace shmq::testing {

template <typename Condition>
bool await(Condition condition) {
  const auto end = std::chrono::steady_clock::now() + std::chrono::seconds{30};
  while (!condition()) {
    if (std::chrono::steady_clock::now() > end) return false;
    std::this_thread::sleep_for(std::chrono::milliseconds{1});
  }
  return true;
}

inline QueueOptions small_queue() {
  QueueOptions options;
  options.slots = 256;
  options.arena_bytes = 256 << 10;
  options.chunk_bytes = 4096;
  options.max_participants = 16;
  options.durable = true;
  return options;
}

// What clients were told.
struct Story {
  bool is_created = false;
  bool is_removed = false;
  std::map<std::uint64_t, std::string> confirmed;  // by seq
  std::uint64_t acked_end = 0;                     // acks of all below were confirmed
};

inline Result<Queue> open_patiently() {
  for (int attempt = 0;; ++attempt) {
    auto queue = Queue::open("q");
    if (queue || attempt == 100) return queue;
    std::this_thread::sleep_for(std::chrono::milliseconds{10});
  }
}

// Restarts from disk alone, and compares.
inline int check_disk(RealDaemon& daemon, const Story& story) {
  daemon.set_before_exec(nullptr);
  daemon.forget_memory();
  daemon.start();
  EXPECT_TRUE(await([&] {
    const auto status = daemon_status();
    return status && status->find(R"("state":"serving")") != std::string::npos;
  })) << daemon.log();
  int checks = 1;
  if (!story.is_created) {
    daemon.kill();
    return checks;
  }
  auto queue = open_patiently();
  EXPECT_TRUE(queue) << queue.error().message() << daemon.log();
  if (queue) {
    auto consumer = queue->consumer("default");
    std::map<std::uint64_t, std::string> there;
    for (;;) {
      auto delivery = consumer->receive(std::chrono::seconds{0});
      if (!delivery || delivery->empty()) break;
      there[delivery->seq().value] = std::string{delivery->text()};
      (void)delivery->ack();
    }
    for (const auto& [seq, text] : story.confirmed) {
      ++checks;
      if (seq < story.acked_end) {
        EXPECT_FALSE(there.contains(seq)) << "acked and synced, and back: " << seq;
      } else {
        EXPECT_TRUE(there.contains(seq) && there[seq] == text) << "confirmed, and lost: " << seq;
      }
    }
  }
  daemon.kill();
  return checks;
}

inline std::vector<std::string> arguments_of(const RealDaemon& daemon, const std::string& backend) {
  const std::string config = daemon.directory() / "shmqd.toml";
  std::ofstream{config} << "spin = '0s'\n";  // no calls that only pass the time
  return {"--backend", backend, "--config", config};
}

}  // namespace shmq::testing
