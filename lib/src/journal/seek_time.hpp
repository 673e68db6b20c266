// SPDX-License-Identifier: Apache-2.0
//
// From a time to a seq, by the times at which batches were written: a search over the files by
// their first batch, then over the batches of one file by their headers.
//
// Who may call: whoever may read the files, while the daemon goes on.
#pragma once

#include <optional>

#include "journal/codec.hpp"
#include "journal/source.hpp"

namespace shmq::journal {

/// The first seq of the first batch that was written at or after `realtime_ns`: no message that was
/// published since then is before it; messages from up to one barrier earlier may be behind it.
/// Nothing: no batch is so young. A clock that was set back makes it one of the possible answers.
Result<std::optional<std::uint64_t>> first_seq_since(DirectorySource& directory,
                                                     const Uuid& queue_uuid,
                                                     std::uint64_t realtime_ns);

}  // namespace shmq::journal
