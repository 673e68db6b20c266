// SPDX-License-Identifier: Apache-2.0
#include "daemon/engine/recovery.hpp"

#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <utility>

#include "base/mutant.hpp"
#include "base/names.hpp"
#include "control/settings.hpp"
#include "daemon/feed/restore.hpp"
#include "daemon/io/plain_disk.hpp"
#include "daemon/journal/recover.hpp"
#include "queue/head.hpp"
#include "shm/initialise.hpp"

namespace shmq::engine {
namespace {

constexpr std::size_t findings_told_max = 20;

std::string describe(const RecoveryOptions& options, const char* verb = "recover") {
  return std::string{verb} + " queue '" + options.name + "'";
}

tl::unexpected<Error> failure(Errc code, const RecoveryOptions& options, std::string why,
                              std::string remedy) {
  return tl::unexpected{
      Error{make_error_code(code), describe(options), std::move(why), std::move(remedy)}};
}

// Files may be read by whom the queue may be read by: the directory carries its group and mode.
std::uint32_t file_mode_of(const std::string& directory) {
  struct stat status {};
  if (::stat(directory.c_str(), &status) != 0) return 0600;
  return 0600U | (status.st_mode & 0044U);
}

journal::Identity identity_of(const RecoveryOptions& options) {
  journal::Identity identity{.name_space = options.name_space,
                             .queue = options.name,
                             .queue_uuid = {},
                             .boot_id = {},
                             .file_mode = file_mode_of(options.directory)};
  std::uint8_t boot_id[16];
  shm::read_boot_id(boot_id);
  std::memcpy(identity.boot_id.data(), boot_id, sizeof(boot_id));
  return identity;
}

journal::Uuid uuid_of(const shm::Segment& segment) {
  journal::Uuid uuid;
  std::memcpy(uuid.data(), segment.header().uuid, uuid.size());
  return uuid;
}

struct Files {
  bool has_journal = false;
  std::uint64_t bytes = 0;
};

Result<Files> look_at_files(io::Disk& disk) {
  auto names = disk.list();
  if (!names) return tl::unexpected{names.error()};
  Files files;
  for (const std::string& name : *names) {
    if (!journal::number_in_name(name)) continue;
    files.has_journal = true;
    const std::int64_t handle = disk.open_for_reading(name);
    if (handle < 0) continue;
    files.bytes += static_cast<std::uint64_t>(
        std::max<std::int64_t>(0, disk.size(static_cast<io::Handle>(handle))));
    disk.close(static_cast<io::Handle>(handle));
  }
  return files;
}

// Whom the settings on disk name as the queue's owner: a segment of theirs is no stranger's.
std::vector<uid_t> trusted_by_journal(io::Disk& disk, const RecoveryOptions& options) {
  std::vector<uid_t> trusted = options.trusted_owners;
  journal::DiskDirectory directory{disk};
  const auto plan = journal::analyse(
      directory, {.queue_uuid = {}, .memory_is_newer = false, .check_all_bodies = false});
  if (!plan) return trusted;
  const auto settings = plan->state.settings.find(journal::Uuid{});
  if (settings == plan->state.settings.end()) return trusted;
  const auto* text = reinterpret_cast<const char*>(settings->second.data());
  const auto parsed = control::queue_options_from({text, settings->second.size()}, "");
  if (parsed && parsed->owner) trusted.push_back(*parsed->owner);
  return trusted;
}

bool is_unusable(const Error& error) {
  return error == Errc::not_a_segment || error == Errc::version_mismatch ||
         error == Errc::corrupt || error == Errc::no_such_queue;
}

// Recovery of one queue, step by step.
class Recovery {
 public:
  Recovery(const io::Backend& backend, const RecoveryOptions& options, const Log& log)
      : backend_(backend), options_(options), log_(log) {}

