// SPDX-License-Identifier: Apache-2.0
//
// Asks a daemon by the bytes of the protocol, without the library's client.
#pragma once

#include <string>

namespace shmq::testing {

/// The response's JSON; empty if the daemon does not answer within 10 s.
std::string ask(const std::string& socket_path, const std::string& request);

}  // namespace shmq::testing
