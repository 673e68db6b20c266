// SPDX-License-Identifier: Apache-2.0
#include "shm/naming.hpp"

#include <dirent.h>
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cstring>
#include <thread>

#include "base/mutant.hpp"
#include "base/names.hpp"
#include "shm/segment.hpp"
#include "sync/event.hpp"

namespace shmq::shm {
namespace {

constexpr std::uint64_t naming_lock_byte = 0;

std::string path_of(const std::string& object) {
  return std::string{shared_memory_directory} + "/" + object;
}

tl::unexpected<Error> failure(Errc code, std::string what, std::string why, std::string remedy) {
  return tl::unexpected(
      Error{make_error_code(code), std::move(what), std::move(why), std::move(remedy)});
}

bool leads_to(const std::string& path, const struct stat& status) noexcept {
  struct stat now {};
  return lstat(path.c_str(), &now) == 0 && now.st_ino == status.st_ino &&
         now.st_dev == status.st_dev;
}

// The naming lock of the segment at `path`, held; closed (not held) on any failure. A holder does
// three system calls under it, so a second is long; a stopped one is reported as busy.
class NamingLock {
 public:
  enum class Outcome { held, gone, denied, busy };

  explicit NamingLock(const std::string& path) {
    const int descriptor = ::open(path.c_str(), O_RDWR | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK);
    if (descriptor < 0) {
      outcome_ = errno == ENOENT ? Outcome::gone : Outcome::denied;
      return;
    }
    file_ = sync::LockFile{descriptor};
    fstat(descriptor, &status_);
    for (int attempt = 0; attempt < 1000; ++attempt) {
      if (file_.try_lock(naming_lock_byte)) {
        outcome_ = leads_to(path, status_) ? Outcome::held : Outcome::gone;
        return;
      }
      std::this_thread::sleep_for(std::chrono::milliseconds{1});
    }
    outcome_ = Outcome::busy;
  }
  [[nodiscard]] Outcome outcome() const noexcept { return outcome_; }
  [[nodiscard]] const struct stat& status() const noexcept { return status_; }
  [[nodiscard]] int descriptor() const noexcept { return file_.descriptor(); }

 private:
  sync::LockFile file_;
  struct stat status_ {};
  Outcome outcome_ = Outcome::busy;
};

// In a sticky directory only the owner of a file (or of the directory) may unlink it.
bool may_unlink(const struct stat& status) noexcept {
  return geteuid() == 0 || geteuid() == status.st_uid;
}

// The companions go first: with the segment's name still there, nobody can link a new segment whose
// lock object this could be mistaken for. A watermark object that stays, because it belongs to the
// daemon and somebody else finishes, names the uuid of a queue that is gone, and is replaced.
void unlink_all(const std::string& name_space, const std::string& queue) noexcept {
  ::unlink(path_of(base::lock_object_name(name_space, queue)).c_str());
  ::unlink(path_of(base::mark_object_name(name_space, queue)).c_str());
  SHMQ_CRASH_POINT("remove.between_unlinks");
  ::unlink(path_of(base::segment_object_name(name_space, queue)).c_str());
}

bool is_marked_removed(int descriptor) noexcept {
  std::uint64_t magic = 0;
  std::uint32_t state = 0;
  std::uint32_t page_bytes = 0;
  if (pread(descriptor, &magic, sizeof(magic), offsetof(Header, magic)) != sizeof(magic) ||
      pread(descriptor, &page_bytes, sizeof(page_bytes), offsetof(Header, page_bytes)) !=
          sizeof(page_bytes) ||
      pread(descriptor, &state, sizeof(state),
            static_cast<off_t>(page_bytes + offsetof(Control, queue_state))) != sizeof(state)) {
    return false;
  }
  return magic == segment_magic && state == static_cast<std::uint32_t>(QueueState::removed);
}

}  // namespace

Result<void> link_new_segment(int descriptor, const std::string& name_space,
                              const std::string& queue, const std::string& what) {
  const std::string path = path_of(base::segment_object_name(name_space, queue));
  // Of the thread: it may have a table of descriptors of its own (EmbeddedDaemon).
  const std::string self = "/proc/thread-self/fd/" + std::to_string(descriptor);
  for (int attempt = 0; attempt < 3; ++attempt) {
    if (linkat(AT_FDCWD, self.c_str(), AT_FDCWD, path.c_str(), AT_SYMLINK_FOLLOW) == 0) return {};
    if (errno != EEXIST) {
      return tl::unexpected(
          Error{{errno, std::generic_category()}, what, path + ": " + std::strerror(errno), ""});
    }
    finish_removal(name_space, queue);  // what is there may be a queue that its remover left
  }
  return failure(Errc::already_exists, what, "a queue of this name exists",
                 "remove it first, or use it as it is with --if-not-exists");
}

void finish_removal(const std::string& name_space, const std::string& queue) noexcept {
  const NamingLock lock{path_of(base::segment_object_name(name_space, queue))};
  if (lock.outcome() == NamingLock::Outcome::held && is_marked_removed(lock.descriptor()) &&
      may_unlink(lock.status())) {
    unlink_all(name_space, queue);
  }
}

bool is_half_removed(const std::string& name_space, const std::string& queue) noexcept {
  const std::string path = path_of(base::segment_object_name(name_space, queue));
  const SharedObject object{::open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK)};
  return object.descriptor() >= 0 && is_marked_removed(object.descriptor());
}