  Result<QueueParts> run() {
    auto disk = backend_.open_waiting(options_.directory);
    if (!disk) return tl::unexpected{disk.error()};
    disk_ = std::move(*disk);
    parts_.name = options_.name;
    parts_.directory = options_.directory;
    auto files = look_at_files(*disk_);
    if (!files) return tl::unexpected{files.error()};
    files_ = *files;
    if (auto done = find_memory(); !done) return tl::unexpected{done.error()};
    if (!files_.has_journal) return without_journal();
    if (auto done = recover_journal(); !done) return tl::unexpected{done.error()};
    if (parts_.segment == nullptr) {
      if (auto done = rebuild_memory(); !done) return tl::unexpected{done.error()};
    }
    parts_.disk = backend_.take_over(std::move(disk_));
    return std::move(parts_);
  }

 private:
  OpenOptions open_options() const {
    return {.name_space = options_.name_space, .trusted_owners = trusted_};
  }

  // What is left in /dev/shm; parts_.segment if it may be newer than the disk.
  Result<void> find_memory() {
    trusted_ = options_.trusted_owners;
    auto segment = shm::Segment::open(options_.name, open_options(), shm::Authority::daemon);
    if (!segment && segment.error() == Errc::foreign_owner && files_.has_journal) {
      trusted_ = trusted_by_journal(*disk_, options_);
      segment = shm::Segment::open(options_.name, open_options(), shm::Authority::daemon);
    }
    if (!segment) {
      if (segment.error() == Errc::no_such_queue) return {};
      if (!is_unusable(segment.error())) return tl::unexpected{segment.error()};
      log_(Level::warning, "queue '" + options_.name + "': its segment is not used: " +
                               segment.error().why() + "; it is rebuilt from the journal");
      return remove_memory();
    }
    if ((*segment)->limits().durable == 0) {
      return failure(Errc::already_exists, options_, "a transient queue of this name exists",
                     "remove it, then: shmqctl daemon reload");
    }
    auto lock = (*segment)->open_lock_file();
    if (!lock && is_unusable(lock.error())) {
      log_(Level::warning, "queue '" + options_.name + "': its segment is not used: " +
                               lock.error().why() + "; it is rebuilt from the journal");
      return remove_memory();
    }
    if (!lock) return tl::unexpected{lock.error()};
    // [D3] Taken before anything else is looked at, and held as long as the queue is served.
    if (!lock->try_lock(shm::lock_byte_daemon)) {
      return failure(Errc::busy, options_, "another daemon serves it", "stop that one");
    }
    const bool is_whole = sync::load_acquire((*segment)->control().daemon_generation) == 1;
    if (!is_whole && !base::mutant(95)) return remove_memory();
    parts_.segment = std::move(*segment);
    parts_.lock = std::move(*lock);
    return {};
  }

  Result<void> remove_memory() {
    const auto removed =
        shm::Segment::remove(options_.name, open_options(), shm::Authority::daemon);
    if (!removed && !(removed.error() == Errc::no_such_queue)) {
      return tl::unexpected{removed.error()};
    }
    SHMQ_CRASH_POINT("daemon.memory_removed");
    return {};
  }

  // Nothing that counts was ever written, or somebody has taken the files away.
  Result<QueueParts> without_journal() {
    if (parts_.segment != nullptr) {
      auto mark = shm::MarkWriter::open(*parts_.segment);
      if (!mark) return tl::unexpected{mark.error()};
      if (mark->mark().seq_ceiling != 0) {
        return failure(Errc::corrupt, options_,
                       "its journal is gone from '" + options_.directory +
                           "', though it was in use; what memory holds is untouched",
                       "put the files back and: shmqctl daemon reload; or give it up: shmqctl "
                       "queue rm " +
                           options_.name);
      }
      parts_.lock.close();
      parts_.segment.reset();
      if (auto done = remove_memory(); !done) return tl::unexpected{done.error()};
    }
    return failure(Errc::no_such_queue, options_, "it was never made whole", "");
  }

