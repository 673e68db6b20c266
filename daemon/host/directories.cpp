// SPDX-License-Identifier: Apache-2.0
#include "daemon/host/directories.hpp"

#include <unistd.h>

#include <cstdlib>

namespace shmq::host {
namespace {

std::string environment(const char* name) {
  const char* value = std::getenv(name);
  return value != nullptr ? value : "";
}

}  // namespace

Directories default_directories() {
  // System users, root among them, are below 1000 on Debian (login.defs: UID_MIN).
  if (::geteuid() < 1000) return {"/etc/shmq", "/var/lib/shmq", "/run/shmq"};
  const std::string home = environment("HOME");
  const auto below = [&](const char* variable, const char* fallback) {
    const std::string directory = environment(variable);
    return (directory.starts_with('/') ? directory : home + fallback) + "/shmq";
  };
  const std::string runtime = environment("XDG_RUNTIME_DIR");
  return {below("XDG_CONFIG_HOME", "/.config"), below("XDG_DATA_HOME", "/.local/share"),
          runtime.starts_with('/') ? runtime + "/shmq" : ""};
}

}  // namespace shmq::host
