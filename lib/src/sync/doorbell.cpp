// SPDX-License-Identifier: Apache-2.0
#include "sync/doorbell.hpp"

#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include <atomic>
#include <cerrno>
#include <cstddef>
#include <cstdint>
#include <cstring>

#include "sync/ofd_lock.hpp"

namespace shmq::sync {
namespace {

// {fork generation 32, descriptor + 1 32}; no lock, since a child forked while another thread held
// it could never take it. A child makes a socket of its own and leaves its parent's alone: by then
// the number may be somebody else's.
std::atomic<std::uint64_t> shared_socket{0};

int descriptor_of(std::uint64_t word) noexcept { return static_cast<int>(word & 0xffffffff) - 1; }

int socket_of_process() noexcept {
  const std::uint64_t generation = (fork_generation() & 0xffffffff) << 32;
  // acquire, pairs with the exchange below: the socket was made before its number is seen.
  std::uint64_t seen = shared_socket.load(std::memory_order_acquire);
  if (seen != 0 && (seen & ~0xffffffffULL) == generation) return descriptor_of(seen);
  const int made = ::socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
  if (made < 0) return -1;
  const std::uint64_t word = generation | (static_cast<std::uint64_t>(made) + 1);
  // acq_rel: ours is whole for who reads it; or another thread's is for us.
  if (shared_socket.compare_exchange_strong(seen, word, std::memory_order_acq_rel)) return made;
  ::close(made);  // another thread was faster
  return descriptor_of(seen);
}

}  // namespace

void ring_doorbell(std::string_view path, std::string_view text) noexcept {
  sockaddr_un address{};
  if (path.empty() || path.size() >= sizeof(address.sun_path)) return;
  const int saved = errno;
  address.sun_family = AF_UNIX;
  std::memcpy(address.sun_path, path.data(), path.size());
  const auto length = static_cast<socklen_t>(offsetof(sockaddr_un, sun_path) + path.size() + 1);
  (void)::sendto(socket_of_process(), text.data(), text.size(), MSG_DONTWAIT | MSG_NOSIGNAL,
                 reinterpret_cast<const sockaddr*>(&address), length);
  errno = saved;
}

}  // namespace shmq::sync
