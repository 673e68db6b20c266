// SPDX-License-Identifier: Apache-2.0
//
// The processes of a measurement: whatever ends one of them ends all, and leaves nothing behind.
#pragma once

#include <cstddef>

namespace shmq_bench {

/// True in the child, which dies with its parent.
bool fork_child();
/// To be called by the parent once all children are there.
void watch_children();
/// From now on a child's end is no failure.
void let_children_end();
/// Waits for the end of all children, who have been told to end.
void await_children();
/// A run that takes this long hangs; 0: no run is on.
void limit_run(unsigned seconds);

inline constexpr unsigned hung_after_s = 60;

/// Says so if it cannot.
void pin_to(std::size_t cpu);
/// Where this process may run from now on: everywhere.
void unpin();

}  // namespace shmq_bench