  Result<void> recover_journal() {
    journal::RecoverOptions recover;
    recover.identity = identity_of(options_);
    recover.memory_is_newer = parts_.segment != nullptr;
    recover.queue_uuid_is_known = parts_.segment != nullptr;
    recover.check_all_bodies = files_.bytes <= options_.check_bytes;
    recover.first_file_bytes = options_.first_file_bytes;
    if (parts_.segment != nullptr) {
      recover.identity.queue_uuid = uuid_of(*parts_.segment);
      recover.initial = feed::initial_state(*parts_.segment);
    }
    // Looked at first: with the ring's help or without, what was confirmed must still be there.
    if (auto done = check_against_memory(recover); !done) return done;
    auto recovery = journal::recover(*disk_, recover);
    if (!recovery) return tl::unexpected{recovery.error()};
    tell(recovery->plan);
    if (recovery->plan.is_refused) return refused(recovery->plan);
    plan_ = std::move(recovery->plan);
    parts_.start = std::move(*recovery->start);
    return {};
  }

  // Where the journal ends before what was confirmed, the ring must hold the rest.
  Result<void> check_against_memory(const journal::RecoverOptions& recover) {
    if (parts_.segment == nullptr) return {};
    auto mark = shm::MarkWriter::open(*parts_.segment);
    if (!mark) return tl::unexpected{mark.error()};
    const std::uint64_t confirmed = sync::load_acquire(mark->mark().watermark);
    journal::DiskDirectory directory{*disk_};
    auto plan = journal::analyse(directory, {.queue_uuid = recover.identity.queue_uuid,
                                             .memory_is_newer = true,
                                             .check_all_bodies = false});
    if (!plan) return tl::unexpected{plan.error()};
    if (plan->is_refused) return {};  // the recovery will say more
    const std::uint64_t head = sync::read_halves(parts_.segment->control().head).low;
    const bool was_used = sync::load_acquire(mark->mark().seq_ceiling) != 0;
    if (plan->is_new && was_used) {
      return failure(
          Errc::corrupt, options_,
          "the journal in '" + options_.directory + "' is not the one of the queue in memory",
          "put its files back; or give up what is in memory: stop who uses it, remove "
          "/dev/shm/" +
              base::segment_object_name(options_.name_space, options_.name) +
              " and: shmqctl daemon reload");
    }
    if (plan->end_seq >= confirmed) return {};
    if (head <= plan->end_seq) {
      log_(Level::warning, "queue '" + options_.name + "': the journal ends at seq " +
                               std::to_string(plan->end_seq) + ", though seqs below " +
                               std::to_string(confirmed) +
                               " were confirmed; memory still holds them, and they are written "
                               "again");
      return {};
    }
    return failure(Errc::corrupt, options_,
                   "seqs " + std::to_string(plan->end_seq) + " to " + std::to_string(head - 1) +
                       " were confirmed, and are neither in the journal in '" + options_.directory +
                       "' nor in memory",
                   "put the missing files back and: shmqctl daemon reload; or give them up: "
                   "remove /dev/shm/" +
                       base::segment_object_name(options_.name_space, options_.name) + " first");
  }

  void tell(const journal::Plan& plan) const {
    std::size_t told = 0;
    for (const journal::Finding& finding : plan.findings) {
      const bool is_bad = finding.action == journal::Action::refuse;
      const bool is_news = finding.action == journal::Action::cut ||
                           finding.action == journal::Action::drop_torn ||
                           finding.action == journal::Action::write_gap;
      if (!is_bad && !is_news) continue;
      if (++told > findings_told_max) break;
      log_(is_bad ? Level::error : Level::warning,
           "queue '" + options_.name + "': " + finding.text());
    }
  }

  Result<void> refused(const journal::Plan& plan) const {
    std::string why;
    std::size_t count = 0;
    for (const journal::Finding& finding : plan.findings) {
      if (finding.action != journal::Action::refuse) continue;
      if (++count == 1) why = finding.text();
    }
    if (count > 1) why += " (and " + std::to_string(count - 1) + " more)";
    return failure(Errc::corrupt, options_, std::move(why),
                   "see: shmqctl verify " + options_.directory +
                       "; put a whole copy back and: shmqctl daemon reload; or give it up: "
                       "shmqctl queue rm " +
                       options_.name);
  }

