// SPDX-License-Identifier: Apache-2.0
#include "daemon/journal/file_preparer.hpp"

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <utility>

#include "base/assert.hpp"
#include "base/clock.hpp"
#include "base/mutant.hpp"
#include "daemon/io/patience.hpp"

namespace shmq::journal {
namespace {

constexpr std::uint64_t zero_piece_bytes = 1ULL << 20;

std::shared_ptr<const io::AlignedBuffer> zeros() {
  static const auto buffer = [] {
    auto made = std::make_shared<io::AlignedBuffer>();
    made->append_zeros(zero_piece_bytes);
    return std::shared_ptr<const io::AlignedBuffer>{made};
  }();
  return buffer;
}

std::shared_ptr<const io::AlignedBuffer> header_block(const Identity& identity,
                                                      const FileSpec& spec) {
  FileHeader header{};
  header.magic = file_magic;
  header.version = format_version;
  header.header_bytes = sizeof(FileHeader);
  std::memcpy(header.queue_uuid, identity.queue_uuid.data(), uuid_bytes);
  header.epoch = spec.epoch;
  header.file_number = spec.number;
  header.file_bytes = spec.bytes;
  header.purpose = static_cast<std::uint32_t>(spec.purpose);
  header.origin =
      static_cast<std::uint32_t>(spec.recycle_name.empty() ? Origin::fresh : Origin::recycled);
  std::memcpy(header.boot_id, identity.boot_id.data(), uuid_bytes);
  header.created_realtime_ns = base::clock->realtime_ns();
  identity.name_space.copy(header.name_space, name_field_bytes - 1);
  identity.queue.copy(header.queue, name_field_bytes - 1);
  seal(header);
  auto buffer = std::make_shared<io::AlignedBuffer>();
  buffer->append(&header, sizeof(header));
  return buffer;
}

}  // namespace

// One attempt, from step to step. It outlives the preparer as long as the disk holds a callback of
// it; `is_abandoned` then ends it at the next step.
struct FilePreparer::Work : std::enable_shared_from_this<Work> {
  Work(io::Disk& the_disk, const Identity& the_identity, FileSpec the_spec,
       std::function<void()> when_settled)
      : disk(the_disk),
        identity(the_identity),
        spec(std::move(the_spec)),
        on_settled(std::move(when_settled)) {}

  io::Disk& disk;
  const Identity identity;
  const FileSpec spec;
  const std::function<void()> on_settled;
  State state = State::working;
  int error = 0;
  bool is_abandoned = false;
  bool consumed_recycled = false;
  bool removed_leftover = false;
  io::Handle handle = io::no_handle;
  io::Handle reader_lock = spec.reader_lock;

  void unlock_readers() {
    if (reader_lock != io::no_handle) disk.close(std::exchange(reader_lock, io::no_handle));
  }

  [[nodiscard]] std::string temporary() const { return temporary_name(spec.number); }

  // A completion that goes on with `next`, or fails the attempt.
  template <typename Next>
  io::Done then(Next next) {
    return [self = shared_from_this(), next](std::int64_t result) {
      if (self->is_abandoned) return;
      if (result < 0) return self->fail(static_cast<int>(-result));
      next(*self, result);
    };
  }

  void fail(int error_number) {
    error = error_number;
    unlock_readers();
    if (handle != io::no_handle) disk.close(std::exchange(handle, io::no_handle));
    // Waited for, whatever comes of it: still under way, it could meet the next attempt's file.
    disk.unlink(temporary(),
                [self = shared_from_this()](std::int64_t) { self->settle(State::failed); });
  }

  void settle(State outcome) {
    state = outcome;
    if (!is_abandoned && on_settled) on_settled();
  }

  void run() {
    if (spec.recycle_name.empty()) return create();
    disk.rename(spec.recycle_name, temporary(), then([](Work& self, std::int64_t) {
                  self.consumed_recycled = true;
                  self.unlock_readers();
                  self.sync_directory([](Work& work) { work.open_recycled(); });
                }));
  }

