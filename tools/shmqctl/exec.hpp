// SPDX-License-Identifier: Apache-2.0
//
// Runs a command for one delivery: `consume --exec`.
#pragma once

#include <chrono>
#include <functional>
#include <shmq/consumer.hpp>
#include <string>

#include "context.hpp"

namespace shmqctl {

struct ExecOptions {
  std::string command;  ///< for sh -c
  std::string queue, group;
  std::chrono::nanoseconds lease{};  ///< of the group; zero: none
  std::function<void()> keep_lease;  ///< called at each half of the lease while the command runs
};

enum class CommandEnd {
  success,  ///< exit 0
  failure,  ///< another exit code, or a signal
  not_run,  ///< exit 126 or 127: what sh says of a command that it cannot execute or find
};

/// Runs `sh -c command` with the payload on stdin and waits for its end. SHMQ_QUEUE, SHMQ_GROUP,
/// SHMQ_SEQ, SHMQ_HAND_OUTS and SHMQ_ATTR_<KEY> stand in its environment. A stop signal is passed
/// on to the command, once, and its end is waited for. That sh cannot be started is a Failure.
CommandEnd run_for(shmq::Delivery& delivery, const ExecOptions& options, const StopSignals& stop);

}  // namespace shmqctl
