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
  publish_begin,    // message
  publish_end,      // message, seq: confirmed
  receive,          // group, message, seq, hand_outs, token
  ack_begin,        // group, seq, token
  ack_end,          // group, seq, token: settled
  give_back_begin,  // the same of nack and release
  give_back_end,
  refused,  // group, seq, token: a settlement said lease_lost
};

struct Event {
  What what{};
  std::uint8_t group = 0;
  std::uint16_t producer = 0;  // of the message
  std::uint32_t hand_outs = 0;
  std::uint64_t message = 0;  // number within its producer, from 0
  std::uint64_t seq = 0;
  std::uint64_t token = 0;    // of the ownership, or the hand-out number in a shared group
  std::uint64_t damaged = 0;  // receive: the payload was not what its producer wrote
  // When the call began and when it had returned; of receive, settlements and refusals.
  std::uint64_t begin_ns = 0;
  std::uint64_t end_ns = 0;
};

/// What one process (one life) wrote down, in its order.
struct History {
  std::uint32_t process = 0;
  std::vector<Event> events;
  std::uint64_t killed_ns = 0;  // a moment just before it was killed; 0: it ended well
};

struct GroupRule {
  bool shared = false;
  // Shared: no lease ends by time before this much after the receive began.
  std::uint64_t lease_ns = 0;
  // Shared: a killed process takes at most so many hand-outs with it that nobody wrote down.
  std::uint64_t batch_max = 0;
};

struct Verdict {
  std::vector<std::string> broken;  // at most 20
  std::uint64_t published = 0;
  std::uint64_t deliveries = 0;
  std::uint64_t redeliveries = 0;
  std::uint64_t refused = 0;  // settlements of leases that were lost
  std::uint64_t unseen = 0;   // hand-outs that the dead took with them
  std::uint64_t checks = 0;
};

/// All groups are there from the first message on. `tail`: the queue's tail at the end; everything
/// below must have been delivered and acked in each group.
Verdict check_histories(const std::vector<History>& histories, const std::vector<GroupRule>& groups,
                        std::uint64_t tail);

}  // namespace shmq::testing
