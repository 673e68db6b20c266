// SPDX-License-Identifier: Apache-2.0
#include "idle.hpp"

#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <filesystem>
#include <nlohmann/json.hpp>
#include <shmq/shmq.hpp>
#include <thread>
#include <vector>

#include "contender.hpp"
#include "private_daemon.hpp"
#include "runner.hpp"

namespace shmq_bench {
namespace {

using namespace std::chrono_literals;
using Steady = std::chrono::steady_clock;

constexpr double core_percent_max = 0.5;
constexpr double disk_mb_per_queue_max = 1.5;
constexpr auto settle_time = 5s;
constexpr int confirms = 50;

double disk_bytes(const std::string& directory) {
  double bytes = 0;
  for (const auto& entry : std::filesystem::recursive_directory_iterator{directory}) {
    struct stat status {};
    if (::lstat(entry.path().c_str(), &status) == 0) {
      bytes += static_cast<double>(status.st_blocks) * 512;
    }
  }
  return bytes;
}

void raise_descriptor_limit() {
  rlimit limit{};
  if (::getrlimit(RLIMIT_NOFILE, &limit) != 0) return;
  limit.rlim_cur = limit.rlim_max;
  ::setrlimit(RLIMIT_NOFILE, &limit);
}

}  // namespace

int run_idle(const IdleOptions& options) {
  raise_descriptor_limit();
  const std::string directory = options.directory + "/shmq-bench-idle-" + std::to_string(getpid());
  std::filesystem::create_directories(directory);
  nlohmann::json result;
  {
    const PrivateDaemon daemon{options.shmqd, options.name_space, directory};
    shmq::QueueOptions small;
    small.name_space = options.name_space;
    small.slots = 1024;
    small.arena_bytes = 256 << 10;
    small.chunk_bytes = 4096;
    small.max_participants = 16;
    small.durable = true;
    small.groups = {{.name = "work", .mode = shmq::GroupMode::shared}};
    std::vector<shmq::Queue> queues;
    std::vector<shmq::Consumer> consumers;
    std::vector<double> confirm_us;
    for (std::uint64_t i = 0; i < options.queues; ++i) {
      queues.push_back(make_queue(daemon, "idle-" + std::to_string(i), small));
      auto consumer = queues.back().consumer("work");
      auto producer = queues.back().producer();
      if (!consumer || !producer) fail("cannot attach");
      if (!producer->publish("a message that stays")) fail("publish failed");
      consumers.push_back(std::move(*consumer));
    }
    // Closing batches, and the first looks at what has just come.
    std::this_thread::sleep_for(settle_time);
    const double before = daemon.cpu_seconds();
    const auto start = Steady::now();
    std::this_thread::sleep_for(std::chrono::duration<double>(options.seconds));
    const double used = daemon.cpu_seconds() - before;
    const double taken = std::chrono::duration<double>(Steady::now() - start).count();
    const double bytes = disk_bytes(directory + "/data");
    for (int i = 0; i < confirms; ++i) {
      auto producer = queues[static_cast<std::size_t>(i * 7919) % queues.size()].producer();
      if (!producer) fail("cannot attach");
      std::this_thread::sleep_for(20ms);  // the daemon sleeps again
      const auto began = Steady::now();
      if (!producer->publish("wake up", {.durability = shmq::Durability::synced, .timeout = 20s})) {
        fail("publish failed");
      }
      confirm_us.push_back(
          std::chrono::duration<double, std::micro>(Steady::now() - began).count());
    }
    std::sort(confirm_us.begin(), confirm_us.end());
    result = {{"queues", options.queues},
              {"seconds", taken},
              {"core_percent", used / taken * 100},
              {"disk_bytes", bytes},
              {"confirm_median_us", confirm_us[confirm_us.size() / 2]},
              {"confirm_worst_us", confirm_us.back()}};
    consumers.clear();
    for (std::uint64_t i = 0; i < options.queues; ++i) {
      (void)shmq::Queue::remove("idle-" + std::to_string(i), {.name_space = options.name_space});
    }
  }
  std::filesystem::remove_all(directory);
  if (options.output == "json") {
    std::printf("%s\n", result.dump(2).c_str());
  } else {
    std::printf(
        "%llu idle durable queues, %.0f s: %.3f %% of a core, %.2f MB of disk each; a synced "
        "publish "
        "to one of them: median %.0f us, worst of %d: %.0f us\n",
        static_cast<unsigned long long>(options.queues), result["seconds"].get<double>(),
        result["core_percent"].get<double>(),
        result["disk_bytes"].get<double>() / static_cast<double>(options.queues) / 1e6,
        result["confirm_median_us"].get<double>(), confirms,
        result["confirm_worst_us"].get<double>());
  }
  if (!options.check) return 0;
  const double scale = static_cast<double>(options.queues) / 1000;
  const bool is_cheap = result["core_percent"].get<double>() < core_percent_max * scale;
  const bool is_small = result["disk_bytes"].get<double>() <
                        disk_mb_per_queue_max * 1e6 * static_cast<double>(options.queues);
  if (!is_cheap || !is_small) std::fprintf(stderr, "shmq-bench: idle queues cost too much\n");
  return is_cheap && is_small ? 0 : 1;
}

}  // namespace shmq_bench
