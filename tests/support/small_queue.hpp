// SPDX-License-Identifier: Apache-2.0
//
// A small queue in a namespace of its own: small enough that every limit is met in a test.
#pragma once

#include <gtest/gtest.h>

#include <shmq/shmq.hpp>
#include <string>

#include "support/scratch.hpp"

namespace shmq::testing {

struct SmallQueue {
  explicit SmallQueue(Overflow overflow = Overflow::fail, std::vector<GroupOptions> groups = {})
      : SmallQueue(options(overflow, std::move(groups))) {}
  explicit SmallQueue(QueueOptions chosen) {
    chosen.name_space = scratch.name_space;
    auto made = Queue::create("q", chosen);
    if (!made) throw std::runtime_error{made.error().message()};
    queue = std::make_unique<Queue>(std::move(*made));
  }

  static QueueOptions options(Overflow overflow = Overflow::fail,
                              std::vector<GroupOptions> groups = {}) {
    QueueOptions chosen{.slots = 16,
                        .arena_bytes = 16 * 4096,
                        .chunk_bytes = 4096,
                        .max_groups = 4,
                        .max_participants = 8,
                        .window_entries = 16,
                        .straggler_entries = 16,
                        .overflow = overflow,
                        .groups = std::move(groups)};
    return chosen;
  }
  Result<Queue> open_again(Access access = Access::participant) const {
    return Queue::open("q", {.access = access, .name_space = scratch.name_space});
  }
  Producer producer() { return std::move(queue->producer().value()); }
  Consumer consumer(const std::string& group = "default") {
    return std::move(queue->consumer(group).value());
  }
  GroupInfo group(const std::string& name = "default") const {
    for (auto& info : queue->groups()) {
      if (info.name == name) return info;
    }
    ADD_FAILURE() << "no group " << name;
    return {};
  }

  Scratch scratch;
  std::unique_ptr<Queue> queue;
};

}  // namespace shmq::testing
