// SPDX-License-Identifier: Apache-2.0
//
// From error codes to exit codes, and the remedies for errors that bring no text of their own.
#include "failure.hpp"

#include <shmq/remedy.hpp>
#include <system_error>

namespace shmqctl {
namespace {

int exit_code_of(const std::error_code& code) {
  if (code.category() == std::generic_category() || code.category() == std::system_category()) {
    if (code.value() == EACCES || code.value() == EPERM) return exit_permission;
    if (code.value() == ENOENT) return exit_no_such_thing;
    if (code.value() == ETIMEDOUT) return exit_timed_out;
    return exit_error;
  }
  switch (static_cast<shmq::Errc>(code.value())) {
    case shmq::Errc::invalid_argument:
    case shmq::Errc::invalid_name: return exit_usage;
    case shmq::Errc::no_such_queue:
    case shmq::Errc::no_such_group:
    case shmq::Errc::removed: return exit_no_such_thing;
    case shmq::Errc::no_permission:
    case shmq::Errc::foreign_owner: return exit_permission;
    case shmq::Errc::timed_out: return exit_timed_out;
    default: return exit_error;
  }
}

// Where the command line knows better than the library, which knows no options.
std::string default_remedy(const std::error_code& code) {
  if (code.category() != shmq::error_category()) return shmq::remedy_for(code);
  switch (static_cast<shmq::Errc>(code.value())) {
    case shmq::Errc::foreign_owner: return "name the owner with --trust-owner if you trust it";
    case shmq::Errc::full: return "consume or purge, or give another --overflow at creation";
    case shmq::Errc::timed_out: return "give a longer --timeout";
    case shmq::Errc::in_flight_limit:
      return "settle messages first, or create the queue with a larger --window";
    default: return shmq::remedy_for(code);
  }
}

}  // namespace

std::string Failure::message() const {
  std::string text = what;
  if (!why.empty()) text += (text.empty() ? "" : ": ") + why;
  if (!remedy.empty()) text += " (" + remedy + ")";
  for (char& c : text) {
    // A name given by the user may hold anything; the promise is one line, without escapes.
    if (static_cast<unsigned char>(c) < 0x20 || c == 0x7f) c = c == '\n' ? ' ' : '?';
  }
  return text;
}

Failure failure_of(const shmq::Error& error, const std::string& what) {
  const std::error_code code = error.code();
  return {exit_code_of(code), error.what().empty() ? what : error.what(), error.why(),
          error.remedy().empty() ? default_remedy(code) : error.remedy()};
}

Failure failure_of_errno(int error_number, std::string what, std::string remedy) {
  const std::error_code code{error_number, std::generic_category()};
  return {exit_code_of(code), std::move(what), code.message(),
          remedy.empty() ? default_remedy(code) : std::move(remedy)};
}

}  // namespace shmqctl
