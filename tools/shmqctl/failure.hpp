// SPDX-License-Identifier: Apache-2.0
//
// How a command of shmqctl fails: one line for people, one exit code for scripts.
//
// Commands throw a Failure; main() alone prints it, as `shmqctl: WHAT: WHY (WHAT TO DO)`.
#pragma once

#include <shmq/error.hpp>
#include <string>
#include <utility>

namespace shmqctl {

/// The exit codes, documented in shmqctl(1). A signal gives 128 + its number.
enum Exit : int {
  exit_ok = 0,
  exit_error = 1,
  exit_usage = 2,
  exit_no_such_thing = 3,
  exit_permission = 4,
  exit_timed_out = 5,
};

struct Failure {
  int exit_code = exit_error;
  std::string what;    ///< what was attempted, on which name
  std::string why;     ///< empty: nothing is printed (a signal ended the command)
  std::string remedy;  ///< may be empty

  /// "WHAT: WHY (REMEDY)" on one line, whatever bytes a name brought along.
  [[nodiscard]] std::string message() const;
};

/// The failure that stands for an error of the library. `what` is used where the error brings none:
/// errors of the data path carry no text.
Failure failure_of(const shmq::Error& error, const std::string& what);

/// A failure of a system call, from errno.
Failure failure_of_errno(int error_number, std::string what, std::string remedy = {});

inline Failure usage_failure(std::string what, std::string why) {
  return {exit_usage, std::move(what), std::move(why), "see shmqctl --help"};
}

/// The value, or its error thrown as a Failure.
template <typename T>
T take(shmq::Result<T> result, const std::string& what) {
  if (!result) throw failure_of(result.error(), what);
  if constexpr (!std::is_void_v<T>) return std::move(*result);
}

}  // namespace shmqctl
