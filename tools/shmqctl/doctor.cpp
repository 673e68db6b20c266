// SPDX-License-Identifier: Apache-2.0
//
// shmqctl doctor and gc: is this host fit for queues, and what did killed processes leave?
#include <linux/io_uring.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <sys/syscall.h>
#include <sys/vfs.h>
#include <unistd.h>

#include <algorithm>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <memory>
#include <sstream>

#include "context.hpp"
#include "failure.hpp"
#include "output.hpp"
#include "units.hpp"

namespace shmqctl {
namespace {

enum class Level { ok, warn, fail };

std::string_view text_of(Level level) {
  return level == Level::ok ? "ok" : level == Level::warn ? "warn" : "fail";
}

struct Finding {
  Level level;
  std::string subject, text, remedy;
};
using Findings = std::vector<Finding>;

std::string first_line(const std::string& path) {
  std::ifstream file(path);
  std::string line;
  std::getline(file, line);
  return line;
}

// --- the host ------------------------------------------------------------------------------------

void check_versions(Findings& findings) {
  const std::string built = std::to_string(SHMQ_VERSION_MAJOR) + "." +
                            std::to_string(SHMQ_VERSION_MINOR) + "." +
                            std::to_string(SHMQ_VERSION_PATCH);
  const bool is_same = built == shmq::version();
  findings.push_back({is_same ? Level::ok : Level::warn, "version",
                      "shmqctl " + built + ", libshmq " + shmq::version(),
                      is_same ? "" : "install both from one release"});
}

void check_shared_memory(Findings& findings) {
  constexpr std::uint64_t small_bytes = 128ULL << 20;  // a default queue takes about 70 MiB
  constexpr long tmpfs = 0x01021994;
  const std::string remedy = "mount -o remount,size=2g /dev/shm, or docker run --shm-size=2g";
  struct statfs status {};
  if (::statfs("/dev/shm", &status) != 0) {
    findings.push_back({Level::fail, "shm", std::string{"/dev/shm: "} + std::strerror(errno),
                        "mount a tmpfs there"});
    return;
  }
  const auto block = static_cast<std::uint64_t>(status.f_bsize);
  const std::uint64_t size = status.f_blocks * block;
  const std::uint64_t available = status.f_bavail * block;
  const std::string text = "/dev/shm: " + human_size(available) + " free of " + human_size(size);
  if (status.f_type != tmpfs) {
    findings.push_back({Level::warn, "shm", text + ", not a tmpfs", "mount a tmpfs there"});
  } else if (::access("/dev/shm", R_OK | W_OK | X_OK) != 0) {
    findings.push_back(
        {Level::fail, "shm", text + ", but not writable by this user", "chmod 1777 /dev/shm"});
  } else if (available < small_bytes) {
    findings.push_back(
        {Level::warn, "shm", text + ": a queue of default size may not fit", remedy});
  } else {
    findings.push_back({Level::ok, "shm", text, ""});
  }
}

void check_io_uring(Findings& findings, const std::string& root) {
  io_uring_params parameters{};
  const long descriptor = ::syscall(SYS_io_uring_setup, 4, &parameters);
  if (descriptor >= 0) {
    ::close(static_cast<int>(descriptor));
    findings.push_back({Level::ok, "io_uring", "available", ""});
    return;
  }
  const int code = errno;
  const std::string disabled = first_line(root + "/proc/sys/kernel/io_uring_disabled");
  std::string remedy = "nothing must be done; else allow io_uring_setup in the seccomp profile";
  if (!disabled.empty() && disabled != "0") remedy = "sysctl kernel.io_uring_disabled=0";
  findings.push_back({Level::warn, "io_uring",
                      std::string{"not available ("} + std::strerror(code) +
                          "): shmqd writes with pwrite and fdatasync",
                      remedy});
}

// The last assignment of RemoveIPC in logind's files, as systemd reads them: a drop-in of a name
// hides those of less important directories, and all are read in the order of their names.
std::string remove_ipc_setting(const std::string& root) {
  std::map<std::string, std::string> files;  // name -> path
  for (const char* directory : {"/usr/lib/systemd/logind.conf.d", "/run/systemd/logind.conf.d",
                                "/etc/systemd/logind.conf.d"}) {
    std::error_code ignored;
    for (const auto& entry : std::filesystem::directory_iterator(root + directory, ignored)) {
      if (entry.path().extension() == ".conf") files[entry.path().filename()] = entry.path();
    }
  }
  std::vector<std::string> paths{root + "/etc/systemd/logind.conf"};
  for (const auto& [name, path] : files) paths.push_back(path);
  std::string value = "yes";  // systemd's own default
  for (const std::string& path : paths) {
    std::ifstream file(path);
    for (std::string line; std::getline(file, line);) {
      std::erase_if(line, [](char c) { return c == ' ' || c == '\t' || c == '\r'; });
      if (line.starts_with("RemoveIPC=")) value = line.substr(std::strlen("RemoveIPC="));
    }
  }
  std::transform(value.begin(), value.end(), value.begin(), [](char c) {
    return c >= 'A' && c <= 'Z' ? static_cast<char>(c - 'A' + 'a') : c;
  });
  return value;
}

void check_remove_ipc(Findings& findings, const std::string& root) {
  constexpr uid_t first_ordinary_uid = 1000;
  if (::access((root + "/usr/lib/systemd/systemd-logind").c_str(), F_OK) != 0 &&
      ::access((root + "/lib/systemd/systemd-logind").c_str(), F_OK) != 0) {
    findings.push_back({Level::ok, "RemoveIPC", "no systemd-logind here", ""});
    return;
  }
  const std::string value = remove_ipc_setting(root);
  const bool is_off = value == "no" || value == "false" || value == "off" || value == "0" ||
                      value == "n" || value == "f";
  if (is_off) {
    findings.push_back({Level::ok, "RemoveIPC", "off", ""});
  } else if (::geteuid() < first_ordinary_uid) {
    findings.push_back({Level::ok, "RemoveIPC",
                        "on: queues of ordinary users go at the end of their last session; those "
                        "of this user stay",
                        ""});
  } else {
    findings.push_back({Level::warn, "RemoveIPC",
                        "on: queues of this user go at the end of its last session",
                        "RemoveIPC=no in /etc/systemd/logind.conf, or run as a system user"});
  }
}

void check_limits(Findings& findings) {
  constexpr rlim_t few_files = 256;
  rlimit limit{};
  ::getrlimit(RLIMIT_NOFILE, &limit);
  const std::string files = std::to_string(limit.rlim_cur) + " open files";
  findings.push_back(limit.rlim_cur >= few_files
                         ? Finding{Level::ok, "limits", files, ""}
                         : Finding{Level::warn, "limits",
                                   files + ": each handle takes one, and an fd() more",
                                   "ulimit -n 1024, or LimitNOFILE= in the unit"});
  // A segment counts as a file, and as address space.
  for (const auto& [number, name, option] :
       {std::tuple{RLIMIT_FSIZE, "file size", "ulimit -f unlimited, or LimitFSIZE= in the unit"},
        std::tuple{RLIMIT_AS, "address space", "ulimit -v unlimited, or LimitAS= in the unit"}}) {
    ::getrlimit(number, &limit);
    if (limit.rlim_cur == RLIM_INFINITY) {
      findings.push_back({Level::ok, "limits", std::string{name} + " unlimited", ""});
    } else {
      findings.push_back(
          {Level::warn, "limits",
           std::string{name} + " at most " + human_size(limit.rlim_cur) + ": larger queues fail",
           option});
    }
  }
}

std::string inode_of(const std::string& path) {
  struct stat status {};
  if (::stat(path.c_str(), &status) != 0) return "";
  return std::to_string(status.st_dev) + ":" + std::to_string(status.st_ino);
}

void check_namespaces(Findings& findings) {
  // Processes meet in a queue only if they see the same /dev/shm.
  const std::string own = inode_of("/dev/shm");
  const std::string of_init = inode_of("/proc/1/root/dev/shm");
  if (of_init.empty()) {
    findings.push_back({Level::ok, "namespaces",
                        "/dev/shm of this process; that of process 1 may not be looked at", ""});
  } else if (own == of_init) {
    findings.push_back({Level::ok, "namespaces", "/dev/shm is that of process 1", ""});
  } else {
    findings.push_back({Level::warn, "namespaces",
                        "/dev/shm is not that of process 1: queues here are not seen there",
                        "PrivateIPC=no in the unit, or share /dev/shm with the container"});
  }
}

// --- the queues ----------------------------------------------------------------------------------

void check_group(const std::string& queue, const shmq::GroupInfo& group, Findings& findings) {
  const std::string name = "group " + group.name + " of " + queue;
  const std::uint64_t backlog = group.ready + group.delayed;
  if (group.at_in_flight_limit) {
    findings.push_back({Level::warn, "queues",
                        name + " is at its in-flight limit: " + std::to_string(group.in_flight) +
                            " in flight, " + std::to_string(group.dead) + " dead",
                        "see shmqctl consumer ls " + queue + " --held"});
  } else if (backlog > 0 && group.consumers == 0) {
    findings.push_back({Level::warn, "queues",
                        name + ": " + std::to_string(backlog) + " wait and nobody consumes",
                        "start consumers, or shmqctl group rm " + queue + " " + group.name});
  }
}

void check_queues(const Context& context, Findings& findings) {
  const auto names = shmq::Queue::list(context.name_space);
  if (!names) {
    findings.push_back({Level::fail, "queues", names.error().why(), names.error().remedy()});
    return;
  }
  std::size_t readable = 0;
  for (const std::string& name : *names) {
    const auto queue = shmq::Queue::open(name, open_options(context, shmq::Access::observer));
    if (queue) {
      ++readable;
      for (const shmq::GroupInfo& group : queue->groups()) check_group(name, group, findings);
      continue;
    }
    const Failure failure = failure_of(queue.error(), "open queue '" + name + "'");
    // Somebody else's queue is nothing wrong with this host.
    const bool is_foreign =
        failure.exit_code == exit_permission || failure.exit_code == exit_no_such_thing;
    findings.push_back({is_foreign ? Level::warn : Level::fail, "queues", name + ": " + failure.why,
                        failure.remedy});
  }
  findings.push_back(
      {Level::ok, "queues",
       std::to_string(readable) + " of " + std::to_string(names->size()) + " can be read", ""});
}

std::string_view text_of(shmq::StaleObject::Kind kind) {
  switch (kind) {
    case shmq::StaleObject::Kind::half_removed: return "half removed";
    case shmq::StaleObject::Kind::companion: return "companion";
    case shmq::StaleObject::Kind::dead_participant: return "dead participant";
  }
  return "unknown";
}

void check_stale(const Context& context, Findings& findings) {
  const auto stale = shmq::clear_stale(open_options(context, shmq::Access::participant), true);
  if (!stale) {
    findings.push_back({Level::fail, "stale", stale.error().why(), stale.error().remedy()});
    return;
  }
  for (const shmq::StaleObject& each : *stale) {
    findings.push_back({Level::warn, "stale",
                        each.queue + ": " + std::string{text_of(each.kind)} + ": " + each.object,
                        "shmqctl gc"});
  }
  if (stale->empty()) findings.push_back({Level::ok, "stale", "nothing is left behind", ""});
}

int doctor(const Context& context, const std::string& root) {
  Findings findings;
  check_versions(findings);
  check_shared_memory(findings);
  check_io_uring(findings, root);
  check_remove_ipc(findings, root);
  check_limits(findings);
  check_namespaces(findings);
  check_queues(context, findings);
  check_stale(context, findings);
  Json rows = Json::array();
  std::string text;
  Level worst = Level::ok;
  for (const Finding& finding : findings) {
    worst = std::max(worst, finding.level);
    rows.push_back({{"level", text_of(finding.level)},
                    {"subject", finding.subject},
                    {"text", finding.text},
                    {"remedy", finding.remedy.empty() ? Json{} : Json(finding.remedy)}});
    std::string level{text_of(finding.level)};
    level.resize(5, ' ');
    text += level + finding.subject + ": " + finding.text +
            (finding.remedy.empty() ? "" : " (" + finding.remedy + ")") + "\n";
  }
  if (context.json) {
    print_json({{"level", text_of(worst)}, {"findings", rows}});
  } else {
    write_all(STDOUT_FILENO, text, nullptr, "write to stdout");
  }
  return worst == Level::fail ? exit_error : exit_ok;
}

// --- gc ------------------------------------------------------------------------------------------

int collect(const Context& context, bool dry_run) {
  const auto stale =
      take(shmq::clear_stale(open_options(context, shmq::Access::participant), dry_run),
           "look for stale objects");
  Table table({"QUEUE", "KIND", "OBJECT", "STATE"});
  Json rows = Json::array();
  const shmq::StaleObject* kept = nullptr;
  for (const shmq::StaleObject& each : stale) {
    const std::string state = each.cleared ? "cleared" : dry_run ? "stale" : "kept";
    if (state == "kept") kept = &each;
    table.add({each.queue, std::string{text_of(each.kind)}, each.object, state});
    rows.push_back({{"queue", each.queue},
                    {"kind", text_of(each.kind)},
                    {"object", each.object},
                    {"state", state},
                    {"why_not", each.why_not.empty() ? Json{} : Json(each.why_not)}});
  }
  if (context.json) {
    print_json({{"dry_run", dry_run}, {"stale", rows}});
  } else if (stale.empty()) {
    print_remark(context, "nothing is left behind");
  } else {
    table.print(context);
  }
  if (kept != nullptr) {
    throw Failure{exit_error, "clear away " + kept->object + " of queue '" + kept->queue + "'",
                  kept->why_not, "run it as the owner, or as root"};
  }
  return exit_ok;
}

}  // namespace

void add_doctor_commands(CLI::App& app, Context& context) {
  CLI::App* command =
      app.add_subcommand("doctor", "is this host fit for queues, and are they well");
  auto root = std::make_shared<std::string>();
  command->add_option("--root", *root, "read the settings of the system in DIR (default /)")
      ->type_name("DIR");
  command->callback(
      [&context, root] { context.command = [&context, root] { return doctor(context, *root); }; });
  CLI::App* gc = app.add_subcommand("gc", "clear away what killed processes left");
  auto dry_run = std::make_shared<bool>(false);
  gc->add_flag("--dry-run", *dry_run, "only say what would be cleared away");
  gc->callback([&context, dry_run] {
    context.command = [&context, dry_run] { return collect(context, *dry_run); };
  });
}

}  // namespace shmqctl
