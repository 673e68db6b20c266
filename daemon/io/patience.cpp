// SPDX-License-Identifier: Apache-2.0
#include "daemon/io/patience.hpp"

#include <cerrno>
#include <utility>

#include "base/mutant.hpp"

namespace shmq::io {
namespace {

bool may_repeat(std::int64_t result) noexcept { return result == -EINTR || result == -EAGAIN; }

struct Repetition {
  std::function<void(Done)> operation;
  Done done;
  int tries = 0;
};

void repeat(const std::shared_ptr<Repetition>& repetition) {
  repetition->operation([repetition](std::int64_t result) {
    if (may_repeat(result) && ++repetition->tries < patience_tries) return repeat(repetition);
    repetition->done(result);
  });
}

struct Writing {
  Disk& disk;
  Handle file;
  std::uint64_t offset;
  std::shared_ptr<const AlignedBuffer> buffer;
  std::span<const std::byte> left;
  Done done;
  int tries = 0;
};

void go_on(const std::shared_ptr<Writing>& writing) {
  writing->disk.write(writing->file, writing->offset, writing->left,
                      [writing](std::int64_t result) {
                        if (may_repeat(result)) result = 0;
                        if (result < 0) return writing->done(result);
                        auto count = static_cast<std::size_t>(result);
                        if (base::mutant(49) && count != 0) count = writing->left.size();
                        if (count >= writing->left.size()) return writing->done(0);
                        // What remains must start at a multiple of the alignment.
                        count -= count % AlignedBuffer::alignment;
                        writing->tries = count == 0 ? writing->tries + 1 : 0;
                        if (writing->tries == patience_tries) return writing->done(-EIO);
                        writing->offset += count;
                        writing->left = writing->left.subspan(count);
                        go_on(writing);
                      });
}

}  // namespace

void with_patience(std::function<void(Done)> operation, Done done) {
  repeat(std::make_shared<Repetition>(Repetition{std::move(operation), std::move(done)}));
}

void write_all(Disk& disk, Handle file, std::uint64_t offset,
               std::shared_ptr<const AlignedBuffer> buffer, std::span<const std::byte> bytes,
               Done done) {
  go_on(std::make_shared<Writing>(
      Writing{disk, file, offset, std::move(buffer), bytes, std::move(done)}));
}

}  // namespace shmq::io
