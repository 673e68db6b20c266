// SPDX-License-Identifier: Apache-2.0
//
// A datagram to somebody who sleeps on a socket: one unconnected socket for the whole process.
#pragma once

#include <string_view>

namespace shmq::sync {

/// Sends `text` to the datagram socket at `path`. Never waits. What goes wrong is nobody's concern:
/// who is not reached looks by himself now and then.
void ring_doorbell(std::string_view path, std::string_view text) noexcept;

}  // namespace shmq::sync
