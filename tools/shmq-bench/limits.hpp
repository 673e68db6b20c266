// SPDX-License-Identifier: Apache-2.0
//
// The bare cache-line ping-pong: a limit to compare with, and the probe around each run.
#pragma once

#include <atomic>

#include "contender.hpp"

namespace shmq_bench {

class PingPong final : public Contender {
 public:
  PingPong();
  [[nodiscard]] bool supports(Mode mode, std::size_t bytes) const override;
  void send_all(std::uint64_t count, std::size_t bytes) override;
  void receive_all(std::uint64_t count, std::size_t bytes) override;
  void ping(std::uint64_t count, std::size_t bytes) override;
  void pong(std::uint64_t count, std::size_t bytes) override;

 private:
  std::atomic<std::uint64_t>& word_;
};

}  // namespace shmq_bench
