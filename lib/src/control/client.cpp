// SPDX-License-Identifier: Apache-2.0
#include "control/client.hpp"

#include <poll.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <nlohmann/json.hpp>

#include "control/protocol.hpp"

namespace shmq::control {
namespace {

using nlohmann::json;
using Clock = std::chrono::steady_clock;

tl::unexpected<Error> failure(Errc code, const std::string& what, std::string why,
                              std::string remedy) {
  return tl::unexpected(Error{make_error_code(code), what, std::move(why), std::move(remedy)});
}

class Connection {
 public:
  explicit Connection(const Call& call)
      : call_(call),
        // Far enough; a sum with the longest time would wrap around.
        deadline_(Clock::now() +
                  std::min<std::chrono::nanoseconds>(call.timeout, std::chrono::hours{24 * 365})) {}
  ~Connection() {
    if (socket_ >= 0) ::close(socket_);
  }
  Connection(const Connection&) = delete;
  Connection& operator=(const Connection&) = delete;

  Result<void> connect() {
    std::vector<std::string> directories = runtime_directories(call_.name_space);
    if (!call_.runtime_dir.empty()) directories = {call_.runtime_dir + "/" + call_.name_space};
    std::string looked;
    for (const std::string& directory : directories) {
      const std::string path = directory + "/" + control_socket_name;
      if (auto connected = connect_to(path); !connected) return connected;
      if (socket_ >= 0) return check_peer(path);
      looked += (looked.empty() ? "" : ", ") + path;
    }
    return failure(
        Errc::daemon_away, call_.what,
        "no daemon serves namespace '" + call_.name_space + "': nobody answers at " + looked,
        "start it: shmqd --namespace " + call_.name_space);
  }

  Result<void> send(const std::string& body) {
    if (body.size() > frame_bytes_max) {
      return failure(Errc::invalid_argument, call_.what, "the request is too long", "");
    }
    const auto bytes = static_cast<std::uint32_t>(body.size());
    std::string frame;
    for (unsigned shift = 0; shift < 32; shift += 8) {
      frame += static_cast<char>((bytes >> shift) & 0xff);
    }
    frame += body;
    for (std::size_t sent = 0; sent < frame.size();) {
      const ssize_t done = send_some(frame, sent);
      if (done >= 0) {
        sent += static_cast<std::size_t>(done);
      } else if (errno == EAGAIN) {
        if (auto ready = await(POLLOUT); !ready) return ready;
      } else if (errno != EINTR) {
        return went_away();
      }
    }
    return {};
  }

  Result<std::string> receive() {
    std::string length(4, '\0');
    if (auto done = read_all(length); !done) return tl::unexpected(done.error());
    std::uint32_t bytes = 0;
    for (unsigned i = 0; i < 4; ++i) {
      bytes |= static_cast<std::uint32_t>(static_cast<unsigned char>(length[i])) << (8 * i);
    }
    if (bytes > frame_bytes_max) {
      return failure(Errc::version_mismatch, call_.what, "the daemon's answer is too long",
                     "see that the daemon and this library are of one version");
    }
    std::string body(bytes, '\0');
    if (auto done = read_all(body); !done) return tl::unexpected(done.error());
    return body;
  }

 private:
  // The descriptor goes with the first byte.
  ssize_t send_some(std::string& frame, std::size_t sent) const {
    iovec part{frame.data() + sent, frame.size() - sent};
    msghdr message{};
    message.msg_iov = &part;
    message.msg_iovlen = 1;
    alignas(cmsghdr) char space[CMSG_SPACE(sizeof(int))] = {};
    if (sent == 0 && call_.attachment >= 0) {
      message.msg_control = space;
      message.msg_controllen = sizeof(space);
      cmsghdr* const control = CMSG_FIRSTHDR(&message);
      control->cmsg_level = SOL_SOCKET;
      control->cmsg_type = SCM_RIGHTS;
      control->cmsg_len = CMSG_LEN(sizeof(int));
      std::memcpy(CMSG_DATA(control), &call_.attachment, sizeof(int));
    }
    return ::sendmsg(socket_, &message, MSG_NOSIGNAL);
  }

