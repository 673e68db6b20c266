// SPDX-License-Identifier: Apache-2.0
//
// What durability costs, on one file system and in one run: a private daemon beside the bare synced
// overwrite of 4 KiB, a transient queue, and Redis Streams (appendfsync always) where redis-server
// is installed. Everything is interleaved round by round; medians over the rounds are quoted.
#pragma once

#include <cstdint>
#include <string>

namespace shmq_bench {

struct DurableOptions {
  std::string name_space;
  std::string shmqd;      ///< the daemon's program
  std::string directory;  ///< where its data and the file for the overwrites go
  double seconds = 20;
  std::uint64_t smoke = 0;  ///< so many messages once, measure nothing
  std::string output = "table";
  bool check = false;
};

/// Exit code: 0 done, 1 a figure beyond its bound (with check).
int run_durable(const DurableOptions& options);

}  // namespace shmq_bench
