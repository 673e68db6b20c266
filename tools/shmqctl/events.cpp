// SPDX-License-Identifier: Apache-2.0
//
// shmqctl events: what comes and goes in a namespace, as JSON lines.
//
// 1. It only looks: queues are opened as an observer, and nothing is written, sent or counted for
// it
//    by those who publish and consume.
// 2. It looks now and then. What comes and goes between two looks is told as far as it left a
// trace:
//    the last life of each participant's entry does, earlier ones are counted
//    (participants_missed).
#include <poll.h>

#include <map>
#include <memory>
#include <tuple>

#include "context.hpp"
#include "failure.hpp"
#include "output.hpp"
#include "units.hpp"

namespace shmqctl {
namespace {

struct EventArguments {
  bool follow = false;
  std::chrono::nanoseconds interval = std::chrono::milliseconds{250};
};

/// A participant's entry as it was seen last.
struct Life {
  std::uint64_t generation = 0;
  shmq::Role role{};
  std::string name, group;
  std::uint32_t pid = 0;
  bool is_there = false;
  bool is_dead = false;  ///< its death was told; it is not reclaimed yet
};

/// Names a group's life; a name that is used again was created at another time.
using GroupLife = std::tuple<std::uint64_t, std::chrono::system_clock::time_point>;

struct QueueView {
  std::array<std::uint8_t, 16> uuid{};
  bool durable = false;
  std::map<std::string, std::pair<GroupLife, std::string_view>> groups;
  std::map<std::uint32_t, Life> lives;
};

enum class DaemonSeen { unknown, away, there };

class Watcher {
 public:
  explicit Watcher(const Context& context) : context_(context) {}

  /// Tells what has changed since the last look; the first one, what is there.
  void look() {
    const auto names = take(shmq::Queue::list(context_.name_space), "list queues");
    std::map<std::string, bool> listed;
    for (const std::string& name : names) listed[name] = true;
    for (auto view = views_.begin(); view != views_.end();) {
      if (!listed.contains(view->first)) {
        tell("queue_removed", view->first);
        view = views_.erase(view);
      } else {
        ++view;
      }
    }
    std::erase_if(unreadable_, [&](const auto& each) { return !listed.contains(each.first); });
    bool any_durable = false;
    for (const std::string& name : names) any_durable |= look_at(name);
    if (any_durable || daemon_ == DaemonSeen::there) look_at_daemon();
    if (is_first_) {
      is_first_ = false;
      Json event = begin("watching");
      event["queues"] = views_.size();
      print(event);
    }
    flush();
  }

 private:
  // --- Queues ----------------------------------------------------------------------------------

  /// True if it is a durable one.
  bool look_at(const std::string& name) {
    const auto queue = shmq::Queue::open(name, open_options(context_, shmq::Access::observer));
    if (!queue) {
      if (queue.error() == shmq::Errc::no_such_queue) return false;  // removed since it was listed
      const std::string why = failure_of(queue.error(), "open queue '" + name + "'").message();
      if (unreadable_[name] != why) {
        unreadable_[name] = why;
        Json event = begin("queue_unreadable", name);
        event["why"] = why;
        print(event);
      }
      return false;
    }
    unreadable_.erase(name);
    const shmq::QueueInfo info = queue->info();
    auto view = views_.find(name);
    if (view != views_.end() && view->second.uuid != info.uuid) {
      tell("queue_removed", name);
      views_.erase(view);
      view = views_.end();
    }
    const bool is_new = view == views_.end();
    if (is_new) {
      view = views_.emplace(name, QueueView{info.uuid, info.durable, {}, {}}).first;
      Json event = begin(is_first_ ? "queue_present" : "queue_created", name);
      event["durable"] = info.durable;
      event["created"] = rfc3339(info.created);
      print(event);
    }
    look_at_groups(*queue, name, view->second);
    look_at_participants(*queue, name, view->second, is_new);
    return info.durable;
  }

