// SPDX-License-Identifier: Apache-2.0
//
// What can go wrong, and how it is told.
//
// The library throws nothing. A call that depends on its environment returns Result<T>; an
// everyday outcome (nothing came, the lease is lost) is a value of the call's own type.
#pragma once

#include <cstdint>
#include <string>
#include <system_error>
#include <tl/expected.hpp>

#if defined(__GNUC__)
#define SHMQ_API __attribute__((visibility("default")))
#else
#define SHMQ_API
#endif

namespace shmq {

/// Errors of this library. Those of the system stay errno values in std::generic_category().
enum class Errc : std::int32_t {
  ok = 0,
  full,                   ///< no room for the message, and the overflow policy says not to wait
  timed_out,              ///< the time given for waiting is over
  interrupted,            ///< another thread closed or interrupted the handle, or the stop token
  not_published,          ///< nothing happened: its durability cannot be had now
  published_unconfirmed,  ///< the message is in the queue; its durability was not confirmed in time
  message_too_large,      ///< more than the queue's max_message_bytes
  in_flight_limit,        ///< this consumer holds as many unsettled messages as the group's window
  invalid_argument,       ///< an option or a value outside its documented range
  invalid_name,           ///< a queue, group or namespace name outside [a-z0-9][a-z0-9._-]{0,63}
  no_such_queue,
  no_such_group,
  already_exists,            ///< a queue or group of this name exists
  exists_with_other_limits,  ///< open_or_create: it exists, and differs from what was asked for
  wrong_group_mode,          ///< the group's mode is not the one the caller expects
  not_enough_memory,         ///< /dev/shm has no room for a segment of this size
  no_permission,
  foreign_owner,     ///< the segment belongs to a user that the caller does not trust
  not_a_segment,     ///< the object is not a segment: random bytes, truncated, of no known magic
  version_mismatch,  ///< a segment of another ABI version, layout, architecture or boot
  corrupt,           ///< shared bytes contradict each other
  removed,           ///< the queue or the group was removed while this handle was attached
  too_many_participants,
  too_many_producers,
  too_many_groups,
  closed,        ///< the handle was closed or moved from
  forked,        ///< the handle belongs to the parent process
  busy,          ///< another process holds the queue's administration lock
  daemon_away,   ///< only the daemon can do this, and it does not run
  not_retained,  ///< the seq lies below what the queue still holds
  not_durable,   ///< the queue is transient: it keeps messages in memory, and nothing happened
  degraded,      ///< the daemon cannot write to its disk; it tries again by itself
};

/// The category of Errc, named "shmq".
SHMQ_API const std::error_category& error_category() noexcept;

inline std::error_code make_error_code(Errc code) noexcept {
  return {static_cast<int>(code), error_category()};
}

/// A code for programs and a sentence for people.
///
/// message() is one line: what was attempted and on which name, why it failed, and what to do.
/// An Error made on the data path carries no text of its own and allocates nothing.
class SHMQ_API Error {
 public:
  Error(Errc code) noexcept
      : code_(make_error_code(code)) {}  // NOLINT(google-explicit-constructor)
  Error(std::error_code code, std::string what, std::string why, std::string remedy)
      : code_(code), what_(std::move(what)), why_(std::move(why)), remedy_(std::move(remedy)) {}

  [[nodiscard]] std::error_code code() const noexcept { return code_; }
  operator std::error_code() const noexcept {
    return code_;
  }  // NOLINT(google-explicit-constructor)

  /// What was attempted and on which name ("open queue 'orders'"); empty on the data path.
  [[nodiscard]] const std::string& what() const noexcept { return what_; }
  /// The reason; the category's text when none was given.
  [[nodiscard]] std::string why() const { return why_.empty() ? code_.message() : why_; }
  /// What to do about it; may be empty.
  [[nodiscard]] const std::string& remedy() const noexcept { return remedy_; }
  /// "WHAT: WHY (REMEDY)", without WHAT if it is empty, with remedy_for() if it has no remedy.
  [[nodiscard]] std::string message() const;

  friend bool operator==(const Error& left, Errc right) noexcept {
    return left.code_ == make_error_code(right);
  }

 private:
  std::error_code code_;
  std::string what_;
  std::string why_;
  std::string remedy_;
};

template <typename T>
using Result = tl::expected<T, Error>;

}  // namespace shmq

template <>
struct std::is_error_code_enum<shmq::Errc> : std::true_type {};