  // Nobody there: fine, and socket_ stays as it is.
  Result<void> connect_to(const std::string& path) {
    sockaddr_un address{};
    if (path.size() >= sizeof(address.sun_path)) return {};
    address.sun_family = AF_UNIX;
    std::memcpy(address.sun_path, path.c_str(), path.size() + 1);
    const int made = ::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (made < 0) {
      return tl::unexpected(
          Error{{errno, std::generic_category()}, call_.what, std::strerror(errno), ""});
    }
    while (::connect(made, reinterpret_cast<const sockaddr*>(&address), sizeof(address)) != 0) {
      const int code = errno;
      if (code == EINTR) continue;
      if (code == EAGAIN) {  // its backlog is full: a unix socket cannot be waited for
        if (Clock::now() < deadline_) {
          ::poll(nullptr, 0, 10);
          continue;
        }
        ::close(made);
        return timed_out();
      }
      ::close(made);
      if (code == EACCES || code == EPERM) {
        return failure(Errc::no_permission, call_.what, path + ": " + std::strerror(code),
                       "the daemon's configuration says who may");
      }
      return {};
    }
    socket_ = made;
    return {};
  }

  Result<void> check_peer(const std::string& path) {
    ucred peer{};
    socklen_t length = sizeof(peer);
    if (::getsockopt(socket_, SOL_SOCKET, SO_PEERCRED, &peer, &length) != 0) {
      return tl::unexpected(
          Error{{errno, std::generic_category()}, call_.what, std::strerror(errno), ""});
    }
    if (call_.trusts(peer.uid)) return {};
    return failure(Errc::foreign_owner, call_.what,
                   "the daemon at " + path + " runs as uid " + std::to_string(peer.uid) +
                       ", who is not trusted",
                   "name its user with --trust-owner if you trust them");
  }

  Result<void> read_all(std::string& bytes) {
    for (std::size_t filled = 0; filled < bytes.size();) {
      const ssize_t got = ::recv(socket_, bytes.data() + filled, bytes.size() - filled, 0);
      if (got > 0) {
        filled += static_cast<std::size_t>(got);
      } else if (got == 0) {
        return went_away();
      } else if (errno == EAGAIN) {
        if (auto ready = await(POLLIN); !ready) return ready;
      } else if (errno != EINTR) {
        return went_away();
      }
    }
    return {};
  }

  Result<void> await(short events) {
    for (;;) {
      const auto left =
          std::chrono::ceil<std::chrono::milliseconds>(deadline_ - Clock::now()).count();
      if (left <= 0) return timed_out();
      pollfd item{socket_, events, 0};
      const int ready = ::poll(&item, 1, static_cast<int>(std::min<long long>(left, 60'000)));
      if (ready > 0) return {};
      if (ready < 0 && errno != EINTR) {
        return tl::unexpected(
            Error{{errno, std::generic_category()}, call_.what, std::strerror(errno), ""});
      }
    }
  }

  tl::unexpected<Error> timed_out() const {
    return failure(Errc::timed_out, call_.what, "the daemon did not answer in time",
                   "it may still do it: see shmqctl daemon status");
  }
  tl::unexpected<Error> went_away() const {
    return failure(Errc::daemon_away, call_.what, "the daemon went away before it answered",
                   "it may have done it: look, and try again");
  }

  const Call& call_;
  const Clock::time_point deadline_;
  int socket_ = -1;
};

}  // namespace

std::string make_request(const char* verb, const std::string& queue, const std::string& options) {
  json request{{"version", protocol_version}, {"verb", verb}};
  if (!queue.empty()) request["queue"] = queue;
  if (!options.empty()) request["options"] = json::parse(options, nullptr, false);
  return request.dump(-1, ' ', false, json::error_handler_t::replace);
}

Result<std::string> call_daemon(const Call& call, const std::string& request) {
  Connection connection{call};
  if (auto connected = connection.connect(); !connected) return tl::unexpected(connected.error());
  if (auto sent = connection.send(request); !sent) return tl::unexpected(sent.error());
  auto response = connection.receive();
  if (!response) return response;
  const json object = json::parse(*response, nullptr, false);
  const bool is_object = object.is_object();
  const auto ok = is_object ? object.find("ok") : object.end();
  if (is_object && ok != object.end() && ok->is_boolean() && ok->get<bool>()) return response;
  return tl::unexpected(error_from(*response, call.what));
}

}  // namespace shmq::control
