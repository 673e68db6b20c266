// SPDX-License-Identifier: Apache-2.0
//
// shmqd's configuration file: TOML, each key checked, an unknown one an error that names its line.
// The one table of keys stands in config.cpp; a test compares it with man/shmqd.toml.5.
#pragma once

#include <sys/types.h>

#include <cstdint>
#include <optional>
#include <shmq/error.hpp>
#include <string>
#include <string_view>
#include <vector>

#include "daemon/host/host.hpp"

namespace shmq::daemon_main {

struct Config {
  std::string data_dir;     ///< empty: see host::default_directories()
  std::string runtime_dir;  ///< likewise
  std::string log_level = "info";
  io::BackendChoice backend = io::BackendChoice::automatic;
  std::uint64_t sweep_ns = 100'000'000;
  std::uint64_t spin_ns = 100'000;
  std::uint64_t drain_limit_ns = 10'000'000'000;
  std::optional<gid_t> create_group;
  std::vector<uid_t> trusted_owners;
  std::uint64_t check_bytes = 1ULL << 30;
  journal::WriterOptions journal;
};

/// A file that is missing is an error.
Result<Config> read_config(const std::string& path);
/// `path` is for messages.
Result<Config> parse_config(std::string_view text, const std::string& path);

/// The names of all keys, as the manual has them.
std::vector<std::string> config_keys();

std::optional<io::BackendChoice> parse_backend(std::string_view text);
bool is_log_level(std::string_view text);

}  // namespace shmq::daemon_main
