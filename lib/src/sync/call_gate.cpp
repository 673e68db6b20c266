// SPDX-License-Identifier: Apache-2.0
#include "sync/call_gate.hpp"

#include <linux/membarrier.h>
#include <sys/syscall.h>
#include <unistd.h>

namespace shmq::sync {

void process_wide_fence() noexcept {
  static const bool registered =
      syscall(SYS_membarrier, MEMBARRIER_CMD_REGISTER_PRIVATE_EXPEDITED, 0, 0) == 0;
  if (registered && syscall(SYS_membarrier, MEMBARRIER_CMD_PRIVATE_EXPEDITED, 0, 0) == 0) return;
  // Refused (a seccomp filter): the slow command, and at the least a fence of our own.
  syscall(SYS_membarrier, MEMBARRIER_CMD_GLOBAL, 0, 0);
  std::atomic_thread_fence(std::memory_order_seq_cst);
}

}  // namespace shmq::sync
