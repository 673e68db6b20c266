// SPDX-License-Identifier: Apache-2.0
//
// shmqd: the process around the daemon. Command line, configuration, signals, logging, and what the
// service manager wants to hear.
#include <signal.h>
#include <spdlog/sinks/stdout_sinks.h>
#include <spdlog/spdlog.h>
#include <sys/resource.h>
#include <sys/signalfd.h>
#include <systemd/sd-daemon.h>
#include <unistd.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <iostream>
#include <string>

#include "base/clock.hpp"
#include "base/names.hpp"
#include "daemon/host/directories.hpp"
#include "daemon/host/host.hpp"
#include "daemon/main/config.hpp"
#include "shmq/version.hpp"

namespace shmq::daemon_main {
namespace {

constexpr int exit_error = 1;
constexpr int exit_usage = 2;
constexpr int exit_permission = 4;

struct CommandLine {
  std::string name_space;
  std::string config;
  std::string data_dir;
  std::string runtime_dir;
  std::string log_level;
  std::string backend;
};

int fail(const Error& error) {
  std::fprintf(stderr, "shmqd: %s\n", error.message().c_str());
  const bool is_denied = error == Errc::no_permission ||
                         error.code() == std::errc::permission_denied ||
                         error.code() == std::errc::operation_not_permitted;
  return is_denied ? exit_permission : exit_error;
}

// --- Logging -----------------------------------------------------------------------------------

spdlog::level::level_enum level_of(const std::string& name) {
  if (name == "debug") return spdlog::level::debug;
  if (name == "warning") return spdlog::level::warn;
  if (name == "error") return spdlog::level::err;
  return spdlog::level::info;
}

// With a priority prefix for the journal of systemd, plain on anything else.
class Lines final : public spdlog::formatter {
 public:
  explicit Lines(bool has_prefix) : has_prefix_(has_prefix) {}
  void format(const spdlog::details::log_msg& message, spdlog::memory_buf_t& to) override {
    std::string line;
    if (has_prefix_) line = prefix_of(message.level);
    // One line each, whatever a name or a path holds.
    for (const char c : std::string_view{message.payload.data(), message.payload.size()}) {
      line += static_cast<unsigned char>(c) < 0x20 ? ' ' : c;
    }
    line += '\n';
    to.append(line.data(), line.data() + line.size());
  }
  [[nodiscard]] std::unique_ptr<formatter> clone() const override {
    return std::make_unique<Lines>(has_prefix_);
  }

