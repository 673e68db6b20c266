// SPDX-License-Identifier: Apache-2.0
//
// Damages a settled disk in one way, and says what must come of it.
#pragma once

#include <random>

#include "journal/story.hpp"

namespace shmq::testing {

struct Damage {
  std::string what;
  char letter = 0;  ///< the case that must be among the findings
  bool is_refused = true;
  /// For damage to one batch: the range that must be named, exactly.
  std::optional<journal::SettledRange> range = {};
};

/// Nothing if this disk offers nothing to damage in the way that was chosen.
std::optional<Damage> damage(SimDisk& disk, const Outcome& before, std::mt19937_64& random);

}  // namespace shmq::testing
