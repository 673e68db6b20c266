// SPDX-License-Identifier: Apache-2.0
//
// What clients see of a daemon: the lock that says it lives, and its doorbell. The test says when
// it comes and goes, and moves the watermark.
#pragma once

#include <fcntl.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include <cstring>
#include <filesystem>
#include <string>

#include "support/durable_queue.hpp"

namespace shmq::testing {

class FakeDaemon {
 public:
  explicit FakeDaemon(DurableQueue& queue) : queue_(queue) {
    come();
    queue_.begin_journal();
    queue_.mark->set_state(shm::DaemonState::serving);
  }
  ~FakeDaemon() {
    if (doorbell_ >= 0) ::close(doorbell_);
    std::filesystem::remove(path_);
  }
  FakeDaemon(const FakeDaemon&) = delete;
  FakeDaemon& operator=(const FakeDaemon&) = delete;

  void come() {
    lock_ = DurableQueue::need(queue_.segment->open_lock_file());
    if (!lock_.try_lock(shm::lock_byte_daemon)) throw std::runtime_error{"the lock is taken"};
  }
  /// As kill -9: the kernel drops the lock, and nothing else changes.
  void die() { lock_.close(); }

  /// Makes the doorbell and says that the daemon sleeps.
  void listen() {
    path_ = "/tmp/" + queue_.scratch.name_space + ".doorbell";
    doorbell_ = ::socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    sockaddr_un address{.sun_family = AF_UNIX, .sun_path = {}};
    std::strncpy(address.sun_path, path_.c_str(), sizeof(address.sun_path) - 1);
    if (::bind(doorbell_, reinterpret_cast<sockaddr*>(&address), sizeof(address)) != 0) {
      throw std::runtime_error{"bind " + path_ + ": " + std::strerror(errno)};
    }
    auto& mark = const_cast<shm::Mark&>(queue_.mark->mark());
    std::memset(mark.doorbell_path, 0, sizeof(mark.doorbell_path));
    std::memcpy(mark.doorbell_path, path_.data(), path_.size());
    sleep();
  }
  void sleep() {
    sync::store_relaxed(queue_.segment->control().daemon_asleep, 1U);
    sync::full_fence();
  }
  void wake() { sync::store_relaxed(queue_.segment->control().daemon_asleep, 0U); }
  /// What the doorbell was rung with; empty: it was not.
  std::string rung() {
    char text[128];
    const ssize_t bytes = ::recv(doorbell_, text, sizeof(text), 0);
    return bytes < 0 ? "" : std::string(text, static_cast<std::size_t>(bytes));
  }
  /// A waiter rings again after each sleep: what is left of an earlier one.
  void forget_rings() {
    while (!rung().empty()) {
    }
  }
  /// As rung(), but waits for it.
  std::string await_ring() {
    char text[128];
    timeval limit{.tv_sec = 30, .tv_usec = 0};
    ::setsockopt(doorbell_, SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof(limit));
    const int flags = ::fcntl(doorbell_, F_GETFL);
    ::fcntl(doorbell_, F_SETFL, flags & ~O_NONBLOCK);
    const ssize_t bytes = ::recv(doorbell_, text, sizeof(text), 0);
    ::fcntl(doorbell_, F_SETFL, flags);
    return bytes < 0 ? "" : std::string(text, static_cast<std::size_t>(bytes));
  }

 private:
  DurableQueue& queue_;
  sync::LockFile lock_;
  int doorbell_ = -1;
  std::string path_;
};

}  // namespace shmq::testing
