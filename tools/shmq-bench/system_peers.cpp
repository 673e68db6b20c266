// SPDX-License-Identifier: Apache-2.0
//
// What the system and Boost offer: pipe, POSIX message queue, Boost.Interprocess message_queue.
// All are made before the fork and their names removed at once, so that nothing is left behind.
#include <mqueue.h>
#include <unistd.h>

#include <boost/interprocess/ipc/message_queue.hpp>
#include <cerrno>

#include "contender.hpp"

namespace shmq_bench {
namespace {

std::string fresh_name() {
  static int counter = 0;
  return "shmq-bench." + std::to_string(getpid()) + "." + std::to_string(counter++);
}

class Pipe {
 public:
  static bool possible(std::size_t) noexcept { return true; }
  Pipe(std::size_t, Mode) {
    if (pipe(ends_.data()) != 0) fail("cannot make a pipe");
  }
  void send(const std::byte* payload, std::size_t bytes) {
    for (std::size_t done = 0; done < bytes;) {
      const ssize_t moved = write(ends_[1], payload + done, bytes - done);
      if (moved <= 0 && errno != EINTR) fail("cannot write to a pipe");
      if (moved > 0) done += static_cast<std::size_t>(moved);
    }
  }
  void receive(std::byte* payload, std::size_t bytes) {
    for (std::size_t done = 0; done < bytes;) {
      const ssize_t moved = read(ends_[0], payload + done, bytes - done);
      if (moved <= 0 && errno != EINTR) fail("cannot read from a pipe");
      if (moved > 0) done += static_cast<std::size_t>(moved);
    }
  }

 private:
  std::array<int, 2> ends_{};
};

class PosixQueue {
 public:
  static bool possible(std::size_t bytes) {
    const mqd_t queue = make(bytes);
    if (queue == static_cast<mqd_t>(-1)) return false;  // beyond the system's limits
    mq_close(queue);
    return true;
  }
  PosixQueue(std::size_t bytes, Mode) : queue_(make(bytes)) {
    if (queue_ == static_cast<mqd_t>(-1)) fail("cannot make a POSIX message queue");
  }
  void send(const std::byte* payload, std::size_t bytes) {
    while (mq_send(queue_, reinterpret_cast<const char*>(payload), bytes, 0) != 0) {
      if (errno != EINTR) fail("cannot send to a POSIX message queue");
    }
  }
  void receive(std::byte* payload, std::size_t bytes) {
    for (;;) {
      const ssize_t got = mq_receive(queue_, reinterpret_cast<char*>(payload), bytes, nullptr);
      if (got == static_cast<ssize_t>(bytes)) return;
      if (got >= 0 || errno != EINTR) fail("cannot receive from a POSIX message queue");
    }
  }

 private:
  static mqd_t make(std::size_t bytes) {
    const std::string name = "/" + fresh_name();
    mq_attr attributes{};
    attributes.mq_maxmsg = 10;
    attributes.mq_msgsize = static_cast<long>(bytes);
    const mqd_t queue = mq_open(name.c_str(), O_RDWR | O_CREAT | O_EXCL, 0600, &attributes);
    if (queue != static_cast<mqd_t>(-1)) mq_unlink(name.c_str());
    return queue;
  }
  mqd_t queue_;
};

class BoostQueue {
 public:
  static bool possible(std::size_t) noexcept { return true; }
  BoostQueue(std::size_t bytes, Mode mode) : BoostQueue(fresh_name(), bytes, mode) {}
  void send(const std::byte* payload, std::size_t bytes) { queue_.send(payload, bytes, 0); }
  void receive(std::byte* payload, std::size_t bytes) {
    std::size_t got = 0;
    unsigned priority = 0;
    queue_.receive(payload, bytes, got, priority);
    if (got != bytes) fail("Boost message_queue: wrong length");
  }

 private:
  BoostQueue(const std::string& name, std::size_t bytes, Mode mode)
      : queue_(boost::interprocess::create_only, name.c_str(), mode == Mode::round_trip ? 16 : 256,
               bytes) {
    boost::interprocess::message_queue::remove(name.c_str());
  }
  boost::interprocess::message_queue queue_;
};

}  // namespace

void add_system_peers(Contenders& contenders, const std::vector<std::size_t>& sizes) {
  contenders.push_back(std::make_unique<LinkContender<BoostQueue>>("boost-mq", sizes));
  contenders.push_back(std::make_unique<LinkContender<PosixQueue>>("posix-mq", sizes));
  contenders.push_back(std::make_unique<LinkContender<Pipe>>("pipe", sizes));
}

}  // namespace shmq_bench