  Result<void> rebuild_memory() {
    journal::DiskDirectory directory{*disk_};
    SHMQ_CRASH_POINT("daemon.before_restore");
    auto segment = feed::restore(
        {.name_space = options_.name_space, .queue = options_.name, .trusted_owners = trusted_},
        directory, plan_, parts_.start);
    if (!segment) return tl::unexpected{segment.error()};
    parts_.segment = std::move(*segment);
    auto lock = parts_.segment->open_lock_file();
    if (!lock) return tl::unexpected{lock.error()};
    parts_.lock = std::move(*lock);
    if (!parts_.lock.try_lock(shm::lock_byte_daemon)) {
      return failure(Errc::busy, options_, "another daemon serves it", "stop that one");
    }
    return {};
  }

  const io::Backend& backend_;
  const RecoveryOptions& options_;
  const Log& log_;
  std::vector<uid_t> trusted_;
  std::unique_ptr<io::PlainDisk> disk_;
  Files files_;
  journal::Plan plan_;
  QueueParts parts_;
};

}  // namespace

Result<QueueParts> recover_queue(const io::Backend& backend, const RecoveryOptions& options,
                                 const Log& log) {
  return Recovery{backend, options, log}.run();
}

Result<QueueParts> make_queue(const io::Backend& backend, const RecoveryOptions& options,
                              QueueOptions queue_options) {
  QueueParts parts;
  parts.name = options.name;
  parts.directory = options.directory;
  auto opened = backend.open_waiting(options.directory);
  if (!opened) return tl::unexpected{opened.error()};
  auto disk = std::move(*opened);
  queue_options.durable = true;
  queue_options.name_space = options.name_space;
  queue_options.trusted_owners = options.trusted_owners;
  auto segment = shm::Segment::create(options.name, queue_options, shm::Authority::daemon);
  if (!segment) return tl::unexpected{segment.error()};
  parts.segment = std::move(*segment);
  SHMQ_CRASH_POINT("daemon.segment_made");
  auto lock = parts.segment->open_lock_file();
  if (!lock) return tl::unexpected{lock.error()};
  parts.lock = std::move(*lock);
  if (!parts.lock.try_lock(shm::lock_byte_daemon)) {
    return failure(Errc::busy, options, "another daemon serves it", "stop that one");
  }
  journal::RecoverOptions recover;
  recover.identity = identity_of(options);
  recover.identity.queue_uuid = uuid_of(*parts.segment);
  recover.memory_is_newer = true;
  recover.first_file_bytes = options.first_file_bytes;
  recover.initial = feed::initial_state(*parts.segment);
  auto recovery = journal::recover(*disk, recover);
  if (!recovery) return tl::unexpected{recovery.error()};
  if (!recovery->start) {
    return failure(Errc::corrupt, options, "its new directory holds a journal", "");
  }
  SHMQ_CRASH_POINT("daemon.journal_begun");
  parts.start = std::move(*recovery->start);
  parts.disk = backend.take_over(std::move(disk));
  return parts;
}

Result<void> make_directory(const std::string& path, const QueueOptions& options) {
  const std::string what = "make directory '" + path + "'";
  if (::mkdir(path.c_str(), 0700) != 0) {
    return tl::unexpected{Error{{errno, std::generic_category()}, what, "", ""}};
  }
  if (options.owner_group &&
      ::chown(path.c_str(), static_cast<uid_t>(-1), *options.owner_group) != 0) {
    // Not a member of that group: nobody but the daemon reads the files then.
  }
  // Who may read the queue may read its journal; files inherit the group by the set-group-ID bit.
  mode_t mode = 02700;
  if ((options.mode & 0040) != 0) mode |= 0050;
  if ((options.mode & 0004) != 0) mode |= 0005;
  if (::chmod(path.c_str(), mode) != 0) {
    return tl::unexpected{Error{{errno, std::generic_category()}, what, "", ""}};
  }
  return {};
}

}  // namespace shmq::engine
