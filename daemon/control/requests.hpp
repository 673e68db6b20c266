// SPDX-License-Identifier: Apache-2.0
//
// From a request's text to a call of the engine and back: what is asked, by whom, and whether they
// may. Reads what strangers wrote; nothing in it throws past handle().
#pragma once

#include <optional>
#include <string>

#include "daemon/control/server.hpp"
#include "daemon/engine/engine.hpp"

namespace shmq::control {

/// Who else than root and the daemon's own user may create and remove queues.
struct Permissions {
  std::optional<gid_t> create_group;
};

/// What the status says of the daemon itself.
struct Facts {
  std::string name_space;
  std::string data_dir;
  std::string backend;
  std::uint64_t started_realtime_ns = 0;
};

struct Commands {
  std::function<Result<void>()> reload;
  /// Gives its answer when all is written.
  std::function<void(std::function<void(Result<void>)>)> drain;
};

class Requests {
 public:
  Requests(engine::Engine& engine, Facts facts, Commands commands);
  void set_permissions(const Permissions& permissions) { permissions_ = permissions; }
  void handle(const Peer& peer, const std::string& request, const Reply& reply);
  [[nodiscard]] std::string status() const;

 private:
  void create(const Peer& peer, const std::string& queue, const std::string& options,
              const Reply& reply);
  void restore(const Peer& peer, const std::string& queue, const Reply& reply);
  [[nodiscard]] bool may_create(const Peer& peer) const;

  engine::Engine& engine_;
  Facts facts_;
  Commands commands_;
  Permissions permissions_;
};

}  // namespace shmq::control
