// SPDX-License-Identifier: Apache-2.0
//
// Lets one thread close a handle while another is in a call of it: the closer waits until the call
// has ended, at no cost but two plain stores a call.
//
// Store in_call / load closing against store closing / load in_call is Dekker's pattern, and each
// side would need a full fence. The closer pays for both with membarrier(2).
#pragma once

#include <atomic>

namespace shmq::sync {

/// A full fence on every thread of this process.
void process_wide_fence() noexcept;

class CallGate {
 public:
  /// False: the handle is being closed. Call leave() in any case.
  bool enter() noexcept {
    // [E1] relaxed: ordered before E2 by the closer's process-wide fence.
    in_call_.store(true, std::memory_order_relaxed);
    std::atomic_signal_fence(std::memory_order_seq_cst);
    return !closing_.load(std::memory_order_relaxed);  // [E2]
  }
  /// [E3] release, pairs with the closer's acquire: what the call did is done.
  void leave() noexcept { in_call_.store(false, std::memory_order_release); }

  [[nodiscard]] bool closing() const noexcept { return closing_.load(std::memory_order_relaxed); }

  /// First caller only: true. Then no call gets in any more; poll idle().
  bool start_closing() noexcept {
    if (closing_.exchange(true, std::memory_order_seq_cst)) return false;
    process_wide_fence();
    return true;
  }
  [[nodiscard]] bool idle() const noexcept { return !in_call_.load(std::memory_order_acquire); }

 private:
  std::atomic<bool> in_call_{false};
  std::atomic<bool> closing_{false};
};

/// Enters for a scope.
class CallScope {
 public:
  explicit CallScope(CallGate& gate) noexcept : gate_(gate), open_(gate.enter()) {}
  CallScope(const CallScope&) = delete;
  CallScope& operator=(const CallScope&) = delete;
  ~CallScope() { gate_.leave(); }
  explicit operator bool() const noexcept { return open_; }

 private:
  CallGate& gate_;
  bool open_;
};

}  // namespace shmq::sync
