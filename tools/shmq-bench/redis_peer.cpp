// SPDX-License-Identifier: Apache-2.0
#include "redis_peer.hpp"

#include <fcntl.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#include <chrono>
#include <cstring>
#include <thread>

#include "contender.hpp"

namespace shmq_bench {

RedisPeer::RedisPeer(const std::string& directory) {
  const std::string path = directory + "/redis.sock";
  server_ = fork();
  if (server_ < 0) fail("cannot fork");
  if (server_ == 0) {
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    const int null = open("/dev/null", O_WRONLY);
    dup2(null, STDOUT_FILENO);
    dup2(null, STDERR_FILENO);
    execlp("redis-server", "redis-server", "--port", "0", "--unixsocket", path.c_str(), "--dir",
           directory.c_str(), "--appendonly", "yes", "--appendfsync", "always", "--save", "",
           nullptr);
    _exit(127);
  }
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  std::strncpy(address.sun_path, path.c_str(), sizeof(address.sun_path) - 1);
  for (int i = 0; i < 500 && waitpid(server_, nullptr, WNOHANG) == 0; ++i) {
    const int descriptor = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (connect(descriptor, reinterpret_cast<sockaddr*>(&address), sizeof(address)) == 0) {
      socket_ = descriptor;
      return;
    }
    close(descriptor);
    std::this_thread::sleep_for(std::chrono::milliseconds{10});
  }
  server_ = -1;
}

RedisPeer::~RedisPeer() {
  if (socket_ >= 0) close(socket_);
  if (server_ > 0) {
    kill(server_, SIGKILL);
    waitpid(server_, nullptr, 0);
  }
}

void RedisPeer::send_all(const std::string& bytes) const {
  for (std::size_t at = 0; at < bytes.size();) {
    const ssize_t sent = send(socket_, bytes.data() + at, bytes.size() - at, MSG_NOSIGNAL);
    if (sent <= 0) fail("redis: cannot send");
    at += static_cast<std::size_t>(sent);
  }
}

// An answer to XADD is a bulk string, "$<length>\r\n<id>\r\n": two lines.
void RedisPeer::await_replies(std::uint64_t count) {
  char buffer[65536];
  for (std::uint64_t lines = 0; lines < 2 * count;) {
    const ssize_t got = recv(socket_, buffer, sizeof(buffer), 0);
    if (got <= 0) fail("redis: cannot receive");
    for (ssize_t i = 0; i < got; ++i) {
      if (buffer[i] == '-') {
        // Ids hold a '-', too: an error starts a line.
        if (i == 0 || buffer[i - 1] == '\n') fail("redis: an error answer");
      }
      lines += buffer[i] == '\n' ? 1 : 0;
    }
  }
}

void RedisPeer::add(std::uint64_t count, std::size_t bytes) {
  const std::string one = "*5\r\n$4\r\nXADD\r\n$1\r\ns\r\n$1\r\n*\r\n$1\r\nm\r\n$" +
                          std::to_string(bytes) + "\r\n" + std::string(bytes, 'x') + "\r\n";
  constexpr std::uint64_t in_flight = 2000;
  for (std::uint64_t done = 0; done < count;) {
    const std::uint64_t now = std::min(in_flight, count - done);
    std::string burst;
    burst.reserve(one.size() * now);
    for (std::uint64_t i = 0; i < now; ++i) burst += one;
    send_all(burst);
    await_replies(now);
    done += now;
  }
}

void RedisPeer::forget() {
  send_all("*2\r\n$3\r\nDEL\r\n$1\r\ns\r\n");
  char answer[16];
  if (recv(socket_, answer, sizeof(answer), 0) <= 0) fail("redis: no answer");
}

}  // namespace shmq_bench
