// SPDX-License-Identifier: Apache-2.0
//
// The processes of tools/quickstart. Each gives an exit code; failures have been reported.
#pragma once

#include <string>

namespace quickstart {

/// The name of the one queue.
inline constexpr const char* queue_name = "lines";
/// An attribute that marks the last message and tells whether the file ends with a newline.
inline constexpr const char* end_key = "end";

/// Creates the queue with groups `archive` and `words`.
int create();
/// Publishes each line of `file` as a message (with the time), then one that says it was the last.
int publish(const std::string& file);
/// Rebuilds the file, byte for byte, in `output`. `output`.progress tells a successor how far: an
/// entry of {next seq, bytes} is written after each batch, before it is acked.
/// After `hang_after` lines it stands still with messages in flight, to be killed.
int archive(const std::string& output, unsigned long long hang_after);
/// Counts words as `wc -w` does, and latencies; prints "words N" and the latencies.
int count_words();
/// Creates the group `index` late, from earliest, and counts lines by what stands before a colon.
int index();
/// Waits until the group has an active consumer.
int wait_for_active(const std::string& group);
/// Prints one line per group: name, acked, redelivered, lost; and the number of messages.
int report();
int remove();

}  // namespace quickstart
