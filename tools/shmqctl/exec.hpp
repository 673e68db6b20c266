// SPDX-License-Identifier: Apache-2.0
//
// Runs a command for one delivery: `consume --exec`.
#pragma once

#include <chrono>
#include <shmq/consumer.hpp>
#include <string>

namespace shmqctl {

struct ExecOptions {
  std::string command;  ///< for sh -c
  std::string queue, group;
  std::chrono::nanoseconds lease{};  ///< of the group; prolonged while the command runs
};

/// Runs `sh -c command` with the payload on stdin and waits for its end. SHMQ_QUEUE, SHMQ_GROUP,
/// SHMQ_SEQ, SHMQ_HAND_OUTS and SHMQ_ATTR_<KEY> stand in its environment. True if it exits with 0.
/// That it cannot be started is a Failure.
bool run_for(shmq::Delivery& delivery, const ExecOptions& options);

}  // namespace shmqctl
