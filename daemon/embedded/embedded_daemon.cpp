// SPDX-License-Identifier: Apache-2.0
//
// EmbeddedDaemon: a Host on a thread. Built into libshmqd.so, on top of libshmq.so.
//
// Invariants:
//  1. The daemon's thread has descriptors of its own before it opens any. Nobody else's fork or
//     closefrom() reaches its locks: a lock in a forked child would be a proof of life of a daemon
//     that is dead. `wake` alone has its number in both tables.
//  2. Nothing of the caller's runs on it: a callback would find none of its descriptors, or,
//     worse, a journal in their place. What it logs goes through another thread.
//  3. State is freed by the process that made it, after both threads are joined.
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <condition_variable>
#include <cstdlib>
#include <deque>
#include <mutex>
#include <shmq/daemon.hpp>
#include <shmq/embedded_daemon.hpp>
#include <thread>
#include <utility>

#include "base/mutant.hpp"
#include "base/names.hpp"
#include "daemon/host/directories.hpp"
#include "daemon/host/host.hpp"
#include "sync/ofd_lock.hpp"

namespace shmq {
namespace {

constexpr std::size_t sentences_max = 1000;
constexpr const char* start_it = "start an embedded daemon";

Error system_error(int number, const std::string& why, const std::string& remedy) {
  return Error{{number, std::generic_category()}, start_it, why, remedy};
}

// Whoever makes a thread while this lives makes one that takes no signal.
class SignalsBlocked {
 public:
  SignalsBlocked() noexcept {
    sigset_t all;
    ::sigfillset(&all);
    ::pthread_sigmask(SIG_SETMASK, &all, &before_);
  }
  SignalsBlocked(const SignalsBlocked&) = delete;
  SignalsBlocked& operator=(const SignalsBlocked&) = delete;
  ~SignalsBlocked() { ::pthread_sigmask(SIG_SETMASK, &before_, nullptr); }

 private:
  sigset_t before_;
};

// What the daemon says, handed to the caller on a thread of its own.
class Speaker {
 public:
  using Listener = std::function<void(LogLevel, const std::string&)>;

  explicit Speaker(Listener listener) : listener_(std::move(listener)) {
    if (!listener_) return;
    const SignalsBlocked blocked;
    thread_ = std::thread{[this] { run(); }};
  }
  Speaker(const Speaker&) = delete;
  Speaker& operator=(const Speaker&) = delete;
  /// Once everything is told.
  ~Speaker() {
    if (!thread_.joinable()) return;
    {
      const std::lock_guard lock{mutex_};
      is_over_ = true;
    }
    changed_.notify_one();
    thread_.join();
  }

  void say(LogLevel level, const std::string& sentence) {
    if (!listener_) return;
    {
      const std::lock_guard lock{mutex_};
      if (sentences_.size() >= sentences_max) {
        ++dropped_;
        return;
      }
      sentences_.emplace_back(level, sentence);
    }
    changed_.notify_one();
  }

 private:
  void run() {
    ::pthread_setname_np(::pthread_self(), "shmqd-log");
    std::unique_lock lock{mutex_};
    for (;;) {
      changed_.wait(lock, [&] { return is_over_ || !sentences_.empty(); });
      if (sentences_.empty()) return;
      const auto [level, sentence] = std::move(sentences_.front());
      sentences_.pop_front();
      const std::uint64_t dropped = std::exchange(dropped_, 0);
      lock.unlock();
      listener_(level, sentence);
      if (dropped != 0)
        listener_(LogLevel::warning, std::to_string(dropped) + " sentences left out");
      lock.lock();
    }
  }

