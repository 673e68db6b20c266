// SPDX-License-Identifier: Apache-2.0
//
// Between a queue's journal and its segment, at the start of a life: what a new journal begins
// with, and a segment made anew from a journal when memory is gone.
//
// Who calls: the daemon, before it opens the watermark object and makes the writer.
#pragma once

#include <memory>
#include <shmq/error.hpp>
#include <string>

#include "daemon/journal/recover.hpp"
#include "shm/segment.hpp"

namespace shmq::feed {

/// Names a group over its segment's and its journal's lives: from its name, the time of its
/// creation and the seq that it was born at. So a group that was removed and one that was made
/// under its name later are two. Its incarnation in the journal is always 1.
journal::Uuid group_uuid(const std::string& name, std::uint64_t created_realtime_ns,
                         std::uint64_t born_seq);

/// Of a segment that was just made, for recover() of a queue without a past: the settings of the
/// queue and its groups, and where those begin.
journal::CheckpointState initial_state(const shm::Segment& segment);

struct RestoreTarget {
  std::string name_space;
  std::string queue;
  std::vector<uid_t> trusted_owners{};  ///< see OpenOptions; the queue's own owner always is
};

/// Makes the segment of a queue whose memory is gone, from `plan` and `start` of its recovery
/// (journal::recover). No segment of its name may exist. Groups, floors, what is settled above
/// them, counts, dead messages and delays are as the journal says; leases are over, and their
/// messages ready. The ring, the arena and the straggler tables become larger than they were chosen
/// if what is unsettled needs it. Control::daemon_generation becomes 1 last: what was left by a
/// daemon that was killed in the middle says 0.
///
/// Waits for the disk. Fails where the journal cannot be read (corrupt), and where memory does not
/// suffice (not_enough_memory); no segment is left then.
Result<std::shared_ptr<shm::Segment>> restore(const RestoreTarget& target,
                                              journal::DirectorySource& directory,
                                              const journal::Plan& plan,
                                              const journal::Start& start);

}  // namespace shmq::feed
