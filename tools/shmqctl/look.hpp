// SPDX-License-Identifier: Apache-2.0
//
// How groups are shown; shared by the `group` and the `stat` commands.
#pragma once

#include <vector>

#include "context.hpp"
#include "output.hpp"

namespace shmqctl {

Json group_json(const shmq::GroupInfo& group);
void print_groups(const Context& context, const std::vector<shmq::GroupInfo>& groups);

}  // namespace shmqctl
