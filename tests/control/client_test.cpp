// SPDX-License-Identifier: Apache-2.0
//
// A client's calls of the daemon; the server is played by the test, honest and not.
#include "control/client.hpp"

#include <gtest/gtest.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include <cstring>
#include <filesystem>
#include <shmq/shmq.hpp>
#include <thread>

#include "control/protocol.hpp"
#include "support/fake_daemon.hpp"

namespace {
using namespace shmq;
using namespace std::chrono_literals;
using shmq::testing::DurableQueue;
using shmq::testing::FakeDaemon;
using shmq::testing::Scratch;

std::string frame(const std::string& body) {
  const auto bytes = static_cast<std::uint32_t>(body.size());
  std::string text(4, '\0');
  std::memcpy(text.data(), &bytes, 4);  // little-endian hosts only
  return text + body;
}

// Answers each connection with the same bytes, and keeps what was asked.
class Server {
 public:
  explicit Server(const Scratch& scratch)
      : runtime_dir("/tmp/" + scratch.name_space + ".run"),
        directory_(runtime_dir + "/" + scratch.name_space) {
    std::filesystem::create_directories(directory_);
    listener_ = ::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    sockaddr_un address{.sun_family = AF_UNIX, .sun_path = {}};
    const std::string path = directory_ + "/" + control::control_socket_name;
    std::strncpy(address.sun_path, path.c_str(), sizeof(address.sun_path) - 1);
    if (::bind(listener_, reinterpret_cast<sockaddr*>(&address), sizeof(address)) != 0 ||
        ::listen(listener_, 8) != 0) {
      throw std::runtime_error{path + ": " + std::strerror(errno)};
    }
  }
  ~Server() {
    if (thread_.joinable()) {
      ::shutdown(listener_, SHUT_RDWR);
      thread_.join();
    }
    ::close(listener_);
    std::filesystem::remove_all(runtime_dir);
  }
  Server(const Server&) = delete;
  Server& operator=(const Server&) = delete;

  void answer(std::string bytes) {
    thread_ = std::thread{[this, bytes = std::move(bytes)] {
      for (int peer; (peer = ::accept(listener_, nullptr, nullptr)) >= 0; ::close(peer)) {
        std::uint32_t length = 0;
        if (::recv(peer, &length, 4, MSG_WAITALL) != 4) continue;
        request.assign(length, '\0');
        ::recv(peer, request.data(), length, MSG_WAITALL);
        for (const char byte : bytes) ::send(peer, &byte, 1, MSG_NOSIGNAL);  // piecemeal
      }
    }};
  }

  const std::string runtime_dir;
  std::string request;

