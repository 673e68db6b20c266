// SPDX-License-Identifier: Apache-2.0
#include "daemon/journal/recover.hpp"

#include <algorithm>
#include <cerrno>
#include <utility>

#include "base/clock.hpp"
#include "base/mutant.hpp"
#include "daemon/io/patience.hpp"
#include "daemon/journal/batch_builder.hpp"
#include "daemon/journal/file_preparer.hpp"

namespace shmq::journal {
namespace {

std::int64_t wait_for(io::Disk& disk, std::function<void(io::Done)> operation) {
  // Shared: if poll() throws or gives up, the completion may still come later.
  struct Outcome {
    bool is_done = false;
    std::int64_t result = 0;
  };
  const auto outcome = std::make_shared<Outcome>();
  io::with_patience(std::move(operation), [outcome](std::int64_t result) {
    outcome->is_done = true;
    outcome->result = result;
  });
  while (!outcome->is_done) disk.poll(true);
  return outcome->result;
}

class Recoverer {
 public:
  Recoverer(io::Disk& disk, const RecoverOptions& options)
      : disk_(disk), options_(options), identity_(options.identity) {}
  Recoverer(const Recoverer&) = delete;
  Recoverer& operator=(const Recoverer&) = delete;

  ~Recoverer() {
    for (const auto& [name, handle] : locks_) disk_.close(handle);
    if (file_.handle != io::no_handle) disk_.close(file_.handle);
  }

  Result<Recovery> run() {
    if (auto done = lock_files(); !done) return tl::unexpected{done.error()};
    DiskDirectory directory{disk_};
    AnalysisOptions analysis{.queue_uuid = {},
                             .memory_is_newer = options_.memory_is_newer,
                             .check_all_bodies = options_.check_all_bodies};
    if (options_.queue_uuid_is_known) analysis.queue_uuid = identity_.queue_uuid;
    auto plan = analyse(directory, analysis);
    if (!plan) return tl::unexpected{plan.error()};
    recovery_.plan = std::move(*plan);
    if (recovery_.plan.is_refused) return std::move(recovery_);
    if (!recovery_.plan.is_new) identity_.queue_uuid = recovery_.plan.queue_uuid;
    if (recovery_.plan.is_new) recovery_.plan.state = options_.initial;
    make_room();
    if (auto done = begin_incarnation(directory); !done) return tl::unexpected{done.error()};
    remove_what_does_not_count();
    hand_over();
    return std::move(recovery_);
  }

 private:
  tl::unexpected<Error> failed(std::int64_t result, const std::string& what) const {
    return tl::unexpected{
        Error{{static_cast<int>(-result), std::generic_category()},
              "recover queue '" + identity_.queue + "': " + what + " in '" + disk_.path() + "'",
              "",
              ""}};
  }

  // Whoever holds a lock may still be writing: a daemon, or what the kernel does for a dead one.
  Result<void> lock_files() {
    auto names = disk_.list();
    if (!names) return tl::unexpected{names.error()};
    for (const std::string& name : *names) {
      if (!number_in_name(name)) continue;
      const std::int64_t result =
          wait_for(disk_, [&](io::Done done) { disk_.open(name, std::move(done)); });
      if (result == -EWOULDBLOCK) {
        return tl::unexpected{Error{make_error_code(Errc::busy),
                                    "recover queue '" + identity_.queue + "'",
                                    "another daemon holds '" + disk_.path() + "/" + name + "'",
                                    "stop it, or wait until its last writes are done"}};
      }
      if (result < 0) return failed(result, "open " + name);
      locks_.emplace(name, static_cast<io::Handle>(result));
    }
    return {};
  }

  // Files that were being prepared never counted, and may hold the room that the new one needs.
  void make_room() {
    bool removed = false;
    for (const std::string& name : recovery_.plan.removable) {
      if (!is_temporary_name(name)) continue;
      wait_for(disk_, [&](io::Done done) { disk_.unlink(name, std::move(done)); });
      removed = true;
    }
    // Some file systems give the blocks back no sooner.
    if (removed) wait_for(disk_, [&](io::Done done) { disk_.sync_directory(std::move(done)); });
  }