// Companions without a segment must not simply be unlinked: a new segment may have come meanwhile,
// and adopted them. With this under the segment's name none can, and a killed caller leaves a half
// removed queue, which anybody finishes.
Result<void> link_tombstone(const std::string& name_space, const std::string& queue) {
  const std::string what = "clear away what is left of queue '" + queue + "'";
  const auto system_failure = [&] {
    return tl::unexpected(Error{{errno, std::generic_category()}, what, std::strerror(errno), ""});
  };
  const SharedObject object{::open(shared_memory_directory, O_TMPFILE | O_RDWR | O_CLOEXEC, 0600)};
  if (object.descriptor() < 0) return system_failure();
  Header header;
  std::memset(&header, 0, sizeof(header));
  header.magic = segment_magic;
  header.page_bytes = static_cast<std::uint32_t>(sysconf(_SC_PAGESIZE));
  const auto removed = static_cast<std::uint32_t>(QueueState::removed);
  if (pwrite(object.descriptor(), &header, sizeof(header), 0) !=
          static_cast<ssize_t>(sizeof(header)) ||
      pwrite(object.descriptor(), &removed, sizeof(removed),
             static_cast<off_t>(header.page_bytes + offsetof(Control, queue_state))) !=
          static_cast<ssize_t>(sizeof(removed))) {
    return system_failure();
  }
  const std::string path = path_of(base::segment_object_name(name_space, queue));
  const std::string self = "/proc/thread-self/fd/" + std::to_string(object.descriptor());
  if (linkat(AT_FDCWD, self.c_str(), AT_FDCWD, path.c_str(), AT_SYMLINK_FOLLOW) == 0) return {};
  if (errno != EEXIST) return system_failure();
  return failure(Errc::already_exists, what, "a queue of this name exists by now", "");
}

Result<void> Segment::remove(const std::string& queue, const OpenOptions& options,
                             Authority authority) {
  const std::string what = "remove queue '" + queue + "'";
  const std::string name_space = base::resolve_namespace(options.name_space);
  if (!base::is_valid_name(name_space) || !base::is_valid_queue_name(queue)) {
    return failure(Errc::invalid_name, what, "not a valid name", "use [a-z0-9][a-z0-9._-]{0,63}");
  }
  const auto gone = [&] { return failure(Errc::no_such_queue, what, "no such queue", ""); };
  OpenOptions open_options = options;
  open_options.access = Access::participant;
  open_options.name_space = name_space;
  auto segment = open(queue, open_options, Authority::daemon);
  if (segment && (*segment)->limits().durable != 0 && authority != Authority::daemon) {
    return failure(Errc::daemon_away, what, "only the daemon removes durable queues, and none runs",
                   "its journal would bring it back");
  }
  if (!segment) {
    // What cannot be opened because of its bytes can still be removed by its owner.
    const Error& error = segment.error();
    if (error == Errc::no_such_queue) return gone();
    if (!(error == Errc::not_a_segment || error == Errc::version_mismatch ||
          error == Errc::corrupt)) {
      return tl::unexpected(Error{error.code(), what, error.why(), error.remedy()});
    }
  }
  const NamingLock lock{path_of(base::segment_object_name(name_space, queue))};
  switch (lock.outcome()) {
    case NamingLock::Outcome::held: break;
    case NamingLock::Outcome::gone: return gone();
    case NamingLock::Outcome::denied:
      return failure(Errc::no_permission, what, "permission denied", "only its owner may");
    case NamingLock::Outcome::busy:
      return failure(Errc::busy, what, "another process is removing it", "try again");
  }
  if (!may_unlink(lock.status())) {
    return failure(Errc::no_permission, what, "permission denied", "only its owner may");
  }
  if (segment) {
    Control& control = (*segment)->control();
    // [N1] release: who sees it stops using the queue; marked before the names go, so a remover
    // killed from here on has removed it.
    sync::store_release(control.queue_state, static_cast<std::uint32_t>(QueueState::removed));
    SHMQ_CRASH_POINT("remove.marked");
  }
  unlink_all(name_space, queue);
  if (segment) {
    Control& control = (*segment)->control();
    for (std::uint32_t* event :
         {&control.message_event, &control.room_event, &control.ownership_event}) {
      sync::event_wake_unconditionally(*event);
    }
  }
  return {};
}

