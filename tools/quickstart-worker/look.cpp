// SPDX-License-Identifier: Apache-2.0
//
// Roles that look at the queue from outside: waiting for a state, and the figures at the end.
#include <chrono>
#include <cstdio>
#include <thread>
#include <utility>

#include "common.hpp"

namespace quickstart {
namespace {

using namespace std::chrono_literals;
using std::chrono::steady_clock;

constexpr auto look_interval = 1ms;
constexpr auto patience = 60s;  // without any change; a slow machine changes something in it

/// Looks until `look` gives {true, …}. Gives up when the second part, a figure of the progress, has
/// not changed for long.
template <typename Look>
int wait_until(const std::string& what, Look look) {
  auto queue = open_queue();
  if (!queue) return complain(queue.error());
  auto changed = steady_clock::now();
  for (auto before = look(*queue); !before.first;) {
    std::this_thread::sleep_for(look_interval);
    const auto now = look(*queue);
    if (now != before) changed = steady_clock::now();
    if (steady_clock::now() - changed > patience) return complain("waited in vain: " + what);
    before = now;
  }
  return 0;
}

}  // namespace

int wait_for_active(const std::string& group) {
  return wait_until("an active consumer of " + group, [&](const shmq::Queue& queue) {
    bool active = false;
    for (const auto& info : queue.groups()) {
      if (info.name == group && info.active_participant != 0) active = true;
    }
    return std::pair{active, std::uint64_t{0}};
  });
}

int wait_until_passed_on(std::uint32_t pid) {
  return wait_until("another to take what process " + std::to_string(pid) + " holds",
                    [&](const shmq::Queue& queue) {
                      std::uint64_t held = 0;
                      for (const auto& info : queue.participants()) {
                        if (info.pid == pid) held += info.held.size();
                      }
                      return std::pair{held == 0, held};
                    });
}

int wait_until_drained(const std::string& group) {
  return wait_until(group + " to be drained", [&](const shmq::Queue& queue) {
    for (const auto& info : queue.groups()) {
      if (info.name != group) continue;
      const std::uint64_t left = info.ready + info.in_flight + info.delayed;
      return std::pair{left == 0, info.acked_total};
    }
    return std::pair{false, std::uint64_t{0}};
  });
}

int report() {
  auto queue = open_queue();
  if (!queue) return complain(queue.error());
  const auto stats = queue->stats();
  const auto number = [](std::uint64_t value) { return static_cast<unsigned long long>(value); };
  // The last message is the mark of the end.
  std::printf("messages %llu\n", number(stats.tail.value - 1));
  for (const auto& info : queue->groups()) {
    if (info.name == "recovered") continue;
    // Everything must have been acked by now: what is left in any state, dead or not, counts.
    const auto lost = stats.tail.value - info.born.value - info.acked_total;
    std::printf("group %s %llu %llu %llu %llu %llu %llu\n", info.name.c_str(),
                number(info.acked_total), number(info.redelivered_death_total),
                number(info.redelivered_lease_total), number(info.redelivered_nack_total),
                number(info.redelivered_release_total), number(lost));
  }
  return 0;
}

}  // namespace quickstart
