// SPDX-License-Identifier: Apache-2.0
//
// What goes to stdout: aligned tables for people, JSON for programs, messages as bytes.
#pragma once

#include <cstddef>
#include <nlohmann/json.hpp>
#include <optional>
#include <shmq/info.hpp>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "context.hpp"

namespace shmqctl {

using Json = nlohmann::ordered_json;

inline constexpr int json_schema_version = 1;

/// Rows of cells, printed aligned; columns named in `right_aligned` by number hold figures.
class Table {
 public:
  explicit Table(std::vector<std::string> headers, std::vector<std::size_t> right_aligned = {});
  void add(std::vector<std::string> row);
  /// Prints headers (bold on a terminal that wants colour) unless --no-headers.
  void print(const Context& context) const;

 private:
  std::vector<std::vector<std::string>> rows_;
  std::vector<bool> right_;
};

/// Prints {"schema_version": 1, …fields}.
void print_json(const Json& fields);
/// A remark for people ("queue 'q' created"): not with --quiet, and not in JSON output.
void print_remark(const Context& context, const std::string& text);

/// Writes all of it with write(2), or throws: a reader that went away is a Failure with exit 1,
/// a stop request ends with that signal's exit code. `what` names the attempt.
void write_all(int fd, std::string_view bytes, const StopSignals* stop, const std::string& what);

// --- messages ----------------------------------------------------------------------------------

enum class Framing { newline, nul, length, json };

/// A message on its way out, whatever it came from (a delivery, a peeked copy).
struct MessageView {
  shmq::Seq seq{};
  std::string_view payload;
  std::optional<std::chrono::system_clock::time_point> publish_time;
  std::vector<std::pair<std::string_view, std::string_view>> attributes;
  std::optional<std::uint32_t> hand_outs, failures;
};

/// Appends the message in the chosen form to `out`.
void append_message(std::string& out, const MessageView& message, Framing framing);
/// Only payload and frame: the fast path of every form but JSON.
void append_payload(std::string& out, std::string_view payload, Framing framing);

bool is_utf8(std::string_view bytes);
std::string base64(std::string_view bytes);

}  // namespace shmqctl
