// SPDX-License-Identifier: Apache-2.0
//
// Opening queues, asking before destruction, signals, options with units.
#include "context.hpp"

#include <fcntl.h>
#include <poll.h>
#include <unistd.h>

#include <csignal>
#include <cstdio>
#include <iostream>
#include <limits>

#include "failure.hpp"
#include "output.hpp"
#include "units.hpp"

namespace shmqctl {

shmq::OpenOptions open_options(const Context& context, shmq::Access access) {
  return {.access = access,
          .name_space = context.name_space,
          .trusted_owners = context.trusted_owners,
          .runtime_dir = context.runtime_dir};
}

shmq::Queue open_queue(const Context& context, const std::string& name, shmq::Access access) {
  return take(shmq::Queue::open(name, open_options(context, access)), "open queue '" + name + "'");
}

shmq::GroupInfo find_group(const shmq::Queue& queue, const std::string& queue_name,
                           const std::string& group) {
  for (shmq::GroupInfo& info : queue.groups()) {
    if (info.name == group) return info;
  }
  throw failure_of(shmq::Errc::no_such_group,
                   "group '" + group + "' of queue '" + queue_name + "'");
}

void Destructive::add_to(CLI::App& command) {
  command.add_flag("-y,--yes", yes, "do not ask");
  command.add_flag("--dry-run", dry_run, "only say what would be done");
}

bool Destructive::confirmed(const Context& context, const std::string& deed) const {
  if (dry_run) {
    if (context.json) {
      print_json({{"dry_run", true}, {"would", deed}});
    } else {
      std::cout << "would " << deed << '\n';
    }
    return false;
  }
  if (yes || ::isatty(STDIN_FILENO) == 0) return true;
  std::cerr << "shmqctl: " << deed << "? [y/N] " << std::flush;
  std::string answer;
  std::getline(std::cin, answer);
  if (answer == "y" || answer == "Y" || answer == "yes") return true;
  throw Failure{exit_error, deed, "not confirmed", "nothing was changed"};
}

// --- signals -------------------------------------------------------------------------------------

namespace {

// Written by the handler, which may use nothing but these two and write(2).
std::atomic<int> stop_signal{0};
std::atomic<int> stop_pipe{-1};

void on_stop_signal(int number) {
  const int saved = errno;
  stop_signal.store(number, std::memory_order_relaxed);
  const char byte = 0;
  // Full is fine: readable is all that matters.
  [[maybe_unused]] const auto ignored =
      ::write(stop_pipe.load(std::memory_order_relaxed), &byte, 1);
  errno = saved;
}

void handle(int number) {
  struct sigaction before {};
  ::sigaction(number, nullptr, &before);
  // A shell starts background jobs with SIGINT ignored; that is the user's will.
  if (before.sa_handler == SIG_IGN) return;
  struct sigaction action {};
  action.sa_handler = on_stop_signal;
  // No SA_RESTART: a write to a full pipe must end, too.
  ::sigaction(number, &action, nullptr);
}

}  // namespace

StopSignals::StopSignals() {
  if (::pipe2(pipe_, O_CLOEXEC | O_NONBLOCK) != 0) throw failure_of_errno(errno, "pipe");
  stop_pipe.store(pipe_[1], std::memory_order_relaxed);
  sigset_t all, before;
  ::sigfillset(&all);
  // The watcher must not take the signals: they have to interrupt the main thread's system calls.
  ::pthread_sigmask(SIG_SETMASK, &all, &before);
  watcher_ = std::thread([this] {
    pollfd item{pipe_[0], POLLIN, 0};
    while (::poll(&item, 1, -1) < 0 && errno == EINTR) {
    }
    if (stop_signal.load(std::memory_order_relaxed) != 0) source_.request_stop();
  });
  ::pthread_sigmask(SIG_SETMASK, &before, nullptr);
  handle(SIGHUP);
  handle(SIGINT);
  handle(SIGTERM);
}

StopSignals::~StopSignals() {
  const char byte = 0;
  [[maybe_unused]] const auto ignored = ::write(pipe_[1], &byte, 1);
  watcher_.join();
  // The pipe stays open: the handlers do, and the process ends.
}

int StopSignals::signal() const { return stop_signal.load(std::memory_order_relaxed); }

// --- options -------------------------------------------------------------------------------------

namespace {

template <typename T, typename Parse>
CLI::Option* add_parsed(CLI::App& command, const std::string& name, std::function<void(T)> use,
                        const std::string& help, const char* type, const char* expected,
                        Parse parse) {
  const std::string label = name.substr(name.rfind(',') + 1);
  auto read = [label, expected, use = std::move(use), parse](const std::string& text) {
    const auto value = parse(text);
    if (!value) throw CLI::ValidationError(label, "'" + text + "' is not " + expected);
    use(*value);
  };
  return command.add_option_function<std::string>(name, read, help)->type_name(type);
}

}  // namespace

CLI::Option* add_size(CLI::App& command, const std::string& name,
                      std::function<void(std::uint64_t)> use, const std::string& help) {
  return add_parsed<std::uint64_t>(command, name, std::move(use), help, "SIZE",
                                   "a size such as 4096, 256KiB or 64MiB", parse_size);
}

CLI::Option* add_count(CLI::App& command, const std::string& name,
                       std::function<void(std::uint64_t)> use, const std::string& help) {
  return add_parsed<std::uint64_t>(command, name, std::move(use), help, "N", "a whole number",
                                   parse_count);
}

CLI::Option* add_time(CLI::App& command, const std::string& name,
                      std::function<void(std::chrono::nanoseconds)> use, const std::string& help) {
  return add_parsed<std::chrono::nanoseconds>(command, name, std::move(use), help, "TIME",
                                              "a time such as 30s, 5ms or 2min", parse_time);
}

CLI::Option* add_durability(CLI::App& command, shmq::Durability& durability,
                            const std::string& help) {
  return command
      .add_option_function<std::string>(
          "--durability",
          [&durability](const std::string& text) {
            if (text == "memory") {
              durability = shmq::Durability::memory;
            } else if (text == "flushed") {
              durability = shmq::Durability::flushed;
            } else if (text == "synced") {
              durability = shmq::Durability::synced;
            } else {
              throw CLI::ValidationError("--durability",
                                         "'" + text + "' is not memory, flushed or synced");
            }
          },
          help)
      ->type_name("memory|flushed|synced");
}

shmq::DaemonOptions daemon_options(const Context& context) {
  return {.name_space = context.name_space,
          .runtime_dir = context.runtime_dir,
          .trusted_owners = context.trusted_owners};
}

shmq::GroupMode read_mode_name(const std::string& option, const std::string& text) {
  if (text == "exclusive") return shmq::GroupMode::exclusive;
  if (text == "shared") return shmq::GroupMode::shared;
  throw CLI::ValidationError(option, "'" + text + "' is neither exclusive nor shared");
}

}  // namespace shmqctl