  Result<void> begin_incarnation(DirectorySource& directory) {
    const Plan& plan = recovery_.plan;
    BatchBuilder builder;
    builder.begin({.queue_uuid = identity_.queue_uuid,
                   .epoch = plan.next_epoch,
                   .file_number = plan.next_file_number,
                   .file_offset = block_bytes,
                   .batch_number = plan.next_batch_number,
                   .first_seq = plan.tail ? plan.tail->first_seq : plan.end_seq,
                   .previous = plan.before_tail},
                  file_bytes_max - 2 * block_bytes);
    if (auto done = copy_tail(directory, builder); !done) return done;
    const auto copy = seal(builder, batch_copy, plan.tail ? plan.tail->first_seq : plan.end_seq);
    const BatchHeader copied = builder.header();
    if (auto done = prepare(copied.total_bytes); !done) return done;
    if (auto done = write(copied, copy, true); !done) return done;
    // Only now the copy counts, and only once this is on stable storage, too.
    builder.begin({.queue_uuid = identity_.queue_uuid,
                   .epoch = copied.epoch,
                   .file_number = copied.file_number,
                   .file_offset = copied.file_offset + copied.total_bytes,
                   .batch_number = copied.batch_number + 1,
                   .first_seq = copied.end_seq,
                   .previous = ref_of(copied)},
                  block_bytes);
    if (plan.writes_gap && !builder.add_gap(plan.next_seq)) return failed(-ENOSPC, "write the gap");
    const auto marker = seal(builder, batch_marker | batch_closing, copied.end_seq);
    marker_ = builder.header();
    return write(marker_, marker, !base::mutant(45));
  }

  Result<void> copy_tail(DirectorySource& directory, BatchBuilder& builder) {
    const Plan& plan = recovery_.plan;
    CopySourceRecord source{};
    std::vector<std::byte> body;
    std::vector<Record> records;
    if (plan.tail) {
      source.epoch = plan.tail->epoch;
      source.file_number = plan.tail->file_number;
      source.file_offset = plan.tail->file_offset;
      source.bytes = plan.tail->total_bytes;
      source.header_checksum = plan.tail->header_checksum;
      source.first_seq = plan.tail->first_seq;
      source.end_seq = plan.tail->end_seq;
      const std::string name = file_name(source.file_number);
      auto file = directory.open(name);
      if (!file) return tl::unexpected{file.error()};
      body.resize(source.bytes - sizeof(BatchHeader));
      if (auto error = (*file)->read(source.file_offset + sizeof(BatchHeader), body)) {
        return failed(-error.value(), "read " + name);
      }
      std::string why;
      auto opened = open_body(*plan.tail, body, why);
      if (!opened) return failed(-EIO, "read " + name + " again");
      records = std::move(*opened);
    }
    bool fits = builder.add_copy_source(source) && builder.add_snapshot(plan.state);
    for (const Record& record : records) {
      if (record.type == RecordType::message)
        fits = fits && builder.add_message(message_of(record));
      if (record.type == RecordType::gap) {
        fits = fits && builder.add_gap(load<GapRecord>(record.bytes).end_seq);
      }
    }
    return fits ? Result<void>{} : failed(-EFBIG, "copy the tail");
  }

  std::shared_ptr<const io::AlignedBuffer> seal(BatchBuilder& builder, std::uint32_t flags,
                                                std::uint64_t durable_upto) {
    const Plan& plan = recovery_.plan;
    // With memory gone nobody publishes yet: the ceiling is raised by the writer's first batch, so
    // that recovering again and again uses up no seqs.
    const std::uint64_t ceiling = options_.memory_is_newer ? plan.seq_ceiling : plan.next_seq;
    return std::make_shared<io::AlignedBuffer>(
        builder.finish({.flags = flags,
                        .durable_upto = durable_upto,
                        .seq_ceiling = std::max(ceiling, builder.end_seq()),
                        .realtime_ns = base::clock->realtime_ns()}));
  }

  Result<void> prepare(std::uint64_t copy_bytes) {
    const Plan& plan = recovery_.plan;
    FilePreparer preparer{disk_, identity_};
    preparer.start({.number = plan.next_file_number,
                    .bytes = std::max(options_.first_file_bytes,
                                      round_up(2 * copy_bytes + 4 * block_bytes, block_bytes)),
                    .epoch = plan.next_epoch,
                    .purpose = Purpose::incarnation,
                    .recycle_name = {}});
    while (preparer.state() == FilePreparer::State::working) disk_.poll(true);
    if (preparer.state() == FilePreparer::State::failed) {
      return failed(-preparer.error(), "prepare a file");
    }
    file_ = preparer.take();
    return {};
  }

  Result<void> write(const BatchHeader& header,
                     const std::shared_ptr<const io::AlignedBuffer>& batch, bool syncs) {
    std::int64_t result = wait_for(disk_, [&](io::Done done) {
      io::write_all(disk_, file_.handle, header.file_offset, batch, batch->bytes(),
                    std::move(done));
    });
    if (result < 0) return failed(result, "write " + file_name(file_.number));
    if (!syncs) return {};
    result = wait_for(disk_, [&](io::Done done) { disk_.sync(file_.handle, std::move(done)); });
    if (result < 0) return failed(result, "sync " + file_name(file_.number));
    return {};
  }

