// SPDX-License-Identifier: Apache-2.0
//
// A durable queue with a real journal and no daemon: source, writer and recovery over a directory
// of its own, pumped by the test. Clients read the journal's files as they would the daemon's.
#pragma once

#include <stdlib.h>

#include <filesystem>

#include "daemon/feed/restore.hpp"
#include "daemon/feed/segment_source.hpp"
#include "daemon/io/plain_disk.hpp"
#include "daemon/journal/writer.hpp"
#include "support/durable_queue.hpp"

namespace shmq::testing {

class JournaledQueue {
 public:
  static constexpr std::uint64_t file_bytes = 65536;

  explicit JournaledQueue(QueueOptions options) {
    std::string pattern = (std::filesystem::temp_directory_path() / "shmq-journal.XXXXXX").string();
    if (::mkdtemp(pattern.data()) == nullptr) throw std::runtime_error{"mkdtemp failed"};
    path_ = pattern;
    options.durable = true;
    options.name_space = scratch_.name_space;
    slots_ = options.slots;
    start(need(shm::Segment::create("q", options, shm::Authority::daemon)));
  }
  JournaledQueue(const JournaledQueue&) = delete;
  JournaledQueue& operator=(const JournaledQueue&) = delete;
  ~JournaledQueue() {
    writer_.reset();
    source_.reset();
    disk_.reset();
    std::filesystem::remove_all(path_);
  }

  /// Everything that was published and acked is on disk after it.
  void pump() {
    writer_->pump();
    while (disk_->poll(true)) writer_->pump();
  }
  /// The daemon dies and comes back: memory stays.
  void restart() {
    stop();
    start(segment_);
  }
  /// So does the host: memory is gone. Nobody may be attached. False: the journal is refused.
  void lose_memory() {
    stop();
    segment_.reset();
    static_cast<void>(
        shm::Segment::remove("q", {.name_space = scratch_.name_space}, shm::Authority::daemon));
    start(nullptr);
  }
  [[nodiscard]] Queue open() const {
    return need(Queue::open("q", {.name_space = scratch_.name_space}));
  }
  [[nodiscard]] const std::string& path() const { return path_; }
  [[nodiscard]] const std::shared_ptr<shm::Segment>& segment() const { return segment_; }
  [[nodiscard]] const shm::Mark& mark() const { return mark_->mark(); }
  [[nodiscard]] const journal::Writer& writer() const { return *writer_; }
  template <typename T>
  static T need(Result<T> result) {
    return DurableQueue::need(std::move(result));
  }

 private:
  void stop() {
    writer_.reset();
    source_.reset();
    mark_.reset();
    disk_.reset();
  }
  void start(std::shared_ptr<shm::Segment> segment) {
    disk_ = std::make_unique<io::PlainDisk>(need(io::Directory::open(path_)));
    journal::RecoverOptions options;
    options.identity.name_space = scratch_.name_space;
    options.identity.queue = "q";
    if (segment) std::copy_n(segment->header().uuid, 16, uuid_.begin());
    options.identity.queue_uuid = uuid_;
    options.memory_is_newer = segment != nullptr;
    options.first_file_bytes = file_bytes;
    if (segment) options.initial = feed::initial_state(*segment);
    auto recovery = need(journal::recover(*disk_, options));
    if (!recovery.start) throw std::runtime_error{"recovery refused"};
    if (!segment) {
      journal::DiskDirectory directory{*disk_};
      segment = need(feed::restore({.name_space = scratch_.name_space, .queue = "q"}, directory,
                                   recovery.plan, *recovery.start));
    }
    segment_ = std::move(segment);
    mark_ = std::make_unique<shm::MarkWriter>(need(shm::MarkWriter::open(*segment_)));
    if (segment_->mark() == nullptr) {
      if (auto mapped = segment_->map_mark({}); !mapped) {
        throw std::runtime_error{mapped.error().message()};
      }
    }
    mark_->set_journal(path_);
    mark_->begin_epoch(recovery.start->epoch);
    source_ = std::make_unique<feed::SegmentSource>(*segment_, *mark_, recovery.start->state,
                                                    recovery.start->watermark);
    sync::store_release(segment_->control().daemon_generation, std::uint64_t{1});
    journal::WriterOptions writer;
    writer.files = {.first_file_bytes = file_bytes, .usual_file_bytes_max = 2 * file_bytes};
    writer.batch_bytes_max = 16384;
    writer.ring_slots = slots_;
    writer_ =
        std::make_unique<journal::Writer>(*disk_, *source_, writer, std::move(*recovery.start));
    pump();
  }

  Scratch scratch_;
  std::string path_;
  std::uint64_t slots_ = 0;
  journal::Uuid uuid_{};
  std::unique_ptr<io::PlainDisk> disk_;
  std::shared_ptr<shm::Segment> segment_;
  std::unique_ptr<shm::MarkWriter> mark_;
  std::unique_ptr<feed::SegmentSource> source_;
  std::unique_ptr<journal::Writer> writer_;
};

}  // namespace shmq::testing
