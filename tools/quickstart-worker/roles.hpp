// SPDX-License-Identifier: Apache-2.0
//
// The processes of tools/quickstart. Each gives an exit code; failures have been reported.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

namespace quickstart {

/// The name of the one queue.
inline constexpr const char* queue_name = "lines";
/// An attribute that marks the last message and tells whether the file ends with a newline.
inline constexpr const char* end_key = "end";

/// Creates the durable queue, with room for a file of this size, and groups `archive` (exclusive),
/// `words` (shared, lease 1 s) and `recovered` (exclusive). Waits for the daemon to come up.
int create(unsigned long long lines, unsigned long long bytes);
/// Publishes each line of `file` as a message (with the time), then one that says it was the last,
/// and waits until all are on stable storage. After `half` lines it makes `mark`.half and waits for
/// `mark`.go-on.
int publish(const std::string& file, unsigned long long half, const std::string& mark);
/// As a consumer of `group`, rebuilds the file, byte for byte, in `output`. `output`.progress tells
/// a successor how far: an entry of {next seq, bytes} is written after each batch, before it is
/// acked. After `hang_after` lines it stands still with messages in flight, to be killed.
int archive(const std::string& group, const std::string& output, unsigned long long hang_after);
/// One of the workers of group `words`: counts words as `wc -w` does and notes in a file what it
/// handled, and what became of its acks. Ends at SIGTERM. With a `stall`, it stands still once,
/// with a batch in hand, when it has handled more than `stall_after` messages: "until-killed" or
/// "until-continued" (SIGCONT). `notes`.stalls appears then.
int work_on_words(const std::string& notes, const std::string& stall,
                  unsigned long long stall_after);
/// Sums up the notes, each message once; prints words, latencies, hand-outs, refused acks, messages
/// that nobody handled, and contradictions (settled twice, counted differently).
int sum_of_words(const std::vector<std::string>& notes);
/// Creates the group `index` late, from earliest, and counts lines by what stands before a colon.
int index();
/// Waits until the daemon serves the queue again.
int wait_until_open();
/// Waits until the group has an active consumer.
int wait_for_active(const std::string& group);
/// Waits until all that this process held in a shared group is in the hands of others, or settled.
int wait_until_passed_on(std::uint32_t pid);
/// Waits until the group has settled everything published so far.
int wait_until_drained(const std::string& group);
/// Prints the number of messages, and a line per group: name, acked, redelivered because of death,
/// lease, nack, release, and lost. Group `recovered` has its turn later.
int report();
int remove();

}  // namespace quickstart