 private:
  static const char* prefix_of(spdlog::level::level_enum level) {
    switch (level) {
      case spdlog::level::err: return SD_ERR;
      case spdlog::level::warn: return SD_WARNING;
      case spdlog::level::debug: return SD_DEBUG;
      default: return SD_INFO;
    }
  }
  bool has_prefix_;
};

std::shared_ptr<spdlog::logger> make_logger() {
  auto logger =
      std::make_shared<spdlog::logger>("shmqd", std::make_shared<spdlog::sinks::stderr_sink_st>());
  const bool is_for_systemd = std::getenv("JOURNAL_STREAM") != nullptr && ::isatty(2) == 0;
  logger->set_formatter(std::make_unique<Lines>(is_for_systemd));
  logger->flush_on(spdlog::level::debug);
  return logger;
}

// --- Configuration -----------------------------------------------------------------------------

// What stands on the command line comes before the file, the file before the defaults.
Result<Config> configure(const CommandLine& line) {
  const host::Directories defaults = host::default_directories();
  Config config;
  const std::string path = line.config.empty() ? defaults.config + "/shmqd.toml" : line.config;
  std::error_code ignored;
  if (!line.config.empty() || std::filesystem::exists(path, ignored)) {
    auto read = read_config(path);
    if (!read) return read;
    config = std::move(*read);
  }
  if (!line.data_dir.empty()) config.data_dir = line.data_dir;
  if (!line.runtime_dir.empty()) config.runtime_dir = line.runtime_dir;
  if (!line.log_level.empty()) config.log_level = line.log_level;
  if (!line.backend.empty()) config.backend = *parse_backend(line.backend);
  if (config.data_dir.empty()) config.data_dir = defaults.data;
  if (config.runtime_dir.empty()) config.runtime_dir = defaults.runtime;
  if (config.runtime_dir.empty()) {
    return tl::unexpected{Error{make_error_code(Errc::invalid_argument), "find a runtime directory",
                                "XDG_RUNTIME_DIR is not set", "name one: --runtime-dir"}};
  }
  return config;
}

host::HostOptions host_options(const Config& config, const std::string& name_space) {
  host::HostOptions options;
  options.engine.name_space = name_space;
  options.engine.data_dir = config.data_dir;
  options.engine.journal = config.journal;
  options.engine.check_bytes = config.check_bytes;
  options.engine.sweep_ns = config.sweep_ns;
  options.engine.spin_ns = config.spin_ns;
  options.engine.trusted_owners = config.trusted_owners;
  options.runtime_dir = config.runtime_dir;
  options.backend = config.backend;
  options.drain_limit_ns = config.drain_limit_ns;
  options.permissions.create_group = config.create_group;
  return options;
}

// --- The service manager -----------------------------------------------------------------------

class ServiceManager {
 public:
  ServiceManager() {
    if (::sd_watchdog_enabled(0, &watchdog_us_) <= 0) watchdog_us_ = 0;
  }

  /// Once in each turn. Gives when the next turn should be at the latest.
  std::uint64_t tell(const host::Host& host, std::uint64_t now_ns) {
    if (!is_ready_told_ && host.is_ready()) {
      is_ready_told_ = true;
      ::sd_notify(0, "READY=1");
    }
    const std::size_t served = host.engine().served();
    const std::size_t refused = host.engine().refused();
    if (served != served_ || refused != refused_) {
      served_ = served;
      refused_ = refused;
      ::sd_notifyf(0, "STATUS=%zu queues served, %zu refused", served, refused);
    }
    if (watchdog_us_ == 0) return loop::no_deadline;
    const std::uint64_t every_ns = watchdog_us_ * 1000 / 3;
    if (now_ns >= next_watchdog_ns_) {
      ::sd_notify(0, "WATCHDOG=1");
      next_watchdog_ns_ = now_ns + every_ns;
    }
    return next_watchdog_ns_;
  }