  // If that fails, the next recovery finds the same and tries again.
  void remove_what_does_not_count() {
    for (const std::string& name : recovery_.plan.removable) {
      if (is_temporary_name(name)) continue;  // gone already
      if (const auto lock = locks_.find(name); lock != locks_.end()) {
        disk_.close(lock->second);
        locks_.erase(lock);
      }
      wait_for(disk_, [&](io::Done done) { disk_.unlink(name, std::move(done)); });
    }
    if (recovery_.plan.removable.empty()) return;
    wait_for(disk_, [&](io::Done done) { disk_.sync_directory(std::move(done)); });
  }

  void hand_over() {
    const Plan& plan = recovery_.plan;
    Start start;
    start.identity = identity_;
    start.epoch = plan.next_epoch;
    start.next_file_number = plan.next_file_number + 1;
    start.next_batch_number = marker_.batch_number + 1;
    start.last = ref_of(marker_);
    start.current = {.number = file_.number,
                     .bytes = file_.bytes,
                     .first_seq = plan.tail ? plan.tail->first_seq : plan.end_seq,
                     .end_seq = marker_.end_seq,
                     .last_realtime_ns = marker_.realtime_ns,
                     .handle = std::exchange(file_.handle, io::no_handle)};
    start.offset = marker_.file_offset + marker_.total_bytes;
    for (const ChainFile& file : plan.chain) {
      const auto lock = locks_.find(file.name);
      start.older.push_back({.number = file.file_number,
                             .bytes = file.file_bytes,
                             .first_seq = file.first_seq,
                             .end_seq = file.end_seq,
                             .last_realtime_ns = file.last_realtime_ns,
                             .handle = lock == locks_.end() ? io::no_handle : lock->second});
      if (lock != locks_.end()) locks_.erase(lock);
    }
    start.watermark = marker_.end_seq;
    start.seq_ceiling = marker_.seq_ceiling;
    start.state = plan.state;
    if (plan.writes_gap) start.state.settle_gap(plan.end_seq, plan.next_seq);
    recovery_.start = std::move(start);
  }

  io::Disk& disk_;
  const RecoverOptions& options_;
  Identity identity_;
  Recovery recovery_;
  std::map<std::string, io::Handle> locks_;
  PreparedFile file_;
  BatchHeader marker_{};
};

// Through one handle, closed with the source.
class DiskFile final : public ByteSource {
 public:
  DiskFile(io::Disk& disk, io::Handle handle, std::uint64_t size)
      : disk_(disk), handle_(handle), size_(size) {}
  DiskFile(const DiskFile&) = delete;
  DiskFile& operator=(const DiskFile&) = delete;
  ~DiskFile() override { disk_.close(handle_); }

  [[nodiscard]] std::uint64_t size() const override { return size_; }

  std::error_code read(std::uint64_t offset, std::span<std::byte> into) override {
    while (!into.empty()) {
      const std::int64_t got = disk_.read(handle_, offset, into);
      if (got == -EINTR) continue;
      if (got < 0) return {static_cast<int>(-got), std::generic_category()};
      if (got == 0) return std::make_error_code(std::errc::io_error);
      offset += static_cast<std::uint64_t>(got);
      into = into.subspan(static_cast<std::size_t>(got));
    }
    return {};
  }

 private:
  io::Disk& disk_;
  io::Handle handle_;
  std::uint64_t size_;
};

}  // namespace

Result<std::unique_ptr<ByteSource>> DiskDirectory::open(const std::string& name) {
  const std::int64_t handle = disk_.open_for_reading(name);
  const std::int64_t size = handle < 0 ? handle : disk_.size(static_cast<io::Handle>(handle));
  if (size < 0) {
    if (handle >= 0) disk_.close(static_cast<io::Handle>(handle));
    return tl::unexpected{Error{{static_cast<int>(-size), std::generic_category()},
                                "open journal file '" + disk_.path() + "/" + name + "'",
                                "",
                                ""}};
  }
  return std::make_unique<DiskFile>(disk_, static_cast<io::Handle>(handle),
                                    static_cast<std::uint64_t>(size));
}

Result<Recovery> recover(io::Disk& disk, const RecoverOptions& options) {
  return Recoverer{disk, options}.run();
}

}  // namespace shmq::journal
