// SPDX-License-Identifier: Apache-2.0
//
// Opening and creating. Removal and naming stand in naming.cpp.
#include "shm/segment.hpp"

#include <fcntl.h>
#include <pwd.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <unistd.h>

#include <algorithm>
#include <cstring>
#include <set>

#include "base/assert.hpp"
#include "base/names.hpp"
#include "shm/initialise.hpp"
#include "shm/mark.hpp"
#include "shm/naming.hpp"

namespace shmq::shm {
namespace {

std::string describe_queue(const char* verb, const std::string& queue) {
  return std::string{verb} + " queue '" + queue + "'";
}

tl::unexpected<Error> failure(Errc code, std::string what, std::string why, std::string remedy) {
  return tl::unexpected(
      Error{make_error_code(code), std::move(what), std::move(why), std::move(remedy)});
}

std::string mebibytes(std::uint64_t bytes) {
  return std::to_string((bytes + 1048575) >> 20) + " MiB";
}

// A message of its own for what users meet; anything else keeps errno.
tl::unexpected<Error> open_failure(std::error_code code, const std::string& queue,
                                   const std::string& what) {
  if (code == std::errc::no_such_file_or_directory) {
    return failure(Errc::no_such_queue, what, "no such queue",
                   "create it: shmqctl queue create " + queue);
  }
  if (code == std::errc::permission_denied || code == std::errc::operation_not_permitted) {
    return failure(Errc::no_permission, what, "permission denied",
                   "its owner decides with --mode and --owner-group at creation");
  }
  return tl::unexpected(Error{code, what, code.message(), ""});
}

Result<void> check_names(const std::string& name_space, const std::string& queue,
                         const std::string& what) {
  if (!base::is_valid_name(name_space)) {
    return failure(Errc::invalid_name, what, "'" + name_space + "' is not a valid namespace",
                   "use [a-z0-9][a-z0-9._-]{0,63}");
  }
  if (!base::is_valid_queue_name(queue)) {
    return failure(Errc::invalid_name, what, "'" + queue + "' is not a valid queue name",
                   "use [a-z0-9][a-z0-9._-]{0,63}, not ending in .lock or .mark");
  }
  return {};
}

Result<std::vector<GroupOptions>> check_groups(const QueueOptions& options, const Limits& limits,
                                               const std::string& what) {
  std::vector<GroupOptions> groups = options.groups;
  if (groups.empty()) groups.push_back({.name = "default"});
  std::set<std::string> names;
  for (const GroupOptions& group : groups) {
    if (auto valid = check_group_options(group, limits.durable != 0, what); !valid) {
      return tl::unexpected(valid.error());
    }
    if (!names.insert(group.name).second) {
      return failure(Errc::invalid_argument, what, "group '" + group.name + "' is named twice", "");
    }
  }
  if (groups.size() > limits.max_groups) {
    return failure(Errc::too_many_groups, what, "more groups than max_groups",
                   "raise max_groups, at most 1024");
  }
  return groups;
}

}  // namespace

Result<void> check_group_options(const GroupOptions& group, bool is_durable,
                                 const std::string& what) {
  if (!base::is_valid_name(group.name)) {
    return failure(Errc::invalid_name, what, "'" + group.name + "' is not a valid group name",
                   "use [a-z0-9][a-z0-9._-]{0,63}");
  }
  if (group.mode != GroupMode::exclusive && group.mode != GroupMode::shared) {
    return failure(Errc::invalid_argument, what, "group '" + group.name + "': no such mode",
                   "use exclusive or shared");
  }
  if (group.delivery_limit < 1 || group.delivery_limit > 63) {
    return failure(Errc::invalid_argument, what,
                   "group '" + group.name + "': the delivery limit must be from 1 to 63", "");
  }
  if (group.lease.count() < 0 || group.lease > std::chrono::hours{1}) {
    return failure(Errc::invalid_argument, what,
                   "group '" + group.name + "': the lease must be from 0 to 1 hour", "");
  }
  if (group.expire_idle.count() == 0) return {};
  if (!is_durable) {
    return failure(Errc::invalid_argument, what,
                   "group '" + group.name + "': only groups of durable queues expire", "");
  }
  if (group.expire_idle < std::chrono::seconds{1} ||
      group.expire_idle > std::chrono::hours{24 * 3660}) {
    return failure(Errc::invalid_argument, what,
                   "group '" + group.name + "': it expires after 1 s to 10 years without consumers",
                   "");
  }
  return {};
}

bool is_trusted_owner(uid_t owner, const std::vector<uid_t>& trusted) {
  if (owner == geteuid()) return true;
  if (std::find(trusted.begin(), trusted.end(), owner) != trusted.end()) return true;
  passwd entry{};
  passwd* found = nullptr;
  std::vector<char> buffer(16384);
  return getpwnam_r("shmq", &entry, buffer.data(), buffer.size(), &found) == 0 &&
         found != nullptr && found->pw_uid == owner;
}

std::string Segment::describe(const char* verb) const { return describe_queue(verb, queue_); }

// --- Creation ----------------------------------------------------------------------------------

namespace {

Result<void> set_ownership(int descriptor, const QueueOptions& options, const std::string& what) {
  if (options.owner || options.owner_group) {
    const uid_t owner = options.owner.value_or(static_cast<uid_t>(-1));
    const gid_t group = options.owner_group.value_or(static_cast<gid_t>(-1));
    if (fchown(descriptor, owner, group) != 0) {
      return failure(Errc::no_permission, what,
                     std::string{"cannot set owner or group: "} + std::strerror(errno),
                     "name a group that you belong to");
    }
  }
  // fchmod and not the mode of open(): the umask has no say here.
  if (fchmod(descriptor, options.mode & 0777) != 0) {
    return tl::unexpected(Error{{errno, std::generic_category()}, what, std::strerror(errno), ""});
  }
  return {};
}

Result<void> allocate(int descriptor, std::uint64_t bytes, const std::string& what) {
  // All of it now: a full /dev/shm is an error here, and never a SIGBUS later.
  int code;
  do {
    code = posix_fallocate(descriptor, 0, static_cast<off_t>(bytes));
  } while (code == EINTR);
  if (code == 0) return {};
  if (code == ENOSPC || code == ENOMEM || code == EFBIG) {
    const std::string directory{shared_memory_directory};
    std::string why = directory + " has no room for " + mebibytes(bytes);
    struct statvfs system {};
    if (fstatvfs(descriptor, &system) == 0 && system.f_blocks != 0) {
      why += ": " + mebibytes(system.f_blocks * system.f_frsize) + " in all, " +
             mebibytes(system.f_bavail * system.f_frsize) + " free";
    }
    return failure(Errc::not_enough_memory, what, std::move(why),
                   "choose a smaller arena, window and number of groups, or enlarge it: "
                   "mount -o remount,size=… " +
                       directory);
  }
  return tl::unexpected(Error{{code, std::generic_category()}, what, std::strerror(code), ""});
}

}  // namespace

Result<std::shared_ptr<Segment>> Segment::create(
    const std::string& queue, const QueueOptions& options, Authority authority,
    const std::optional<std::array<std::uint8_t, 16>>& uuid) {
  const std::string what = describe_queue("create", queue);
  const std::string name_space = base::resolve_namespace(options.name_space);
  if (auto valid = check_names(name_space, queue, what); !valid)
    return tl::unexpected(valid.error());
  if (options.durable && authority != Authority::daemon) {
    return failure(Errc::daemon_away, what, "only the daemon creates durable queues, and none runs",
                   "leave out durable: this version has no daemon");
  }
  const Limits limits = limits_from(options);
  if (std::string wrong = check_limits(limits); !wrong.empty()) {
    return failure(Errc::invalid_argument, what, std::move(wrong), "");
  }
  auto groups = check_groups(options, limits, what);
  if (!groups) return tl::unexpected(groups.error());

  const int descriptor = ::open(shared_memory_directory, O_TMPFILE | O_RDWR | O_CLOEXEC, 0600);
  if (descriptor < 0) {
    return tl::unexpected(Error{{errno, std::generic_category()},
                                what,
                                std::string{shared_memory_directory} + ": " + std::strerror(errno),
                                ""});
  }
  const SharedObject object{descriptor};
  Header header = make_header(name_space, queue, limits);
  if (uuid) {
    std::memcpy(header.uuid, uuid->data(), sizeof(header.uuid));
    header.checksum = header_checksum(header);
  }
  if (auto done = allocate(descriptor, header.segment_bytes, what); !done) {
    return tl::unexpected(done.error());
  }
  {
    auto mapping = Mapping::map(descriptor, true, 0, header.parts[part_arena].offset);
    if (!mapping)
      return tl::unexpected(Error{mapping.error(), what, mapping.error().message(), ""});
    initialise(mapping->data(), header, *groups);
  }
  if (auto done = set_ownership(descriptor, options, what); !done) {
    return tl::unexpected(done.error());
  }
  // The moment: before it there is nothing, after it a whole queue.
  if (auto linked = link_new_segment(descriptor, name_space, queue, what); !linked) {
    return tl::unexpected(linked.error());
  }
  OpenOptions open_options{.name_space = name_space, .trusted_owners = options.trusted_owners};
  if (options.owner) open_options.trusted_owners.push_back(*options.owner);
  auto opened = open(queue, open_options, authority);
  if (!opened) return opened;
  // Made now, while its owner and mode can be those of the segment; a creator killed before this
  // leaves it to the first participant.
  if (auto lock = (*opened)->open_lock_file(); !lock) return tl::unexpected(lock.error());
  return opened;
}

// --- Opening -----------------------------------------------------------------------------------

Result<void> Segment::read_header(int descriptor, std::uint64_t file_bytes,
                                  const std::string& what) {
  const auto foreign = [&](std::string why) {
    return failure(Errc::not_a_segment, what, std::move(why),
                   "remove it if it is not in use: shmqctl queue rm " + queue_);
  };
  const auto version = [&](std::string why) {
    return failure(Errc::version_mismatch, what, std::move(why),
                   "use the version that made it, or remove it: shmqctl queue rm " + queue_);
  };
  const auto corrupt = [&](std::string why) {
    return failure(Errc::corrupt, what, std::move(why), "remove it: shmqctl queue rm " + queue_);
  };
  if (file_bytes < sizeof(Header)) return foreign("too short to be a segment");
  // pread into private memory: nobody can change the copy between the check and the use.
  if (pread(descriptor, &header_, sizeof(header_), 0) != static_cast<ssize_t>(sizeof(header_))) {
    return foreign("cannot read its header");
  }
  if (header_.magic != segment_magic) return foreign("it is not a segment of libshmq");
  if (header_.byte_order != byte_order_mark ||
      header_.architecture != static_cast<std::uint32_t>(this_architecture)) {
    return version("it was made on another architecture");
  }
  if (header_.abi_version != abi_version) {
    return version("it has ABI version " + std::to_string(header_.abi_version) +
                   ", this library speaks " + std::to_string(abi_version));
  }
  if (header_.header_bytes != sizeof(Header) || header_.layout_hash != layout_hash) {
    return version("its layout differs from this library's");
  }
  if ((header_.incompatible_flags & ~known_incompatible_flags) != 0) {
    return version("it uses features that this library does not know");
  }
  if (header_.checksum != header_checksum(header_)) return corrupt("its header is damaged");
  std::uint8_t boot_id[16];
  read_boot_id(boot_id);
  if (std::memcmp(boot_id, header_.boot_id, sizeof(boot_id)) != 0) {
    return version("it was made before this host booted");
  }
  if (header_.page_bytes != static_cast<std::uint32_t>(sysconf(_SC_PAGESIZE))) {
    return version("it was made with another page size");
  }
  if (std::string wrong = check_limits(header_.limits); !wrong.empty()) {
    return corrupt("its limits contradict each other: " + wrong);
  }
  const Geometry geometry = compute_geometry(header_.limits, header_.page_bytes);
  if (geometry.segment_bytes != header_.segment_bytes ||
      std::memcmp(geometry.parts, header_.parts, sizeof(geometry.parts)) != 0) {
    return corrupt("its parts are not where they should be");
  }
  if (file_bytes != header_.segment_bytes) {
    return failure(Errc::not_a_segment, what,
                   (file_bytes < header_.segment_bytes ? "it is truncated: " : "it is too long: ") +
                       std::to_string(file_bytes) + " of " + std::to_string(header_.segment_bytes) +
                       " bytes",
                   "remove it: shmqctl queue rm " + queue_);
  }
  header_.name_space[name_field_bytes - 1] = '\0';
  header_.queue[name_field_bytes - 1] = '\0';
  if (name_space_ != header_.name_space || queue_ != header_.queue) {
    return failure(Errc::no_such_queue, what,
                   "this name leads to queue '" + std::string{header_.queue} + "' of namespace '" +
                       header_.name_space + "'",
                   "");
  }
  return {};
}

Result<void> Segment::map(int descriptor) {
  const std::uint64_t body_bytes = header_.parts[part_arena].offset - header_.page_bytes;
  auto body = Mapping::map(descriptor, writable(), header_.page_bytes, body_bytes);
  if (!body) {
    return tl::unexpected(Error{body.error(), describe("map"), body.error().message(), ""});
  }
  auto arena =
      Mapping::map(descriptor, false, header_.parts[part_arena].offset, header_.limits.arena_bytes);
  if (!arena) {
    return tl::unexpected(Error{arena.error(), describe("map"), arena.error().message(), ""});
  }
  body_ = std::move(*body);
  arena_ = std::move(*arena);
  return {};
}

Result<std::shared_ptr<Segment>> Segment::open(const std::string& queue, const OpenOptions& options,
                                               Authority authority) {
  const std::string what = describe_queue("open", queue);
  const std::string name_space = base::resolve_namespace(options.name_space);
  if (auto valid = check_names(name_space, queue, what); !valid)
    return tl::unexpected(valid.error());

  const std::string name = base::segment_object_name(name_space, queue);
  struct stat status {};
  const std::string path = std::string{shared_memory_directory} + "/" + name;
  // Looked at before it is opened: a fifo under this name would make the open wait.
  if (lstat(path.c_str(), &status) != 0) {
    return open_failure({errno, std::generic_category()}, queue, what);
  }
  if (!S_ISREG(status.st_mode)) {
    return failure(Errc::not_a_segment, what, path + " is not a regular file", "");
  }
  if (!is_trusted_owner(status.st_uid, options.trusted_owners)) {
    return failure(Errc::foreign_owner, what,
                   "it belongs to uid " + std::to_string(status.st_uid) + ", who is not trusted",
                   "name the owner with --trust-owner if you trust them");
  }
  auto object = SharedObject::open(name.c_str(), options.access == Access::participant);
  if (!object) return open_failure(object.error(), queue, what);
  if (fstat(object->descriptor(), &status) != 0 ||
      !is_trusted_owner(status.st_uid, options.trusted_owners)) {
    return failure(Errc::foreign_owner, what, "its owner changed while it was opened", "try again");
  }
  std::shared_ptr<Segment> segment{new Segment};
  segment->queue_ = queue;
  segment->name_space_ = name_space;
  segment->access_ = options.access;
  segment->owner_ = status.st_uid;
  segment->owner_group_ = status.st_gid;
  segment->mode_ = status.st_mode & 07777;
  segment->inode_ = status.st_ino;
  if (auto read = segment->read_header(object->descriptor(),
                                       static_cast<std::uint64_t>(status.st_size), what);
      !read) {
    return tl::unexpected(read.error());
  }
  if (auto mapped = segment->map(object->descriptor()); !mapped) {
    return tl::unexpected(mapped.error());
  }
  segment->object_ = std::move(*object);
  const std::uint32_t state = sync::load_acquire(segment->control().queue_state);
  if (state == static_cast<std::uint32_t>(QueueState::removed)) {
    // A remover died half-way: the queue is gone; finish for it if we may.
    finish_removal(name_space, queue);
    return failure(Errc::no_such_queue, what, "no such queue",
                   "create it: shmqctl queue create " + queue);
  }
  if (state != static_cast<std::uint32_t>(QueueState::active)) {
    return failure(Errc::corrupt, what, "its state word is damaged",
                   "remove it: shmqctl queue rm " + queue);
  }
  if (segment->limits().durable != 0 && authority != Authority::daemon) {
    if (auto mapped = segment->map_mark(options.trusted_owners); !mapped) {
      return tl::unexpected(mapped.error());
    }
    // acquire: before the first ceiling is durable no seq may be given out, or a power loss could
    // give it out a second time.
    if (sync::load_acquire(segment->mark()->seq_ceiling) == 0) {
      return failure(Errc::daemon_away, what, "the daemon has not begun its journal yet",
                     "see that it runs, and try again");
    }
  }
  return segment;
}

Result<void> Segment::map_mark(const std::vector<uid_t>& trusted_owners) {
  MarkIdentity identity{.name_space = name_space_, .queue = queue_};
  std::memcpy(identity.queue_uuid, header_.uuid, sizeof(identity.queue_uuid));
  auto mapping = open_mark(identity, trusted_owners, describe("open"));
  if (!mapping) return tl::unexpected(mapping.error());
  mark_ = std::move(*mapping);
  return {};
}

Result<void> Segment::write_arena(std::uint64_t offset, std::span<const std::byte> bytes) {
  SHMQ_ASSERT(bytes.size() <= limits().arena_bytes &&
              offset <= limits().arena_bytes - bytes.size());
  std::uint64_t at = header_.parts[part_arena].offset + offset;
  while (!bytes.empty()) {
    const ssize_t put =
        pwrite(object_.descriptor(), bytes.data(), bytes.size(), static_cast<off_t>(at));
    if (put < 0 && errno == EINTR) continue;
    if (put <= 0) {
      const std::error_code code{put < 0 ? errno : EIO, std::generic_category()};
      return tl::unexpected(Error{code, describe("fill"), code.message(), ""});
    }
    at += static_cast<std::uint64_t>(put);
    bytes = bytes.subspan(static_cast<std::size_t>(put));
  }
  return {};
}

Result<std::byte*> Segment::writable_arena() {
  const std::lock_guard guard{writable_arena_mutex_};
  if (writable_arena_.data() == nullptr) {
    auto mapping = Mapping::map(object_.descriptor(), true, header_.parts[part_arena].offset,
                                header_.limits.arena_bytes);
    if (!mapping) {
      return tl::unexpected(Error{mapping.error(), describe("map"), mapping.error().message(), ""});
    }
    writable_arena_ = std::move(*mapping);
  }
  return writable_arena_.data();
}

}  // namespace shmq::shm