  void look_at_groups(const shmq::Queue& queue, const std::string& name, QueueView& view) {
    std::map<std::string, std::pair<GroupLife, std::string_view>> now;
    for (const shmq::GroupInfo& group : queue.groups()) {
      now[group.name] = {{group.incarnation, group.created}, text_of(group.mode)};
    }
    const auto tell_group = [&](const char* what, const std::string& group, std::string_view mode) {
      Json event = begin(what, name);
      event["group"] = group;
      event["mode"] = mode;
      print(event);
    };
    for (const auto& [group, life] : view.groups) {
      const auto found = now.find(group);
      if (found == now.end() || found->second.first != life.first) {
        tell_group("group_removed", group, life.second);
      }
    }
    for (const auto& [group, life] : now) {
      const auto found = view.groups.find(group);
      if (found == view.groups.end() || found->second.first != life.first) {
        tell_group(is_first_ ? "group_present" : "group_created", group, life.second);
      }
    }
    view.groups = std::move(now);
  }

  // --- Participants ------------------------------------------------------------------------------

  void look_at_participants(const shmq::Queue& queue, const std::string& name, QueueView& view,
                            bool is_new) {
    // Those that are there first: who leaves between the two is found among the former, and one
    // that attaches is found by the next look.
    const auto present = queue.participants();
    for (const shmq::ParticipantInfo& each : present) see_present(name, view, each, is_new);
    for (const shmq::ParticipantInfo& each : queue.former_participants()) {
      see_former(name, view, each, is_new);
    }
  }

  /// Lives of an entry that began and ended unseen.
  void tell_missed(const std::string& name, std::uint32_t entry, std::uint64_t known,
                   std::uint64_t seen, bool is_new) {
    if (is_new || seen <= known + 1) return;
    Json event = begin("participants_missed", name);
    event["entry"] = entry;
    event["count"] = seen - known - 1;
    print(event);
  }

  void see_present(const std::string& name, QueueView& view, const shmq::ParticipantInfo& info,
                   bool is_new) {
    Life& life = view.lives[info.entry];
    if (life.generation > info.generation) return;  // it ended while it was looked at
    if (life.generation != info.generation) {
      // Its predecessor ended, and its trace is gone.
      if (life.is_there) tell_life(life.is_dead ? "reclaimed" : "ended", name, info.entry, life);
      tell_missed(name, info.entry, life.generation, info.generation, is_new);
      life = Life{.generation = info.generation,
                  .role = info.role,
                  .name = info.name,
                  .group = info.group,
                  .pid = info.pid,
                  .is_there = true,
                  .is_dead = false};
      tell_life(is_first_ ? "present" : "attached", name, info.entry, life);
    }
    if (life.group.empty()) life.group = info.group;  // it was seen in the middle of its attach
    if (!info.alive && !life.is_dead) {
      life.is_dead = true;
      tell_life("died", name, info.entry, life);
    }
  }

  void see_former(const std::string& name, QueueView& view, const shmq::ParticipantInfo& info,
                  bool is_new) {
    Life& life = view.lives[info.entry];
    if (life.generation > info.generation) return;
    if (life.generation == info.generation && !life.is_there) return;
    if (life.generation != info.generation) {
      if (life.is_there) tell_life(life.is_dead ? "reclaimed" : "ended", name, info.entry, life);
      tell_missed(name, info.entry, life.generation, info.generation, is_new);
      life = Life{.generation = info.generation,
                  .role = info.role,
                  .name = info.name,
                  .group = {},
                  .pid = info.pid,
                  .is_there = false,
                  .is_dead = false};
      if (is_new) return;  // history
      tell_life("attached", name, info.entry, life);
    }
    if (info.died) {
      if (!life.is_dead) tell_life("died", name, info.entry, life);
      tell_life("reclaimed", name, info.entry, life);
    } else {
      tell_life("left", name, info.entry, life);
    }
    life.is_there = false;
  }

  /// "consumer_died", "producer_left" and so on.
  void tell_life(const std::string& what, const std::string& queue, std::uint32_t entry,
                 const Life& life) {
    if (life.role == shmq::Role::administrator) return;
    Json event =
        begin((life.role == shmq::Role::producer ? "producer_" : "consumer_") + what, queue);
    if (!life.group.empty()) event["group"] = life.group;
    event["entry"] = entry;
    event["generation"] = life.generation;
    event["name"] = life.name;
    event["pid"] = life.pid;
    print(event);
  }