 private:
  std::string directory_;
  int listener_ = -1;
  std::thread thread_;
};

struct ControlClient : ::testing::Test {
  Scratch scratch;
  Server server{scratch};
  DaemonOptions to{.name_space = scratch.name_space, .runtime_dir = server.runtime_dir};
};

TEST_F(ControlClient, status_is_what_the_daemon_says) {
  const std::string body = R"({"ok": true, "pid": 7})";
  server.answer(frame(body));
  EXPECT_EQ(*daemon_status(to), body);
  EXPECT_EQ(server.request, R"({"verb":"status","version":1})");
  EXPECT_TRUE(daemon_reload(to));
  EXPECT_EQ(server.request, R"({"verb":"reload","version":1})");
  EXPECT_TRUE(daemon_drain(to));
  EXPECT_EQ(server.request, R"({"verb":"drain","version":1})");
}

TEST_F(ControlClient, errors_arrive_as_the_daemon_made_them) {
  const Error error{make_error_code(Errc::no_permission), "create queue 'q'", "not yours", "ask"};
  server.answer(frame(control::error_response(error)));
  const auto answer = daemon_status(to);
  ASSERT_FALSE(answer);
  EXPECT_EQ(answer.error(), Errc::no_permission);
  EXPECT_EQ(answer.error().message(), error.message());
}

TEST_F(ControlClient, creating_a_durable_queue_asks_for_it_and_opens_it) {
  DurableQueue durable;
  FakeDaemon daemon{durable};
  Server own{durable.scratch};
  own.answer(frame(R"({"ok":true})"));
  const auto queue = Queue::create("q", {.slots = 64,
                                         .durable = true,
                                         .visible = Visible::synced,
                                         .name_space = durable.scratch.name_space,
                                         .runtime_dir = own.runtime_dir});
  ASSERT_TRUE(queue) << queue.error().message();
  EXPECT_TRUE(queue->info().durable);
  for (const char* part : {R"("verb":"create")", R"("queue":"q")", R"("slots":64)",
                           R"("durable":true)", R"("visible":1)"}) {
    EXPECT_NE(own.request.find(part), std::string::npos) << own.request;
  }
  EXPECT_TRUE(Queue::remove(
      "q", {.name_space = durable.scratch.name_space, .runtime_dir = own.runtime_dir}));
  EXPECT_EQ(own.request, R"({"queue":"q","verb":"remove","version":1})");
}

TEST_F(ControlClient, nobody_there_is_told_with_the_places_looked_at) {
  const auto answer = daemon_status({.name_space = "other", .runtime_dir = server.runtime_dir});
  ASSERT_FALSE(answer);
  EXPECT_EQ(answer.error(), Errc::daemon_away);
  EXPECT_NE(answer.error().message().find(server.runtime_dir + "/other/control"),
            std::string::npos);
}

TEST_F(ControlClient, a_daemon_of_an_untrusted_user_is_not_asked) {
  server.answer(frame(R"({"ok":true})"));
  control::Call call{.name_space = scratch.name_space,
                     .runtime_dir = server.runtime_dir,
                     .trusts = [](uid_t) { return false; },
                     .what = "x"};
  EXPECT_EQ(control::call_daemon(call, "{}").error(), Errc::foreign_owner);
  EXPECT_EQ(server.request, "");
}

TEST_F(ControlClient, a_silent_daemon_is_not_waited_for_without_end) {
  to.timeout = 30ms;
  EXPECT_EQ(daemon_status(to).error(), Errc::timed_out);
  to.timeout = 0ms;
  EXPECT_EQ(daemon_status(to).error(), Errc::timed_out);
}

TEST_F(ControlClient, strange_answers_are_errors) {
  struct Case {
    std::string bytes;
    Errc code;
  };
  const std::vector<Case> cases{{"", Errc::daemon_away},
                                {"\x05", Errc::daemon_away},
                                {frame("{\"ok\":true}").substr(0, 9), Errc::daemon_away},
                                {"\xff\xff\xff\xff", Errc::version_mismatch},
                                {frame(""), Errc::version_mismatch},
                                {frame("[1]"), Errc::version_mismatch},
                                {frame("{\"ok\":\"yes\"}"), Errc::version_mismatch},
                                {frame("{\"ok\":false}"), Errc::version_mismatch},
                                {frame("\xff\xfe"), Errc::version_mismatch}};
  for (const auto& [bytes, code] : cases) {
    const Scratch own;
    Server strange{own};
    strange.answer(bytes);
    const auto answer =
        daemon_status({.name_space = own.name_space, .runtime_dir = strange.runtime_dir});
    ASSERT_FALSE(answer) << bytes;
    EXPECT_EQ(answer.error(), code) << bytes << ": " << answer.error().message();
  }
}

TEST_F(ControlClient, groups_of_a_durable_queue_are_made_once_that_is_on_stable_storage) {
  DurableQueue durable;
  FakeDaemon daemon{durable};
  auto queue = DurableQueue::need(durable.open());
  daemon.listen();
  std::thread making{[&] { EXPECT_TRUE(queue.create_group({.name = "g"})); }};
  EXPECT_EQ(daemon.await_ring(), "q");
  durable.mark->advance({.acks_synced = durable.mark->begin_look()});
  making.join();
  daemon.die();
  const auto refused = queue.remove_group("g");
  ASSERT_FALSE(refused);
  EXPECT_EQ(refused.error(), Errc::daemon_away);
  EXPECT_EQ(queue.groups().size(), 2U) << "nothing was changed";
}

}  // namespace
