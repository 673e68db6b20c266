// SPDX-License-Identifier: Apache-2.0
//
// Redis Streams on a private server with appendfsync always, spoken to over a unix socket.
#pragma once

#include <sys/types.h>

#include <cstdint>
#include <string>

namespace shmq_bench {

class RedisPeer {
 public:
  /// Starts a server in `directory`; is_there() is false where redis-server is not installed.
  explicit RedisPeer(const std::string& directory);
  RedisPeer(const RedisPeer&) = delete;
  RedisPeer& operator=(const RedisPeer&) = delete;
  ~RedisPeer();

  [[nodiscard]] bool is_there() const noexcept { return socket_ >= 0; }
  /// Adds `count` messages to a stream, many in flight, and waits for all answers.
  void add(std::uint64_t count, std::size_t bytes);
  /// Empties the stream.
  void forget();

 private:
  void send_all(const std::string& bytes) const;
  void await_replies(std::uint64_t count);

  pid_t server_ = -1;
  int socket_ = -1;
};

}  // namespace shmq_bench
