// SPDX-License-Identifier: Apache-2.0
//
// shmq-exporter: figures of queues over HTTP, on loopback or a unix socket. See shmq-exporter(8).
//
// One thread looks at the queues at an interval, so that rates and ages are known when somebody
// asks; httplib's threads answer.
#include <arpa/inet.h>
#include <httplib.h>
#include <pthread.h>
#include <sys/stat.h>
#include <sys/un.h>

#include <CLI/CLI.hpp>
#include <charconv>
#include <csignal>
#include <cstdio>
#include <stop_token>
#include <thread>

#include "collector.hpp"
#include "figures/scale.hpp"
#include "shmqctl/units.hpp"

namespace shmq_exporter {
namespace {

enum Exit : int { exit_ok = 0, exit_error = 1, exit_usage = 2 };

struct Arguments {
  std::string name_space;
  std::string address = "127.0.0.1";
  int port = 9718;
  std::string socket;  // in place of the two above
  std::chrono::nanoseconds interval = std::chrono::milliseconds{500};
  std::chrono::nanoseconds span = std::chrono::seconds{10};
  std::vector<uid_t> trusted_owners;
};

int fail(Exit code, const std::string& text) {
  std::fprintf(stderr, "shmq-exporter: %s\n", text.c_str());
  return code;
}

// "127.0.0.1:9718", "[::1]:9718", "localhost:0". Nothing but loopback: there is no encryption and
// no password here.
bool read_address(const std::string& text, Arguments& arguments) {
  const auto colon = text.rfind(':');
  if (colon == std::string::npos) return false;
  std::string host = text.substr(0, colon);
  if (host.size() > 2 && host.front() == '[' && host.back() == ']') {
    host = host.substr(1, host.size() - 2);
  }
  in_addr four{};
  const bool is_loopback =
      host == "localhost" || host == "::1" ||
      (inet_pton(AF_INET, host.c_str(), &four) == 1 && (ntohl(four.s_addr) >> 24) == 127);
  int port = -1;
  const char* end = text.data() + text.size();
  const auto [stopped, code] = std::from_chars(text.data() + colon + 1, end, port);
  if (!is_loopback || code != std::errc{} || stopped != end || port < 0 || port > 65535) {
    return false;
  }
  arguments.address = host;
  arguments.port = port;
  return true;
}

std::chrono::nanoseconds read_time(const std::string& option, const std::string& text,
                                   std::chrono::nanoseconds at_least) {
  const auto time = shmqctl::parse_time(text);
  if (!time || *time < at_least) {
    throw CLI::ValidationError(option, "'" + text +
                                           "' is not a time such as 500ms or 10s, or too "
                                           "short");
  }
  return *time;
}

void add_options(CLI::App& app, Arguments& arguments) {
  app.add_option("--namespace", arguments.name_space,
                 "namespace of the queues (default: SHMQ_NAMESPACE, else \"default\")")
      ->type_name("N");
  auto* listen =
      app.add_option_function<std::string>(
             "--listen",
             [&arguments](const std::string& text) {
               if (!read_address(text, arguments)) {
                 throw CLI::ValidationError(
                     "--listen", "'" + text +
                                     "' is not a loopback address and port; "
                                     "to be reached from elsewhere, put a proxy before it");
               }
             },
             "loopback address and port (default 127.0.0.1:9718; port 0: any)")
          ->type_name("ADDRESS:PORT");
  app.add_option("--socket", arguments.socket, "listen on a unix socket of this path instead")
      ->type_name("PATH")
      ->excludes(listen);
  app.add_option_function<std::string>(
         "--interval",
         [&arguments](const std::string& text) {
           arguments.interval = read_time("--interval", text, std::chrono::milliseconds{10});
         },
         "time between two looks at the queues (default 500ms)")
      ->type_name("TIME");
  app.add_option_function<std::string>(
         "--span",
         [&arguments](const std::string& text) {
           arguments.span = read_time("--span", text, std::chrono::milliseconds{10});
         },
         "time over which rates are means (default 10s)")
      ->type_name("TIME");
  app.add_option_function<std::vector<std::string>>(
         "--trust-owner",
         [&arguments](const std::vector<std::string>& users) {
           for (const std::string& user : users) {
             const auto uid = shmqctl::parse_user(user);
             if (!uid) throw CLI::ValidationError("--trust-owner", "no user '" + user + "'");
             arguments.trusted_owners.push_back(*uid);
           }
         },
         "read queues that belong to USER, too; repeatable")
      ->type_name("USER")
      ->allow_extra_args(false);
  app.set_version_flag("--version", std::string{"shmq-exporter "} + shmq::version());
}

// --- answers -------------------------------------------------------------------------------------

void refuse(httplib::Response& response, int status, const std::string& text) {
  response.status = status;
  response.set_content(text + "\n", "text/plain; charset=utf-8");
}

void answer_metrics(Collector& collector, httplib::Response& response) {
  auto text = collector.metrics();
  if (!text) return refuse(response, 503, text.error().message());
  response.set_content(*text, shmq::figures::metrics_content_type);
}

void answer_health(const Collector& collector, const Arguments& arguments,
                   httplib::Response& response) {
  // Busy machines are late; one that is this late is not well.
  const auto limit =
      std::max<std::chrono::nanoseconds>(10 * arguments.interval, std::chrono::seconds{10});
  const auto since = collector.since_look();
  if (!since) return refuse(response, 503, "the queues could not be looked at yet");
  if (*since > limit) return refuse(response, 503, "the queues were not looked at for too long");
  response.set_content("ok\n", "text/plain; charset=utf-8");
}

// False: a parameter cannot be read, and the answer says which.
bool read_wish(const httplib::Request& request, shmq::figures::ScaleWish& wish,
               httplib::Response& response) {
  for (const auto& [name, text] : request.params) {
    const auto count = shmqctl::parse_count(text);
    bool is_fine = false;
    if (name == "target_backlog" || name == "min" || name == "max") {
      is_fine = count.has_value();
      (name == "min"   ? wish.min
       : name == "max" ? wish.max
                       : wish.target_backlog) = count.value_or(0);
    } else if (name == "target_drain") {
      const auto time = shmqctl::parse_time(text);
      is_fine = time && time->count() > 0;
      if (is_fine) wish.target_drain = *time;
    } else if (name == "per_consumer") {
      double rate = 0;
      const auto [end, code] = std::from_chars(text.data(), text.data() + text.size(), rate);
      is_fine = code == std::errc{} && end == text.data() + text.size() && rate > 0 && rate < 1e15;
      wish.per_consumer = rate;
    }
    if (!is_fine) {
      refuse(response, 400,
             "'" + name +
                 "' is no parameter, or its value none (target_backlog=N, "
                 "target_drain=30s, min=N, max=N, per_consumer=RATE)");
      return false;
    }
  }
  if (wish.min > wish.max) {
    refuse(response, 400, "'min' is more than 'max'");
    return false;
  }
  return true;
}

void answer_scale(const Collector& collector, const httplib::Request& request,
                  httplib::Response& response) {
  shmq::figures::ScaleWish wish;
  if (!read_wish(request, wish, response)) return;
  const auto found = collector.figures(request.matches[1], request.matches[2]);
  if (const auto* missing = std::get_if<Collector::Missing>(&found)) {
    return refuse(response, 404,
                  *missing == Collector::Missing::queue ? "no such queue (see /metrics)"
                                                        : "no such group, or its queue cannot be "
                                                          "read (see shmq_queue_up in /metrics)");
  }
  const auto& figures = std::get<shmq::GroupFigures>(found);
  if (!figures.arrivals_per_second) {
    return refuse(response, 503, "seen once, no rates yet (ask again after --interval)");
  }
  // A bare number is JSON, too: valueLocation "@this".
  response.set_content(std::to_string(shmq::figures::advise(figures, wish).wanted) + "\n",
                       "application/json");
}

void add_answers(httplib::Server& server, Collector& collector, const Arguments& arguments) {
  server.Get("/metrics", [&](const httplib::Request&, httplib::Response& response) {
    answer_metrics(collector, response);
  });
  server.Get("/healthz", [&](const httplib::Request&, httplib::Response& response) {
    answer_health(collector, arguments, response);
  });
  server.Get(R"(/scale/([a-z0-9][a-z0-9._-]{0,63})/([a-z0-9][a-z0-9._-]{0,63}))",
             [&](const httplib::Request& request, httplib::Response& response) {
               answer_scale(collector, request, response);
             });
  server.set_error_handler([](const httplib::Request&, httplib::Response& response) {
    if (!response.body.empty()) return;
    refuse(response, response.status,
           "no such thing here (there are /metrics, /healthz and /scale/QUEUE/GROUP)");
  });
  server.set_payload_max_length(4096);
  server.set_read_timeout(5);
  server.set_write_timeout(5);
  // httplib's own choice lets two exporters share a port, each with half of the questions.
  server.set_socket_options([](socket_t socket) {
    const int yes = 1;
    ::setsockopt(socket, SOL_SOCKET, SO_REUSEADDR, &yes, sizeof(yes));
  });
}

// --- listening -----------------------------------------------------------------------------------

// A socket that nobody listens on is what a killed exporter left.
bool make_way(const std::string& path) {
  struct stat status {};
  if (::lstat(path.c_str(), &status) != 0) return errno == ENOENT;
  if (!S_ISSOCK(status.st_mode)) return false;
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  path.copy(address.sun_path, sizeof(address.sun_path) - 1);
  const int probe = ::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
  const bool is_dead =
      ::connect(probe, reinterpret_cast<const sockaddr*>(&address), sizeof(address)) != 0 &&
      errno == ECONNREFUSED;
  ::close(probe);
  return is_dead && ::unlink(path.c_str()) == 0;
}

// Where it listens, for people; empty: it could not.
std::string bind(httplib::Server& server, const Arguments& arguments) {
  if (!arguments.socket.empty()) {
    if (arguments.socket.size() >= sizeof(sockaddr_un::sun_path) || !make_way(arguments.socket)) {
      return {};
    }
    server.set_address_family(AF_UNIX);
    const mode_t before = ::umask(0117);
    const bool bound = server.bind_to_port(arguments.socket, 80);
    ::umask(before);
    return bound ? "unix:" + arguments.socket : "";
  }
  int port = arguments.port;
  if (port == 0) {
    port = server.bind_to_any_port(arguments.address);
  } else if (!server.bind_to_port(arguments.address, port)) {
    port = -1;
  }
  const bool is_six = arguments.address.find(':') != std::string::npos;
  return port < 0 ? ""
                  : "http://" + (is_six ? "[" + arguments.address + "]" : arguments.address) + ":" +
                        std::to_string(port);
}

int serve(const Arguments& arguments, const sigset_t& stop_signals) {
  Collector collector{{.access = shmq::Access::observer,
                       .name_space = arguments.name_space,
                       .trusted_owners = arguments.trusted_owners},
                      arguments.span};
  if (auto looked = collector.look(); !looked) return fail(exit_error, looked.error().message());
  httplib::Server server;
  add_answers(server, collector, arguments);
  const std::string place = bind(server, arguments);
  if (place.empty()) {
    return fail(exit_error, "listen on " +
                                (arguments.socket.empty()
                                     ? arguments.address + ":" + std::to_string(arguments.port)
                                     : arguments.socket) +
                                ": it is in use or cannot be made (stop who has it, or give "
                                "another --listen or --socket)");
  }
  std::printf("listening on %s\n", place.c_str());
  std::fflush(stdout);
  std::jthread sampler{[&](const std::stop_token& stop) {
    std::mutex mutex;
    std::condition_variable_any wake;
    std::unique_lock lock{mutex};
    while (!wake.wait_for(lock, stop, arguments.interval, [&] { return stop.stop_requested(); })) {
      // What fails here is told to who asks: /metrics and /healthz.
      static_cast<void>(collector.look());
    }
  }};
  std::thread stopper{[&] {
    int signal = 0;
    sigwait(&stop_signals, &signal);
    server.stop();
  }};
  const bool listened = server.listen_after_bind();
  // An end without a signal is an error of the socket; the stopper still waits for one.
  if (!listened) ::kill(::getpid(), SIGTERM);
  stopper.join();
  if (!arguments.socket.empty()) ::unlink(arguments.socket.c_str());
  return listened ? exit_ok
                  : fail(exit_error, "listen on " + place + ": the socket failed (start it again)");
}

}  // namespace
}  // namespace shmq_exporter

int main(int argc, char** argv) {
  using namespace shmq_exporter;
  CLI::App app{"Figures of queues in shared memory, over HTTP: /metrics, /healthz, /scale/Q/G.",
               "shmq-exporter"};
  Arguments arguments;
  add_options(app, arguments);
  app.footer("See shmq-exporter(8).");
  try {
    app.parse(argc, argv);
  } catch (const CLI::ParseError& error) {
    if (error.get_exit_code() == 0) return app.exit(error);  // --help, --version
    return fail(exit_usage,
                std::string{"command line: "} + error.what() + " (see shmq-exporter --help)");
  }
  std::signal(SIGPIPE, SIG_IGN);
  // Before any thread: they all leave these to the one that waits for them.
  sigset_t stop_signals;
  sigemptyset(&stop_signals);
  sigaddset(&stop_signals, SIGINT);
  sigaddset(&stop_signals, SIGTERM);
  pthread_sigmask(SIG_BLOCK, &stop_signals, nullptr);
  return serve(arguments, stop_signals);
}
