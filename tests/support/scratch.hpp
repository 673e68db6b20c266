// SPDX-License-Identifier: Apache-2.0
//
// A namespace of the test's own, and nothing left of it in /dev/shm.
#pragma once

#include <string>

namespace shmq::testing {

class Scratch {
 public:
  Scratch();
  Scratch(const Scratch&) = delete;
  Scratch& operator=(const Scratch&) = delete;
  ~Scratch();
  std::string name_space;

 private:
  int owner_pid_;  // a forked child cleans nothing up
};

}  // namespace shmq::testing