Result<std::vector<std::string>> Segment::list(const std::string& name_space) {
  const std::string resolved = base::resolve_namespace(name_space);
  if (!base::is_valid_name(resolved)) {
    return failure(Errc::invalid_name, "list queues", "'" + resolved + "' is not a valid namespace",
                   "use [a-z0-9][a-z0-9._-]{0,63}");
  }
  const std::string prefix = base::segment_object_name(resolved, "");
  DIR* directory = opendir(shared_memory_directory);
  if (directory == nullptr) {
    return tl::unexpected(
        Error{{errno, std::generic_category()}, "list queues", std::strerror(errno), ""});
  }
  std::vector<std::string> names;
  while (const dirent* entry = readdir(directory)) {
    const std::string_view name{entry->d_name};
    if (!name.starts_with(prefix)) continue;
    const std::string_view queue = name.substr(prefix.size());
    if (base::is_valid_queue_name(queue)) names.emplace_back(queue);
  }
  closedir(directory);
  std::sort(names.begin(), names.end());
  return names;
}

// --- The companion lock object -------------------------------------------------------------------

namespace {

// Makes the lock object under the naming lock, with the segment's owner, group and mode, whole.
Result<void> make_lock_object(const std::string& path, const Segment& segment,
                              const std::string& what) {
  const int descriptor = ::open(shared_memory_directory, O_TMPFILE | O_RDWR | O_CLOEXEC, 0600);
  if (descriptor < 0) {
    return tl::unexpected(Error{{errno, std::generic_category()}, what, std::strerror(errno), ""});
  }
  const SharedObject object{descriptor};
  // Best effort: a member of the segment's group cannot give the file to the segment's owner.
  if (fchown(descriptor, segment.owner(), segment.owner_group()) != 0 &&
      fchown(descriptor, static_cast<uid_t>(-1), segment.owner_group()) != 0) {
  }
  fchmod(descriptor, segment.mode() & 0777);
  const std::string self = "/proc/thread-self/fd/" + std::to_string(descriptor);
  if (linkat(AT_FDCWD, self.c_str(), AT_FDCWD, path.c_str(), AT_SYMLINK_FOLLOW) != 0 &&
      errno != EEXIST) {
    return tl::unexpected(Error{{errno, std::generic_category()}, what, std::strerror(errno), ""});
  }
  return {};
}

}  // namespace

Result<sync::LockFile> Segment::open_lock_file() const {
  const std::string what = describe("attach to");
  const std::string path = path_of(base::lock_object_name(name_space_, queue_));
  std::uint64_t inode = sync::load_acquire(control().lock_inode);
  if (inode == 0) {
    const NamingLock lock{path_of(base::segment_object_name(name_space_, queue_))};
    if (lock.outcome() == NamingLock::Outcome::busy) {
      return failure(Errc::busy, what, "another process is making its lock object", "try again");
    }
    if (lock.outcome() != NamingLock::Outcome::held || lock.status().st_ino != inode_ ||
        sync::load_acquire(control().queue_state) !=
            static_cast<std::uint32_t>(QueueState::active)) {
      return failure(Errc::removed, what, "it was removed", "");
    }
    if (auto made = make_lock_object(path, *this, what); !made) {
      return tl::unexpected(made.error());
    }
    struct stat status {};
    if (lstat(path.c_str(), &status) != 0 || !S_ISREG(status.st_mode)) {
      return failure(Errc::corrupt, what, "its lock object is not a file", "");
    }
    // [L1] seq_cst: the one inode that everybody's locks are on, from now on.
    sync::compare_and_swap(control().lock_inode, 0, std::uint64_t{status.st_ino});
    inode = sync::load_acquire(control().lock_inode);
  }
  const int descriptor = ::open(path.c_str(), O_RDWR | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK);
  if (descriptor < 0) {
    if (errno == ENOENT) return failure(Errc::removed, what, "it was removed", "");
    return failure(Errc::no_permission, what, path + ": " + std::strerror(errno),
                   "its owner decides who may attach");
  }
  sync::LockFile file{descriptor};
  struct stat status {};
  if (fstat(descriptor, &status) != 0 || status.st_ino != inode) {
    // Locks on two inodes would see each other's holders as dead.
    return failure(Errc::corrupt, what, "its lock object was replaced",
                   "remove the queue and create it again");
  }
  return file;
}

bool Segment::lock_is_held(std::uint64_t byte) const noexcept {
  const std::string path = path_of(base::lock_object_name(name_space_, queue_));
  const int descriptor = ::open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK);
  if (descriptor < 0) return true;
  struct flock lock {};
  lock.l_type = F_WRLCK;
  lock.l_whence = SEEK_SET;
  lock.l_start = static_cast<off_t>(byte);
  lock.l_len = 1;
  const bool held = fcntl(descriptor, F_OFD_GETLK, &lock) != 0 || lock.l_type != F_UNLCK;
  ::close(descriptor);
  return held;
}

}  // namespace shmq::shm
