// SPDX-License-Identifier: Apache-2.0
//
// shmqctl group create, ls, info, rm, seek.
#include <memory>

#include "context.hpp"
#include "failure.hpp"
#include "look.hpp"
#include "output.hpp"
#include "units.hpp"

namespace shmqctl {

CLI::Option* add_delivery_limit(CLI::App& command, std::optional<std::uint32_t>& limit) {
  return add_count(
      command, "--delivery-limit",
      [&limit](std::uint64_t count) {
        if (count < 1 || count > 63) {
          throw CLI::ValidationError("--delivery-limit",
                                     std::to_string(count) + " is not from 1 to 63");
        }
        limit = static_cast<std::uint32_t>(count);
      },
      "shared: a message that failed so often is dead (default 5)");
}

void set_delivery_limit(shmq::GroupOptions& group, const std::optional<std::uint32_t>& limit) {
  if (!limit) return;
  if (group.mode != shmq::GroupMode::shared) {
    throw usage_failure("--delivery-limit",
                        "group '" + group.name + "' is exclusive: only shared groups have one");
  }
  group.delivery_limit = *limit;
}

namespace {

std::string_view text_of_basis(shmq::AgeBasis basis) {
  switch (basis) {
    case shmq::AgeBasis::publish_time: return "publish_time";
    case shmq::AgeBasis::hand_out: return "hand_out";
    case shmq::AgeBasis::observed: return "observed";
    case shmq::AgeBasis::unknown: break;
  }
  return "unknown";
}

Json oldest_json(const std::optional<shmq::OldestMessage>& oldest) {
  if (!oldest) return {};
  const bool is_known = oldest->basis != shmq::AgeBasis::unknown;
  return {{"seq", oldest->seq.value},
          {"age_seconds", is_known ? Json(seconds(oldest->age)) : Json{}},
          {"basis", text_of_basis(oldest->basis)}};
}

}  // namespace

Json group_json(const shmq::GroupInfo& group) {
  return {
      {"name", group.name},
      {"mode", text_of(group.mode)},
      {"incarnation", group.incarnation},
      {"lease_seconds", seconds(group.lease)},
      {"delivery_limit",
       group.mode == shmq::GroupMode::shared ? Json(group.delivery_limit) : Json{}},
      {"expire_idle_seconds", seconds(group.expire_idle)},
      {"born_seq", group.born.value},
      {"floor_seq", group.floor.value},
      {"ready", group.ready},
      {"in_flight", group.in_flight},
      {"delayed", group.delayed},
      {"dead", group.dead},
      {"oldest_ready", oldest_json(group.oldest_ready)},
      {"oldest_in_flight", oldest_json(group.oldest_in_flight)},
      {"stragglers", group.stragglers},
      {"at_in_flight_limit", group.at_in_flight_limit},
      {"acked_total", group.acked_total},
      {"dropped_total", group.dropped_total},
      {"redelivered_total",
       {{"death", group.redelivered_death_total},
        {"lease", group.redelivered_lease_total},
        {"nack", group.redelivered_nack_total},
        {"release", group.redelivered_release_total}}},
      {"dead_lettered_total", group.dead_lettered_total},
      {"consumers", group.consumers},
      {"consumers_busy", group.consumers_busy},
      {"active_entry", group.active_participant == 0 ? Json{} : Json(group.active_participant - 1)},
      {"ownership_generation", group.ownership_generation}};
}

void print_groups(const Context& context, const std::vector<shmq::GroupInfo>& groups) {
  Table table({"GROUP", "MODE", "LEASE", "READY", "IN FLIGHT", "DELAYED", "DEAD", "STRAGGLERS",
               "AT LIMIT", "ACKED", "DROPPED", "REDELIVERED", "CONSUMERS", "ACTIVE"},
              {3, 4, 5, 6, 7, 9, 10, 11, 12});
  for (const shmq::GroupInfo& group : groups) {
    const std::uint64_t redelivered = group.redelivered_death_total +
                                      group.redelivered_lease_total + group.redelivered_nack_total +
                                      group.redelivered_release_total;
    table.add(
        {group.name, std::string{text_of(group.mode)}, human_time(group.lease),
         std::to_string(group.ready), std::to_string(group.in_flight),
         std::to_string(group.delayed), std::to_string(group.dead),
         std::to_string(group.stragglers), group.at_in_flight_limit ? "yes" : "no",
         std::to_string(group.acked_total), std::to_string(group.dropped_total),
         std::to_string(redelivered), std::to_string(group.consumers),
         group.active_participant == 0 ? "-" : "#" + std::to_string(group.active_participant - 1)});
  }
  table.print(context);
}

namespace {

constexpr const char* start_words =
    "earliest, latest, a seq, a time such as 2026-11-25T10:00:00Z, or an age such as -1h";

struct GroupArguments {
  std::string queue;
  shmq::GroupOptions options{.name = {}, .mode = default_group_mode};
  std::optional<std::uint32_t> delivery_limit;
  shmq::StartAt to{};  // of a seek
  Destructive destructive;
};

void add_names(CLI::App& command, GroupArguments& arguments) {
  command.add_option("queue", arguments.queue, "name of the queue")->required();
  command.add_option("group", arguments.options.name, "name of the group")->required();
}

int create(const Context& context, GroupArguments& arguments) {
  set_delivery_limit(arguments.options, arguments.delivery_limit);
  shmq::Queue queue = open_queue(context, arguments.queue, shmq::Access::participant);
  const std::string& name = arguments.options.name;
  take(queue.create_group(arguments.options),
       "create group '" + name + "' of queue '" + arguments.queue + "'");
  if (context.json) {
    print_json({{"queue", arguments.queue},
                {"group", group_json(find_group(queue, arguments.queue, name))}});
  } else {
    print_remark(context, "group '" + name + "' of queue '" + arguments.queue + "' created");
  }
  return exit_ok;
}

int list(const Context& context, const GroupArguments& arguments) {
  const shmq::Queue queue = open_queue(context, arguments.queue, shmq::Access::observer);
  const auto groups = queue.groups();
  if (!context.json) {
    print_groups(context, groups);
    return exit_ok;
  }
  Json rows = Json::array();
  for (const shmq::GroupInfo& group : groups) rows.push_back(group_json(group));
  print_json({{"queue", arguments.queue}, {"groups", rows}});
  return exit_ok;
}

int info(const Context& context, const GroupArguments& arguments) {
  const shmq::Queue queue = open_queue(context, arguments.queue, shmq::Access::observer);
  const shmq::GroupInfo group = find_group(queue, arguments.queue, arguments.options.name);
  if (context.json) {
    print_json({{"queue", arguments.queue}, {"group", group_json(group)}});
    return exit_ok;
  }
  Table table({"FIELD", "VALUE"});
  const auto number = [&table](const char* field, std::uint64_t value) {
    table.add({field, std::to_string(value)});
  };
  table.add({"group", group.name});
  table.add({"mode", std::string{text_of(group.mode)}});
  table.add({"lease", human_time(group.lease)});
  if (group.mode == shmq::GroupMode::shared) number("delivery limit", group.delivery_limit);
  if (group.expire_idle.count() != 0) table.add({"expires after", human_time(group.expire_idle)});
  number("incarnation", group.incarnation);
  number("born at seq", group.born.value);
  number("floor", group.floor.value);
  number("ready", group.ready);
  number("in flight", group.in_flight);
  number("delayed", group.delayed);
  number("dead", group.dead);
  number("stragglers", group.stragglers);
  table.add({"at in-flight limit", group.at_in_flight_limit ? "yes" : "no"});
  number("acked", group.acked_total);
  number("dropped", group.dropped_total);
  number("redelivered: death", group.redelivered_death_total);
  number("redelivered: lease", group.redelivered_lease_total);
  number("redelivered: nack", group.redelivered_nack_total);
  number("redelivered: release", group.redelivered_release_total);
  number("dead-lettered", group.dead_lettered_total);
  number("consumers", group.consumers);
  table.add({"active", group.active_participant == 0
                           ? "-"
                           : "#" + std::to_string(group.active_participant - 1)});
  number("ownership generation", group.ownership_generation);
  table.print(context);
  return exit_ok;
}

int remove(const Context& context, const GroupArguments& arguments) {
  const std::string& name = arguments.options.name;
  shmq::Queue queue = open_queue(
      context, arguments.queue,
      arguments.destructive.dry_run ? shmq::Access::observer : shmq::Access::participant);
  const shmq::GroupInfo group = find_group(queue, arguments.queue, name);
  const std::string deed = "remove group '" + name + "' of queue '" + arguments.queue + "'";
  const std::uint64_t unsettled = group.ready + group.in_flight + group.delayed;
  if (!arguments.destructive.confirmed(
          context, deed + " with its " + std::to_string(unsettled) + " unsettled messages")) {
    return exit_ok;
  }
  take(queue.remove_group(name), deed);
  if (context.json) {
    print_json({{"queue", arguments.queue}, {"removed", name}});
  } else {
    print_remark(context, "group '" + name + "' of queue '" + arguments.queue + "' removed");
  }
  return exit_ok;
}

int seek(const Context& context, const GroupArguments& arguments) {
  const std::string& name = arguments.options.name;
  shmq::Queue queue = open_queue(
      context, arguments.queue,
      arguments.destructive.dry_run ? shmq::Access::observer : shmq::Access::participant);
  const shmq::GroupInfo group = find_group(queue, arguments.queue, name);
  const std::string what = "seek in group '" + name + "' of queue '" + arguments.queue + "'";
  const std::uint64_t to = take(queue.find(arguments.to), what).value;
  const std::uint64_t tail = queue.stats().tail.value;
  const std::uint64_t unsettled = group.ready + group.in_flight + group.delayed;
  const std::uint64_t then = tail > to ? tail - to : 0;
  const bool is_back = to < group.floor.value;
  const std::uint64_t moved = is_back ? group.floor.value - to : to - group.floor.value;
  if (context.json && arguments.destructive.dry_run) {
    print_json({{"queue", arguments.queue},
                {"group", name},
                {"from_seq", group.floor.value},
                {"to_seq", to},
                {"unsettled_messages", unsettled},
                {"messages", then}});
    return exit_ok;
  }
  const std::string deed = "move group '" + name + "' of queue '" + arguments.queue +
                           "' from seq " + std::to_string(group.floor.value) + " to " +
                           std::to_string(to) + ", " + std::to_string(moved) + " messages " +
                           (is_back ? "back" : "on") + ": " + std::to_string(then) +
                           " messages to be handed out, now " + std::to_string(unsettled);
  if (!arguments.destructive.confirmed(context, deed)) return exit_ok;
  const std::uint64_t begun = take(queue.seek_group(name, shmq::StartAt::at({to})), what).value;
  if (context.json) {
    print_json({{"queue", arguments.queue},
                {"group", name},
                {"from_seq", group.floor.value},
                {"to_seq", begun},
                {"messages", then}});
  } else {
    print_remark(context, "group '" + name + "' of queue '" + arguments.queue + "' is at seq " +
                              std::to_string(begun));
  }
  return exit_ok;
}

void add_seek(CLI::App& parent, Context& context) {
  CLI::App* command =
      parent.add_subcommand("seek", "move a group to another message; its consumers are told");
  auto arguments = std::make_shared<GroupArguments>();
  shmq::StartAt& to = arguments->to;
  add_names(*command, *arguments);
  command
      ->add_option_function<std::string>(
          "--to",
          [&to](const std::string& text) {
            const auto start = parse_start(text);
            if (!start) {
              throw CLI::ValidationError("--to", "'" + text + "' is not " + start_words);
            }
            to = *start;
          },
          "where it goes on")
      ->type_name("earliest|latest|SEQ|TIME|-AGE")
      ->required();
  arguments->destructive.add_to(*command);
  command->callback([&context, arguments] {
    context.command = [&context, arguments] { return seek(context, *arguments); };
  });
}

void add_create(CLI::App& parent, Context& context) {
  CLI::App* command = parent.add_subcommand("create", "create a group while producers run");
  auto arguments = std::make_shared<GroupArguments>();
  shmq::GroupOptions& options = arguments->options;
  add_names(*command, *arguments);
  command
      ->add_option_function<std::string>(
          "--mode",
          [&options](const std::string& text) { options.mode = read_mode_name("--mode", text); },
          "shared (default): competing consumers, a lease for each message; exclusive: one active "
          "consumer, in order, the others stand by")
      ->type_name("shared|exclusive");
  command
      ->add_option_function<std::string>(
          "--from",
          [&options](const std::string& text) {
            const auto start = parse_start(text);
            if (!start) {
              throw CLI::ValidationError("--from", "'" + text + "' is not " + start_words);
            }
            options.from = *start;
          },
          "where it begins (default earliest)")
      ->type_name("earliest|latest|SEQ|TIME|-AGE");
  add_time(
      *command, "--lease", [&options](std::chrono::nanoseconds time) { options.lease = time; },
      "how long a message may be held (exclusive: the active consumer be silent) before another "
      "gets "
      "it; 0: only death ends it (default 30s)");
  add_delivery_limit(*command, arguments->delivery_limit);
  add_time(
      *command, "--expire",
      [&options](std::chrono::nanoseconds time) { options.expire_idle = time; },
      "remove it after so long without a consumer (durable queues; default: never)");
  command->callback([&context, arguments] {
    context.command = [&context, arguments] { return create(context, *arguments); };
  });
}

}  // namespace

void add_group_commands(CLI::App& app, Context& context) {
  CLI::App* group = app.add_subcommand("group", "create, list and remove groups of a queue");
  group->require_subcommand(1);
  add_create(*group, context);
  add_seek(*group, context);
  auto arguments = std::make_shared<GroupArguments>();

  CLI::App* ls = group->add_subcommand("ls", "list the groups of a queue");
  ls->add_option("queue", arguments->queue, "name of the queue")->required();
  ls->callback([&context, arguments] {
    context.command = [&context, arguments] { return list(context, *arguments); };
  });

  CLI::App* show = group->add_subcommand("info", "show a group's state and counters");
  add_names(*show, *arguments);
  show->callback([&context, arguments] {
    context.command = [&context, arguments] { return info(context, *arguments); };
  });

  CLI::App* rm = group->add_subcommand("rm", "remove a group; its consumers are told");
  add_names(*rm, *arguments);
  arguments->destructive.add_to(*rm);
  rm->callback([&context, arguments] {
    context.command = [&context, arguments] { return remove(context, *arguments); };
  });
}

}  // namespace shmqctl
