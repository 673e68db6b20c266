// SPDX-License-Identifier: Apache-2.0
#include "daemon/raw_client.hpp"

#include <sys/socket.h>
#include <sys/time.h>
#include <sys/un.h>
#include <unistd.h>

#include <cstring>

namespace shmq::testing {

std::string ask(const std::string& socket_path, const std::string& request) {
  const int descriptor = ::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  std::strncpy(address.sun_path, socket_path.c_str(), sizeof(address.sun_path) - 1);
  timeval limit{.tv_sec = 10, .tv_usec = 0};
  ::setsockopt(descriptor, SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof(limit));
  std::string response;
  if (::connect(descriptor, reinterpret_cast<sockaddr*>(&address), sizeof(address)) == 0) {
    std::string frame;
    for (int i = 0; i < 4; ++i) {
      frame.push_back(static_cast<char>((request.size() >> (8 * i)) & 0xff));
    }
    frame += request;
    ::send(descriptor, frame.data(), frame.size(), MSG_NOSIGNAL);
    char bytes[4096];
    ssize_t got;
    while ((got = ::recv(descriptor, bytes, sizeof(bytes), 0)) > 0) {
      response.append(bytes, static_cast<std::size_t>(got));
    }
  }
  ::close(descriptor);
  return response.size() < 4 ? "" : response.substr(4);
}

}  // namespace shmq::testing
