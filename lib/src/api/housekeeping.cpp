// SPDX-License-Identifier: Apache-2.0
#include <dirent.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cstring>
#include <set>
#include <shmq/housekeeping.hpp>
#include <shmq/queue.hpp>

#include "base/names.hpp"
#include "shm/naming.hpp"
#include "shm/segment.hpp"

namespace shmq {
namespace {

using Kind = StaleObject::Kind;

std::string path_of(const std::string& object) {
  return std::string{shm::shared_memory_directory} + "/" + object;
}

bool is_there(const std::string& object) {
  struct stat status {};
  return lstat(path_of(object).c_str(), &status) == 0;
}

// In a sticky directory only the owner may unlink.
bool is_ours(const std::string& object) {
  struct stat status {};
  return lstat(path_of(object).c_str(), &status) != 0 || geteuid() == 0 ||
         status.st_uid == geteuid();
}

constexpr const char* not_ours = "it belongs to another user (only that one, or root, may)";

// The queues that lock and watermark objects in /dev/shm name.
Result<std::set<std::string>> queues_of_companions(const std::string& name_space) {
  DIR* directory = opendir(shm::shared_memory_directory);
  if (directory == nullptr) {
    return tl::unexpected(Error{
        {errno, std::generic_category()}, "look for stale objects", std::strerror(errno), ""});
  }
  const std::string prefix = base::segment_object_name(name_space, "");
  std::set<std::string> queues;
  while (const dirent* entry = readdir(directory)) {
    std::string_view name{entry->d_name};
    if (!name.starts_with(prefix) || !(name.ends_with(".lock") || name.ends_with(".mark"))) {
      continue;
    }
    name.remove_prefix(prefix.size());
    name.remove_suffix(std::strlen(".lock"));
    if (base::is_valid_queue_name(name)) queues.emplace(name);
  }
  closedir(directory);
  return queues;
}

void clear_half_removed(const std::string& name_space, const std::string& queue, bool dry_run,
                        std::vector<StaleObject>& found) {
  if (!shm::is_half_removed(name_space, queue)) return;
  StaleObject stale{.kind = Kind::half_removed,
                    .queue = queue,
                    .object = base::segment_object_name(name_space, queue)};
  if (!dry_run) {
    shm::finish_removal(name_space, queue);
    stale.cleared = !shm::is_half_removed(name_space, queue);
    if (!stale.cleared) {
      stale.why_not = is_ours(stale.object) ? "somebody else is at it (try again)" : not_ours;
    }
  }
  found.push_back(std::move(stale));
}

void clear_companions(const std::string& name_space, const std::string& queue, bool dry_run,
                      std::vector<StaleObject>& found) {
  if (is_there(base::segment_object_name(name_space, queue))) return;
  const std::string names[] = {base::lock_object_name(name_space, queue),
                               base::mark_object_name(name_space, queue)};
  std::string why_not;
  for (const std::string& name : names) {
    if (!is_ours(name)) why_not = not_ours;
  }
  const bool was_there[] = {is_there(names[0]), is_there(names[1])};
  if (!dry_run && why_not.empty()) {
    if (auto linked = shm::link_tombstone(name_space, queue); linked) {
      shm::finish_removal(name_space, queue);
    } else if (linked.error() == Errc::already_exists) {
      return;  // no longer stale: a new queue has come and made them its own
    } else {
      why_not = linked.error().why();
    }
  }
  for (int i = 0; i < 2; ++i) {
    if (!was_there[i]) continue;
    found.push_back({.kind = Kind::companion,
                     .queue = queue,
                     .object = names[i],
                     .cleared = !dry_run && why_not.empty(),
                     .why_not = dry_run ? "" : why_not});
  }
}

void clear_dead(const std::string& queue_name, const OpenOptions& options, bool dry_run,
                std::vector<StaleObject>& found) {
  OpenOptions open_options = options;
  open_options.access = Access::observer;
  const auto observed = Queue::open(queue_name, open_options);
  if (!observed) return;  // not a stale object; opening it says what it is
  std::vector<ParticipantInfo> dead;
  for (ParticipantInfo& info : observed->participants()) {
    if (!info.alive) dead.push_back(std::move(info));
  }
  if (dead.empty()) return;
  std::string why_not;
  if (!dry_run) {
    open_options.access = Access::participant;
    auto queue = Queue::open(queue_name, open_options);
    if (!queue) {
      why_not = queue.error().why();
    } else if (auto reclaimed = queue->reclaim(); !reclaimed) {
      why_not = reclaimed.error().why();
    }
  }
  for (const ParticipantInfo& info : dead) {
    const char* role = info.role == Role::producer   ? "producer"
                       : info.role == Role::consumer ? "consumer"
                                                     : "administrator";
    found.push_back({.kind = Kind::dead_participant,
                     .queue = queue_name,
                     .object = "#" + std::to_string(info.entry) + " " + role + ", pid " +
                               std::to_string(info.pid),
                     .cleared = !dry_run && why_not.empty(),
                     .why_not = why_not});
  }
}

}  // namespace

Result<std::vector<StaleObject>> clear_stale(const OpenOptions& options, bool dry_run) {
  const std::string name_space = base::resolve_namespace(options.name_space);
  const auto queues = shm::Segment::list(name_space);
  if (!queues) return tl::unexpected(queues.error());
  const auto companions = queues_of_companions(name_space);
  if (!companions) return tl::unexpected(companions.error());
  std::vector<StaleObject> found;
  for (const std::string& queue : *queues) {
    clear_half_removed(name_space, queue, dry_run, found);
    clear_dead(queue, options, dry_run, found);
  }
  for (const std::string& queue : *companions) {
    clear_companions(name_space, queue, dry_run, found);
  }
  return found;
}

}  // namespace shmq
