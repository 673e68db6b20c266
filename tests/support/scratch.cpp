// SPDX-License-Identifier: Apache-2.0
#include "support/scratch.hpp"

#include <unistd.h>

#include <atomic>
#include <filesystem>
#include <vector>

namespace shmq::testing {

Scratch::Scratch() : owner_pid_(getpid()) {
  static std::atomic<int> count{0};
  name_space = "t" + std::to_string(owner_pid_) + "-" + std::to_string(count++);
}

Scratch::~Scratch() {
  if (getpid() != owner_pid_) return;
  std::error_code ignored;
  std::vector<std::filesystem::path> ours;
  for (const auto& entry : std::filesystem::directory_iterator{"/dev/shm", ignored}) {
    if (entry.path().filename().string().starts_with("shmq." + name_space + ".")) {
      ours.push_back(entry.path());
    }
  }
  for (const auto& path : ours) std::filesystem::remove(path, ignored);
}

}  // namespace shmq::testing
