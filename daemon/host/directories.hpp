// SPDX-License-Identifier: Apache-2.0
//
// Where a daemon keeps its things unless it is told.
#pragma once

#include <string>

namespace shmq::host {

struct Directories {
  std::string config, data, runtime;  ///< runtime: empty if XDG_RUNTIME_DIR is needed and not set
};
/// /etc/shmq, /var/lib/shmq and /run/shmq for system users; the XDG directories for others.
Directories default_directories();

}  // namespace shmq::host
