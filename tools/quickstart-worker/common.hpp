// SPDX-License-Identifier: Apache-2.0
//
// What the roles share.
#pragma once

#include <iostream>
#include <shmq/shmq.hpp>
#include <string>

#include "roles.hpp"

namespace quickstart {

inline int complain(const std::string& text) {
  std::cerr << "quickstart-worker: " << text << '\n';
  return 1;
}
inline int complain(const shmq::Error& error) { return complain(error.message()); }

inline shmq::Result<shmq::Queue> open_queue() { return shmq::Queue::open(queue_name); }

/// Is it the mark of the end? Then `newline_at_end` tells how the file ends.
inline bool is_end(const shmq::Delivery& delivery, bool& newline_at_end) {
  for (const auto& attribute : delivery.attributes()) {
    if (attribute.key != end_key) continue;
    newline_at_end = attribute.value == "newline";
    return true;
  }
  return false;
}

}  // namespace quickstart
