// SPDX-License-Identifier: Apache-2.0
#include "daemon/main/config.hpp"

#include <grp.h>
#include <pwd.h>
#include <toml++/toml.h>
#include <unistd.h>

#include <algorithm>
#include <charconv>
#include <fstream>
#include <functional>
#include <shmq/units.hpp>
#include <sstream>

namespace shmq::daemon_main {
namespace {

std::optional<std::uint64_t> parse_time_ns(std::string_view text) {
  // A bare number is most likely meant in some other unit than the one that the tools take it for.
  if (text.empty() || (text != "0" && text.back() >= '0' && text.back() <= '9')) return {};
  const auto time = shmq::parse_time(text);
  return time ? std::optional{static_cast<std::uint64_t>(time->count())} : std::nullopt;
}

// Each gives "" or what the value should have been.
using Set = std::function<std::string(Config&, const toml::node&)>;

struct Range {
  std::uint64_t least, most;
  const char* words;
};

Set size_of(std::function<void(Config&, std::uint64_t)> set, Range range) {
  return [set = std::move(set), range](Config& config, const toml::node& node) -> std::string {
    std::optional<std::uint64_t> value;
    if (const auto text = node.value_exact<std::string>()) value = shmq::parse_size(*text);
    if (const auto number = node.value_exact<std::int64_t>(); number && *number >= 0) {
      value = static_cast<std::uint64_t>(*number);
    }
    if (!value || *value < range.least || *value > range.most) return range.words;
    set(config, *value);
    return {};
  };
}

Set time_of(std::function<void(Config&, std::uint64_t)> set, Range range) {
  return [set = std::move(set), range](Config& config, const toml::node& node) -> std::string {
    const auto text = node.value_exact<std::string>();
    const auto value = text ? parse_time_ns(*text) : std::nullopt;
    if (!value || *value < range.least || *value > range.most) return range.words;
    set(config, *value);
    return {};
  };
}

Set text_of(std::function<bool(Config&, const std::string&)> set, const char* words) {
  return [set = std::move(set), words](Config& config, const toml::node& node) -> std::string {
    const auto text = node.value_exact<std::string>();
    return text && set(config, *text) ? "" : words;
  };
}

bool set_directory(std::string& place, const std::string& text) {
  place = text;
  return text.starts_with('/');
}

template <typename Id, typename Find>
std::optional<Id> id_of(const std::string& text, Find find) {
  if (const auto id = find(text.c_str())) return *id;
  std::uint32_t number = 0;
  const char* const end = text.data() + text.size();
  const auto [rest, error] = std::from_chars(text.data(), end, number);
  if (text.empty() || error != std::errc{} || rest != end || number == 0xffffffffU) return {};
  return static_cast<Id>(number);
}

std::optional<gid_t> group_of(const std::string& text) {
  return id_of<gid_t>(text, [](const char* name) -> std::optional<gid_t> {
    const group* entry = ::getgrnam(name);
    return entry != nullptr ? std::optional{entry->gr_gid} : std::nullopt;
  });
}

std::optional<uid_t> user_of(const std::string& text) {
  return id_of<uid_t>(text, [](const char* name) -> std::optional<uid_t> {
    const passwd* entry = ::getpwnam(name);
    return entry != nullptr ? std::optional{entry->pw_uid} : std::nullopt;
  });
}

std::string set_trusted_owners(Config& config, const toml::node& node) {
  const toml::array* names = node.as_array();
  if (names == nullptr) return "a list of users";
  for (const toml::node& name : *names) {
    const auto text = name.value_exact<std::string>();
    const auto user = text ? user_of(*text) : std::nullopt;
    if (!user) return "a list of users that exist";
    config.trusted_owners.push_back(*user);
  }
  return {};
}

std::string set_recycle(Config& config, const toml::node& node) {
  const auto value = node.value_exact<bool>();
  if (!value) return "true or false";
  config.journal.files.recycles = *value;
  return {};
}

struct Key {
  const char* name;  // "table.key"
  Set set;
};

constexpr std::uint64_t hour_ns = 3'600'000'000'000;
constexpr std::uint64_t no_limit = ~0ULL >> 1;

const std::vector<Key>& keys() {
  static const std::vector<Key> all{
      {"data_dir", text_of([](Config& c, const auto& t) { return set_directory(c.data_dir, t); },
                           "an absolute path")},
      {"runtime_dir",
       text_of([](Config& c, const auto& t) { return set_directory(c.runtime_dir, t); },
               "an absolute path")},
      {"log_level", text_of(
                        [](Config& c, const auto& t) {
                          c.log_level = t;
                          return is_log_level(t);
                        },
                        "debug, info, warning or error")},
      {"backend", text_of(
                      [](Config& c, const auto& t) {
                        const auto choice = parse_backend(t);
                        if (choice) c.backend = *choice;
                        return choice.has_value();
                      },
                      "auto, io_uring or plain")},
      {"sweep", time_of([](Config& c, std::uint64_t v) { c.sweep_ns = v; },
                        {1'000'000, 1'000'000'000, "a time from 1ms to 1s"})},
      {"spin", time_of([](Config& c, std::uint64_t v) { c.spin_ns = v; },
                       {0, 10'000'000, "a time from 0s to 10ms"})},
      {"drain_limit", time_of([](Config& c, std::uint64_t v) { c.drain_limit_ns = v; },
                              {0, hour_ns, "a time from 0s to 1h"})},
      {"control.create_group", text_of(
                                   [](Config& c, const auto& t) {
                                     c.create_group = group_of(t);
                                     return c.create_group.has_value();
                                   },
                                   "a group that exists")},
      {"control.trusted_owners", set_trusted_owners},
      {"journal.max_disk",
       size_of([](Config& c, std::uint64_t v) { c.journal.files.max_disk_bytes = v; },
               {4ULL << 20, no_limit, "a size of at least 4MiB"})},
      {"journal.file_max",
       size_of([](Config& c,
                  std::uint64_t v) { c.journal.files.usual_file_bytes_max = v / 4096 * 4096; },
               {1ULL << 20, 1ULL << 30, "a size from 1MiB to 1GiB"})},
      {"journal.recycle", set_recycle},
      {"journal.idle_close",
       time_of([](Config& c, std::uint64_t v) { c.journal.idle_close_ns = v; },
               {1'000'000, 1'000'000'000, "a time from 1ms to 1s"})},
      {"journal.degraded_retry",
       time_of([](Config& c, std::uint64_t v) { c.journal.degraded_retry_ns = v; },
               {10'000'000, hour_ns, "a time from 10ms to 1h"})},
      {"journal.check_at_start",
       size_of([](Config& c, std::uint64_t v) { c.check_bytes = v; }, {0, no_limit, "a size"})},
  };
  return all;
}

tl::unexpected<Error> failure(const std::string& path, std::uint32_t line, std::string why) {
  std::string what = "read '" + path + "'";
  if (line != 0) what += ", line " + std::to_string(line);
  return tl::unexpected{Error{make_error_code(Errc::invalid_argument), std::move(what),
                              std::move(why), "see shmqd.toml(5)"}};
}

Result<void> take_table(const toml::table& table, const std::string& prefix,
                        const std::string& path, Config& config) {
  for (const auto& [key, node] : table) {
    const std::string name = prefix + std::string{key.str()};
    const std::uint32_t line = key.source().begin.line;
    const auto known =
        std::find_if(keys().begin(), keys().end(), [&](const Key& k) { return k.name == name; });
    const bool is_table = std::any_of(keys().begin(), keys().end(), [&](const Key& k) {
      return std::string_view{k.name}.starts_with(name + ".");
    });
    if (is_table && node.is_table()) {
      if (auto done = take_table(*node.as_table(), name + ".", path, config); !done) return done;
      continue;
    }
    if (known == keys().end()) {
      return failure(path, line, "there is no key '" + name + "'");
    }
    if (const std::string wanted = known->set(config, node); !wanted.empty()) {
      return failure(path, line, name + " must be " + wanted);
    }
  }
  return {};
}

}  // namespace

std::optional<io::BackendChoice> parse_backend(std::string_view text) {
  if (text == "auto") return io::BackendChoice::automatic;
  if (text == "io_uring") return io::BackendChoice::io_uring;
  if (text == "plain") return io::BackendChoice::plain;
  return std::nullopt;
}

bool is_log_level(std::string_view text) {
  return text == "debug" || text == "info" || text == "warning" || text == "error";
}

std::vector<std::string> config_keys() {
  std::vector<std::string> names;
  for (const Key& key : keys()) names.emplace_back(key.name);
  return names;
}

Result<Config> parse_config(std::string_view text, const std::string& path) {
  try {
    const toml::table table = toml::parse(text, path);
    Config config;
    if (auto done = take_table(table, "", path, config); !done) {
      return tl::unexpected{done.error()};
    }
    return config;
  } catch (const toml::parse_error& error) {
    return failure(path, error.source().begin.line, std::string{error.description()});
  }
}

Result<Config> read_config(const std::string& path) {
  std::ifstream file{path};
  std::ostringstream text;
  text << file.rdbuf();
  if (!file) {
    return tl::unexpected{
        Error{{errno != 0 ? errno : EIO, std::generic_category()}, "read '" + path + "'", "", ""}};
  }
  return parse_config(text.str(), path);
}

}  // namespace shmq::daemon_main
