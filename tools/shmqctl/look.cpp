// SPDX-License-Identifier: Apache-2.0
//
// shmqctl peek, stat, consumer ls: looking without touching.
#include "look.hpp"

#include <unistd.h>

#include <algorithm>
#include <fstream>
#include <limits>
#include <memory>
#include <optional>

#include "failure.hpp"
#include "units.hpp"

namespace shmqctl {
namespace {

// --- peek ----------------------------------------------------------------------------------------

struct PeekArguments {
  std::string queue;
  std::optional<shmq::StartAt> from;
  std::uint64_t count = 10;
  bool nul = false;
  bool frame = false;
  std::string format = "raw";
};

int peek(const Context& context, const PeekArguments& arguments) {
  const shmq::Queue queue = open_queue(context, arguments.queue, shmq::Access::observer);
  const std::string what = "peek into queue '" + arguments.queue + "'";
  Framing framing = Framing::newline;
  if (arguments.format == "json" || context.json) framing = Framing::json;
  if (arguments.nul) framing = Framing::nul;
  if (arguments.frame) framing = Framing::length;
  shmq::Seq from{};
  if (arguments.from && arguments.from->kind == shmq::StartAt::Kind::seq) {
    from = arguments.from->seq;  // of what is gone, the oldest held
  } else if (arguments.from) {
    from = take(queue.find(*arguments.from), what);
  }
  for (std::uint64_t left = arguments.count; left > 0;) {
    // In portions: copies of a whole queue could be larger than the memory of this process.
    const auto portion = static_cast<std::size_t>(std::min<std::uint64_t>(left, 64));
    const auto messages = take(queue.peek(from, portion), what);
    if (messages.empty()) break;
    std::string out;
    for (const shmq::PeekedMessage& message : messages) {
      MessageView view{.seq = message.seq,
                       .payload = {reinterpret_cast<const char*>(message.payload.data()),
                                   message.payload.size()},
                       .publish_time = message.publish_time,
                       .attributes = {},
                       .hand_outs = {},
                       .failures = {}};
      for (const auto& [key, value] : message.attributes) view.attributes.emplace_back(key, value);
      append_message(out, view, framing);
    }
    write_all(STDOUT_FILENO, out, nullptr, "write to stdout");
    left -= messages.size();
    from = messages.back().seq + 1;
  }
  return exit_ok;
}

void add_peek(CLI::App& app, Context& context) {
  CLI::App* command = app.add_subcommand("peek", "look at messages without taking them");
  auto arguments = std::make_shared<PeekArguments>();
  PeekArguments* a = arguments.get();
  command->add_option("queue", a->queue, "name of the queue")->required();
  command
      ->add_option_function<std::string>(
          "--from",
          [a](const std::string& text) {
            a->from = parse_start(text);
            if (!a->from) {
              throw CLI::ValidationError("--from", "'" + text +
                                                       "' is not earliest, latest, a seq, a time "
                                                       "or an age such as -1h");
            }
          },
          "where to begin (default: the oldest held)")
      ->type_name("earliest|latest|SEQ|TIME|-AGE");
  add_count(
      *command, "-n,--count", [a](std::uint64_t n) { a->count = n; },
      "how many messages (default 10)");
  auto* nul = command->add_flag("--null,-0", a->nul, "NUL instead of newline after each message");
  auto* frame =
      command->add_flag("--frame", a->frame, "4-byte little-endian length before each message");
  nul->excludes(frame);
  command->add_option("--format", a->format, "raw (default) or json, one object a line")
      ->type_name("raw|json")
      ->check(CLI::IsMember({"raw", "json"}));
  command->callback([&context, arguments] {
    context.command = [&context, arguments] { return peek(context, *arguments); };
  });
}

// --- stat ----------------------------------------------------------------------------------------

Json stats_json(const shmq::QueueStats& stats) {
  return {{"head_seq", stats.head.value},
          {"tail_seq", stats.tail.value},
          {"published_total", stats.tail.value},
          {"messages_held", stats.messages_held},
          {"dropped_total", stats.dropped_total},
          {"chunks",
           {{"total", stats.chunks_total},
            {"open", stats.chunks_open},
            {"sealed", stats.chunks_sealed},
            {"free", stats.chunks_free},
            {"pinned", stats.chunks_pinned}}},
          {"producers", stats.producers},
          {"consumers", stats.consumers}};
}

int stat(const Context& context, const std::string& name) {
  const shmq::Queue queue = open_queue(context, name, shmq::Access::observer);
  const shmq::QueueStats stats = queue.stats();
  const auto groups = queue.groups();
  if (context.json) {
    Json rows = Json::array();
    for (const shmq::GroupInfo& group : groups) rows.push_back(group_json(group));
    print_json({{"queue", name}, {"stats", stats_json(stats)}, {"groups", rows}});
    return exit_ok;
  }
  Table table({"PUBLISHED", "HELD", "DROPPED", "PRODUCERS", "CONSUMERS", "CHUNKS", "FREE", "OPEN",
               "SEALED", "PINNED"},
              {0, 1, 2, 3, 4, 5, 6, 7, 8, 9});
  table.add({std::to_string(stats.tail.value), std::to_string(stats.messages_held),
             std::to_string(stats.dropped_total), std::to_string(stats.producers),
             std::to_string(stats.consumers), std::to_string(stats.chunks_total),
             std::to_string(stats.chunks_free), std::to_string(stats.chunks_open),
             std::to_string(stats.chunks_sealed), std::to_string(stats.chunks_pinned)});
  table.print(context);
  if (!context.no_headers) write_all(STDOUT_FILENO, "\n", nullptr, "write to stdout");
  print_groups(context, groups);
  return exit_ok;
}

// --- consumer ls ---------------------------------------------------------------------------------

std::string_view text_of_role(shmq::Role role) {
  switch (role) {
    case shmq::Role::producer: return "producer";
    case shmq::Role::consumer: return "consumer";
    case shmq::Role::administrator: return "administrator";
  }
  return "unknown";
}

/// The command behind a pid; "-" where /proc does not show it (another pid namespace, or gone).
std::string command_of(const shmq::ParticipantInfo& participant) {
  std::string name;
  if (participant.alive) {
    std::ifstream file("/proc/" + std::to_string(participant.pid) + "/comm");
    std::getline(file, name);
  }
  return name.empty() ? "-" : name;
}

/// The cgroup (v2) of the process, which names its service or container; "-" if not to be seen.
std::string cgroup_of(const shmq::ParticipantInfo& participant) {
  std::string line;
  if (participant.alive) {
    std::ifstream file("/proc/" + std::to_string(participant.pid) + "/cgroup");
    while (std::getline(file, line)) {
      if (line.starts_with("0::")) return line.substr(3);
    }
  }
  return "-";
}

std::string_view state_of(const shmq::ParticipantInfo& participant, bool in_shared_group) {
  if (!participant.alive) return "dead";
  if (participant.role != shmq::Role::consumer) return "alive";
  if (in_shared_group) return participant.held.empty() ? "idle" : "busy";
  return participant.active ? "active" : "standing by";
}

std::optional<std::chrono::nanoseconds> oldest_held(const shmq::ParticipantInfo& participant) {
  std::optional<std::chrono::nanoseconds> oldest;
  for (const shmq::HeldMessage& held : participant.held) {
    if (held.held_for && (!oldest || *oldest < *held.held_for)) oldest = held.held_for;
  }
  return oldest;
}

Json optional_seconds(const std::optional<std::chrono::nanoseconds>& time) {
  return time ? Json(seconds(*time)) : Json{};
}

/// "1.5s"; a message that came just now is held for 0s, one whose time is not known for "-".
std::string optional_time(const std::optional<std::chrono::nanoseconds>& time) {
  if (!time) return "-";
  return time->count() == 0 ? "0s" : human_time(*time);
}

Json held_json(const shmq::ParticipantInfo& participant) {
  Json rows = Json::array();
  for (const shmq::HeldMessage& held : participant.held) {
    rows.push_back({{"seq", held.seq.value},
                    {"hand_outs", held.hand_outs},
                    {"held_seconds", optional_seconds(held.held_for)},
                    {"expired", held.expired}});
  }
  return rows;
}

struct ConsumerListArguments {
  std::string queue;
  bool held = false;
};

int list_consumers(const Context& context, const ConsumerListArguments& arguments) {
  const shmq::Queue queue = open_queue(context, arguments.queue, shmq::Access::observer);
  std::vector<std::string> shared_groups;
  for (const shmq::GroupInfo& group : queue.groups()) {
    if (group.mode == shmq::GroupMode::shared) shared_groups.push_back(group.name);
  }
  Table table({"ENTRY", "ROLE", "GROUP", "NAME", "PID", "COMMAND", "STATE", "IN FLIGHT",
               "OLDEST HELD", "ASLEEP", "MESSAGES", "BYTES", "PINNED", "OWNED", "ATTACHED"},
              {4, 7, 8, 9, 10, 11, 12, 13});
  Table held_table({"ENTRY", "GROUP", "PID", "SEQ", "HAND-OUTS", "HELD FOR", "LEASE"},
                   {2, 3, 4, 5});
  Json rows = Json::array();
  for (const shmq::ParticipantInfo& item : queue.participants()) {
    const auto or_dash = [](const std::string& text) { return text.empty() ? "-" : text; };
    const bool in_shared =
        std::find(shared_groups.begin(), shared_groups.end(), item.group) != shared_groups.end();
    const std::string entry = "#" + std::to_string(item.entry);
    const auto oldest = oldest_held(item);
    table.add({entry, std::string{text_of_role(item.role)}, or_dash(item.group), or_dash(item.name),
               std::to_string(item.pid), command_of(item), std::string{state_of(item, in_shared)},
               std::to_string(item.in_flight), optional_time(oldest),
               optional_time(item.asleep_for), std::to_string(item.messages_total),
               human_size(item.bytes_total), std::to_string(item.chunks_pinned),
               std::to_string(item.chunks_owned), rfc3339(item.attached)});
    for (const shmq::HeldMessage& held : item.held) {
      held_table.add({entry, item.group, std::to_string(item.pid), std::to_string(held.seq.value),
                      std::to_string(held.hand_outs), optional_time(held.held_for),
                      held.expired ? "expired" : "valid"});
    }
    rows.push_back({{"entry", item.entry},
                    {"generation", item.generation},
                    {"role", text_of_role(item.role)},
                    {"group", item.group},
                    {"name", item.name},
                    {"pid", item.pid},
                    {"command", command_of(item)},
                    {"cgroup", cgroup_of(item)},
                    {"state", state_of(item, in_shared)},
                    {"alive", item.alive},
                    {"active", item.active},
                    {"in_flight", item.in_flight},
                    {"oldest_held_seconds", optional_seconds(oldest)},
                    {"held", held_json(item)},
                    {"asleep_seconds", optional_seconds(item.asleep_for)},
                    {"messages_total", item.messages_total},
                    {"bytes_total", item.bytes_total},
                    {"chunks_pinned", item.chunks_pinned},
                    {"chunks_owned", item.chunks_owned},
                    {"attached", rfc3339(item.attached)}});
  }
  if (context.json) {
    print_json({{"queue", arguments.queue}, {"participants", rows}});
  } else {
    (arguments.held ? held_table : table).print(context);
  }
  return exit_ok;
}

}  // namespace

void add_look_commands(CLI::App& app, Context& context) {
  add_peek(app, context);
  auto name = std::make_shared<std::string>();

  CLI::App* counters =
      app.add_subcommand("stat", "show a queue's counters and those of its groups");
  counters->add_option("queue", *name, "name of the queue")->required();
  counters->callback(
      [&context, name] { context.command = [&context, name] { return stat(context, *name); }; });

  CLI::App* consumer = app.add_subcommand("consumer", "who is attached");
  consumer->require_subcommand(1);
  CLI::App* ls = consumer->add_subcommand("ls", "list producers and consumers, and what they hold");
  auto arguments = std::make_shared<ConsumerListArguments>();
  ls->add_option("queue", arguments->queue, "name of the queue")->required();
  ls->add_flag("--held", arguments->held,
               "the messages that the consumers of shared groups hold, one a line");
  ls->callback([&context, arguments] {
    context.command = [&context, arguments] { return list_consumers(context, *arguments); };
  });
}

}  // namespace shmqctl