 private:
  std::uint64_t watchdog_us_ = 0;
  std::uint64_t next_watchdog_ns_ = 0;
  bool is_ready_told_ = false;
  std::size_t served_ = ~std::size_t{0};
  std::size_t refused_ = ~std::size_t{0};
};

// --- Running -----------------------------------------------------------------------------------

// A queue needs several descriptors, and each of its participants one.
void raise_descriptor_limit() {
  rlimit limit{};
  if (::getrlimit(RLIMIT_NOFILE, &limit) != 0) return;
  limit.rlim_cur = limit.rlim_max;
  ::setrlimit(RLIMIT_NOFILE, &limit);
}

int block_signals() {
  sigset_t signals;
  ::sigemptyset(&signals);
  for (const int signal : {SIGTERM, SIGINT, SIGHUP}) ::sigaddset(&signals, signal);
  ::sigprocmask(SIG_BLOCK, &signals, nullptr);
  ::signal(SIGPIPE, SIG_IGN);
  return ::signalfd(-1, &signals, SFD_CLOEXEC | SFD_NONBLOCK);
}

int run(const CommandLine& line) {
  const std::string name_space = base::resolve_namespace(line.name_space);
  auto config = configure(line);
  if (!config) return fail(config.error());
  const auto logger = make_logger();
  logger->set_level(level_of(config->log_level));
  raise_descriptor_limit();
  const int signals = block_signals();
  const engine::Log log = [logger](engine::Level level, const std::string& sentence) {
    switch (level) {
      case engine::Level::debug: logger->debug("{}", sentence); break;
      case engine::Level::info: logger->info("{}", sentence); break;
      case engine::Level::warning: logger->warn("{}", sentence); break;
      case engine::Level::error: logger->error("{}", sentence); break;
    }
  };
  auto made = host::Host::create(host_options(*config, name_space), log);
  if (!made) return fail(made.error());
  host::Host& host = **made;

  host.on_reload([&]() -> Result<void> {
    auto again = configure(line);
    if (!again) {
      logger->error("{}; the configuration stays as it was", again.error().message());
      return tl::unexpected{again.error()};
    }
    logger->set_level(level_of(again->log_level));
    host.set_permissions({.create_group = again->create_group});
    host.set_timing(again->sweep_ns, again->spin_ns);
    logger->info("configuration read again");
    return {};
  });
  const auto on_signal = [&](std::uint32_t) {
    signalfd_siginfo info{};
    while (::read(signals, &info, sizeof(info)) == sizeof(info)) {
      if (info.ssi_signo == SIGHUP) {
        ::sd_notifyf(0, "RELOADING=1\nMONOTONIC_USEC=%llu",
                     static_cast<unsigned long long>(base::clock->monotonic_ns() / 1000));
        (void)host.reload();  // an error is in the log
        ::sd_notify(0, "READY=1");
        continue;
      }
      logger->info("draining");
      ::sd_notify(0, "STOPPING=1\nSTATUS=draining");
      host.begin_drain();
    }
  };
  if (auto done = host.loop().watch(signals, EPOLLIN, on_signal); !done) return fail(done.error());

  logger->info("shmqd {} serves namespace '{}' from '{}' with {}, control socket in '{}'",
               version(), name_space, host.engine().directory(), host.backend_name(),
               host.control_directory());
  ServiceManager manager;
  host.run([&] { return manager.tell(host, base::clock->monotonic_ns()); });
  ::sd_notify(0, "STOPPING=1");
  logger->info("ended");
  host.loop().unwatch(signals);
  return 0;
}

}  // namespace
}  // namespace shmq::daemon_main

int main(int argc, char** argv) {
  using namespace shmq::daemon_main;
  CLI::App app{"The daemon of libshmq: keeps durable queues on disk.", "shmqd"};
  app.option_defaults()->multi_option_policy(CLI::MultiOptionPolicy::TakeLast);
  CommandLine line;
  bool foreground = false;
  app.add_option("--namespace", line.name_space,
                 "whose queues it serves (SHMQ_NAMESPACE, default)");
  app.add_option("--config", line.config, "configuration file (/etc/shmq/shmqd.toml)");
  app.add_option("--data-dir", line.data_dir, "where the journals are (/var/lib/shmq)");
  app.add_option("--runtime-dir", line.runtime_dir, "where the sockets are (/run/shmq)");
  app.add_flag("--foreground", foreground, "stay in the foreground; it always does");
  app.add_option("--log-level", line.log_level, "debug, info, warning or error")
      ->check(CLI::IsMember({"debug", "info", "warning", "error"}));
  app.add_option("--backend", line.backend, "auto, io_uring or plain")
      ->check(CLI::IsMember({"auto", "io_uring", "plain"}));
  app.set_version_flag("--version", std::string{"shmqd "} + shmq::version());
  try {
    app.parse(argc, argv);
  } catch (const CLI::ParseError& error) {
    if (error.get_exit_code() == 0) return app.exit(error);
    std::cerr << "shmqd: " << error.what() << " (see shmqd --help)\n";
    return exit_usage;
  }
  try {
    return run(line);
  } catch (const std::exception& error) {
    std::fprintf(stderr, "shmqd: ended by a fault: %s\n", error.what());
    return exit_error;
  }
}
