// SPDX-License-Identifier: Apache-2.0
//
// The texts of Errc, and the one-line form of an Error.
#include <cerrno>
#include <shmq/error.hpp>
#include <shmq/remedy.hpp>
#include <shmq/version.hpp>

namespace shmq {
namespace {

const char* text_of(Errc code) noexcept {
  switch (code) {
    case Errc::ok: return "no error";
    case Errc::full: return "the queue is full";
    case Errc::timed_out: return "timed out";
    case Errc::interrupted: return "interrupted";
    case Errc::not_published: return "not published: the daemon is not running, or its disk fails";
    case Errc::published_unconfirmed:
      return "published, but its durability was not confirmed in time";
    case Errc::message_too_large: return "the message is larger than the queue's max_message_bytes";
    case Errc::in_flight_limit:
      return "this consumer holds as many unsettled messages as the group allows";
    case Errc::invalid_argument: return "invalid argument";
    case Errc::invalid_name: return "not a valid name";
    case Errc::no_such_queue: return "no such queue";
    case Errc::no_such_group: return "no such group";
    case Errc::already_exists: return "it exists already";
    case Errc::exists_with_other_limits: return "it exists with other limits";
    case Errc::wrong_group_mode: return "the group has another mode";
    case Errc::not_enough_memory: return "not enough shared memory";
    case Errc::no_permission: return "permission denied";
    case Errc::foreign_owner: return "it belongs to a user who is not trusted";
    case Errc::not_a_segment: return "it is not a segment of libshmq";
    case Errc::version_mismatch: return "it was made by another version";
    case Errc::corrupt: return "the segment is corrupt";
    case Errc::removed: return "it was removed";
    case Errc::too_many_participants: return "no free participant entry";
    case Errc::too_many_producers: return "as many producers are attached as the arena allows";
    case Errc::too_many_groups: return "no free group entry";
    case Errc::closed: return "the handle is closed";
    case Errc::forked: return "the handle belongs to the parent process";
    case Errc::busy: return "another process is administering it";
    case Errc::daemon_away: return "the daemon is not running";
    case Errc::not_retained: return "the message is no longer held";
    case Errc::not_durable:
      return "the queue is not durable, messages and acks last in memory only";
    case Errc::degraded: return "the daemon cannot write to its disk";
  }
  return "unknown error";
}

std::string remedy_of(Errc code) {
  switch (code) {
    case Errc::ok: return "nothing is to be done";
    case Errc::full: return "consume or purge, or create the queue with another overflow policy";
    case Errc::timed_out: return "give it more time";
    case Errc::interrupted: return "do it again if it is still wanted";
    case Errc::not_published: return "see shmqctl daemon status";
    case Errc::published_unconfirmed: return "it is in the queue: wait with shmqctl sync";
    case Errc::message_too_large: return "see max_message_bytes in shmqctl queue info";
    case Errc::in_flight_limit:
      return "settle messages first, or create the queue with a larger window";
    case Errc::invalid_argument: return "give a value in its range, see shmq(7)";
    case Errc::invalid_name: return "use [a-z0-9][a-z0-9._-]{0,63}";
    case Errc::no_such_queue: return "create it with shmqctl queue create";
    case Errc::no_such_group: return "create it with shmqctl group create";
    case Errc::already_exists: return "use it as it is, or remove it first";
    case Errc::exists_with_other_limits: return "see shmqctl queue info";
    case Errc::wrong_group_mode: return "see shmqctl group ls";
    case Errc::not_enough_memory: return "make /dev/shm larger, or the queue smaller";
    case Errc::no_permission: return "have its owner or group let you, see shmqctl queue info";
    case Errc::foreign_owner: return "name the owner as trusted if you trust it";
    case Errc::not_a_segment: return "remove the object if nobody needs it";
    case Errc::version_mismatch:
      return "use the version that made it, or remove it: shmqctl queue rm";
    case Errc::corrupt:
      return "see shmqctl doctor; what only memory held is lost with: shmqctl queue rm";
    case Errc::removed: return "create it again if it is still wanted";
    case Errc::too_many_participants:
    case Errc::too_many_producers: return "see shmqctl consumer ls";
    case Errc::too_many_groups: return "remove a group, or create the queue for more";
    case Errc::closed: return "make a new handle";
    case Errc::forked: return "open the queue in the child itself";
    case Errc::busy: return "try again";
    case Errc::daemon_away: return "start it: shmqd";
    case Errc::not_retained: return "begin at the oldest message held";
    case Errc::not_durable:
      return "ask for durability memory, or create the queue with durable = true (--durable)";
    case Errc::degraded: return "see shmqctl daemon status; it tries again by itself";
  }
  return "see shmqctl doctor";
}

std::string remedy_of_errno(int code) {
  switch (code) {
    case EPERM:
    case EACCES: return "do it as a user who may, or change owner, group or mode";
    case ENOENT: return "see that the name is right";
    case EEXIST: return "use another name, or remove what is there";
    case ENOTDIR:
    case EISDIR:
    case ELOOP: return "name another place";
    case ENAMETOOLONG: return "choose a shorter one";
    case ENOSPC:
    case EDQUOT: return "make room there";
    case EROFS: return "name a place that can be written";
    case EMFILE: return "raise the limit of open files: ulimit -n, LimitNOFILE=";
    case ENFILE: return "raise the system's limit: sysctl fs.file-max";
    case ENOMEM:
    case EAGAIN: return "free memory, or raise the limit of the service, and try again";
    case EIO: return "look into the kernel's log for the disk";
    case EPIPE: return "see why the reader went away";
    case EADDRINUSE: return "stop who uses it, or choose another";
    case ETIMEDOUT: return "give it more time";
    case EINTR: return "do it again";
    default: return "see shmqctl doctor";
  }
}

class Category final : public std::error_category {
 public:
  [[nodiscard]] const char* name() const noexcept override { return "shmq"; }
  [[nodiscard]] std::string message(int code) const override {
    return text_of(static_cast<Errc>(code));
  }
};

}  // namespace

const std::error_category& error_category() noexcept {
  static const Category category;
  return category;
}

std::string remedy_for(std::error_code code) {
  if (code.category() == error_category()) return remedy_of(static_cast<Errc>(code.value()));
  return remedy_of_errno(code.default_error_condition().value());
}

std::string Error::message() const {
  const std::string text = what_.empty() ? why() : what_ + ": " + why();
  return text + " (" + (remedy_.empty() ? remedy_for(code_) : remedy_) + ")";
}

#define SHMQ_TEXT_(x) #x
#define SHMQ_TEXT(x) SHMQ_TEXT_(x)
const char* version() noexcept {
  return SHMQ_TEXT(SHMQ_VERSION_MAJOR) "." SHMQ_TEXT(SHMQ_VERSION_MINOR) "." SHMQ_TEXT(
      SHMQ_VERSION_PATCH);
}

}  // namespace shmq
