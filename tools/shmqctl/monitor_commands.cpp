// SPDX-License-Identifier: Apache-2.0
//
// shmqctl scale, check, metrics: figures for those who watch queues.
#include <algorithm>
#include <cmath>
#include <cstdlib>
#include <memory>
#include <thread>

#include "context.hpp"
#include "failure.hpp"
#include "figures/metrics.hpp"
#include "figures/scale.hpp"
#include "output.hpp"
#include "units.hpp"

namespace shmqctl {
namespace {

// --- scale ---------------------------------------------------------------------------------------

struct ScaleArguments {
  std::string queue, group;
  shmq::figures::ScaleWish wish;
  std::chrono::nanoseconds measure = std::chrono::seconds{2};
};

// Samples the group for the time given; exact rates need a while, a busy consumer many looks.
shmq::GroupFigures measure(const shmq::Queue& queue, const ScaleArguments& arguments) {
  constexpr int looks = 100;
  shmq::BacklogSampler sampler{2 * arguments.measure};
  shmq::GroupFigures found;
  for (int look = 0; look <= looks; ++look) {
    if (look > 0) std::this_thread::sleep_for(arguments.measure / looks);
    const auto figures = sampler.sample(queue);
    const auto group = std::find_if(figures.begin(), figures.end(), [&](const auto& each) {
      return each.group.name == arguments.group;
    });
    if (group == figures.end()) {
      throw failure_of(shmq::Errc::no_such_group,
                       "group '" + arguments.group + "' of queue '" + arguments.queue + "'");
    }
    found = *group;
  }
  return found;
}

int scale(const Context& context, const ScaleArguments& arguments) {
  if (arguments.wish.min > arguments.wish.max) {
    throw usage_failure("--min", "it is more than --max");
  }
  const shmq::Queue queue = open_queue(context, arguments.queue, shmq::Access::observer);
  const shmq::GroupFigures figures = measure(queue, arguments);
  const auto advice = shmq::figures::advise(figures, arguments.wish);
  if (!context.json) {
    std::string line = std::to_string(advice.wanted);
    if (!context.quiet) line += "  (" + advice.why + ")";
    write_all(STDOUT_FILENO, line + "\n", nullptr, "write to stdout");
    return exit_ok;
  }
  const auto optional = [](const std::optional<double>& value) {
    return value ? Json(*value) : Json{};
  };
  print_json({{"queue", arguments.queue},
              {"group", arguments.group},
              {"wanted", advice.wanted},
              {"why", advice.why},
              {"consumers", figures.group.consumers},
              {"mean_consumers_busy", figures.mean_consumers_busy},
              {"backlog", advice.backlog},
              {"in_flight", figures.group.in_flight},
              {"arrivals_per_second", advice.arrivals_per_second},
              {"drained_per_second", advice.drained_per_second},
              {"per_consumer_per_second", optional(advice.per_consumer)},
              {"drain_seconds", optional(advice.drain_seconds)},
              {"measured_seconds", seconds(figures.span)}});
  return exit_ok;
}

void add_scale(CLI::App& app, Context& context) {
  CLI::App* command = app.add_subcommand("scale", "how many consumers a group wants, and why");
  auto arguments = std::make_shared<ScaleArguments>();
  ScaleArguments* a = arguments.get();
  command->add_option("queue", a->queue, "name of the queue")->required();
  command->add_option("group", a->group, "name of the group")->required();
  add_count(
      *command, "--target-backlog", [a](std::uint64_t n) { a->wish.target_backlog = n; },
      "messages that may wait (default 0)");
  add_time(
      *command, "--target-drain",
      [a](std::chrono::nanoseconds time) {
        if (time.count() <= 0) throw CLI::ValidationError("--target-drain", "0 is too short");
        a->wish.target_drain = time;
      },
      "time in which what waits beyond that is to be gone (default 1min)");
  add_count(
      *command, "--min", [a](std::uint64_t n) { a->wish.min = n; }, "never fewer (default 0)");
  add_count(
      *command, "--max", [a](std::uint64_t n) { a->wish.max = n; }, "never more");
  command
      ->add_option_function<double>(
          "--per-consumer",
          [a](double rate) {
            if (!(rate > 0) || !std::isfinite(rate)) {
              throw CLI::ValidationError("--per-consumer", "it must be above 0");
            }
            a->wish.per_consumer = rate;
          },
          "messages/s that one consumer drains (default: as measured)")
      ->type_name("RATE");
  add_time(
      *command, "--measure",
      [a](std::chrono::nanoseconds time) {
        if (time < std::chrono::milliseconds{10}) {
          throw CLI::ValidationError("--measure", "less than 10ms is too short");
        }
        a->measure = time;
      },
      "how long to measure (default 2s)");
  command->callback([&context, arguments] {
    context.command = [&context, arguments] { return scale(context, *arguments); };
  });
}

// What only the daemon knows. One that does not answer soon must not hold a probe up.
shmq::Result<shmq::figures::DaemonReading> ask_daemon(const Context& context) {
  shmq::DaemonOptions options = daemon_options(context);
  options.timeout = std::min<std::chrono::nanoseconds>(options.timeout, std::chrono::seconds{3});
  return shmq::figures::read_daemon(options);
}

// --- check ---------------------------------------------------------------------------------------

// As monitoring plugins say it.
enum CheckState : int { check_ok = 0, check_warning = 1, check_critical = 2, check_unknown = 3 };

struct CheckArguments {
  std::string queue;
  std::vector<std::string> groups;  // empty: all
  std::optional<std::uint64_t> backlog_warn, backlog_crit;
  std::optional<std::chrono::nanoseconds> oldest_warn, oldest_crit;
  std::optional<std::chrono::nanoseconds> flush_lag_crit;
};

struct Verdict {
  CheckState state = check_ok;
  std::vector<std::string> reasons;

