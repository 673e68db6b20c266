// SPDX-License-Identifier: Apache-2.0
//
// Tables, JSON and message bytes on stdout.
#include "output.hpp"

#include <poll.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <cstdlib>
#include <iostream>

#include "failure.hpp"
#include "units.hpp"

namespace shmqctl {
namespace {

bool wants_colour() {
  const char* no_color = std::getenv("NO_COLOR");
  return (no_color == nullptr || *no_color == '\0') && ::isatty(STDOUT_FILENO) != 0;
}

}  // namespace

Table::Table(std::vector<std::string> headers, std::vector<std::size_t> right_aligned)
    : right_(headers.size(), false) {
  for (const std::size_t column : right_aligned) right_.at(column) = true;
  rows_.push_back(std::move(headers));
}

void Table::add(std::vector<std::string> row) {
  row.resize(rows_.front().size());
  rows_.push_back(std::move(row));
}

void Table::print(const Context& context) const {
  std::vector<std::size_t> widths(rows_.front().size(), 0);
  for (std::size_t row = context.no_headers ? 1 : 0; row < rows_.size(); ++row) {
    for (std::size_t column = 0; column < widths.size(); ++column) {
      widths[column] = std::max(widths[column], rows_[row][column].size());
    }
  }
  const bool bold = wants_colour();
  std::string out;
  for (std::size_t row = context.no_headers ? 1 : 0; row < rows_.size(); ++row) {
    std::string line;
    for (std::size_t column = 0; column < widths.size(); ++column) {
      const std::string& cell = rows_[row][column];
      const std::string padding(widths[column] - cell.size(), ' ');
      if (column > 0) line += "  ";
      line += right_[column] ? padding + cell : cell + padding;
    }
    line.erase(line.find_last_not_of(' ') + 1);
    out += row == 0 && bold ? "\033[1m" + line + "\033[0m\n" : line + "\n";
  }
  write_all(STDOUT_FILENO, out, nullptr, "write to stdout");
}

void print_json(const Json& fields) {
  Json object{{"schema_version", json_schema_version}};
  object.update(fields);
  write_all(STDOUT_FILENO,
            object.dump(2, ' ', false, nlohmann::json::error_handler_t::replace) + "\n", nullptr,
            "write to stdout");
}

void print_remark(const Context& context, const std::string& text) {
  if (context.quiet || context.json) return;
  write_all(STDOUT_FILENO, text + "\n", nullptr, "write to stdout");
}

void write_all(int fd, std::string_view bytes, const StopSignals* stop, const std::string& what) {
  while (!bytes.empty()) {
    const ssize_t written = ::write(fd, bytes.data(), bytes.size());
    if (written >= 0) {
      bytes.remove_prefix(static_cast<std::size_t>(written));
      continue;
    }
    if (errno == EINTR) {
      if (stop != nullptr && stop->signal() != 0) throw Failure{stop->exit_code(), what, "", ""};
      continue;
    }
    if (errno == EAGAIN) {  // somebody made our stdout non-blocking; then wait here
      std::array<pollfd, 2> items{
          {{fd, POLLOUT, 0}, {stop != nullptr ? stop->fd() : -1, POLLIN, 0}}};
      ::poll(items.data(), items.size(), -1);
      if (stop != nullptr && stop->signal() != 0) throw Failure{stop->exit_code(), what, "", ""};
      continue;
    }
    throw failure_of_errno(errno, what);
  }
}

// --- messages ------------------------------------------------------------------------------------

bool is_utf8(std::string_view bytes) {
  for (std::size_t at = 0; at < bytes.size();) {
    const auto lead = static_cast<unsigned char>(bytes[at]);
    std::size_t length = 0;
    std::uint32_t point = 0;
    if (lead < 0x80) {
      ++at;
      continue;
    }
    if (lead >= 0xc2 && lead < 0xe0) {
      length = 2;
      point = lead & 0x1fU;
    } else if (lead >= 0xe0 && lead < 0xf0) {
      length = 3;
      point = lead & 0x0fU;
    } else if (lead >= 0xf0 && lead < 0xf5) {
      length = 4;
      point = lead & 0x07U;
    } else {
      return false;
    }
    if (bytes.size() - at < length) return false;
    for (std::size_t i = 1; i < length; ++i) {
      const auto next = static_cast<unsigned char>(bytes[at + i]);
      if ((next & 0xc0U) != 0x80) return false;
      point = point << 6 | (next & 0x3fU);
    }
    const bool overlong = (length == 3 && point < 0x800) || (length == 4 && point < 0x10000);
    if (overlong || point > 0x10ffff || (point >= 0xd800 && point < 0xe000)) return false;
    at += length;
  }
  return true;
}

std::string base64(std::string_view bytes) {
  constexpr std::string_view digits =
      "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
  std::string out;
  out.reserve((bytes.size() + 2) / 3 * 4);
  for (std::size_t at = 0; at < bytes.size(); at += 3) {
    std::uint32_t group = 0;
    const std::size_t count = std::min<std::size_t>(3, bytes.size() - at);
    for (std::size_t i = 0; i < 3; ++i) {
      group = group << 8 | (i < count ? static_cast<unsigned char>(bytes[at + i]) : 0U);
    }
    for (std::size_t i = 0; i < 4; ++i) {
      out += i <= count ? digits[group >> (18 - 6 * i) & 63U] : '=';
    }
  }
  return out;
}

void append_payload(std::string& out, std::string_view payload, Framing framing) {
  if (framing == Framing::length) {
    const auto length = static_cast<std::uint32_t>(payload.size());
    for (unsigned shift = 0; shift < 32; shift += 8) {
      out += static_cast<char>(length >> shift & 0xffU);
    }
    out += payload;
    return;
  }
  out += payload;
  out += framing == Framing::nul ? '\0' : '\n';
}

void append_message(std::string& out, const MessageView& message, Framing framing) {
  if (framing != Framing::json) {
    append_payload(out, message.payload, framing);
    return;
  }
  Json object{{"schema_version", json_schema_version}, {"seq", message.seq.value}};
  object["payload_bytes"] = message.payload.size();
  // Bytes that are not text cannot stand in JSON; which of the two it is shows in the key.
  if (is_utf8(message.payload)) {
    object["payload"] = message.payload;
  } else {
    object["payload_base64"] = base64(message.payload);
  }
  if (message.publish_time) object["publish_time"] = rfc3339(*message.publish_time);
  if (message.hand_outs) object["hand_outs"] = *message.hand_outs;
  if (message.failures) object["failures"] = *message.failures;
  if (!message.attributes.empty()) {
    Json text = Json::object(), binary = Json::array();
    for (const auto& [key, value] : message.attributes) {
      if (is_utf8(key) && is_utf8(value) && !text.contains(std::string{key})) {
        text[std::string{key}] = value;
      } else {
        binary.push_back({base64(key), base64(value)});
      }
    }
    object["attributes"] = text;
    if (!binary.empty()) object["attributes_base64"] = binary;
  }
  out += object.dump(-1, ' ', false, nlohmann::json::error_handler_t::replace);
  out += '\n';
}

}  // namespace shmqctl
