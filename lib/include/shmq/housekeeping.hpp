// SPDX-License-Identifier: Apache-2.0
//
// What killed processes leave behind, and clearing it away. Nothing waits for it: others do the
// same in passing. It is for what nobody passes by.
#pragma once

#include <cstdint>
#include <shmq/error.hpp>
#include <shmq/options.hpp>
#include <string>
#include <vector>

namespace shmq {

struct StaleObject {
  enum class Kind : std::uint8_t {
    half_removed,      ///< a queue whose removal was cut short
    companion,         ///< a lock or watermark object whose segment is gone
    dead_participant,  ///< an entry of a process that died, with what it held
  };
  Kind kind{};
  std::string queue;
  std::string object;     ///< name in /dev/shm, or "#ENTRY ROLE, pid PID"
  bool cleared = false;   ///< it is gone now
  std::string why_not{};  ///< it is not, and was to be
};

/// Finds what is stale in the namespace of `options`, and clears it away unless `dry_run`. Needs
/// the permission to: what belongs to others is told, and stays. Never touches what somebody uses:
/// death is proven, and a name is cleared only while no queue can take it. Killed at any
/// instruction it leaves nothing that it, or anybody, does not find again. Error: the namespace
/// cannot be listed.
SHMQ_API Result<std::vector<StaleObject>> clear_stale(const OpenOptions& options, bool dry_run);

}  // namespace shmq
