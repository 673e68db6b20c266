// SPDX-License-Identifier: Apache-2.0
//
// What may be tried again without thinking: EINTR, EAGAIN, and the rest of a short write. Never EIO
// (after a failed sync the pages count as clean, and the next sync would say yes to nothing).
#pragma once

#include <memory>

#include "daemon/io/aligned_buffer.hpp"
#include "daemon/io/disk.hpp"

namespace shmq::io {

/// In a row, without progress; then the error is given to the caller as it is.
inline constexpr int patience_tries = 64;

/// Runs `operation` until it gives something other than EINTR or EAGAIN.
void with_patience(std::function<void(Done)> operation, Done done);

/// Writes the whole of `bytes`, a part of `buffer`, which is kept alive until then. Gives 0 or
/// -errno.
void write_all(Disk& disk, Handle file, std::uint64_t offset,
               std::shared_ptr<const AlignedBuffer> buffer, std::span<const std::byte> bytes,
               Done done);

}  // namespace shmq::io
