// SPDX-License-Identifier: Apache-2.0
#include "daemon/control/requests.hpp"

#include <fcntl.h>
#include <grp.h>
#include <pwd.h>
#include <unistd.h>

#include <algorithm>
#include <nlohmann/json.hpp>
#include <shmq/version.hpp>
#include <utility>
#include <vector>

#include "base/clock.hpp"
#include "base/mutant.hpp"
#include "control/protocol.hpp"
#include "control/settings.hpp"

namespace shmq::control {
namespace {

using nlohmann::json;

std::string dump(const json& object) {
  return object.dump(-1, ' ', false, json::error_handler_t::replace);
}

std::string response_of(const Result<void>& result) {
  return result ? dump({{"ok", true}}) : error_response(result.error());
}

bool is_daemons_own(const Peer& peer) { return peer.uid == 0 || peer.uid == ::geteuid(); }

// As the system's own databases say; what the peer's process says of its groups is not asked.
bool is_in_group(const Peer& peer, gid_t group) {
  if (peer.gid == group) return true;
  std::vector<char> buffer(16384);
  passwd entry{};
  passwd* found = nullptr;
  if (::getpwuid_r(peer.uid, &entry, buffer.data(), buffer.size(), &found) != 0 || !found) {
    return false;
  }
  int count = 64;
  std::vector<gid_t> groups(static_cast<std::size_t>(count));
  while (::getgrouplist(found->pw_name, found->pw_gid, groups.data(), &count) < 0) {
    if (static_cast<std::size_t>(count) <= groups.size() || count > 65536) return false;
    groups.resize(static_cast<std::size_t>(count));
  }
  groups.resize(static_cast<std::size_t>(count));
  return std::find(groups.begin(), groups.end(), group) != groups.end();
}

Error refused(const std::string& what, std::string why, std::string remedy) {
  return Error{make_error_code(Errc::no_permission), what, std::move(why), std::move(remedy)};
}

// Whose the queue will be: what was asked for, as far as the peer may decide that, else the peer's.
Result<void> set_owner(const Peer& peer, QueueOptions& options, const std::string& what) {
  if (is_daemons_own(peer) && (peer.uid == ::geteuid() || options.owner)) return {};
  if (!is_daemons_own(peer)) {
    if (options.owner && *options.owner != peer.uid) {
      return tl::unexpected{refused(what, "only root gives a queue to another user", "")};
    }
    if (options.owner_group && !is_in_group(peer, *options.owner_group)) {
      return tl::unexpected{
          refused(what, "you do not belong to that group", "name a group that you belong to")};
    }
  }
  if (::geteuid() == 0) {
    options.owner = peer.uid;
    if (!options.owner_group) options.owner_group = peer.gid;
    return {};
  }
  // The queue will belong to the daemon's user, who cannot give it away.
  const bool by_group = (options.mode & 0060) == 0060 && options.owner_group.has_value();
  if (peer.uid != 0 && !by_group && (options.mode & 0006) != 0006) {
    return tl::unexpected{refused(what,
                                  "it will belong to the daemon's user, and you could not use it",
                                  "let a group use it: --mode 0660 --owner-group NAME")};
  }
  options.owner.reset();
  return {};
}

json object_of(const engine::QueueStatus& status) {
  const engine::QueueFigures& figures = status.figures;
  json object{{"name", status.name}, {"state", status.state}};
  if (!status.why.empty()) object["why"] = status.why;
  if (!status.remedy.empty()) object["remedy"] = status.remedy;
  if (status.state == "refused" || status.state == "recovering" || status.state == "restoring")
    return object;
  object["watermark"] = figures.watermark;
  object["tail"] = figures.tail;
  object["lag"] = figures.tail > figures.watermark ? figures.tail - figures.watermark : 0;
  object["files"] = figures.files;
  object["disk_bytes"] = figures.disk_bytes;
  object["first_retained"] = figures.first_retained;
  object["expired_groups"] = figures.expired_groups;
  object["dropped_for_disk"] = figures.dropped_for_disk;
  object["batches"] = figures.writer.batches;
  object["messages"] = figures.writer.messages;
  object["bytes"] = figures.writer.bytes;
  object["errors"] = figures.writer.errors;
  object["lag_seconds"] = static_cast<double>(figures.lag_ns) / 1e9;
  object["reclaimed"] = status.reclaimed;
  const journal::SyncDurations& syncs = figures.writer.syncs;
  object["syncs"] = {{"counts", syncs.counts},
                     {"sum_seconds", static_cast<double>(syncs.sum_ns) / 1e9}};
  return object;
}

}  // namespace

Requests::Requests(engine::Engine& engine, Facts facts, Commands commands)
    : engine_(engine), facts_(std::move(facts)), commands_(std::move(commands)) {}

bool Requests::may_create(const Peer& peer) const {
  if (base::mutant(97)) return true;
  return is_daemons_own(peer) ||
         (permissions_.create_group && is_in_group(peer, *permissions_.create_group));
}

std::string Requests::status() const {
  json queues = json::array();
  for (const engine::QueueStatus& queue : engine_.status()) queues.push_back(object_of(queue));
  const std::uint64_t now_ns = base::clock->realtime_ns();
  const std::uint64_t uptime_ns =
      now_ns > facts_.started_realtime_ns ? now_ns - facts_.started_realtime_ns : 0;
  json object{{"ok", true},
              {"schema_version", 1},
              {"version", version()},
              {"pid", ::getpid()},
              {"uid", ::geteuid()},
              {"namespace", facts_.name_space},
              {"data_dir", facts_.data_dir},
              {"directory", engine_.directory()},
              {"backend", facts_.backend},
              {"state", engine_.is_draining() ? "draining"
                        : engine_.is_ready()  ? "serving"
                                              : "recovering"},
              {"uptime_seconds", static_cast<double>(uptime_ns) / 1e9}};
  json bounds = json::array();
  for (const std::uint64_t bound_ns : journal::SyncDurations::bounds_ns) {
    bounds.push_back(static_cast<double>(bound_ns) / 1e9);
  }
  object["sync_bounds_seconds"] = std::move(bounds);
  object["queues"] = std::move(queues);
  const std::string whole = dump(object);
  if (whole.size() <= frame_bytes_max) return whole;
  // A client would refuse it. Those that need somebody's attention come first.
  json few = json::array();
  for (const engine::QueueStatus& queue : engine_.status()) {
    if (queue.state != "ok" && few.size() < 1000)
      few.push_back({{"name", queue.name}, {"state", queue.state}});
  }
  object["queues_left_out"] = object["queues"].size() - few.size();
  object["queues"] = std::move(few);
  return dump(object);
}

void Requests::create(const Peer& peer, const std::string& queue, const std::string& options_text,
                      const Reply& reply) {
  const std::string what = "create queue '" + queue + "'";
  auto options = queue_options_from(options_text, what);
  if (!options) return reply(error_response(options.error()));
  if (auto done = set_owner(peer, *options, what); !done) {
    return reply(error_response(done.error()));
  }
  engine_.create_queue(queue, *options,
                       [reply](const Result<void>& result) { reply(response_of(result)); });
}

void Requests::restore(const Peer& peer, const std::string& queue, const Reply& reply) {
  const std::string what = "restore queue '" + queue + "'";
  const int backup = peer.attachment < 0 ? -1 : ::fcntl(peer.attachment, F_DUPFD_CLOEXEC, 0);
  if (backup < 0) {
    return reply(error_response(Error{make_error_code(Errc::invalid_argument), what,
                                      "no backup came with the request", ""}));
  }
  // The backup says whose it was; whose it will be is decided as for a new queue.
  const auto adjust = [peer, what](QueueOptions& options) -> Result<void> {
    if (!is_daemons_own(peer)) {
      options.owner = peer.uid;
      if (options.owner_group && !is_in_group(peer, *options.owner_group)) {
        options.owner_group.reset();
      }
    }
    return set_owner(peer, options, what);
  };
  engine_.restore_queue(queue, backup, adjust,
                        [reply](const Result<void>& result) { reply(response_of(result)); });
}

void Requests::handle(const Peer& peer, const std::string& request, const Reply& reply) {
  const auto fail = [&](Errc code, std::string what, std::string why, std::string remedy) {
    reply(error_response(
        Error{make_error_code(code), std::move(what), std::move(why), std::move(remedy)}));
  };
  std::string verb;
  std::string queue;
  std::string options;
  try {
    const json object = json::parse(request);
    if (object.at("version").get<int>() != protocol_version) {
      return fail(Errc::version_mismatch, "ask the daemon",
                  "it speaks version " + std::to_string(protocol_version) + " of the protocol",
                  "see that the daemon and this library are of one version");
    }
    verb = object.at("verb").get<std::string>();
    queue = object.value("queue", "");
    options = dump(object.value("options", json::object()));
  } catch (const json::exception&) {
    return fail(Errc::invalid_argument, "ask the daemon", "the request cannot be read", "");
  }
  const std::string what = "daemon: " + verb + (queue.empty() ? "" : " queue '" + queue + "'");
  if (verb == verb_status) return reply(status());
  if (verb == verb_create || verb == verb_remove || verb == verb_restore) {
    if (!may_create(peer)) {
      return fail(Errc::no_permission, what,
                  "uid " + std::to_string(peer.uid) +
                      " is neither root nor the daemon's user nor of its create_group",
                  "have its administrator set create_group in shmqd.toml");
    }
    if (verb == verb_restore) return restore(peer, queue, reply);
    if (verb == verb_create) return create(peer, queue, options, reply);
    return engine_.remove_queue(
        queue, [reply](const Result<void>& result) { reply(response_of(result)); });
  }
  if (verb == verb_reload || verb == verb_drain) {
    if (!is_daemons_own(peer)) {
      return fail(Errc::no_permission, what, "only root and the daemon's user may", "");
    }
    if (verb == verb_reload) return reply(response_of(commands_.reload()));
    return commands_.drain([reply](const Result<void>& result) { reply(response_of(result)); });
  }
  fail(Errc::invalid_argument, what, "there is no such verb",
       "see that the daemon and this library are of one version");
}

}  // namespace shmq::control