  Listener listener_;
  std::mutex mutex_;
  std::condition_variable changed_;
  std::deque<std::pair<LogLevel, std::string>> sentences_;
  std::uint64_t dropped_ = 0;
  bool is_over_ = false;
  std::thread thread_;
};

LogLevel level_of(engine::Level level) noexcept {
  switch (level) {
    case engine::Level::debug: return LogLevel::debug;
    case engine::Level::info: return LogLevel::info;
    case engine::Level::warning: return LogLevel::warning;
    case engine::Level::error: break;
  }
  return LogLevel::error;
}

// Of this thread from here on: a table with `kept` alone, nothing to read or write at 0 and 1, and
// the caller's stderr, for what an assertion says.
bool take_own_descriptors(int kept) noexcept {
  if (base::mutant(130)) return true;
  const auto last = static_cast<unsigned>(kept);
  if (::close_range(last + 1, ~0U, CLOSE_RANGE_UNSHARE) != 0) return false;
  if (last > 3) ::close_range(3, last - 1, 0);
  const int nothing = ::open("/dev/null", O_RDWR | O_CLOEXEC);
  for (const int number : {STDIN_FILENO, STDOUT_FILENO}) {
    if (nothing >= 0 && number != kept) ::dup3(nothing, number, O_CLOEXEC);
  }
  if (nothing > STDERR_FILENO) ::close(nothing);
  sync::descriptors_are_private();
  return true;
}

Result<host::HostOptions> host_options_of(const EmbeddedDaemonOptions& options) {
  host::HostOptions host;
  const host::Directories defaults = host::default_directories();
  host.engine.name_space = base::resolve_namespace(options.name_space);
  host.engine.data_dir = options.data_dir.empty() ? defaults.data : options.data_dir;
  host.engine.trusted_owners = options.trusted_owners;
  if (options.max_disk_bytes != 0) {
    host.engine.journal.files.max_disk_bytes = options.max_disk_bytes;
  }
  const char* const runtime_dir = std::getenv("SHMQ_RUNTIME_DIR");
  host.runtime_dir = options.runtime_dir;
  if (host.runtime_dir.empty() && runtime_dir != nullptr) host.runtime_dir = runtime_dir;
  if (host.runtime_dir.empty()) host.runtime_dir = defaults.runtime;
  if (host.runtime_dir.empty()) {
    return tl::unexpected{Error{make_error_code(Errc::invalid_argument), start_it,
                                "there is no runtime directory: XDG_RUNTIME_DIR is not set",
                                "give runtime_dir"}};
  }
  if (options.drain_limit.count() < 0) {
    return tl::unexpected{
        Error{make_error_code(Errc::invalid_argument), start_it, "drain_limit is less than 0", ""}};
  }
  host.drain_limit_ns = static_cast<std::uint64_t>(options.drain_limit.count());
  host.permissions.create_group = options.create_group;
  host.backend = options.io_uring ? io::BackendChoice::automatic : io::BackendChoice::plain;
  return host;
}

}  // namespace

struct EmbeddedDaemon::State {
  enum class Phase { starting, recovering, ready, ended };

  State(host::HostOptions host, const EmbeddedDaemonOptions& wanted)
      : options(std::move(host)), speaker(wanted.log) {}
  State(const State&) = delete;
  State& operator=(const State&) = delete;
  ~State() {
    if (thread.joinable()) thread.join();
    if (options.wake >= 0) ::close(options.wake);
  }

  void enter(Phase next) {
    {
      const std::lock_guard lock{mutex};
      phase = next;
    }
    changed.notify_all();
  }
  void run();
  void run_host();
  void ask(std::uint64_t what) noexcept {
    // The counter cannot be full: two kinds of questions, and each is read.
    if (::write(options.wake, &what, sizeof(what)) < 0) return;
  }
  [[nodiscard]] bool is_here() const noexcept { return ::getpid() == owner; }

