// SPDX-License-Identifier: Apache-2.0
//
// shmq-scaler: keeps as many workers of a group running as its backlog needs. An observer of the
// queue, and no daemon of libshmq's: workers run on when it ends, and it finds them when it is
// back.
#include <CLI/CLI.hpp>
#include <array>
#include <chrono>
#include <csignal>
#include <cstdio>
#include <ctime>
#include <functional>
#include <optional>
#include <shmq/shmq.hpp>
#include <string>
#include <vector>

#include "../shmqctl/units.hpp"
#include "planner.hpp"
#include "workers.hpp"

namespace shmq_scaler {
namespace {

using std::chrono::nanoseconds;

struct Options {
  std::string name, queue, group, command;
  shmq::OpenOptions open{.access = shmq::Access::observer};
  Limits limits{.max_workers = 8};
  nanoseconds interval = std::chrono::seconds{1};
};

void say(const std::string& text) { std::fprintf(stderr, "shmq-scaler: %s\n", text.c_str()); }

CLI::Option* add_time(CLI::App& app, const std::string& name, nanoseconds least,
                      std::function<void(nanoseconds)> use, const std::string& help) {
  return app
      .add_option_function<std::string>(
          name,
          [name, least, use = std::move(use)](const std::string& text) {
            const auto time = shmqctl::parse_time(text);
            if (!time || *time < least) {
              throw CLI::ValidationError(name, "'" + text + "' is no time of at least " +
                                                   shmqctl::human_time(least) +
                                                   " (write 30s, 500ms, 2min)");
            }
            use(*time);
          },
          help)
      ->type_name("TIME");
}

void add_options(CLI::App& app, Options& options) {
  app.add_option("NAME", options.name, "workers are the units NAME-worker@N.service")->required();
  app.add_option("QUEUE", options.queue)->required();
  app.add_option("GROUP", options.group)->required();
  app.add_option("--namespace", options.open.name_space,
                 "namespace of the queue (default: SHMQ_NAMESPACE, else \"default\")")
      ->type_name("N");
  app.add_option_function<std::vector<std::string>>(
         "--trust-owner",
         [&options](const std::vector<std::string>& users) {
           for (const std::string& user : users) {
             const auto uid = shmqctl::parse_user(user);
             if (!uid) throw CLI::ValidationError("--trust-owner", "no user '" + user + "'");
             options.open.trusted_owners.push_back(*uid);
           }
         },
         "look at a queue that belongs to USER, too; repeatable")
      ->type_name("USER")
      ->multi_option_policy(CLI::MultiOptionPolicy::TakeAll)
      ->allow_extra_args(false);
  app.add_option("--min", options.limits.min_workers, "workers at least (default: 0)")
      ->type_name("N")
      ->check(CLI::Range(0U, 10000U));
  app.add_option("--max", options.limits.max_workers, "workers at most (default: 8)")
      ->type_name("N")
      ->check(CLI::Range(1U, 10000U));
  add_time(
      app, "--drain", std::chrono::milliseconds{100},
      [&](nanoseconds time) { options.limits.drain_s = shmqctl::seconds(time); },
      "the backlog is to be gone in this time (default: 30s)");
  add_time(
      app, "--down-after", nanoseconds{0},
      [&](nanoseconds time) { options.limits.down_after_s = shmqctl::seconds(time); },
      "stop a worker when it was not needed for this long (default: 60s)");
  add_time(
      app, "--interval", std::chrono::milliseconds{10},
      [&](nanoseconds time) { options.interval = time; },
      "time between two looks at the queue (default: 1s)");
  app.add_option(
         "--command", options.command,
         "instead of systemctl: run by sh as CMD list NAME, CMD start NAME N, CMD stop NAME N")
      ->type_name("CMD");
  app.set_version_flag("--version", std::string{"shmq-scaler "} + shmq::version());
  app.callback([&options] {
    if (options.limits.min_workers > options.limits.max_workers) {
      throw CLI::ValidationError("--min", "is more than --max");
    }
    for (const char c : options.name) {
      const bool fine = (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') ||
                        (c >= '0' && c <= '9') || c == '_' || c == '.' || c == '-';
      if (!fine || options.name.front() == '-') {
        throw CLI::ValidationError("NAME", "'" + options.name + "' is no name of a unit");
      }
    }
  });
}

double now_s() {
  return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count();
}

/// One queue's group and its workers. Each trouble is told once, and again when it has changed.
class Scaler {
 public:
  explicit Scaler(const Options& options)
      : options_{options}, workers_{options.name, options.command}, planner_{options.limits} {}

  void step() {
    const auto state = workers_.look();
    if (!state) return complain(state.error().message());
    trouble_of_step_.clear();
    Sample sample{.time_s = now_s(), .workers = static_cast<unsigned>(state->running.size())};
    look_at_queue(sample);
    const Plan plan = planner_.plan(sample);
    if (plan.workers != sample.workers) adjust(*state, plan);
    if (trouble_of_step_.empty()) trouble_.clear();
  }

 private:
  void complain(const std::string& text) {
    trouble_of_step_ = text;
    if (text == trouble_) return;
    trouble_ = text;
    say(text);
  }

  /// Opened anew at each look: so a queue may come, go and come back under the same name. One that
  /// cannot be opened has no backlog.
  void look_at_queue(Sample& sample) {
    const auto queue = shmq::Queue::open(options_.queue, options_.open);
    if (!queue) return complain(queue.error().message());
    const auto uuid = queue->info().uuid;
    if (uuid_ && *uuid_ != uuid) planner_.forget();
    uuid_ = uuid;
    sample.published_total = queue->stats().tail.value;
    for (const shmq::GroupInfo& group : queue->groups()) {
      if (group.name != options_.group) continue;
      if (group.mode == shmq::GroupMode::exclusive && options_.limits.max_workers > 1) {
        complain("scale group '" + options_.group + "' of queue '" + options_.queue +
                 "': it is exclusive, more than one worker would stand by (give --max 1, or make "
                 "the group shared)");
      }
      sample.acked_total = group.acked_total;
      sample.ready = group.ready;
      sample.in_flight = group.in_flight;
      sample.consumers = group.consumers;
      return;
    }
    complain("scale group '" + options_.group + "' of queue '" + options_.queue +
             "': no such group (see shmqctl group ls " + options_.queue + ")");
  }

  /// Numbers from 1 up, so that the last to come is the first to go.
  void adjust(const Workers::State& state, const Plan& plan) {
    auto running = state.running;
    const auto before = running.size();
    for (unsigned number = 1; running.size() < plan.workers; ++number) {
      if (running.contains(number) || state.stopping.contains(number)) continue;
      if (const auto done = workers_.start(number); !done) {
        complain(done.error().message());
        break;
      }
      running.insert(number);
    }
    while (running.size() > plan.workers) {
      const unsigned number = *running.rbegin();
      if (const auto done = workers_.stop(number); !done) {
        complain(done.error().message());
        break;
      }
      running.erase(number);
    }
    if (running.size() == before) return;
    say(options_.name + ": " + std::to_string(before) + " -> " + std::to_string(running.size()) +
        " workers: " + plan.reason);
  }

  const Options& options_;
  Workers workers_;
  Planner planner_;
  std::optional<std::array<std::uint8_t, 16>> uuid_;
  std::string trouble_, trouble_of_step_;
};

/// Until SIGTERM or SIGINT, which are blocked but for the wait between two steps.
void run(const Options& options) {
  sigset_t stops;
  ::sigemptyset(&stops);
  ::sigaddset(&stops, SIGTERM);
  ::sigaddset(&stops, SIGINT);
  ::sigprocmask(SIG_BLOCK, &stops, nullptr);
  const auto whole = std::chrono::floor<std::chrono::seconds>(options.interval);
  const timespec interval{.tv_sec = whole.count(), .tv_nsec = (options.interval - whole).count()};
  Scaler scaler{options};
  for (;;) {
    scaler.step();
    if (::sigtimedwait(&stops, nullptr, &interval) > 0) return;
  }
}

}  // namespace
}  // namespace shmq_scaler

int main(int argc, char** argv) {
  shmq_scaler::Options options;
  CLI::App app{"Keeps as many workers of a group running as its backlog needs.", "shmq-scaler"};
  // A unit's options may be repeated by an administrator's: the last one counts.
  app.option_defaults()->multi_option_policy(CLI::MultiOptionPolicy::TakeLast);
  shmq_scaler::add_options(app, options);
  try {
    app.parse(argc, argv);
  } catch (const CLI::Success& done) {
    return app.exit(done);
  } catch (const CLI::ParseError& error) {
    shmq_scaler::say(std::string{error.what()} + " (see shmq-scaler --help)");
    return 2;
  }
  shmq_scaler::run(options);
  return 0;
}
