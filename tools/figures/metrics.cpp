// SPDX-License-Identifier: Apache-2.0
#include "figures/metrics.hpp"

#include <algorithm>
#include <charconv>
#include <initializer_list>
#include <string_view>
#include <utility>

namespace shmq::figures {
namespace {

using Labels = std::initializer_list<std::pair<std::string_view, std::string_view>>;

// Names come from shared memory: whatever bytes a damaged segment holds, the text stays one.
void append_label_value(std::string& text, std::string_view value) {
  for (const char c : value) {
    if (c == '\\' || c == '"') text += '\\';
    text += static_cast<unsigned char>(c) < 0x20 || static_cast<unsigned char>(c) > 0x7e ? '?' : c;
  }
}

std::string number(double value) {
  char text[64];
  const auto [end, code] = std::to_chars(text, text + sizeof(text), value);
  return {text, end};
}

class Exposition {
 public:
  // One metric family; its samples follow.
  void begin(std::string_view name, std::string_view type, std::string_view help) {
    name_ = name;
    suffix_ = type == "counter" ? "_total" : type == "info" ? "_info" : "";
    text_ += "# TYPE " + name_ + " " + std::string{type} + "\n";
    if (name_.ends_with("_seconds")) text_ += "# UNIT " + name_ + " seconds\n";
    text_ += "# HELP " + name_ + " " + std::string{help} + "\n";
  }
  void add(Labels labels, const std::string& value) {
    text_ += name_ + suffix_;
    char before = '{';
    for (const auto& [label, label_value] : labels) {
      text_ += before;
      text_ += std::string{label} + "=\"";
      append_label_value(text_, label_value);
      text_ += '"';
      before = ',';
    }
    text_ += labels.size() == 0 ? " " : "} ";
    text_ += value + "\n";
  }
  void add(Labels labels, std::uint64_t value) { add(labels, std::to_string(value)); }
  // One of a family's other samples: _bucket, _count, _sum.
  void add_part(std::string_view suffix, Labels labels, const std::string& value) {
    const std::string own = std::exchange(suffix_, std::string{suffix});
    add(labels, value);
    suffix_ = own;
  }
  std::string finish() && { return std::move(text_) + "# EOF\n"; }

