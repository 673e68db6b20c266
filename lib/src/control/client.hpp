// SPDX-License-Identifier: Apache-2.0
//
// A client's call of the daemon: finds its socket, sees that it is the right user's, sends one
// request and reads the response (see protocol.hpp).
#pragma once

#include <sys/types.h>

#include <chrono>
#include <functional>
#include <shmq/error.hpp>
#include <string>

namespace shmq::control {

struct Call {
  std::string name_space;
  std::string runtime_dir;  ///< empty: runtime_directories()
  std::chrono::nanoseconds timeout = std::chrono::seconds{30};
  /// May a daemon of this user be believed?
  std::function<bool(uid_t)> trusts;
  int attachment = -1;  ///< a descriptor that goes with the request
  std::string what;     ///< of the errors: what is attempted, on which name
};

/// Waits for the answer; that of a daemon that could do it. Else its error; or daemon_away (nobody
/// serves the namespace; or it went away meanwhile, which leaves open what it did), foreign_owner,
/// timed_out, no_permission.
Result<std::string> call_daemon(const Call& call, const std::string& request);

/// Requests. `options`: what text_of(QueueOptions) gives; may be empty.
std::string make_request(const char* verb, const std::string& queue = {},
                         const std::string& options = {});

}  // namespace shmq::control
