// SPDX-License-Identifier: Apache-2.0
//
// The texts of Errc, and the one-line form of an Error.
#include <shmq/error.hpp>
#include <shmq/version.hpp>

namespace shmq {
namespace {

const char* text_of(Errc code) noexcept {
  switch (code) {
    case Errc::ok: return "no error";
    case Errc::full: return "the queue is full";
    case Errc::timed_out: return "timed out";
    case Errc::interrupted: return "interrupted";
    case Errc::not_published:
      return "not published: the daemon is not running, or its disk fails (see shmqctl daemon "
             "status)";
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
      return "the queue is not durable, messages and acks last in memory only (ask for durability "
             "memory, or create the queue with durable = true)";
    case Errc::degraded:
      return "the daemon cannot write to its disk (see shmqctl daemon status; it tries again by "
             "itself)";
  }
  return "unknown error";
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

std::string Error::message() const {
  std::string text = what_.empty() ? why() : what_ + ": " + why();
  if (!remedy_.empty()) text += " (" + remedy_ + ")";
  return text;
}

#define SHMQ_TEXT_(x) #x
#define SHMQ_TEXT(x) SHMQ_TEXT_(x)
const char* version() noexcept {
  return SHMQ_TEXT(SHMQ_VERSION_MAJOR) "." SHMQ_TEXT(SHMQ_VERSION_MINOR) "." SHMQ_TEXT(
      SHMQ_VERSION_PATCH);
}

}  // namespace shmq
