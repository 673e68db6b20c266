// SPDX-License-Identifier: Apache-2.0
//
// What the engine tells people. Who hosts it decides where that goes; shmqd uses spdlog.
#pragma once

#include <functional>
#include <string>

namespace shmq::engine {

enum class Level { debug, info, warning, error };

using Log = std::function<void(Level level, const std::string& sentence)>;

}  // namespace shmq::engine
