// SPDX-License-Identifier: Apache-2.0
//
// The control socket against peers that are slow, wrong, gone, or too many; and the doorbell.
#include "daemon/control/server.hpp"

#include <gtest/gtest.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include <cstring>
#include <filesystem>
#include <fstream>

#include "base/clock.hpp"
#include "control/protocol.hpp"

namespace {

using namespace shmq;
namespace fs = std::filesystem;

std::string framed(const std::string& text) {
  std::string frame;
  for (int i = 0; i < 4; ++i) {
    frame.push_back(static_cast<char>((text.size() >> (8 * i)) & 0xff));
  }
  return frame + text;
}

class Client {
 public:
  Client(const std::string& path, int type) : descriptor_(::socket(AF_UNIX, type, 0)) {
    sockaddr_un address{};
    address.sun_family = AF_UNIX;
    std::strncpy(address.sun_path, path.c_str(), sizeof(address.sun_path) - 1);
    EXPECT_EQ(::connect(descriptor_, reinterpret_cast<sockaddr*>(&address), sizeof(address)), 0);
  }
  Client(const Client&) = delete;
  Client& operator=(const Client&) = delete;
  ~Client() { close(); }
  void close() {
    if (descriptor_ >= 0) ::close(descriptor_);
    descriptor_ = -1;
  }
  void send(const std::string& bytes) const {
    ASSERT_EQ(::send(descriptor_, bytes.data(), bytes.size(), MSG_NOSIGNAL),
              static_cast<ssize_t>(bytes.size()));
  }
  /// What has come, without waiting; "EOF" at the end if the server hung up.
  [[nodiscard]] std::string read() const {
    std::string all;
    char bytes[4096];
    ssize_t got;
    while ((got = ::recv(descriptor_, bytes, sizeof(bytes), MSG_DONTWAIT)) > 0) {
      all.append(bytes, static_cast<std::size_t>(got));
    }
    return got == 0 ? all + "EOF" : all;
  }

 private:
  int descriptor_;
};

class Server : public testing::Test {
 protected:
  void SetUp() override {
    std::string pattern = (fs::temp_directory_path() / "shmq-server.XXXXXX").string();
    ASSERT_NE(::mkdtemp(pattern.data()), nullptr);
    directory = pattern;
    backend = std::make_unique<io::Backend>(
        *io::Backend::create(io::BackendChoice::plain, [](const std::string&) {}));
    loop = std::move(*loop::Loop::create(*backend));
    options.directory = directory / "run" / "ns";
  }
  void TearDown() override {
    server.reset();
    std::error_code ignored;
    fs::remove_all(directory, ignored);
  }
  Result<void> start() {
    auto made = control::Server::create(
        *loop, options,
        [this](const control::Peer& peer, const std::string& request, control::Reply reply) {
          peers.push_back(peer);
          requests.push_back(request);
          if (keeps_replies) {
            kept.push_back(std::move(reply));
          } else {
            reply("answer to " + request);
          }
        },
        [this](const std::string& queue) { rung.push_back(queue); });
    if (!made) return tl::unexpected{made.error()};
    server = std::move(*made);
    return {};
  }
  void turns(int count = 8) {
    for (int i = 0; i < count; ++i) loop->turn(0);
  }
  [[nodiscard]] std::string control() const { return options.directory + "/control"; }

