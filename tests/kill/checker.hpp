// SPDX-License-Identifier: Apache-2.0
//
// Reads what the processes of a campaign wrote down, after it is over, and says what was broken.
// Offline and without the library: it knows only histories.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

namespace shmq::testing {

enum class What : std::uint8_t {
  publish_begin,  // message
  publish_end,    // message, seq: confirmed
  receive,        // group, message, seq, hand_outs, token
  ack_begin,      // group, seq, token
  ack_end,        // group, seq, token: settled
};

struct Event {
  What what{};
  std::uint8_t group = 0;
  std::uint16_t producer = 0;  // of the message
  std::uint32_t hand_outs = 0;
  std::uint64_t message = 0;  // number within its producer, from 0
  std::uint64_t seq = 0;
  std::uint64_t token = 0;    // of the ownership
  std::uint64_t damaged = 0;  // receive: the payload was not what its producer wrote
};

/// What one process (one life) wrote down, in its order.
struct History {
  std::uint32_t process = 0;
  std::vector<Event> events;
};

struct Verdict {
  std::vector<std::string> broken;  // at most 20
  std::uint64_t published = 0;
  std::uint64_t deliveries = 0;
  std::uint64_t redeliveries = 0;
  std::uint64_t checks = 0;
};

/// `groups` groups, all from the first message on. `tail`: the queue's tail at the end; everything
/// below must have been delivered and acked in each group.
Verdict check_histories(const std::vector<History>& histories, std::uint32_t groups,
                        std::uint64_t tail);

}  // namespace shmq::testing
