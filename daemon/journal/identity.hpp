// SPDX-License-Identifier: Apache-2.0
//
// What is the same for all files that one incarnation of a queue's writer makes.
#pragma once

#include <string>

#include "journal/codec.hpp"

namespace shmq::journal {

struct Identity {
  std::string name_space;
  std::string queue;
  Uuid queue_uuid{};
  Uuid boot_id{};
  std::uint32_t file_mode = 0640;  ///< permission bits of new files
};

}  // namespace shmq::journal
