// SPDX-License-Identifier: Apache-2.0
//
// What to do about an error where nobody knows better than its code says.
#pragma once

#include <shmq/error.hpp>
#include <string>

namespace shmq {

/// For an error of this library or of the system; never empty. Error::message() ends with it where
/// an error brings no remedy of its own.
SHMQ_API std::string remedy_for(std::error_code code);

}  // namespace shmq
