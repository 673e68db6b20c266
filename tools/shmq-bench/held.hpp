// SPDX-License-Identifier: Apache-2.0
//
// What slow messages cost the others: 64 messages held in 64 distinct chunks by a process that does
// nothing else, and 1,000 nacked with a delay of a minute, lease 1 s, in a queue of 1,024 slots;
// beside a queue of the same kind where nothing is held. In the end every held byte must be as it
// was.
#pragma once

#include <cstdint>
#include <string>

namespace shmq_bench {

struct HeldOptions {
  std::string name_space;
  std::uint64_t arena_bytes = 64U << 20;
  std::uint32_t chunk_bytes = 256U << 10;
  double seconds = 20;
  std::uint64_t smoke = 0;  // carry so many messages once, measure nothing
  std::string output = "table";
};

/// Exit code: 0 done, 1 held bytes were changed, or the rate is below 0.9 of that without, 77 too
/// few runs of one class to tell.
int run_held(const HeldOptions& options);

}  // namespace shmq_bench