  void create() {
    disk.create(temporary(), identity.file_mode, [self = shared_from_this()](std::int64_t result) {
      if (self->is_abandoned) return;
      if (result == -EEXIST && !self->removed_leftover) return self->remove_leftover();
      if (result < 0) return self->fail(static_cast<int>(-result));
      self->handle = static_cast<io::Handle>(result);
      self->allocate();
    });
  }

  void remove_leftover() {
    removed_leftover = true;
    disk.unlink(temporary(), then([](Work& self, std::int64_t) { self.create(); }));
  }

  void open_recycled() {
    disk.open(temporary(), then([](Work& self, std::int64_t result) {
                self.handle = static_cast<io::Handle>(result);
                self.write_header();
              }));
  }

  void allocate() {
    io::with_patience(
        [self = shared_from_this()](io::Done done) {
          self->disk.allocate(self->handle, self->spec.bytes, std::move(done));
        },
        then([](Work& self, std::int64_t) { self.write_zeros(block_bytes); }));
  }

  void write_zeros(std::uint64_t offset) {
    if (offset == spec.bytes) return write_header();
    const std::uint64_t bytes = std::min(spec.bytes - offset, zero_piece_bytes);
    io::write_all(
        disk, handle, offset, zeros(), zeros()->bytes().first(bytes),
        then([end = offset + bytes](Work& self, std::int64_t) { self.write_zeros(end); }));
  }

  void write_header() {
    auto block = header_block(identity, spec);
    const auto bytes = block->bytes();
    io::write_all(disk, handle, 0, std::move(block), bytes,
                  then([](Work& self, std::int64_t) { self.sync(); }));
  }

  void sync() {
    if (base::mutant(47)) return give_name();
    io::with_patience([self = shared_from_this()](
                          io::Done done) { self->disk.sync(self->handle, std::move(done)); },
                      then([](Work& self, std::int64_t) { self.give_name(); }));
  }

  void give_name() {
    disk.rename(temporary(), file_name(spec.number), then([](Work& self, std::int64_t) {
                  if (base::mutant(42)) {
                    self.settle(State::ready);
                    return;
                  }
                  self.sync_directory([](Work& work) { work.settle(State::ready); });
                }));
  }

  template <typename Next>
  void sync_directory(Next next) {
    io::with_patience(
        [self = shared_from_this()](io::Done done) { self->disk.sync_directory(std::move(done)); },
        then([next](Work& self, std::int64_t) { next(self); }));
  }
};

FilePreparer::FilePreparer(io::Disk& disk, Identity identity, std::function<void()> on_settled)
    : disk_(disk), identity_(std::move(identity)), on_settled_(std::move(on_settled)) {}

FilePreparer::~FilePreparer() {
  if (work_ == nullptr) return;
  work_->is_abandoned = true;
  work_->unlock_readers();
  if (work_->handle != io::no_handle) disk_.close(work_->handle);
}

void FilePreparer::start(const FileSpec& spec) {
  SHMQ_ASSERT(state() == State::idle || state() == State::failed);
  SHMQ_ASSERT(spec.bytes % block_bytes == 0 && spec.bytes >= file_bytes_min);
  work_ = std::make_shared<Work>(disk_, identity_, spec, on_settled_);
  work_->run();
}

FilePreparer::State FilePreparer::state() const noexcept {
  return work_ == nullptr ? State::idle : work_->state;
}

int FilePreparer::error() const noexcept { return work_ == nullptr ? 0 : work_->error; }

bool FilePreparer::consumed_recycled() const noexcept {
  return work_ != nullptr && work_->consumed_recycled;
}

const FileSpec& FilePreparer::spec() const noexcept { return work_->spec; }

PreparedFile FilePreparer::take() {
  SHMQ_ASSERT(state() == State::ready);
  const PreparedFile file{std::exchange(work_->handle, io::no_handle), work_->spec.number,
                          work_->spec.bytes};
  work_.reset();
  return file;
}

}  // namespace shmq::journal