  fs::path directory;
  std::unique_ptr<io::Backend> backend;
  std::unique_ptr<loop::Loop> loop;
  control::ServerOptions options;
  std::vector<control::Peer> peers;
  std::vector<std::string> requests, rung;
  std::vector<control::Reply> kept;
  bool keeps_replies = false;
  std::unique_ptr<control::Server> server;
};

TEST_F(Server, a_request_is_answered_and_the_peer_is_who_the_kernel_says) {
  ASSERT_TRUE(start());
  const Client client{control(), SOCK_STREAM};
  client.send(framed("hello"));
  turns();
  ASSERT_EQ(requests, std::vector<std::string>{"hello"});
  EXPECT_EQ(client.read(), framed("answer to hello") + "EOF");
  EXPECT_EQ(peers.at(0).uid, ::geteuid());
  EXPECT_EQ(peers.at(0).pid, ::getpid());
}

TEST_F(Server, a_peer_that_comes_byte_by_byte_delays_nobody) {
  ASSERT_TRUE(start());
  const Client slow{control(), SOCK_STREAM};
  const std::string request = framed("slow");
  for (std::size_t i = 0; i + 1 < request.size(); ++i) {
    slow.send(request.substr(i, 1));
    turns();
  }
  const Client quick{control(), SOCK_STREAM};
  quick.send(framed("quick"));
  turns();
  EXPECT_EQ(quick.read(), framed("answer to quick") + "EOF");
  EXPECT_EQ(slow.read(), "");
  slow.send(request.substr(request.size() - 1));
  turns();
  EXPECT_EQ(slow.read(), framed("answer to slow") + "EOF");
}

TEST_F(Server, a_frame_that_is_too_long_is_refused_at_once) {
  ASSERT_TRUE(start());
  const Client client{control(), SOCK_STREAM};
  client.send(std::string{"\x01\x00\x10\x00", 4});
  turns();
  const std::string answer = client.read();
  EXPECT_NE(answer.find("\"ok\":false"), std::string::npos) << answer;
  EXPECT_TRUE(answer.ends_with("EOF"));
  EXPECT_TRUE(requests.empty());
}

TEST_F(Server, who_does_not_ask_in_time_is_cut_off) {
  ASSERT_TRUE(start());
  const Client silent{control(), SOCK_STREAM};
  turns();
  const std::uint64_t deadline = server->next_timer_ns();
  ASSERT_NE(deadline, loop::no_deadline);
  server->tick(deadline - 1);
  EXPECT_EQ(server->connections(), 1U);
  server->tick(deadline);
  EXPECT_EQ(server->connections(), 0U);
  EXPECT_EQ(silent.read(), "EOF");
  EXPECT_EQ(server->next_timer_ns(), loop::no_deadline);
}

TEST_F(Server, who_does_not_take_the_answer_is_cut_off) {
  ASSERT_TRUE(start());
  keeps_replies = true;
  const Client lazy{control(), SOCK_STREAM};
  lazy.send(framed("much"));
  turns();
  EXPECT_EQ(server->next_timer_ns(), loop::no_deadline) << "the answer is ours to give";
  kept.at(0)(std::string(64 << 20, 'x'));
  turns();
  EXPECT_EQ(server->connections(), 1U);
  EXPECT_TRUE(server->has_answers());
  server->tick(server->next_timer_ns());
  EXPECT_EQ(server->connections(), 0U);
}

TEST_F(Server, an_answer_for_somebody_who_is_gone_is_dropped) {
  ASSERT_TRUE(start());
  keeps_replies = true;
  Client client{control(), SOCK_STREAM};
  client.send(framed("one"));
  turns();
  client.close();
  turns();
  EXPECT_EQ(server->connections(), 0U);
  kept.at(0)("too late");
  server.reset();
  kept.at(0)("far too late");
}

TEST_F(Server, where_there_is_no_room_who_has_not_asked_has_to_go) {
  options.connections_max = 4;
  ASSERT_TRUE(start());
  std::vector<std::unique_ptr<Client>> idle;
  for (int i = 0; i < 4; ++i) {
    idle.push_back(std::make_unique<Client>(control(), SOCK_STREAM));
    turns();
  }
  const Client client{control(), SOCK_STREAM};
  client.send(framed("me"));
  turns();
  EXPECT_EQ(client.read(), framed("answer to me") + "EOF");
  EXPECT_EQ(idle.at(0)->read(), "EOF");
  EXPECT_EQ(idle.at(1)->read(), "");
}

TEST_F(Server, the_doorbell_says_which_queue) {
  ASSERT_TRUE(start());
  EXPECT_EQ(server->doorbell_path(), options.directory + "/doorbell");
  const Client bell{server->doorbell_path(), SOCK_DGRAM};
  bell.send("orders");
  bell.send("");
  bell.send(std::string(500, 'x'));
  turns();
  ASSERT_EQ(rung.size(), 3U);
  EXPECT_EQ(rung.at(0), "orders");
  EXPECT_EQ(rung.at(1), "");
  EXPECT_EQ(rung.at(2), std::string(65, 'x'));
}

TEST_F(Server, one_daemon_has_the_directory_and_a_killed_one_leaves_it) {
  ASSERT_TRUE(start());
  auto first = std::move(server);
  const auto second = start();
  ASSERT_FALSE(second);
  EXPECT_EQ(second.error(), Errc::busy);
  EXPECT_TRUE(fs::exists(control())) << "the loser leaves the other's socket alone";
  first.reset();
  EXPECT_FALSE(fs::exists(control()));
  // What a killed one leaves.
  { std::ofstream{control()}; }
  EXPECT_TRUE(start());
}

// As the service has it: a directory that only its maker may pass hides both sockets from
// everybody.
TEST_F(Server, everybody_reaches_the_sockets_whatever_the_umask) {
  const mode_t before = ::umask(0077);
  const auto started = start();
  ::umask(before);
  ASSERT_TRUE(started) << started.error().message();
  struct stat status {};
  ASSERT_EQ(::stat(options.directory.c_str(), &status), 0);
  EXPECT_EQ(status.st_mode & 07777, 0755U);
  for (const char* name : {"control", "doorbell"}) {
    ASSERT_EQ(::stat((fs::path{options.directory} / name).c_str(), &status), 0) << name;
    EXPECT_EQ(status.st_mode & 0777, 0666U) << name;
  }
}

TEST_F(Server, a_directory_that_others_may_write_is_refused) {
  fs::create_directories(options.directory);
  ASSERT_EQ(::chmod(options.directory.c_str(), 0777), 0);
  const auto made = start();
  ASSERT_FALSE(made);
  EXPECT_EQ(made.error(), Errc::no_permission);
}

TEST_F(Server, a_path_that_no_socket_can_have_is_refused_with_a_text) {
  options.directory = directory / std::string(120, 'd');
  const auto made = start();
  ASSERT_FALSE(made);
  EXPECT_NE(made.error().message().find("--runtime-dir"), std::string::npos);
}

}  // namespace