  // --- The daemon --------------------------------------------------------------------------------

  void look_at_daemon() {
    shmq::DaemonOptions options = daemon_options(context_);
    options.timeout = std::chrono::seconds{1};
    const auto answer = shmq::daemon_status(options);
    if (!answer && answer.error() == shmq::Errc::timed_out) return;  // busy, or stopped: not away
    const DaemonSeen seen = answer ? DaemonSeen::there : DaemonSeen::away;
    const Json status = answer ? Json::parse(*answer, nullptr, false) : Json{};
    if (seen != daemon_) {
      Json event = begin(seen == DaemonSeen::away         ? "daemon_away"
                         : daemon_ == DaemonSeen::unknown ? "daemon_present"
                                                          : "daemon_back");
      if (!answer) event["why"] = answer.error().why();
      if (status.contains("pid")) event["pid"] = status["pid"];
      print(event);
      daemon_ = seen;
    }
    if (!status.contains("queues") || !status["queues"].is_array()) return;
    for (const Json& queue : status["queues"]) {
      if (!queue.is_object()) continue;
      const std::string name = queue.value("name", "");
      const std::string state = queue.value("state", "");
      const auto before = states_.find(name);
      const bool was_well = before == states_.end() || before->second == "ok";
      if (!was_well || state != "ok") {
        if (before == states_.end() || before->second != state) {
          Json event = begin(state == "ok" ? "recovered" : state, name);
          if (queue.contains("why")) event["why"] = queue["why"];
          print(event);
        }
      }
      states_[name] = state;
    }
  }

  // --- Output ------------------------------------------------------------------------------------

  static Json begin(const std::string& event, const std::string& queue = {}) {
    Json object{{"schema_version", json_schema_version},
                {"time", rfc3339(std::chrono::system_clock::now())},
                {"event", event}};
    if (!queue.empty()) object["queue"] = queue;
    return object;
  }
  void tell(const std::string& event, const std::string& queue) { print(begin(event, queue)); }
  void print(const Json& event) {
    text_ += event.dump(-1, ' ', false, nlohmann::json::error_handler_t::replace) + "\n";
  }
  void flush() {
    write_all(STDOUT_FILENO, text_, nullptr, "write to stdout");
    text_.clear();
  }

  const Context& context_;
  bool is_first_ = true;
  std::map<std::string, QueueView> views_;
  std::map<std::string, std::string> unreadable_;  // and why
  std::map<std::string, std::string> states_;      // of durable queues, as the daemon says
  DaemonSeen daemon_ = DaemonSeen::unknown;
  std::string text_;
};

int events(const Context& context, const EventArguments& arguments) {
  Watcher watcher{context};
  if (!arguments.follow) {
    watcher.look();
    return exit_ok;
  }
  const StopSignals stop;
  const auto wait_ms =
      static_cast<int>(std::chrono::ceil<std::chrono::milliseconds>(arguments.interval).count());
  while (stop.signal() == 0) {
    watcher.look();
    pollfd item{stop.fd(), POLLIN, 0};
    ::poll(&item, 1, wait_ms);
  }
  return stop.exit_code();
}

}  // namespace

void add_events_command(CLI::App& app, Context& context) {
  CLI::App* command =
      app.add_subcommand("events", "what comes and goes in the namespace, as JSON lines");
  auto arguments = std::make_shared<EventArguments>();
  EventArguments* a = arguments.get();
  command->add_flag("-f,--follow", a->follow, "go on until SIGINT or SIGTERM");
  add_time(
      *command, "--interval",
      [a](std::chrono::nanoseconds time) {
        if (time < std::chrono::milliseconds{10} || time > std::chrono::hours{1}) {
          throw CLI::ValidationError("--interval", "it must be from 10ms to 1h");
        }
        a->interval = time;
      },
      "time between two looks (default 250ms)");
  command->callback([&context, arguments] {
    context.command = [&context, arguments] { return events(context, *arguments); };
  });
}

}  // namespace shmqctl
