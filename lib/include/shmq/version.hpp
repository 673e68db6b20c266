// SPDX-License-Identifier: Apache-2.0
//
// The version of the library, at compile time and at run time.
#pragma once

#include <shmq/error.hpp>

#define SHMQ_VERSION_MAJOR 0
#define SHMQ_VERSION_MINOR 1
#define SHMQ_VERSION_PATCH 0

namespace shmq {
/// "0.1.0": of the library that is linked, not of the headers.
SHMQ_API const char* version() noexcept;
}  // namespace shmq
