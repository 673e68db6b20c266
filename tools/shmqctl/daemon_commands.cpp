// SPDX-License-Identifier: Apache-2.0
//
// shmqctl daemon status, reload, drain; shmqctl sync.
#include <memory>

#include "context.hpp"
#include "failure.hpp"
#include "output.hpp"

namespace shmqctl {
namespace {

std::string plain(const Json& value) {
  return value.is_string() ? value.get<std::string>() : value.dump();
}

/// A row for each object of the array, a column for each field of the first.
void print_rows(const Context& context, const Json& rows) {
  std::vector<std::string> titles;
  std::vector<std::string> keys;
  for (const auto& [key, value] : rows.front().items()) {
    keys.push_back(key);
    std::string title = key;
    for (char& c : title) c = static_cast<char>(std::toupper(static_cast<unsigned char>(c)));
    titles.push_back(title);
  }
  Table table(titles);
  for (const Json& row : rows) {
    std::vector<std::string> cells;
    for (const std::string& key : keys) {
      const auto found = row.find(key);
      cells.push_back(found == row.end() ? "-" : plain(*found));
    }
    table.add(cells);
  }
  table.print(context);
}

int status(const Context& context) {
  const std::string text = take(shmq::daemon_status(daemon_options(context)), "ask the daemon");
  Json object = Json::parse(text, nullptr, false);
  if (!object.is_object()) {
    throw Failure{exit_error, "ask the daemon", "its answer cannot be read",
                  "see that shmqd and shmqctl are of one version"};
  }
  object.erase("ok");
  if (context.json) {
    print_json(object);
    return exit_ok;
  }
  Table table({"FIELD", "VALUE"});
  Json queues = Json::array();
  for (const auto& [key, value] : object.items()) {
    if (value.is_array() && (value.empty() || value.front().is_object())) {
      if (key == "queues") queues = value;
      table.add({key, std::to_string(value.size())});
    } else {
      table.add({key, plain(value)});
    }
  }
  table.print(context);
  if (!queues.empty()) print_rows(context, queues);
  return exit_ok;
}

int reload(const Context& context) {
  take(shmq::daemon_reload(daemon_options(context)), "reload the daemon");
  if (context.json) {
    print_json({{"reloaded", true}});
  } else {
    print_remark(context, "the daemon has read its configuration again");
  }
  return exit_ok;
}

int drain(const Context& context, const Destructive& destructive) {
  if (!destructive.confirmed(context, "drain and end the daemon")) return exit_ok;
  take(shmq::daemon_drain(daemon_options(context)), "drain the daemon");
  if (context.json) {
    print_json({{"drained", true}});
  } else {
    print_remark(context, "the daemon drains and ends");
  }
  return exit_ok;
}

struct SyncArguments {
  std::string queue;
  std::chrono::nanoseconds timeout = shmq::forever;
};

int sync(const Context& context, const SyncArguments& arguments) {
  const StopSignals stop;
  shmq::Queue queue = open_queue(context, arguments.queue, shmq::Access::participant);
  const auto done = queue.sync(arguments.timeout, stop.token());
  if (!done && stop.signal() != 0) return stop.exit_code();
  take(done, "sync queue '" + arguments.queue + "'");
  if (context.json) {
    print_json({{"queue", arguments.queue}, {"synced", true}});
  } else {
    print_remark(context, "queue '" + arguments.queue + "' is on stable storage");
  }
  return exit_ok;
}

}  // namespace

void add_daemon_commands(CLI::App& app, Context& context) {
  CLI::App* daemon = app.add_subcommand("daemon", "ask and steer the daemon of the namespace");
  daemon->require_subcommand(1);
  CLI::App* show = daemon->add_subcommand("status", "what it is and what it serves");
  show->callback([&context] { context.command = [&context] { return status(context); }; });
  CLI::App* again = daemon->add_subcommand(
      "reload", "read the configuration again, and try degraded queues on a new file");
  again->callback([&context] { context.command = [&context] { return reload(context); }; });
  CLI::App* end = daemon->add_subcommand("drain", "all to stable storage, then its end");
  auto destructive = std::make_shared<Destructive>();
  destructive->add_to(*end);
  end->callback([&context, destructive] {
    context.command = [&context, destructive] { return drain(context, *destructive); };
  });

  CLI::App* command = app.add_subcommand(
      "sync", "wait until all that is published and settled now is on stable storage");
  auto arguments = std::make_shared<SyncArguments>();
  SyncArguments* a = arguments.get();
  command->add_option("queue", a->queue, "name of the queue")->required();
  add_time(
      *command, "--timeout", [a](std::chrono::nanoseconds time) { a->timeout = time; },
      "how long to wait (default: for ever)");
  command->callback([&context, arguments] {
    context.command = [&context, arguments] { return sync(context, *arguments); };
  });
}

}  // namespace shmqctl