  host::HostOptions options;
  const pid_t owner = ::getpid();
  Speaker speaker;
  std::mutex mutex;
  std::condition_variable changed;
  Phase phase = Phase::starting;
  std::optional<Error> failure;  // of the start, or what ended it
  bool has_written_all = false;
  std::thread thread;
};

void EmbeddedDaemon::State::run() {
  ::pthread_setname_np(::pthread_self(), "shmqd");
  const auto fail = [&](const Error& error) {
    const std::lock_guard lock{mutex};
    failure = error;
  };
  try {
    if (take_own_descriptors(options.wake)) {
      run_host();
    } else {
      fail(system_error(ENOTSUP, "the kernel gives a thread no descriptors of its own",
                        "run shmqd beside this program"));
    }
  } catch (const std::exception& error) {
    fail(Error{std::make_error_code(std::errc::state_not_recoverable), "run an embedded daemon",
               error.what(), "start it again"});
    speaker.say(LogLevel::error, std::string{"ended by a fault: "} + error.what());
  }
  enter(Phase::ended);
}

void EmbeddedDaemon::State::run_host() {
  auto made = host::Host::create(options, [this](engine::Level level, const std::string& sentence) {
    speaker.say(level_of(level), sentence);
  });
  if (!made) {
    const std::lock_guard lock{mutex};
    failure = made.error();
    return;
  }
  host::Host& host = **made;
  enter(Phase::recovering);
  bool is_ready_told = false;
  host.run([&] {
    if (!is_ready_told && host.is_ready()) {
      is_ready_told = true;
      enter(Phase::ready);
    }
    return loop::no_deadline;
  });
  const std::lock_guard lock{mutex};
  has_written_all = host.has_written_all();
}

Result<EmbeddedDaemon> EmbeddedDaemon::start(const EmbeddedDaemonOptions& options) {
  auto host = host_options_of(options);
  if (!host) return tl::unexpected{host.error()};
  host->wake = ::eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
  if (host->wake < 0) return tl::unexpected{system_error(errno, "no descriptor is free", "")};
  // Above those that a table has in any case.
  if (host->wake <= STDERR_FILENO) {
    const int above = ::fcntl(host->wake, F_DUPFD_CLOEXEC, STDERR_FILENO + 1);
    ::close(std::exchange(host->wake, above));
    if (above < 0) return tl::unexpected{system_error(errno, "no descriptor is free", "")};
  }
  auto state = std::make_unique<State>(std::move(*host), options);
  try {
    const SignalsBlocked blocked;
    state->thread = std::thread{[made = state.get()] { made->run(); }};
  } catch (const std::system_error& error) {
    return tl::unexpected{system_error(error.code().value(), "no thread can be made", "")};
  }
  {
    std::unique_lock lock{state->mutex};
    state->changed.wait(lock, [&] { return state->phase != State::Phase::starting; });
    if (state->failure) return tl::unexpected{*state->failure};
  }
  return EmbeddedDaemon{std::move(state)};
}

EmbeddedDaemon::EmbeddedDaemon(std::unique_ptr<State> state) noexcept : state_(std::move(state)) {}
EmbeddedDaemon::EmbeddedDaemon(EmbeddedDaemon&& other) noexcept = default;

EmbeddedDaemon& EmbeddedDaemon::operator=(EmbeddedDaemon&& other) noexcept {
  if (this != &other) {
    EmbeddedDaemon former{std::move(*this)};
    state_ = std::move(other.state_);
  }
  return *this;
}

EmbeddedDaemon::~EmbeddedDaemon() {
  if (state_ == nullptr) return;
  if (state_->is_here()) {
    (void)drain();
  } else {
    (void)state_.release();  // the parent's: there is no thread here to be joined
  }
}

Result<void> EmbeddedDaemon::wait_ready(std::chrono::nanoseconds timeout) const {
  if (state_ == nullptr) return tl::unexpected{Error{Errc::closed}};
  if (!state_->is_here()) return tl::unexpected{Error{Errc::forked}};
  std::unique_lock lock{state_->mutex};
  const auto is_over = [&] { return state_->phase >= State::Phase::ready; };
  // What is added to now must not run over.
  const auto bounded = std::min<std::chrono::nanoseconds>(timeout, std::chrono::hours{24 * 365});
  if (!state_->changed.wait_for(lock, bounded, is_over))
    return tl::unexpected{Error{Errc::timed_out}};
  if (state_->phase == State::Phase::ended) return tl::unexpected{Error{Errc::closed}};
  return {};
}

bool EmbeddedDaemon::runs() const noexcept {
  if (state_ == nullptr || !state_->is_here()) return false;
  const std::lock_guard lock{state_->mutex};
  return state_->phase != State::Phase::ended;
}

Result<std::string> EmbeddedDaemon::status() const {
  if (state_ == nullptr) return tl::unexpected{Error{Errc::closed}};
  if (!state_->is_here()) return tl::unexpected{Error{Errc::forked}};
  return daemon_status({.name_space = state_->options.engine.name_space,
                        .runtime_dir = state_->options.runtime_dir});
}

Result<void> EmbeddedDaemon::drain() {
  if (state_ == nullptr) return tl::unexpected{Error{Errc::closed}};
  if (!state_->is_here()) return tl::unexpected{Error{Errc::forked}};
  if (state_->thread.joinable()) {
    state_->ask(host::wake_to_drain);
    state_->thread.join();
  }
  if (state_->failure) return tl::unexpected{*state_->failure};
  if (state_->has_written_all) return {};
  return tl::unexpected{Error{make_error_code(Errc::timed_out), "drain an embedded daemon",
                              "the disk did not take everything",
                              "what is not on it is in memory: start it again"}};
}

void EmbeddedDaemon::stop() noexcept {
  if (state_ == nullptr || !state_->is_here() || !state_->thread.joinable()) return;
  state_->ask(host::wake_to_stop);
  state_->thread.join();
}

}  // namespace shmq
