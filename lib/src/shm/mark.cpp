// SPDX-License-Identifier: Apache-2.0
#include "shm/mark.hpp"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#define XXH_INLINE_ALL
#include <xxhash.h>

#include <cstring>

#include "base/mutant.hpp"
#include "base/names.hpp"
#include "shm/initialise.hpp"
#include "shm/segment.hpp"
#include "sync/event.hpp"

namespace shmq::shm {
namespace {

tl::unexpected<Error> failure(Errc code, const std::string& what, std::string why,
                              std::string remedy) {
  return tl::unexpected(Error{make_error_code(code), what, std::move(why), std::move(remedy)});
}

tl::unexpected<Error> system_failure(int code, const std::string& what, const std::string& path) {
  return tl::unexpected(
      Error{{code, std::generic_category()}, what, path + ": " + std::strerror(code), ""});
}

std::string path_of(const MarkIdentity& identity) {
  return std::string{shared_memory_directory} + "/" +
         base::mark_object_name(identity.name_space, identity.queue);
}

std::uint64_t mark_checksum(const Mark& mark) noexcept {
  return XXH3_64bits(&mark, offsetof(Mark, checksum));
}

// The fixed part, from a private copy. Empty: it is of this queue and this boot.
std::string find_fault(int descriptor, const MarkIdentity& identity) {
  struct stat status {};
  if (fstat(descriptor, &status) != 0 || !S_ISREG(status.st_mode)) return "it is not a file";
  if (status.st_size != static_cast<off_t>(sizeof(Mark))) return "it has the wrong length";
  if ((status.st_mode & 022) != 0 && !base::mutant(71)) return "others than its owner may write it";
  Mark copy;
  constexpr std::size_t fixed = offsetof(Mark, watermark);
  if (pread(descriptor, &copy, fixed, 0) != static_cast<ssize_t>(fixed)) return "it is unreadable";
  if (copy.magic != mark_magic) return "it is no watermark object of libshmq";
  if (copy.abi_version != abi_version || copy.mark_bytes != sizeof(Mark) ||
      copy.layout_hash != layout_hash) {
    return "it was made by another version";
  }
  if (copy.checksum != mark_checksum(copy)) return "its fixed part is damaged";
  std::uint8_t boot_id[16];
  read_boot_id(boot_id);
  if (std::memcmp(copy.boot_id, boot_id, sizeof(boot_id)) != 0) {
    return "it was made before this host booted";
  }
  if (std::memcmp(copy.queue_uuid, identity.queue_uuid, sizeof(copy.queue_uuid)) != 0) {
    return "it belongs to another queue";
  }
  return {};
}

// Opened without following links or waiting for a fifo. -1: errno says why.
int open_object(const std::string& path, int access) noexcept {
  return ::open(path.c_str(), access | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK);
}

// Readable for whom the segment is, writable for the daemon alone. An owner of the segment who is
// not the daemon's user reads it as "others" do; it holds no secret.
mode_t mode_for(const Segment& segment) noexcept {
  const mode_t readers = segment.owner() == geteuid() ? segment.mode() & 0044 : 0044;
  return 0600 | readers;
}

Result<SharedObject> make_object(const Segment& segment, const MarkIdentity& identity,
                                 const std::string& what) {
  const std::string path = path_of(identity);
  const int descriptor = ::open(shared_memory_directory, O_TMPFILE | O_RDWR | O_CLOEXEC, 0600);
  if (descriptor < 0) return system_failure(errno, what, shared_memory_directory);
  SharedObject object{descriptor};
  Mark mark;
  std::memset(&mark, 0, sizeof(mark));
  mark.magic = mark_magic;
  mark.abi_version = abi_version;
  mark.mark_bytes = sizeof(Mark);
  mark.layout_hash = layout_hash;
  std::memcpy(mark.queue_uuid, identity.queue_uuid, sizeof(mark.queue_uuid));
  read_boot_id(mark.boot_id);
  mark.checksum = mark_checksum(mark);
  mark.daemon_state = static_cast<std::uint32_t>(DaemonState::starting);
  // All of it now: a full /dev/shm is an error here, and never a SIGBUS later.
  const int code = posix_fallocate(descriptor, 0, sizeof(Mark));
  if (code != 0) return system_failure(code, what, path);
  if (pwrite(descriptor, &mark, sizeof(mark), 0) != static_cast<ssize_t>(sizeof(mark))) {
    return system_failure(errno, what, path);
  }
  if (fchown(descriptor, static_cast<uid_t>(-1), segment.owner_group()) != 0) {
    // Not a member of that group: it reads as others do, if the mode lets others.
  }
  if (fchmod(descriptor, mode_for(segment)) != 0) return system_failure(errno, what, path);
  const std::string self = "/proc/thread-self/fd/" + std::to_string(descriptor);
  for (int attempt = 0; attempt < 3; ++attempt) {
    if (linkat(AT_FDCWD, self.c_str(), AT_FDCWD, path.c_str(), AT_SYMLINK_FOLLOW) == 0) {
      return object;
    }
    // What is there was found to be none of this segment: of a queue that is gone, or planted.
    if (errno != EEXIST || (::unlink(path.c_str()) != 0 && errno != ENOENT)) break;
  }
  return system_failure(errno, what, path);
}

}  // namespace

Result<Mapping> open_mark(const MarkIdentity& identity, const std::vector<uid_t>& trusted_owners,
                          const std::string& what) {
  const std::string path = path_of(identity);
  const int descriptor = open_object(path, O_RDONLY);
  if (descriptor < 0 && errno == ENOENT) {
    return failure(Errc::daemon_away, what, "its watermark object is missing",
                   "the daemon makes it: see that it runs");
  }
  if (descriptor < 0) return system_failure(errno, what, path);
  const SharedObject object{descriptor};
  struct stat status {};
  if (fstat(descriptor, &status) != 0) return system_failure(errno, what, path);
  if (!is_trusted_owner(status.st_uid, trusted_owners)) {
    return failure(
        Errc::foreign_owner, what,
        "its watermark object belongs to uid " + std::to_string(status.st_uid) + ", not trusted",
        "name the daemon's user with --trust-owner if you trust it");
  }
  if (const std::string fault = find_fault(descriptor, identity); !fault.empty()) {
    return failure(Errc::daemon_away, what, path + ": " + fault,
                   "the daemon makes a new one when it starts");
  }
  auto mapping = Mapping::map(descriptor, false, 0, sizeof(Mark));
  if (!mapping) return tl::unexpected(Error{mapping.error(), what, mapping.error().message(), ""});
  return std::move(*mapping);
}

std::string journal_directory(const Mark& mark) {
  std::uint64_t words[mark_journal_words];
  for (std::size_t i = 0; i < mark_journal_words; ++i) {
    words[i] = sync::load_acquire(mark.journal_path[i]);
  }
  char text[sizeof(words)];
  std::memcpy(text, words, sizeof(words));
  text[sizeof(text) - 1] = '\0';
  return text;
}

Result<MarkWriter> MarkWriter::open(const Segment& segment) {
  const std::string what = segment.describe("write the watermark of");
  MarkIdentity identity{.name_space = segment.name_space(), .queue = segment.queue()};
  std::memcpy(identity.queue_uuid, segment.header().uuid, sizeof(identity.queue_uuid));
  SharedObject object{open_object(path_of(identity), O_RDWR)};
  bool is_ours = object.descriptor() >= 0 && find_fault(object.descriptor(), identity).empty();
  if (is_ours) {
    struct stat status {};
    is_ours = fstat(object.descriptor(), &status) == 0 && status.st_uid == geteuid();
  }
  if (!is_ours) {
    auto made = make_object(segment, identity, what);
    if (!made) return tl::unexpected(made.error());
    object = std::move(*made);
  }
  auto mapping = Mapping::map(object.descriptor(), true, 0, sizeof(Mark));
  if (!mapping) return tl::unexpected(Error{mapping.error(), what, mapping.error().message(), ""});
  MarkWriter writer;
  writer.mapping_ = std::move(*mapping);
  writer.mark_ = reinterpret_cast<Mark*>(writer.mapping_.data());
  return writer;
}

void MarkWriter::notify() noexcept {
  // Always a system call: a reader cannot say in a read-only mapping that it sleeps, and a barrier
  // costs a hundred times as much.
  sync::event_wake_unconditionally(mark_->progress_event);
}

void MarkWriter::begin_epoch(std::uint64_t epoch) noexcept {
  sync::store_release(mark_->epoch, epoch);
  set_state(DaemonState::starting);
}

void MarkWriter::advance(const MarkProgress& progress) noexcept {
  // The daemon is the only writer, so a plain look at what stands there is enough.
  const auto raise = [](std::uint64_t& word, std::uint64_t value) {
    if (value > sync::load_relaxed(word)) sync::store_release(word, value);
  };
  raise(mark_->seq_ceiling, progress.seq_ceiling);
  raise(mark_->acks_synced, progress.acks_synced);
  SHMQ_CRASH_POINT("mark.before_watermark");
  // [M1] release, pairs with H3 (head) and with who waits for synced: the barrier has completed,
  // and the feed's copies were made, before head may pass.
  raise(mark_->watermark, progress.watermark);
  notify();
}

std::uint64_t MarkWriter::begin_look() noexcept {
  const std::uint64_t number = sync::load_relaxed(mark_->acks_looked) + 1;
  // [M2] A full fence behind it, pairs with that of an ack's CAS: who acked before it read a lower
  // number is seen by this look.
  sync::store_release(mark_->acks_looked, number);
  sync::full_fence();
  return number;
}

void MarkWriter::set_first_retained(std::uint64_t seq) noexcept {
  // [M3] Pairs with a birth's full barrier between its floor and its look at this word.
  sync::store_release(mark_->first_retained, seq);
  sync::full_fence();
}

void MarkWriter::set_doorbell(const std::string& path) noexcept {
  std::uint64_t words[mark_path_words] = {};
  if (path.size() < sizeof(words)) std::memcpy(words, path.data(), path.size());
  for (std::size_t i = 0; i < mark_path_words; ++i) {
    sync::store_release(mark_->doorbell_path[i], words[i]);
  }
}

void MarkWriter::set_journal(const std::string& directory) noexcept {
  std::uint64_t words[mark_journal_words] = {};
  if (directory.size() < sizeof(words)) std::memcpy(words, directory.data(), directory.size());
  for (std::size_t i = 0; i < mark_journal_words; ++i) {
    sync::store_release(mark_->journal_path[i], words[i]);
  }
}

void MarkWriter::set_state(DaemonState state) noexcept {
  sync::store_release(mark_->daemon_state, static_cast<std::uint32_t>(state));
  notify();
}

}  // namespace shmq::shm
