// SPDX-License-Identifier: Apache-2.0
//
// The control socket: one request and one response a connection, on the daemon's loop. Also the
// doorbell beside it. Both stand in a directory of the namespace.
//
// Invariants:
//  1. No peer holds the loop up: everything is non-blocking, a frame is at most frame_bytes_max,
//  and
//     memory for it is taken as it arrives. Who has not sent a whole request within request_ns, or
//     does not take the answer within answer_ns, is cut off.
//  2. No user but root and the daemon's own has more than connections_per_user at a time, and where
//     there is room for no more, who has waited longest without a whole request has to go.
//  3. A peer is who the kernel says that it was when it connected (SO_PEERCRED).
//  4. One daemon has the directory: its lock file is locked as long as the sockets are there.
#pragma once

#include <sys/types.h>

#include <deque>
#include <functional>
#include <map>
#include <memory>
#include <shmq/error.hpp>
#include <string>

#include "daemon/loop/loop.hpp"

namespace shmq::control {

struct Peer {
  pid_t pid = 0;
  uid_t uid = 0;
  gid_t gid = 0;
  int attachment = -1;  ///< a descriptor that came along; only during the handler's call
};

/// Sends the response, once; does nothing if the peer has gone. May be kept and called later.
using Reply = std::function<void(const std::string& response)>;
using Handler = std::function<void(const Peer& peer, const std::string& request, Reply reply)>;
using Rung = std::function<void(const std::string& queue)>;

struct ServerOptions {
  std::string directory;  ///< made if it is missing, its parents too
  std::uint64_t request_ns = 2'000'000'000;
  std::uint64_t answer_ns = 2'000'000'000;
  std::size_t connections_max = 128;
  std::size_t connections_per_user = 32;
};

class Server {
 public:
  static Result<std::unique_ptr<Server>> create(loop::Loop& loop, const ServerOptions& options,
                                                Handler handler, Rung rung);
  Server(const Server&) = delete;
  Server& operator=(const Server&) = delete;
  /// Closes everything, and removes the sockets.
  ~Server();

  /// Cuts off who is late. Call when next_timer_ns() has come.
  void tick(std::uint64_t now_ns);
  [[nodiscard]] std::uint64_t next_timer_ns() const noexcept;
  [[nodiscard]] std::string doorbell_path() const;
  [[nodiscard]] std::size_t connections() const noexcept { return connections_.size(); }
  /// Is an answer still on its way to somebody?
  [[nodiscard]] bool has_answers() const noexcept;

 private:
  struct Connection {
    int descriptor = -1;
    Peer peer;
    std::uint64_t deadline_ns = 0;  // while reading and while answering; else none
    bool is_asked = false;          // the whole request has come
    int attachment = -1;
    std::string input;
    std::string output;
    std::size_t sent = 0;
  };
  using Connections = std::map<std::uint64_t, Connection>;  // by an id, never used again

  Server(loop::Loop& loop, ServerOptions options, Handler handler, Rung rung);
  Result<void> prepare_directory();
  Result<int> bind(const char* name, int type);
  void on_connect();
  void refuse_one();
  void on_doorbell();
  void on_event(std::uint64_t id, std::uint32_t events);
  void on_input(std::uint64_t id);
  static ssize_t receive(Connection& connection, char* bytes, std::size_t size);
  void answer(std::uint64_t id, const std::string& response);
  void on_writable(std::uint64_t id);
  bool make_room(const Peer& peer);
  void close(std::uint64_t id);

  loop::Loop& loop_;
  ServerOptions options_;
  Handler handler_;
  Rung rung_;
  int lock_ = -1;
  int listener_ = -1;
  int doorbell_ = -1;
  int spare_ = -1;
  std::uint64_t next_id_ = 1;
  Connections connections_;
  std::shared_ptr<Server*> liveness_;  // null inside once this is gone
};

}  // namespace shmq::control
