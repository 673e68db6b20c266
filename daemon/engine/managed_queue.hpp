// SPDX-License-Identifier: Apache-2.0
//
// One durable queue that is served: its segment, its watermark object, its journal's writer, and
// the lock that says that a daemon lives. Single-threaded, on the daemon's loop.
//
//   idle     nothing to write; the asleep flag is set, so clients ring; looked at by the sweep
//   hot      something is in flight, due at a timer, or just came; looked at in each turn
//
// Invariants:
//  1. The asleep flag is 1 before each sleep without a batch in flight, and after it was set the
//     queue was looked at once more: a client either sees the flag, or its message is seen.
//  2. Clients learn of DEGRADED and of its end with the barrier that tells the daemon.
//  3. A source that found damage stops this queue, and no other.
#pragma once

#include <map>
#include <memory>
#include <optional>
#include <string>

#include "daemon/engine/log.hpp"
#include "daemon/feed/segment_source.hpp"
#include "daemon/io/disk.hpp"
#include "daemon/journal/writer.hpp"
#include "shm/mark.hpp"
#include "shm/segment.hpp"
#include "sync/ofd_lock.hpp"

namespace shmq::engine {

/// What a queue is made of once recovery has come to an end.
struct QueueParts {
  std::string name;
  std::string directory;
  std::unique_ptr<io::Disk> disk;
  std::shared_ptr<shm::Segment> segment;
  sync::LockFile lock;  ///< holds lock_byte_daemon
  journal::Start start;
};

struct QueueFigures {
  std::uint64_t watermark = 0;
  std::uint64_t tail = 0;
  std::uint64_t lag_ns = 0;  ///< the oldest message that is not durable is at least so old; 0: none
  std::uint64_t disk_bytes = 0;
  std::uint64_t files = 0;
  journal::WriterFigures writer;
  journal::Health health = journal::Health::ok;
  int last_error = 0;
  std::uint64_t first_retained = 0;    ///< the journal's files begin with this seq
  std::uint64_t expired_groups = 0;    ///< removed since the daemon serves it
  std::uint64_t dropped_for_disk = 0;  ///< messages, at the limit of the disk, with drop_oldest
};

class ManagedQueue final : private journal::MessageSource {
 public:
  /// `on_hot` is called when the queue must be looked at in the next turn.
  static Result<std::unique_ptr<ManagedQueue>> create(QueueParts parts,
                                                      const journal::WriterOptions& options,
                                                      const std::string& doorbell_path, Log log,
                                                      std::function<void(ManagedQueue&)> on_hot);
  ManagedQueue(const ManagedQueue&) = delete;
  ManagedQueue& operator=(const ManagedQueue&) = delete;
  /// Leaves the watermark object as it is: close() says that it was on purpose.
  ~ManagedQueue() override;

  [[nodiscard]] const std::string& name() const noexcept { return parts_.name; }
  [[nodiscard]] const shm::Segment& segment() const noexcept { return *parts_.segment; }
  /// Clients can open it: the first seqs may be given out.
  [[nodiscard]] bool is_served() const noexcept;
  /// Damage in shared memory that the source met; the queue is not written any more.
  [[nodiscard]] std::optional<Error> damage() const { return source_->damage(); }
  [[nodiscard]] QueueFigures figures();

  /// Somebody may have published or acked: writes what is there.
  void wake();
  /// For the sweep.
  [[nodiscard]] bool has_news();
  [[nodiscard]] bool is_writing() const noexcept { return writer_->is_in_flight(); }
  /// In each turn while hot: completions of a disk without io_uring, and timers.
  void work(std::uint64_t now_ns);
  /// Before the loop sleeps. False: there is something to do first.
  bool prepare_sleep();
  /// Nothing to do until somebody rings or the sweep finds news.
  [[nodiscard]] bool is_idle() const noexcept;
  [[nodiscard]] std::uint64_t next_timer_ns() const noexcept { return writer_->next_timer_ns(); }

  /// About once a second, traffic or not: files whose time is over, groups that nobody uses.
  void tend(std::uint64_t now_ns);

  void reload() { writer_->reload(); }
  /// Writes what was published up to now, closes the journal, and is_drained() becomes true. A disk
  /// that fails or has no room does not keep it from that.
  void begin_drain();
  [[nodiscard]] bool is_drained() const noexcept;
  /// What was there when the drain began is on stable storage.
  [[nodiscard]] bool has_written_all() const noexcept;
  /// Tells clients that the daemon serves no more.
  void close() noexcept;

  bool is_hot = false;  ///< the engine's: it stands in the list of hot queues

 private:
  ManagedQueue(QueueParts parts, Log log, std::function<void(ManagedQueue&)> on_hot);
  bool message(std::uint64_t seq, journal::MessageView& view) override;
  bool next_change(std::uint64_t end_seq, journal::Change& change) override;
  bool on_removal(std::uint64_t first_retained) override;
  void on_progress(const journal::Progress& progress) override;
  void tell_state();
  void drop_for_room();
  void remove_expired(const std::string& group);
  void note_lag() noexcept;
  void set_asleep(bool asleep) noexcept;

  QueueParts parts_;
  Log log_;
  std::function<void(ManagedQueue&)> on_hot_;
  std::optional<shm::MarkWriter> mark_;
  std::unique_ptr<feed::SegmentSource> source_;
  std::unique_ptr<journal::Writer> writer_;
  bool is_asleep_ = false;
  bool is_told_ = false;  // health_ was told to clients
  journal::Health health_ = journal::Health::ok;
  std::optional<std::uint64_t> drain_target_;
  std::map<std::uint64_t, std::uint64_t> idle_since_ns_;  // by the group's word and entry
  std::uint64_t expired_groups_ = 0;
  std::uint64_t dropped_for_disk_ = 0;
  std::uint64_t dropped_below_ = 0;  // for disk space
  // All seqs below were published at lag_since_ns_ or before; a new pair once they are durable.
  std::uint64_t lag_end_ = 0;
  std::uint64_t lag_since_ns_ = 0;
};

}  // namespace shmq::engine
