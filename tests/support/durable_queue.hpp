// SPDX-License-Identifier: Apache-2.0
//
// A small durable queue, made as the daemon makes it; what the daemon would write into the
// watermark object is the test's to say.
#pragma once

#include <stdexcept>

#include "shm/mark.hpp"
#include "shm/segment.hpp"
#include "support/small_queue.hpp"

namespace shmq::testing {

struct DurableQueue {
  explicit DurableQueue(QueueOptions options = SmallQueue::options()) {
    options.durable = true;
    options.name_space = scratch.name_space;
    segment = need(shm::Segment::create("q", options, shm::Authority::daemon));
    mark = std::make_unique<shm::MarkWriter>(need(shm::MarkWriter::open(*segment)));
    if (auto mapped = segment->map_mark({}); !mapped) {
      throw std::runtime_error{mapped.error().message()};
    }
  }
  /// Seqs may be given out: clients can open the queue.
  void begin_journal() { mark->advance({.seq_ceiling = segment->limits().slots}); }
  void move_watermark(std::uint64_t seq) {
    mark->advance({.watermark = seq, .seq_ceiling = seq + segment->limits().slots});
  }
  [[nodiscard]] Result<Queue> open() const {
    return Queue::open("q", {.name_space = scratch.name_space});
  }
  template <typename T>
  static T need(Result<T> result) {
    if (!result) throw std::runtime_error{result.error().message()};
    return std::move(*result);
  }

  Scratch scratch;
  std::shared_ptr<shm::Segment> segment;
  std::unique_ptr<shm::MarkWriter> mark;
};

}  // namespace shmq::testing