 private:
  std::string text_, name_, suffix_;
};

template <typename Act>
void for_each_queue(const std::vector<Reading>& readings, Act act) {
  for (const Reading& reading : readings) {
    if (reading.contents) act(reading.queue, *reading.contents);
  }
}

template <typename Act>
void for_each_group(const std::vector<Reading>& readings, Act act) {
  for_each_queue(readings, [&](const std::string& queue, const Reading::Contents& contents) {
    for (const GroupInfo& group : contents.groups) act(queue, group);
  });
}

void add_queues(Exposition& out, const std::vector<Reading>& readings) {
  out.begin("shmq_queue_up", "gauge", "1: the queue was read; 0: it is there and could not be.");
  for (const Reading& reading : readings) {
    out.add({{"queue", reading.queue}}, reading.contents ? 1U : 0U);
  }
  out.begin("shmq_queue_capacity_messages", "gauge", "Messages that the ring can hold.");
  for_each_queue(readings, [&](const std::string& queue, const Reading::Contents& contents) {
    out.add({{"queue", queue}}, contents.info.slots);
  });
  out.begin("shmq_messages_published", "counter", "Messages published.");
  for_each_queue(readings, [&](const std::string& queue, const Reading::Contents& contents) {
    out.add({{"queue", queue}}, contents.stats.tail.value);
  });
}

void add_states(Exposition& out, const std::vector<Reading>& readings) {
  out.begin("shmq_queue_messages", "gauge",
            "Messages of a group that are not settled, by state; backlog is ready + delayed.");
  for_each_group(readings, [&](const std::string& queue, const GroupInfo& group) {
    const auto add = [&](std::string_view state, std::uint64_t count) {
      out.add({{"queue", queue}, {"group", group.name}, {"state", state}}, count);
    };
    add("ready", group.ready);
    add("in_flight", group.in_flight);
    add("delayed", group.delayed);
    add("dead", group.dead);
  });
  out.begin("shmq_consumers", "gauge", "Consumers attached, by what they do.");
  for_each_group(readings, [&](const std::string& queue, const GroupInfo& group) {
    const auto add = [&](std::string_view state, std::uint32_t count) {
      out.add({{"queue", queue}, {"group", group.name}, {"state", state}}, count);
    };
    // Read at different moments: a busy one may have come since the others were counted.
    const std::uint32_t busy = std::min(group.consumers_busy, group.consumers);
    std::uint32_t standing_by = 0;
    if (group.mode == GroupMode::exclusive) {
      const std::uint32_t active = group.active_participant != 0 || busy > 0 ? 1 : 0;
      standing_by = group.consumers - std::min(active, group.consumers);
    }
    add("busy", busy);
    add("idle", group.consumers - busy - std::min(standing_by, group.consumers - busy));
    add("standing_by", standing_by);
  });
}

// Zero without such a message; nothing where its age is not known.
void add_age(Exposition& out, const std::string& queue, const GroupInfo& group,
             const std::optional<OldestMessage>& oldest) {
  if (oldest && oldest->basis == AgeBasis::unknown) return;
  const double age = oldest ? std::chrono::duration<double>(oldest->age).count() : 0.0;
  out.add({{"queue", queue}, {"group", group.name}}, number(age));
}

void add_ages(Exposition& out, const std::vector<Reading>& readings) {
  out.begin("shmq_oldest_ready_age_seconds", "gauge",
            "Age of the oldest ready message; a lower bound where producers stamp no time.");
  for_each_group(readings, [&](const std::string& queue, const GroupInfo& group) {
    add_age(out, queue, group, group.oldest_ready);
  });
  out.begin("shmq_oldest_in_flight_age_seconds", "gauge",
            "Age of the oldest message in flight; a lower bound where producers stamp no time.");
  for_each_group(readings, [&](const std::string& queue, const GroupInfo& group) {
    add_age(out, queue, group, group.oldest_in_flight);
  });
}

void add_totals(Exposition& out, const std::vector<Reading>& readings) {
  struct Total {
    const char* name;
    const char* help;
    std::uint64_t (*value)(const GroupInfo&);
  };
  static constexpr auto redelivered = [](const GroupInfo& group) {
    return group.redelivered_death_total + group.redelivered_lease_total +
           group.redelivered_nack_total + group.redelivered_release_total;
  };
  for (const Total& total : std::initializer_list<Total>{
           {"shmq_messages_delivered", "Hand-outs that ended, and those in flight.",
            [](const GroupInfo& g) {
              return g.acked_total + g.dead_lettered_total + redelivered(g) + g.in_flight;
            }},
           {"shmq_messages_acked", "Messages acknowledged.",
            [](const GroupInfo& g) { return g.acked_total; }},
           {"shmq_messages_dead_lettered", "Messages rejected, or past the delivery limit.",
            [](const GroupInfo& g) { return g.dead_lettered_total; }},
           {"shmq_messages_dropped", "Messages lost to a drop policy or a purge.",
            [](const GroupInfo& g) { return g.dropped_total; }}}) {
    out.begin(total.name, "counter", total.help);
    for_each_group(readings, [&](const std::string& queue, const GroupInfo& group) {
      out.add({{"queue", queue}, {"group", group.name}}, total.value(group));
    });
  }
  out.begin("shmq_messages_redelivered", "counter", "Messages that came back, by cause.");
  for_each_group(readings, [&](const std::string& queue, const GroupInfo& group) {
    const auto add = [&](std::string_view cause, std::uint64_t count) {
      out.add({{"queue", queue}, {"group", group.name}, {"cause", cause}}, count);
    };
    add("death", group.redelivered_death_total);
    add("lease", group.redelivered_lease_total);
    add("nack", group.redelivered_nack_total);
    add("release", group.redelivered_release_total);
  });
}

// --- What only the daemon knows ----------------------------------------------------------------

template <typename Act>
void for_each_served(const std::vector<Reading>& readings, const DaemonReading& daemon, Act act) {
  for (const Reading& reading : readings) {
    const DaemonQueue* queue = daemon.find(reading.queue);
    if (queue != nullptr && queue->contents) act(reading.queue, *queue->contents);
  }
}

// A bound as others print it: 0.0001 rather than 1e-04.
std::string bound_text(double seconds) {
  char text[64];
  const auto [end, code] =
      std::to_chars(text, text + sizeof(text), seconds, std::chars_format::fixed);
  return {text, end};
}

void add_daemon(Exposition& out, const std::vector<Reading>& readings,
                const DaemonReading& daemon) {
  using Contents = DaemonQueue::Contents;
  bool is_there = false;
  for_each_served(readings, daemon, [&](const std::string&, const Contents&) { is_there = true; });
  if (!is_there) return;
  out.begin("shmqd_flush_lag_messages", "gauge",
            "Messages published that are not on stable storage.");
  for_each_served(readings, daemon, [&](const std::string& queue, const Contents& contents) {
    out.add({{"queue", queue}}, contents.lag_messages);
  });
  out.begin("shmqd_flush_lag_seconds", "gauge",
            "The oldest message that is not on stable storage is at least so old.");
  for_each_served(readings, daemon, [&](const std::string& queue, const Contents& contents) {
    out.add({{"queue", queue}}, number(contents.lag_seconds));
  });
  out.begin("shmqd_sync_duration_seconds", "histogram", "How long the disk took to sync a batch.");
  for_each_served(readings, daemon, [&](const std::string& queue, const Contents& contents) {
    std::uint64_t count = 0;
    for (std::size_t i = 0; i < contents.syncs.size(); ++i) {
      count += contents.syncs[i];
      const std::string bound = i < daemon.sync_bounds_seconds.size()
                                    ? bound_text(daemon.sync_bounds_seconds[i])
                                    : "+Inf";
      out.add_part("_bucket", {{"queue", queue}, {"le", bound}}, std::to_string(count));
    }
    out.add_part("_count", {{"queue", queue}}, std::to_string(count));
    out.add_part("_sum", {{"queue", queue}}, number(contents.syncs_sum_seconds));
  });
  out.begin("shmqd_sync_errors", "counter",
            "Writes, syncs and preparations of journal files that failed, full disks aside.");
  for_each_served(readings, daemon, [&](const std::string& queue, const Contents& contents) {
    out.add({{"queue", queue}}, contents.sync_errors);
  });
  out.begin("shmqd_reclaimed_messages", "counter",
            "Messages that the daemon took back from dead participants.");
  for_each_served(readings, daemon, [&](const std::string& queue, const Contents& contents) {
    out.add({{"queue", queue}}, contents.reclaimed);
  });
}

}  // namespace

Reading read(const std::string& name, const Result<Queue>& queue) {
  Reading reading{.queue = name, .contents = {}};
  if (queue) {
    reading.contents = Reading::Contents{
        .info = queue->info(), .stats = queue->stats(), .groups = queue->groups()};
  }
  return reading;
}

std::string metrics_text(const std::vector<Reading>& readings, const DaemonReading* daemon) {
  Exposition out;
  out.begin("shmq_build", "info", "The version of libshmq that read the queues.");
  out.add({{"version", version()}}, 1U);
  add_queues(out, readings);
  add_states(out, readings);
  add_ages(out, readings);
  add_totals(out, readings);
  if (daemon != nullptr) add_daemon(out, readings, *daemon);
  return std::move(out).finish();
}

}  // namespace shmq::figures
