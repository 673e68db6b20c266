// SPDX-License-Identifier: Apache-2.0
#include "daemon/host/host.hpp"

#include <sched.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <utility>

#include "base/clock.hpp"
#include "sync/atomic16.hpp"

namespace shmq::host {
namespace {

// An answer that is on its way gets so long once everything else is done.
constexpr std::uint64_t last_answers_ns = 200'000'000;

}  // namespace

Host::Host(HostOptions options, engine::Log log)
    : options_(std::move(options)), log_(std::move(log)) {}

Result<std::unique_ptr<Host>> Host::create(HostOptions options, engine::Log log) {
  std::unique_ptr<Host> host{new Host(std::move(options), std::move(log))};
  if (auto done = host->set_up(); !done) return tl::unexpected{done.error()};
  return host;
}

Result<void> Host::set_up() {
  auto backend = io::Backend::create(options_.backend, [this](const std::string& sentence) {
    log_(engine::Level::warning, sentence);
  });
  if (!backend) return tl::unexpected{backend.error()};
  backend_ = std::make_unique<io::Backend>(std::move(*backend));
  auto made = loop::Loop::create(*backend_);
  if (!made) return tl::unexpected{made.error()};
  loop_ = std::move(*made);
  wake_ = options_.wake >= 0 ? options_.wake : ::eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
  if (wake_ < 0) {
    return tl::unexpected{Error{{errno, std::generic_category()}, "make an eventfd", "", ""}};
  }
  if (auto done = loop_->watch(wake_, EPOLLIN, [this](auto) { on_wake(); }); !done) return done;
  // The sockets first: their lock says that no other daemon answers in this place, and the engine
  // tells clients where they are. Nobody is answered before run().
  auto server = control::Server::create(
      *loop_, {.directory = control_directory()},
      [this](const control::Peer& peer, const std::string& request, control::Reply reply) {
        requests_->handle(peer, request, reply);
      },
      [this](const std::string& queue) { engine_->rung(queue); });
  if (!server) return tl::unexpected{server.error()};
  server_ = std::move(*server);
  engine::EngineOptions engine_options = options_.engine;
  engine_options.doorbell_path = server_->doorbell_path();
  auto engine = engine::Engine::create(std::move(engine_options), *loop_, *backend_, log_);
  if (!engine) return tl::unexpected{engine.error()};
  engine_ = std::move(*engine);
  requests_ = std::make_unique<control::Requests>(
      *engine_,
      control::Facts{.name_space = options_.engine.name_space,
                     .data_dir = options_.engine.data_dir,
                     .backend = backend_name(),
                     .started_realtime_ns = base::clock->realtime_ns()},
      control::Commands{.reload = [this] { return reload(); },
                        .drain =
                            [this](std::function<void(Result<void>)> answer) {
                              drain_answers_.push_back(std::move(answer));
                              begin_drain();
                            }});
  requests_->set_permissions(options_.permissions);
  return {};
}

Host::~Host() {
  // What is called back must outlive who calls.
  engine_.reset();
  server_.reset();
  if (wake_ >= 0) {
    loop_->unwatch(wake_);
    if (wake_ != options_.wake) ::close(wake_);
  }
}

std::string Host::control_directory() const {
  return options_.runtime_dir + "/" + options_.engine.name_space;
}

const char* Host::backend_name() const noexcept {
  return backend_->uses_io_uring() ? "io_uring" : "plain";
}

Result<void> Host::reload() {
  Result<void> read = reread_ ? reread_() : Result<void>{};
  engine_->reload();
  return read;
}

void Host::set_permissions(const control::Permissions& permissions) {
  requests_->set_permissions(permissions);
}

void Host::set_timing(std::uint64_t sweep_ns, std::uint64_t spin_ns) {
  options_.engine.sweep_ns = sweep_ns;
  options_.engine.spin_ns = spin_ns;
  engine_->set_timing(sweep_ns, spin_ns);
}

void Host::begin_drain() {
  if (engine_->is_draining()) return;
  drain_by_ns_ = base::clock->monotonic_ns() + options_.drain_limit_ns;
  engine_->begin_drain();
}

void Host::ask_for_drain() noexcept {
  // The counter cannot be full: nobody else writes to it.
  if (::write(wake_, &wake_to_drain, sizeof(wake_to_drain)) < 0) return;
}

void Host::on_wake() {
  std::uint64_t count = 0;
  if (::read(wake_, &count, sizeof(count)) < 0) return;
  if (count < wake_to_stop) return begin_drain();
  engine_->close();
  is_done_ = true;
}

void Host::end_drain() {
  has_written_all_ = engine_->has_written_all();
  if (!engine_->is_drained()) {
    log_(engine::Level::warning,
         "the disk did not take everything in time; what is not on it is still in memory");
  }
  engine_->close();
  for (const auto& answer : drain_answers_) answer({});
  drain_answers_.clear();
  // A few turns more, for the answers.
  const std::uint64_t until_ns = base::clock->monotonic_ns() + last_answers_ns;
  while (server_->has_answers() && base::clock->monotonic_ns() < until_ns) {
    loop_->turn(until_ns);
  }
  is_done_ = true;
}

void Host::run(const std::function<std::uint64_t()>& each_turn) {
  std::uint64_t awake_until_ns = 0;
  while (!is_done_) {
    const std::uint64_t now_ns = base::clock->monotonic_ns();
    engine_->work(now_ns);
    server_->tick(now_ns);
    if (engine_->is_draining() && (engine_->is_drained() || now_ns >= drain_by_ns_)) {
      end_drain();
      break;
    }
    std::uint64_t deadline_ns = each_turn ? each_turn() : loop::no_deadline;
    deadline_ns = std::min({deadline_ns, engine_->next_timer_ns(), server_->next_timer_ns()});
    if (engine_->is_draining()) deadline_ns = std::min(deadline_ns, drain_by_ns_);
    if (options_.engine.spin_ns != 0) {
      // Somebody with one message outstanding comes back sooner than a sleep and a wake-up take.
      if (engine_->take_activity()) awake_until_ns = now_ns + options_.engine.spin_ns;
      if (now_ns < awake_until_ns) {
        engine_->look_at_hot();
        loop_->turn(0);
        // Those whom it looks out for may be waiting for this very core.
        ::sched_yield();
        continue;
      }
    }
    if (!engine_->prepare_sleep()) deadline_ns = 0;
    loop_->turn(deadline_ns);
  }
}

}  // namespace shmq::host
