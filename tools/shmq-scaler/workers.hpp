// SPDX-License-Identifier: Apache-2.0
//
// The workers NAME-worker@1, @2, …: which run, start one, stop one. Through systemctl, or through a
// command given by the user. What they say is the truth; nothing is remembered from call to call.
#pragma once

#include <set>
#include <shmq/error.hpp>
#include <string>
#include <vector>

namespace shmq_scaler {

class Workers {
 public:
  /// An empty command: systemctl. Else it is run by sh as `COMMAND list NAME`, which prints the
  /// numbers of the running workers, `COMMAND start NAME N` and `COMMAND stop NAME N`.
  Workers(std::string name, std::string command)
      : name_{std::move(name)}, command_{std::move(command)} {}

  struct State {
    std::set<unsigned> running;   ///< started, or being started
    std::set<unsigned> stopping;  ///< their numbers are not free yet
  };
  shmq::Result<State> look() const;
  /// Both ask and do not wait for the worker.
  shmq::Result<void> start(unsigned number) const;
  shmq::Result<void> stop(unsigned number) const;

 private:
  [[nodiscard]] std::string unit(const std::string& instance) const;
  shmq::Result<std::string> run(const std::vector<std::string>& words,
                                const std::string& what) const;
  shmq::Result<void> ask(const char* verb, unsigned number) const;

  std::string name_, command_;
};

}  // namespace shmq_scaler
