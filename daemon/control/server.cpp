// SPDX-License-Identifier: Apache-2.0
#include "daemon/control/server.hpp"

#include <fcntl.h>
#include <sys/file.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstring>
#include <filesystem>
#include <utility>

#include "base/clock.hpp"
#include "base/mutant.hpp"
#include "control/protocol.hpp"

namespace shmq::control {
namespace {

constexpr std::size_t length_bytes = 4;
constexpr int accepts_per_turn = 16;
constexpr int rings_per_turn = 256;
constexpr std::size_t queue_name_bytes_max = 64;

tl::unexpected<Error> system_failure(const std::string& what, std::string remedy = "") {
  return tl::unexpected{Error{{errno, std::generic_category()}, what, "", std::move(remedy)}};
}

std::uint32_t length_in(const std::string& frame) {
  std::uint32_t length = 0;
  for (std::size_t i = length_bytes; i-- > 0;) {
    length = (length << 8) | static_cast<unsigned char>(frame[i]);
  }
  return length;
}

bool is_daemons_own(uid_t uid) { return uid == 0 || uid == ::geteuid(); }

}  // namespace

Server::Server(loop::Loop& loop, ServerOptions options, Handler handler, Rung rung)
    : loop_(loop),
      options_(std::move(options)),
      handler_(std::move(handler)),
      rung_(std::move(rung)),
      liveness_(std::make_shared<Server*>(this)) {}

Result<std::unique_ptr<Server>> Server::create(loop::Loop& loop, const ServerOptions& options,
                                               Handler handler, Rung rung) {
  std::unique_ptr<Server> server{new Server(loop, options, std::move(handler), std::move(rung))};
  if (auto done = server->prepare_directory(); !done) return tl::unexpected{done.error()};
  auto doorbell = server->bind(doorbell_socket_name, SOCK_DGRAM);
  if (!doorbell) return tl::unexpected{doorbell.error()};
  server->doorbell_ = *doorbell;
  auto listener = server->bind(control_socket_name, SOCK_STREAM);
  if (!listener) return tl::unexpected{listener.error()};
  server->listener_ = *listener;
  server->spare_ = ::open("/dev/null", O_RDONLY | O_CLOEXEC);
  if (::listen(server->listener_, SOMAXCONN) != 0) return system_failure("listen for clients");
  Server* self = server.get();
  if (auto done = loop.watch(self->doorbell_, EPOLLIN, [self](auto) { self->on_doorbell(); });
      !done) {
    return tl::unexpected{done.error()};
  }
  if (auto done = loop.watch(self->listener_, EPOLLIN, [self](auto) { self->on_connect(); });
      !done) {
    return tl::unexpected{done.error()};
  }
  return server;
}

Server::~Server() {
  *liveness_ = nullptr;
  while (!connections_.empty()) close(connections_.begin()->first);
  for (const auto& [descriptor, name] :
       {std::pair{listener_, control_socket_name}, std::pair{doorbell_, doorbell_socket_name}}) {
    if (descriptor < 0) continue;
    loop_.unwatch(descriptor);
    ::close(descriptor);
    ::unlink((options_.directory + "/" + name).c_str());
  }
  if (spare_ >= 0) ::close(spare_);
  if (lock_ >= 0) ::close(lock_);
}

Result<void> Server::prepare_directory() {
  const std::string& directory = options_.directory;
  std::error_code code;
  const bool is_ours = std::filesystem::create_directories(directory, code);
  // Whatever the umask: who may not pass through it reaches neither of the sockets.
  if (!code && is_ours && ::chmod(directory.c_str(), 0755) != 0) {
    code.assign(errno, std::generic_category());
  }
  if (code) {
    return tl::unexpected{Error{code, "make the runtime directory '" + directory + "'", "",
                                "name another one: --runtime-dir"}};
  }
  struct stat status {};
  if (::stat(directory.c_str(), &status) != 0) {
    return system_failure("use the runtime directory '" + directory + "'");
  }
  // Who else may write there could put a socket of their own in our place.
  if (!is_daemons_own(status.st_uid) || (status.st_mode & 022) != 0) {
    return tl::unexpected{Error{make_error_code(Errc::no_permission),
                                "use the runtime directory '" + directory + "'",
                                "others than the daemon's user and root may write it",
                                "make it the daemon's own with mode 0755, or name another one"}};
  }
  const std::string path = directory + "/lock";
  lock_ = ::open(path.c_str(), O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600);
  if (lock_ < 0) return system_failure("make '" + path + "'");
  if (::flock(lock_, LOCK_EX | LOCK_NB) != 0) {
    return tl::unexpected{
        Error{make_error_code(Errc::busy), "use the runtime directory '" + directory + "'",
              "another daemon has its sockets there", "stop it, or use another --runtime-dir"}};
  }
  return {};
}

Result<int> Server::bind(const char* name, int type) {
  const std::string path = options_.directory + "/" + name;
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  if (path.size() >= sizeof(address.sun_path)) {
    return tl::unexpected{
        Error{make_error_code(Errc::invalid_argument), "make the socket '" + path + "'",
              "the path has more than " + std::to_string(sizeof(address.sun_path) - 1) + " bytes",
              "use a shorter --runtime-dir"}};
  }
  std::memcpy(address.sun_path, path.c_str(), path.size());
  const int descriptor = ::socket(AF_UNIX, type | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
  if (descriptor < 0) return system_failure("make the socket '" + path + "'");
  // We have the lock: what is there is of a daemon that was killed.
  ::unlink(path.c_str());
  // Everybody may connect; what they may ask for is decided by who they are.
  if (::bind(descriptor, reinterpret_cast<const sockaddr*>(&address), sizeof(address)) != 0 ||
      ::chmod(path.c_str(), 0666) != 0) {
    const int code = errno;
    ::close(descriptor);
    errno = code;
    return system_failure("make the socket '" + path + "'");
  }
  return descriptor;
}

std::string Server::doorbell_path() const {
  std::error_code code;
  const auto absolute = std::filesystem::absolute(options_.directory, code);
  return (code ? options_.directory : absolute.string()) + "/" + doorbell_socket_name;
}

// --- Connections -------------------------------------------------------------------------------

bool Server::make_room(const Peer& peer) {
  const auto of_user = std::count_if(connections_.begin(), connections_.end(),
                                     [&](const auto& c) { return c.second.peer.uid == peer.uid; });
  if (!is_daemons_own(peer.uid) &&
      static_cast<std::size_t>(of_user) >= options_.connections_per_user) {
    return false;
  }
  if (connections_.size() < options_.connections_max) return true;
  const auto waiting = std::find_if(connections_.begin(), connections_.end(),
                                    [](const auto& c) { return !c.second.is_asked; });
  if (waiting == connections_.end()) return false;
  close(waiting->first);
  return true;
}

// Without a descriptor to spare the listener would stay readable, and the loop would never sleep.
void Server::refuse_one() {
  ::close(std::exchange(spare_, -1));
  const int descriptor = ::accept4(listener_, nullptr, nullptr, SOCK_CLOEXEC);
  if (descriptor >= 0) ::close(descriptor);
  spare_ = ::open("/dev/null", O_RDONLY | O_CLOEXEC);
}

void Server::on_connect() {
  for (int i = 0; i < accepts_per_turn; ++i) {
    const int descriptor = ::accept4(listener_, nullptr, nullptr, SOCK_CLOEXEC | SOCK_NONBLOCK);
    if (descriptor < 0) {
      if (errno == EMFILE || errno == ENFILE) refuse_one();
      return;
    }
    ucred credentials{};
    socklen_t length = sizeof(credentials);
    if (::getsockopt(descriptor, SOL_SOCKET, SO_PEERCRED, &credentials, &length) != 0) {
      ::close(descriptor);
      continue;
    }
    const Peer peer{.pid = credentials.pid, .uid = credentials.uid, .gid = credentials.gid};
    if (!make_room(peer)) {
      ::close(descriptor);
      continue;
    }
    const std::uint64_t id = next_id_++;
    if (!loop_.watch(descriptor, EPOLLIN,
                     [this, id](std::uint32_t events) { on_event(id, events); })) {
      ::close(descriptor);
      continue;
    }
    connections_[id] = Connection{.descriptor = descriptor,
                                  .peer = peer,
                                  .deadline_ns = base::clock->monotonic_ns() + options_.request_ns,
                                  .is_asked = false,
                                  .attachment = -1,
                                  .input = {},
                                  .output = {},
                                  .sent = 0};
  }
}

void Server::on_event(std::uint64_t id, std::uint32_t events) {
  const auto found = connections_.find(id);
  if (found == connections_.end()) return;
  if ((events & EPOLLOUT) != 0) return on_writable(id);
  if (!found->second.is_asked) return on_input(id);
  // Hung up, or says more than one request: its answer has nobody to go to.
  if ((events & (EPOLLHUP | EPOLLERR)) != 0) close(id);
}

// One descriptor may come with a request; more are none of ours.
ssize_t Server::receive(Connection& connection, char* bytes, std::size_t size) {
  iovec part{bytes, size};
  alignas(cmsghdr) char space[CMSG_SPACE(sizeof(int))];
  msghdr message{};
  message.msg_iov = &part;
  message.msg_iovlen = 1;
  message.msg_control = space;
  message.msg_controllen = sizeof(space);
  const ssize_t got = ::recvmsg(connection.descriptor, &message, MSG_CMSG_CLOEXEC);
  if (got < 0) return got;
  for (cmsghdr* control = CMSG_FIRSTHDR(&message); control != nullptr;
       control = CMSG_NXTHDR(&message, control)) {
    if (control->cmsg_level != SOL_SOCKET || control->cmsg_type != SCM_RIGHTS) continue;
    const std::size_t count = (control->cmsg_len - CMSG_LEN(0)) / sizeof(int);
    for (std::size_t i = 0; i < count; ++i) {
      int descriptor = -1;
      std::memcpy(&descriptor, CMSG_DATA(control) + i * sizeof(int), sizeof(int));
      if (connection.attachment < 0) {
        connection.attachment = descriptor;
      } else {
        ::close(descriptor);
      }
    }
  }
  return got;
}

void Server::on_input(std::uint64_t id) {
  Connection& connection = connections_.at(id);
  std::array<char, 65536> piece;
  const ssize_t got = receive(connection, piece.data(), piece.size());
  if (got < 0 && (errno == EAGAIN || errno == EINTR)) return;
  if (got <= 0) return close(id);
  connection.input.append(piece.data(), static_cast<std::size_t>(got));
  if (connection.input.size() < length_bytes) return;
  const std::size_t length = length_in(connection.input);
  if (length > frame_bytes_max && !base::mutant(90)) {
    connection.is_asked = true;
    loop_.change(connection.descriptor, 0);
    return answer(id, error_response(Error{
                          make_error_code(Errc::invalid_argument), "read a request",
                          "it has more than " + std::to_string(frame_bytes_max) + " bytes", ""}));
  }
  if (connection.input.size() < length_bytes + length) return;
  connection.is_asked = true;
  connection.deadline_ns = loop::no_deadline;  // ours to answer now
  loop_.change(connection.descriptor, 0);      // hang-ups are told even so
  const std::string request = connection.input.substr(length_bytes, length);
  connection.input.clear();
  Peer peer = connection.peer;
  peer.attachment = std::exchange(connection.attachment, -1);
  handler_(peer, request, [liveness = liveness_, id](const std::string& response) {
    if (*liveness != nullptr) (*liveness)->answer(id, response);
  });
  if (peer.attachment >= 0) ::close(peer.attachment);
}

void Server::answer(std::uint64_t id, const std::string& response) {
  const auto found = connections_.find(id);
  if (found == connections_.end() || !found->second.output.empty()) return;
  Connection& connection = found->second;
  const auto length = static_cast<std::uint32_t>(response.size());
  for (std::size_t i = 0; i < length_bytes; ++i) {
    connection.output.push_back(static_cast<char>((length >> (8 * i)) & 0xff));
  }
  connection.output += response;
  connection.deadline_ns = base::clock->monotonic_ns() + options_.answer_ns;
  loop_.change(connection.descriptor, EPOLLOUT);
}

void Server::on_writable(std::uint64_t id) {
  Connection& connection = connections_.at(id);
  const std::string& output = connection.output;
  const ssize_t sent = ::send(connection.descriptor, output.data() + connection.sent,
                              output.size() - connection.sent, MSG_NOSIGNAL);
  if (sent < 0 && (errno == EAGAIN || errno == EINTR)) return;
  if (sent < 0) return close(id);
  connection.sent += static_cast<std::size_t>(sent);
  if (connection.sent == output.size()) close(id);
}

void Server::close(std::uint64_t id) {
  const auto found = connections_.find(id);
  if (found == connections_.end()) return;
  loop_.unwatch(found->second.descriptor);
  ::close(found->second.descriptor);
  if (found->second.attachment >= 0) ::close(found->second.attachment);
  connections_.erase(found);
}

void Server::tick(std::uint64_t now_ns) {
  for (auto at = connections_.begin(); at != connections_.end();) {
    const auto id = at->first;
    const bool is_late = at->second.deadline_ns <= now_ns && !base::mutant(91);
    ++at;
    if (is_late) close(id);
  }
}

std::uint64_t Server::next_timer_ns() const noexcept {
  std::uint64_t at = loop::no_deadline;
  for (const auto& [id, connection] : connections_) at = std::min(at, connection.deadline_ns);
  return at;
}

bool Server::has_answers() const noexcept {
  return std::any_of(connections_.begin(), connections_.end(),
                     [](const auto& c) { return !c.second.output.empty(); });
}

// --- The doorbell ------------------------------------------------------------------------------

void Server::on_doorbell() {
  for (int i = 0; i < rings_per_turn; ++i) {
    std::array<char, queue_name_bytes_max + 1> name;
    const ssize_t got = ::recv(doorbell_, name.data(), name.size(), 0);
    if (got < 0) return;
    rung_(std::string{name.data(), static_cast<std::size_t>(got)});
  }
}

}  // namespace shmq::control
