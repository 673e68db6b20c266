// SPDX-License-Identifier: Apache-2.0
#include "workers.hpp"

#include <fcntl.h>
#include <poll.h>
#include <spawn.h>
#include <sys/wait.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <charconv>
#include <chrono>
#include <csignal>
#include <optional>
#include <sstream>
#include <utility>

namespace shmq_scaler {
namespace {

using Clock = std::chrono::steady_clock;
// A command that hangs must not stop the scaler for ever.
constexpr auto command_time_max = std::chrono::seconds{30};
constexpr std::size_t output_bytes_max = std::size_t{1} << 20;

struct Outcome {
  int status = 0;
  bool out_of_time = false;
  std::string output;  ///< standard output; standard error is the scaler's own
};

/// Everything that comes from the pipe until its end, the deadline or the limit.
bool read_all(int fd, Clock::time_point deadline, std::string& output) {
  std::array<char, 4096> part{};
  while (output.size() < output_bytes_max) {
    const auto left =
        std::chrono::duration_cast<std::chrono::milliseconds>(deadline - Clock::now());
    pollfd ready{fd, POLLIN, 0};
    const int polled = left.count() > 0 ? ::poll(&ready, 1, static_cast<int>(left.count())) : 0;
    if (polled == 0) return false;
    if (polled < 0) continue;  // EINTR
    const ssize_t got = ::read(fd, part.data(), part.size());
    if (got == 0) return true;
    if (got > 0) output.append(part.data(), static_cast<std::size_t>(got));
  }
  return true;
}

/// errno in the second member if it could not be started.
std::pair<Outcome, int> run_command(const std::vector<std::string>& words) {
  std::vector<char*> argv;
  for (const std::string& word : words) argv.push_back(const_cast<char*>(word.c_str()));
  argv.push_back(nullptr);

  std::array<int, 2> ends{};
  if (::pipe2(ends.data(), O_CLOEXEC) != 0) return {{}, errno};
  posix_spawn_file_actions_t files;
  posix_spawn_file_actions_init(&files);
  posix_spawn_file_actions_adddup2(&files, ends[1], STDOUT_FILENO);
  posix_spawn_file_actions_addopen(&files, STDIN_FILENO, "/dev/null", O_RDONLY, 0);
  posix_spawnattr_t attributes;
  posix_spawnattr_init(&attributes);
  sigset_t none;
  ::sigemptyset(&none);  // the scaler blocks the signals that it waits for
  posix_spawnattr_setsigmask(&attributes, &none);
  posix_spawnattr_setpgroup(&attributes, 0);
  posix_spawnattr_setflags(&attributes, POSIX_SPAWN_SETSIGMASK | POSIX_SPAWN_SETPGROUP);
  pid_t pid = 0;
  const int error = ::posix_spawnp(&pid, argv[0], &files, &attributes, argv.data(), environ);
  posix_spawnattr_destroy(&attributes);
  posix_spawn_file_actions_destroy(&files);
  ::close(ends[1]);

  Outcome outcome;
  if (error == 0) {
    outcome.out_of_time = !read_all(ends[0], Clock::now() + command_time_max, outcome.output);
    if (outcome.out_of_time) ::kill(-pid, SIGKILL);
    while (::waitpid(pid, &outcome.status, 0) < 0 && errno == EINTR) {
    }
  }
  ::close(ends[0]);
  return {outcome, error};
}

std::optional<unsigned> number_of(std::string_view text) {
  unsigned number = 0;
  const char* const end = text.data() + text.size();
  const auto [rest, error] = std::from_chars(text.data(), end, number);
  if (error != std::errc{} || rest != end || number == 0) return std::nullopt;
  return number;
}

shmq::Error failure(const std::string& what, std::string why, std::string remedy) {
  return {shmq::make_error_code(shmq::Errc::invalid_argument), what, std::move(why),
          std::move(remedy)};
}

}  // namespace

std::string Workers::unit(const std::string& instance) const {
  return name_ + "-worker@" + instance + ".service";
}

shmq::Result<std::string> Workers::run(const std::vector<std::string>& words,
                                       const std::string& what) const {
  auto [outcome, error] = run_command(words);
  const std::string remedy = command_.empty()
                                 ? "try: systemctl status '" + unit("*") + "'"
                                 : "try the command by hand: " + command_ + " list " + name_;
  if (error != 0) {
    return tl::unexpected(
        failure(what, words[0] + ": " + std::generic_category().message(error),
                command_.empty() ? "give --command where there is no systemd" : remedy));
  }
  if (outcome.out_of_time) {
    return tl::unexpected(failure(what, "no answer within 30 s, killed", remedy));
  }
  if (!WIFEXITED(outcome.status) || WEXITSTATUS(outcome.status) != 0) {
    const std::string how = WIFEXITED(outcome.status)
                                ? "exit " + std::to_string(WEXITSTATUS(outcome.status))
                                : "signal " + std::to_string(WTERMSIG(outcome.status));
    return tl::unexpected(
        failure(what, (command_.empty() ? "systemctl" : command_) + ": " + how, remedy));
  }
  return std::move(outcome.output);
}

shmq::Result<Workers::State> Workers::look() const {
  const std::string what = "list the workers of " + name_;
  const auto output = command_.empty()
                          ? run({"systemctl", "list-units", "--all", "--full", "--plain",
                                 "--no-legend", "--no-pager", unit("*")},
                                what)
                          : run({"sh", "-c", command_ + " \"$@\"", "sh", "list", name_}, what);
  if (!output) return tl::unexpected(output.error());

  State state;
  std::istringstream lines{*output};
  for (std::string line; std::getline(lines, line);) {
    std::istringstream words{line};
    std::string first, load, active;
    words >> first >> load >> active;
    if (first.empty()) continue;
    if (!command_.empty()) {
      const auto number = number_of(first);
      if (!number) {
        return tl::unexpected(failure(what, "'" + line + "' is not the number of a worker",
                                      "let '" + command_ + " list' print one number a line"));
      }
      state.running.insert(*number);
      continue;
    }
    const std::size_t at = first.find('@');
    const std::size_t end = first.rfind(".service");
    if (at == std::string::npos || end == std::string::npos || end <= at) continue;
    const auto number = number_of(std::string_view{first}.substr(at + 1, end - at - 1));
    if (!number) continue;  // an instance that somebody else named
    if (active == "active" || active == "activating" || active == "reloading") {
      state.running.insert(*number);
    } else if (active == "deactivating") {
      state.stopping.insert(*number);
    }  // failed and inactive ones do not run
  }
  return state;
}

shmq::Result<void> Workers::ask(const char* verb, unsigned number) const {
  const std::string instance = std::to_string(number);
  const std::string what = std::string{verb} + " worker " + instance + " of " + name_;
  const auto output =
      command_.empty()
          ? run({"systemctl", "--no-block", "--no-ask-password", verb, unit(instance)}, what)
          : run({"sh", "-c", command_ + " \"$@\"", "sh", verb, name_, instance}, what);
  if (!output) return tl::unexpected(output.error());
  return {};
}

shmq::Result<void> Workers::start(unsigned number) const { return ask("start", number); }
shmq::Result<void> Workers::stop(unsigned number) const { return ask("stop", number); }

}  // namespace shmq_scaler
