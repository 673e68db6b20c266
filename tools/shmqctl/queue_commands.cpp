// SPDX-License-Identifier: Apache-2.0
//
// shmqctl queue create, ls, info, rm, purge.
#include <array>
#include <limits>
#include <memory>
#include <sstream>

#include "context.hpp"
#include "failure.hpp"
#include "output.hpp"
#include "units.hpp"

namespace shmqctl {
namespace {

template <typename T>
std::function<void(std::uint64_t)> into(T& target, const std::string& option) {
  return [&target, option](std::uint64_t value) {
    if (value > std::numeric_limits<T>::max()) {
      throw CLI::ValidationError(option, std::to_string(value) + " is too large");
    }
    target = static_cast<T>(value);
  };
}

std::string uuid_text(const std::array<std::uint8_t, 16>& uuid) {
  constexpr std::string_view digits = "0123456789abcdef";
  std::string text;
  for (std::size_t i = 0; i < uuid.size(); ++i) {
    if (i == 4 || i == 6 || i == 8 || i == 10) text += '-';
    text += digits[uuid[i] >> 4U];
    text += digits[uuid[i] & 15U];
  }
  return text;
}

std::string mode_text(mode_t mode) {
  std::array<char, 16> text{};
  std::snprintf(text.data(), text.size(), "%04o", static_cast<unsigned>(mode));
  return text.data();
}

Json queue_json(const shmq::QueueInfo& info) {
  return {{"name", info.name},
          {"namespace", info.name_space},
          {"uuid", uuid_text(info.uuid)},
          {"abi_version", info.abi_version},
          {"owner", user_name(info.owner)},
          {"owner_uid", info.owner},
          {"owner_group", group_name(info.owner_group)},
          {"owner_gid", info.owner_group},
          {"mode", mode_text(info.mode)},
          {"created", rfc3339(info.created)},
          {"segment_bytes", info.segment_bytes},
          {"slots", info.slots},
          {"arena_bytes", info.arena_bytes},
          {"chunk_bytes", info.chunk_bytes},
          {"max_message_bytes", info.max_message_bytes},
          {"max_groups", info.max_groups},
          {"max_participants", info.max_participants},
          {"max_producers", info.max_producers},
          {"window_entries", info.window_entries},
          {"straggler_entries", info.straggler_entries},
          {"overflow", text_of(info.overflow)},
          {"durable", info.durable},
          {"visible", info.visible == shmq::Visible::synced ? "synced" : "published"},
          {"retention",
           {{"age_seconds", seconds(info.retention.age)},
            {"bytes", info.retention.bytes},
            {"messages", info.retention.messages}}},
          {"max_disk_bytes", info.max_disk_bytes}};
}

std::string retention_text(const shmq::Retention& retention) {
  std::string text;
  const auto add = [&text](const std::string& part) { text += (text.empty() ? "" : ", ") + part; };
  if (retention.age.count() != 0) add(human_time(retention.age));
  if (retention.bytes != 0) add(human_size(retention.bytes));
  if (retention.messages != 0) add(std::to_string(retention.messages) + " messages");
  return text.empty() ? "until every group is past it" : text;
}

/// "age=1d,bytes=10GiB,messages=1000000", each of them once at most; or "groups".
shmq::Retention parse_retention(const std::string& text) {
  const auto fail = [](const std::string& why) { throw CLI::ValidationError("--retention", why); };
  shmq::Retention retention;
  if (text == "groups") return retention;
  std::istringstream parts{text};
  bool any = false;
  for (std::string part; std::getline(parts, part, ','); any = true) {
    const std::size_t equals = part.find('=');
    const std::string key = part.substr(0, equals);
    const std::string value = equals == std::string::npos ? "" : part.substr(equals + 1);
    if (const auto age = parse_time(value); key == "age" && age && age->count() > 0) {
      retention.age = *age;
    } else if (const auto bytes = parse_size(value); key == "bytes" && bytes && *bytes > 0) {
      retention.bytes = *bytes;
    } else if (const auto count = parse_count(value); key == "messages" && count && *count > 0) {
      retention.messages = *count;
    } else {
      fail("'" + part + "' is not age=TIME, bytes=SIZE or messages=N");
    }
  }
  if (!any) fail("it is empty");
  return retention;
}

// --- create --------------------------------------------------------------------------------------

struct CreateArguments {
  std::string name;
  shmq::QueueOptions options;
  std::optional<std::chrono::nanoseconds> lease;
  std::optional<std::uint32_t> delivery_limit;
  std::optional<std::chrono::nanoseconds> expire_idle;
  bool if_not_exists = false;
};

shmq::GroupOptions group_options(const std::string& text) {
  shmq::GroupOptions group{.name = {}, .mode = default_group_mode};
  const std::size_t colon = text.find(':');
  group.name = text.substr(0, colon);
  if (colon != std::string::npos) group.mode = read_mode_name("--group", text.substr(colon + 1));
  return group;
}

/// A group that was there already is not changed; one of another kind than asked for is an error.
void check_group(const shmq::Queue& queue, const CreateArguments& arguments,
                 const shmq::GroupOptions& wanted) {
  const shmq::GroupInfo found = find_group(queue, arguments.name, wanted.name);
  std::string difference;
  if (found.mode != wanted.mode) {
    difference =
        "is " + std::string{text_of(found.mode)} + ", not " + std::string{text_of(wanted.mode)};
  } else if (arguments.lease && found.lease != wanted.lease) {
    difference = "has another lease";
  } else if (arguments.delivery_limit && found.delivery_limit != wanted.delivery_limit) {
    difference = "has another delivery limit";
  } else {
    return;
  }
  throw Failure{exit_error, "create queue '" + arguments.name + "'",
                "it exists, and its group '" + wanted.name + "' " + difference,
                "ask for the group as it is, see shmqctl group info"};
}

int create(const Context& context, CreateArguments& arguments) {
  shmq::QueueOptions& options = arguments.options;
  options.name_space = context.name_space;
  options.trusted_owners = context.trusted_owners;
  options.runtime_dir = context.runtime_dir;
  // The group that the library makes when none is named.
  if ((arguments.lease || arguments.expire_idle) && options.groups.empty())
    options.groups.push_back({.name = "default"});
  if (arguments.delivery_limit && options.groups.empty()) {
    throw usage_failure("--delivery-limit", "no shared group is named with --group");
  }
  for (shmq::GroupOptions& group : options.groups) {
    if (arguments.lease) group.lease = *arguments.lease;
    if (arguments.expire_idle) group.expire_idle = *arguments.expire_idle;
    if (group.mode == shmq::GroupMode::shared || options.groups.size() == 1) {
      set_delivery_limit(group, arguments.delivery_limit);
    }
  }
  const std::string what = "create queue '" + arguments.name + "'";
  const shmq::Queue queue =
      take(arguments.if_not_exists ? shmq::Queue::open_or_create(arguments.name, options)
                                   : shmq::Queue::create(arguments.name, options),
           what);
  for (const shmq::GroupOptions& group : options.groups) check_group(queue, arguments, group);
  if (context.json) {
    print_json({{"queue", queue_json(queue.info())}});
  } else {
    print_remark(context, "queue '" + arguments.name +
                              (arguments.if_not_exists ? "' is there" : "' created"));
  }
  return exit_ok;
}

void add_create_limits(CLI::App& command, shmq::QueueOptions& options) {
  add_count(command, "--capacity,--slots", into(options.slots, "--capacity"),
            "messages held at most, a power of two (default 65536)");
  add_size(command, "--arena", into(options.arena_bytes, "--arena"),
           "memory for payloads, a multiple of the chunk (default 64MiB)");
  add_size(command, "--chunk", into(options.chunk_bytes, "--chunk"),
           "4KiB to 1MiB, a power of two (default 256KiB)");
  add_size(command, "--max-message", into(options.max_message_bytes, "--max-message"),
           "largest message (default: an eighth of the arena)");
  add_count(command, "--max-groups", into(options.max_groups, "--max-groups"), "(default 16)");
  add_count(command, "--max-participants", into(options.max_participants, "--max-participants"),
            "producers and consumers attached at once (default 256)");
  add_count(command, "--max-producers", into(options.max_producers, "--max-producers"),
            "(default: as many as the arena allows)");
  add_count(command, "--window", into(options.window_entries, "--window"),
            "messages in flight per group before stragglers are set aside, a power of two (default "
            "4096)");
  add_count(command, "--stragglers", into(options.straggler_entries, "--stragglers"),
            "messages set aside per group: held, delayed or dead for long; a power of two (default "
            "4096)");
}

void add_create(CLI::App& parent, Context& context) {
  CLI::App* command = parent.add_subcommand("create", "create a queue");
  auto arguments = std::make_shared<CreateArguments>();
  shmq::QueueOptions& options = arguments->options;
  command->add_option("queue", arguments->name, "its name: [a-z0-9][a-z0-9._-]{0,63}")->required();
  add_create_limits(*command, options);
  command
      ->add_option_function<std::string>(
          "--overflow",
          [&options](const std::string& text) {
            if (text == "block") {
              options.overflow = shmq::Overflow::block;
            } else if (text == "fail") {
              options.overflow = shmq::Overflow::fail;
            } else if (text == "drop_oldest") {
              options.overflow = shmq::Overflow::drop_oldest;
            } else if (text == "spill") {
              options.overflow = shmq::Overflow::spill;
            } else {
              throw CLI::ValidationError("--overflow",
                                         "'" + text + "' is not block, fail, drop_oldest or spill");
            }
          },
          "what a publish does when there is no room: block (default), fail, drop_oldest, "
          "spill (to the journal; with --durable)")
      ->type_name("POLICY");
  command
      ->add_option_function<std::vector<std::string>>(
          "--group",
          [&options](const std::vector<std::string>& names) {
            for (const std::string& name : names) options.groups.push_back(group_options(name));
          },
          "a group to begin with, shared unless it says :exclusive; repeatable (default: one "
          "exclusive "
          "group named \"default\")")
      ->type_name("NAME[:exclusive|:shared]")
      ->allow_extra_args(false);
  add_time(
      *command, "--lease",
      [a = arguments.get()](std::chrono::nanoseconds time) { a->lease = time; },
      "lease of these groups; 0: only death ends it (default 30s)");
  add_delivery_limit(*command, arguments->delivery_limit);
  command
      ->add_option_function<std::string>(
          "--mode",
          [&options](const std::string& text) {
            const auto mode = parse_mode(text);
            if (!mode) throw CLI::ValidationError("--mode", "'" + text + "' is not like 0660");
            options.mode = *mode;
          },
          "permissions, whatever the umask (default 0600)")
      ->type_name("MODE");
  command
      ->add_option_function<std::string>(
          "--owner-group",
          [&options](const std::string& text) {
            options.owner_group = parse_group(text);
            if (!options.owner_group) {
              throw CLI::ValidationError("--owner-group", "no group '" + text + "'");
            }
          },
          "Unix group of the queue")
      ->type_name("NAME");
  command->add_flag("--durable", options.durable, "on disk; needs the daemon");
  command
      ->add_option_function<std::string>(
          "--visible",
          [&options](const std::string& text) {
            if (text != "published" && text != "synced") {
              throw CLI::ValidationError("--visible", "'" + text + "' is not published or synced");
            }
            options.visible = text == "synced" ? shmq::Visible::synced : shmq::Visible::published;
          },
          "from when on consumers see a message: published (default), or synced, once it is on "
          "stable storage (with --durable)")
      ->type_name("published|synced");
  command
      ->add_option_function<std::string>(
          "--retention",
          [&options](const std::string& text) { options.retention = parse_retention(text); },
          "what stays on disk though every group is past it, until it is older than age, or newer "
          "messages fill bytes, or are so many (with --durable; default groups: nothing)")
      ->type_name("groups|age=TIME,bytes=SIZE,messages=N");
  add_size(*command, "--max-disk", into(options.max_disk_bytes, "--max-disk"),
           "what the journal may take, at least 8MiB; beyond it the overflow policy applies (with "
           "--durable; default: what the daemon's configuration says)");
  add_time(
      *command, "--expire",
      [a = arguments.get()](std::chrono::nanoseconds time) { a->expire_idle = time; },
      "remove these groups after so long without a consumer (with --durable; default: never)");
  command->add_flag("--if-not-exists", arguments->if_not_exists,
                    "fine if it is there with the same limits; missing groups are created");
  command->callback([&context, arguments] {
    context.command = [&context, arguments] { return create(context, *arguments); };
  });
}

// --- ls, info ------------------------------------------------------------------------------------

int list(const Context& context) {
  const auto names = take(shmq::Queue::list(context.name_space), "list queues");
  Table table({"QUEUE", "HELD", "CAPACITY", "ARENA", "GROUPS", "PRODUCERS", "CONSUMERS", "OWNER",
               "MODE", "STATE"},
              {1, 2, 3, 4, 5, 6});
  Json rows = Json::array();
  for (const std::string& name : names) {
    const auto queue = shmq::Queue::open(name, open_options(context, shmq::Access::observer));
    if (!queue) {
      // One bad object must not hide the others.
      if (queue.error() == shmq::Errc::no_such_queue) continue;
      const std::string why = queue.error().why();
      table.add({name, "-", "-", "-", "-", "-", "-", "-", "-", why});
      rows.push_back({{"name", name}, {"error", why}});
      continue;
    }
    const shmq::QueueInfo info = queue->info();
    const shmq::QueueStats stats = queue->stats();
    table.add({name, std::to_string(stats.messages_held), std::to_string(info.slots),
               human_size(info.arena_bytes), std::to_string(stats.groups),
               std::to_string(stats.producers), std::to_string(stats.consumers),
               user_name(info.owner), mode_text(info.mode), "ok"});
    rows.push_back({{"name", name},
                    {"messages_held", stats.messages_held},
                    {"slots", info.slots},
                    {"arena_bytes", info.arena_bytes},
                    {"groups", stats.groups},
                    {"producers", stats.producers},
                    {"consumers", stats.consumers},
                    {"owner", user_name(info.owner)},
                    {"mode", mode_text(info.mode)}});
  }
  if (context.json) {
    print_json({{"queues", rows}});
  } else {
    table.print(context);
  }
  return exit_ok;
}

int info(const Context& context, const std::string& name) {
  const shmq::Queue queue = open_queue(context, name, shmq::Access::observer);
  const shmq::QueueInfo info = queue.info();
  if (context.json) {
    print_json({{"queue", queue_json(info)}});
    return exit_ok;
  }
  Table table({"FIELD", "VALUE"});
  table.add({"queue", info.name});
  table.add({"namespace", info.name_space});
  table.add({"uuid", uuid_text(info.uuid)});
  table.add({"abi version", std::to_string(info.abi_version)});
  table.add({"owner", user_name(info.owner) + ":" + group_name(info.owner_group)});
  table.add({"mode", mode_text(info.mode)});
  table.add({"created", rfc3339(info.created)});
  table.add({"segment", human_size(info.segment_bytes)});
  table.add({"capacity", std::to_string(info.slots) + " messages"});
  table.add({"arena", human_size(info.arena_bytes)});
  table.add({"chunk", human_size(info.chunk_bytes)});
  table.add({"max message", human_size(info.max_message_bytes)});
  table.add({"max groups", std::to_string(info.max_groups)});
  table.add({"max participants", std::to_string(info.max_participants)});
  table.add({"max producers", std::to_string(info.max_producers)});
  table.add({"window", std::to_string(info.window_entries)});
  table.add({"stragglers", std::to_string(info.straggler_entries)});
  table.add({"overflow", std::string{text_of(info.overflow)}});
  table.add({"durable", info.durable ? "yes" : "no"});
  table.add({"visible", info.visible == shmq::Visible::synced ? "synced" : "published"});
  if (info.durable) {
    table.add({"retention", retention_text(info.retention)});
    table.add({"max disk", info.max_disk_bytes != 0 ? human_size(info.max_disk_bytes) : "-"});
  }
  table.print(context);
  return exit_ok;
}

// --- rm, purge -----------------------------------------------------------------------------------

std::string held(const shmq::Queue& queue) {
  return std::to_string(queue.stats().messages_held) + " messages";
}

int remove(const Context& context, const std::string& name, const Destructive& destructive) {
  std::string deed = "remove queue '" + name + "'";
  const auto options = open_options(context, shmq::Access::observer);
  const auto queue = shmq::Queue::open(name, options);
  if (queue) {
    deed += " with its " + held(*queue);
  } else if (destructive.dry_run || queue.error() == shmq::Errc::no_such_queue) {
    throw failure_of(queue.error(), deed);
  }
  if (!destructive.confirmed(context, deed)) return exit_ok;
  take(shmq::Queue::remove(name, open_options(context, shmq::Access::participant)),
       "remove queue '" + name + "'");
  if (context.json) {
    print_json({{"removed", name}});
  } else {
    print_remark(context, "queue '" + name + "' removed");
  }
  return exit_ok;
}

int purge(const Context& context, const std::string& name, const Destructive& destructive) {
  shmq::Queue queue = open_queue(
      context, name, destructive.dry_run ? shmq::Access::observer : shmq::Access::participant);
  if (!destructive.confirmed(context, "purge queue '" + name + "' of " + held(queue)))
    return exit_ok;
  const std::uint64_t lost = take(queue.purge(), "purge queue '" + name + "'");
  if (context.json) {
    print_json({{"queue", name}, {"purged_messages", lost}});
  } else {
    print_remark(context, std::to_string(lost) + " messages purged from queue '" + name + "'");
  }
  return exit_ok;
}

}  // namespace

void add_queue_commands(CLI::App& app, Context& context) {
  CLI::App* queue = app.add_subcommand("queue", "create, list and remove queues");
  queue->require_subcommand(1);
  add_create(*queue, context);

  CLI::App* ls = queue->add_subcommand("ls", "list the queues of the namespace");
  ls->callback([&context] { context.command = [&context] { return list(context); }; });

  auto name = std::make_shared<std::string>();
  auto destructive = std::make_shared<Destructive>();
  CLI::App* show = queue->add_subcommand("info", "show what was chosen at creation");
  show->add_option("queue", *name, "name of the queue")->required();
  show->callback(
      [&context, name] { context.command = [&context, name] { return info(context, *name); }; });

  CLI::App* rm = queue->add_subcommand("rm", "remove a queue and its messages");
  rm->add_option("queue", *name, "name of the queue")->required();
  destructive->add_to(*rm);
  rm->callback([&context, name, destructive] {
    context.command = [&context, name, destructive] {
      return remove(context, *name, *destructive);
    };
  });

  CLI::App* empty = queue->add_subcommand("purge", "settle all messages in every group");
  empty->add_option("queue", *name, "name of the queue")->required();
  destructive->add_to(*empty);
  empty->callback([&context, name, destructive] {
    context.command = [&context, name, destructive] { return purge(context, *name, *destructive); };
  });
}

}  // namespace shmqctl