  void worsen(CheckState found, std::string reason) {
    // Critical stands above unknown, and unknown above a warning.
    const auto rank = [](CheckState s) { return s == check_unknown ? 15 : 10 * s; };
    if (rank(found) > rank(state)) state = found;
    reasons.push_back(std::move(reason));
  }
};

template <typename T>
CheckState judge(const T& value, const std::optional<T>& warn, const std::optional<T>& crit) {
  if (crit && value >= *crit) return check_critical;
  return warn && value >= *warn ? check_warning : check_ok;
}

// Text of plugins must not hold what separates the performance data.
std::string plain(std::string text) {
  for (char& c : text) {
    if (c == '|' || c == '\'' || static_cast<unsigned char>(c) < 0x20) c = ' ';
  }
  return text;
}

std::string threshold(const std::optional<std::uint64_t>& value) {
  return value ? std::to_string(*value) : "";
}
std::string plain_seconds(std::chrono::nanoseconds time) {
  char text[32];
  std::snprintf(text, sizeof(text), "%.3f", seconds(time));
  return text;
}
std::string threshold(const std::optional<std::chrono::nanoseconds>& value) {
  return value ? plain_seconds(*value) : "";
}

// Says what of the group is beyond its thresholds; gives its performance data.
std::string check_group(const CheckArguments& arguments, const shmq::GroupInfo& group,
                        Verdict& verdict) {
  const std::uint64_t backlog = group.ready + group.delayed;
  const std::string name = plain(group.name);
  std::string data = " '" + name + "_backlog'=" + std::to_string(backlog) + ";" +
                     threshold(arguments.backlog_warn) + ";" + threshold(arguments.backlog_crit) +
                     ";0";
  const CheckState of_backlog = judge(backlog, arguments.backlog_warn, arguments.backlog_crit);
  if (of_backlog != check_ok) {
    verdict.worsen(of_backlog, name + ": backlog " + std::to_string(backlog));
  }
  const bool is_known = !group.oldest_ready || group.oldest_ready->basis != shmq::AgeBasis::unknown;
  const auto age = group.oldest_ready ? group.oldest_ready->age : std::chrono::nanoseconds{0};
  if (is_known) {
    data += " '" + name + "_oldest'=" + plain_seconds(age) + "s;" +
            threshold(arguments.oldest_warn) + ";" + threshold(arguments.oldest_crit) + ";0";
  }
  if (!arguments.oldest_warn && !arguments.oldest_crit) return data;
  if (!is_known) {
    verdict.worsen(check_unknown, name + ": age of message " +
                                      std::to_string(group.oldest_ready->seq.value) +
                                      " not known, its producer stamps no time (--publish-time)");
  } else if (const CheckState of_age = judge(age, arguments.oldest_warn, arguments.oldest_crit);
             of_age != check_ok) {
    verdict.worsen(of_age, name + ": oldest ready for " + human_time(age));
  }
  return data;
}

// What the daemon has not yet on stable storage; gives the performance data. Without it nothing
// gets there: that is as bad as the longest lag.
std::string check_flush_lag(const Context& context, const CheckArguments& arguments,
                            const shmq::Queue& queue, Verdict& verdict) {
  if (!queue.info().durable) {
    verdict.worsen(check_unknown, "flush lag: the queue is not durable");
    return "";
  }
  const auto daemon = ask_daemon(context);
  if (!daemon) {
    verdict.worsen(daemon.error() == shmq::Errc::daemon_away ? check_critical : check_unknown,
                   "flush lag: " + plain(daemon.error().message()));
    return "";
  }
  const auto* of_queue = daemon->find(arguments.queue);
  if (of_queue == nullptr || !of_queue->contents) {
    const std::string state = of_queue == nullptr ? "not served" : of_queue->state;
    const std::string why = of_queue == nullptr ? "" : of_queue->why;
    verdict.worsen(check_critical, "flush lag: the daemon says " + plain(state) +
                                       (why.empty() ? "" : ": " + plain(why)));
    return "";
  }
  const double lag = of_queue->contents->lag_seconds;
  if (lag >= seconds(*arguments.flush_lag_crit)) {
    verdict.worsen(check_critical,
                   "flush lag: " + std::to_string(of_queue->contents->lag_messages) +
                       " messages not on disk, the oldest for " +
                       human_time(std::chrono::nanoseconds{static_cast<std::int64_t>(lag * 1e9)}) +
                       (of_queue->state == "ok" ? "" : " (" + plain(of_queue->state) + ")"));
  }
  char text[32];
  std::snprintf(text, sizeof(text), "%.3f", lag);
  return std::string{" 'flush_lag'="} + text + "s;;" + threshold(arguments.flush_lag_crit) + ";0";
}

int say(const Context& context, const CheckArguments& arguments, const Verdict& verdict,
        const std::string& summary, const std::string& data) {
  constexpr const char* names[] = {"OK", "WARNING", "CRITICAL", "UNKNOWN"};
  std::string text;
  for (const std::string& reason : verdict.reasons) text += (text.empty() ? "" : ", ") + reason;
  if (text.empty()) text = summary;
  if (context.json) {
    print_json({{"queue", arguments.queue}, {"state", names[verdict.state]}, {"text", text}});
  } else {
    write_all(STDOUT_FILENO,
              std::string{"SHMQ "} + names[verdict.state] + " - " + plain(arguments.queue) + ": " +
                  text + (data.empty() ? "" : " |" + data) + "\n",
              nullptr, "write to stdout");
  }
  return verdict.state;
}

int check(const Context& context, const CheckArguments& arguments) {
  Verdict verdict;
  std::string data;
  std::uint64_t backlog = 0;
  std::size_t checked = 0;
  try {
    const shmq::Queue queue = open_queue(context, arguments.queue, shmq::Access::observer);
    const auto groups = queue.groups();
    for (const std::string& wanted : arguments.groups) {
      if (std::none_of(groups.begin(), groups.end(),
                       [&](const auto& group) { return group.name == wanted; })) {
        verdict.worsen(check_unknown, plain(wanted) + ": no such group");
      }
    }
    for (const shmq::GroupInfo& group : groups) {
      if (!arguments.groups.empty() && std::find(arguments.groups.begin(), arguments.groups.end(),
                                                 group.name) == arguments.groups.end()) {
        continue;
      }
      data += check_group(arguments, group, verdict);
      backlog += group.ready + group.delayed;
      ++checked;
    }
    if (arguments.flush_lag_crit) data += check_flush_lag(context, arguments, queue, verdict);
  } catch (const Failure& failure) {
    // What cannot be looked at is not known to be well; the plugin's exit code, not the tool's.
    verdict.worsen(check_unknown, plain(failure.message()));
  }
  return say(context, arguments, verdict,
             std::to_string(checked) + (checked == 1 ? " group" : " groups") + ", backlog " +
                 std::to_string(backlog),
             data);
}

void add_check(CLI::App& app, Context& context) {
  CLI::App* command =
      app.add_subcommand("check", "one line and an exit code, as monitoring plugins do");
  auto arguments = std::make_shared<CheckArguments>();
  CheckArguments* a = arguments.get();
  command->add_option("queue", a->queue, "name of the queue")->required();
  command->add_option("--group", a->groups, "only this group; repeatable (default: all)")
      ->type_name("G")
      ->allow_extra_args(false);
  add_count(
      *command, "--backlog-warn", [a](std::uint64_t n) { a->backlog_warn = n; },
      "warning from so many ready and delayed messages of a group on");
  add_count(
      *command, "--backlog-crit", [a](std::uint64_t n) { a->backlog_crit = n; },
      "critical from so many on");
  add_time(
      *command, "--oldest-warn", [a](std::chrono::nanoseconds t) { a->oldest_warn = t; },
      "warning from this age of a group's oldest ready message on");
  add_time(
      *command, "--oldest-crit", [a](std::chrono::nanoseconds t) { a->oldest_crit = t; },
      "critical from this age on");
  add_time(
      *command, "--flush-lag-crit", [a](std::chrono::nanoseconds t) { a->flush_lag_crit = t; },
      "critical from this age of the oldest message on that is not on disk, or without a daemon");
  command->callback([&context, arguments] {
    context.command = [&context, arguments] { return check(context, *arguments); };
  });
}

// --- metrics -------------------------------------------------------------------------------------

int metrics(const Context& context, const std::vector<std::string>& named) {
  const shmq::OpenOptions options = open_options(context, shmq::Access::observer);
  std::vector<std::string> queues = named;
  if (queues.empty()) queues = take(shmq::Queue::list(context.name_space), "list queues");
  std::vector<shmq::figures::Reading> readings;
  for (const std::string& name : queues) {
    const auto queue = shmq::Queue::open(name, options);
    if (!queue && !named.empty()) throw failure_of(queue.error(), "open queue '" + name + "'");
    // Removed since it was listed.
    if (!queue && queue.error() == shmq::Errc::no_such_queue) continue;
    readings.push_back(shmq::figures::read(name, queue));
  }
  const auto daemon = ask_daemon(context);
  write_all(STDOUT_FILENO, shmq::figures::metrics_text(readings, daemon ? &*daemon : nullptr),
            nullptr, "write to stdout");
  return exit_ok;
}

}  // namespace

void add_monitor_commands(CLI::App& app, Context& context) {
  add_scale(app, context);
  add_check(app, context);
  CLI::App* command = app.add_subcommand("metrics", "OpenMetrics text of all queues, or some");
  auto queues = std::make_shared<std::vector<std::string>>();
  command->add_option("queue", *queues, "names of queues (default: all)");
  command->callback([&context, queues] {
    context.command = [&context, queues] { return metrics(context, *queues); };
  });
}

}  // namespace shmqctl
