// SPDX-License-Identifier: Apache-2.0
//
// What durable queues without traffic cost: CPU time of a private daemon, as the scheduler counts
// it, and disk, with one message and an attached consumer each; and how soon a daemon that sleeps
// over them all confirms a synced publish to one of them.
#pragma once

#include <cstdint>
#include <string>

namespace shmq_bench {

struct IdleOptions {
  std::string name_space;
  std::string shmqd;
  std::string directory;  ///< where the data goes
  std::uint64_t queues = 1000;
  double seconds = 20;
  std::string output = "table";
  bool check = false;
};

/// Exit code: 0 done, 1 a figure beyond its bound (with check).
int run_idle(const IdleOptions& options);

}  // namespace shmq_bench
