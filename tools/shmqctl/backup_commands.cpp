// SPDX-License-Identifier: Apache-2.0
//
// shmqctl backup, restore; and verify of a backup.
#include <unistd.h>

#include <chrono>
#include <cstdio>
#include <memory>
#include <optional>
#include <shmq/backup.hpp>

#include "context.hpp"
#include "failure.hpp"
#include "output.hpp"
#include "units.hpp"

namespace shmqctl {
namespace {

/// A line on stderr that is written over and over, if that is a terminal; and the way out by a
/// signal.
class Progress {
 public:
  Progress(const Context& context, std::string verb)
      : verb_(std::move(verb)), shows_(!context.quiet && ::isatty(STDERR_FILENO) == 1) {}
  Progress(const Progress&) = delete;
  Progress& operator=(const Progress&) = delete;
  ~Progress() {
    if (is_dirty_) std::fputs("\r\033[K", stderr);
  }

  bool operator()(std::uint64_t done, std::uint64_t total) {
    const auto now = std::chrono::steady_clock::now();
    if (shows_ && now - last_ >= std::chrono::milliseconds{200}) {
      last_ = now;
      is_dirty_ = true;
      const std::string line = "\r\033[K" + verb_ + " " + human_size(done) + " of " +
                               human_size(total) + ", " +
                               std::to_string(total == 0 ? 0 : done * 100 / total) + " %";
      std::fputs(line.c_str(), stderr);
    }
    return signals_.signal() == 0;
  }
  /// The exit code, if a signal ended it.
  [[nodiscard]] std::optional<int> interrupted() const {
    return signals_.signal() != 0 ? std::optional{signals_.exit_code()} : std::nullopt;
  }

 private:
  StopSignals signals_;
  std::string verb_;
  bool shows_;
  bool is_dirty_ = false;
  std::chrono::steady_clock::time_point last_{};
};

Json backup_json(const std::string& file, const shmq::BackupInfo& info) {
  return {{"file", file},
          {"namespace", info.name_space},
          {"queue", info.queue},
          {"queue_uuid", info.queue_uuid},
          {"created", rfc3339(info.created)},
          {"first_seq", info.first_seq},
          {"end_seq", info.end_seq},
          {"messages", info.messages},
          {"groups", info.groups},
          {"files", info.files},
          {"batches", info.batches},
          {"bytes", info.bytes}};
}

std::string sentence(const shmq::BackupInfo& info) {
  return "queue '" + info.queue + "', " + std::to_string(info.messages) + " messages, seqs " +
         std::to_string(info.first_seq) + " to before " + std::to_string(info.end_seq) + ", " +
         std::to_string(info.groups) + " groups, " + human_size(info.bytes);
}

struct BackupArguments {
  std::string queue;
  std::string file;
  std::string directory;
};

int backup(const Context& context, const BackupArguments& arguments) {
  const std::string what = "back up queue '" + arguments.queue + "'";
  auto progress = std::make_unique<Progress>(context, "backup");
  const auto info = shmq::backup_queue(arguments.queue, arguments.file,
                                       {.daemon = daemon_options(context),
                                        .directory = arguments.directory,
                                        .progress = [&](std::uint64_t done, std::uint64_t total) {
                                          return (*progress)(done, total);
                                        }});
  const auto ended = progress->interrupted();
  progress.reset();
  if (!info && ended) return *ended;
  const shmq::BackupInfo& made = take(info, what);
  if (context.json) {
    print_json({{"backup", backup_json(arguments.file, made)}});
  } else {
    print_remark(context, "backup '" + arguments.file + "' made: " + sentence(made));
  }
  return exit_ok;
}

int restore(const Context& context, const BackupArguments& arguments) {
  shmq::RestoreOptions options{.queue = arguments.queue};
  const auto timeout = options.daemon.timeout;
  options.daemon = daemon_options(context);
  options.daemon.timeout = timeout;
  take(shmq::restore_queue(arguments.file, options), "restore '" + arguments.file + "'");
  if (context.json) {
    print_json({{"restored", arguments.file}});
  } else {
    print_remark(context, "'" + arguments.file + "' restored");
  }
  return exit_ok;
}

}  // namespace

int verify_backup(const Context& context, const std::string& file) {
  auto progress = std::make_unique<Progress>(context, "verify");
  const auto info = shmq::verify_backup(
      file, [&](std::uint64_t done, std::uint64_t total) { return (*progress)(done, total); });
  const auto ended = progress->interrupted();
  progress.reset();
  if (!info && ended) return *ended;
  const shmq::BackupInfo& found = take(info, "verify '" + file + "'");
  if (context.json) {
    print_json({{"backup", backup_json(file, found)}});
  } else {
    print_remark(context, "backup '" + file + "' is whole: " + sentence(found));
  }
  return exit_ok;
}

void add_backup_commands(CLI::App& app, Context& context) {
  auto arguments = std::make_shared<BackupArguments>();
  CLI::App* out = app.add_subcommand("backup", "copy a durable queue into a file, while it runs");
  out->add_option("queue", arguments->queue, "name of the queue")->required();
  out->add_option("file", arguments->file, "the backup; must not exist")
      ->type_name("FILE")
      ->required();
  out->add_option("--journal", arguments->directory,
                  "the directory of its journal files (default: the daemon is asked)")
      ->type_name("DIR");
  out->callback([&context, arguments] {
    context.command = [&context, arguments] { return backup(context, *arguments); };
  });
  CLI::App* in = app.add_subcommand("restore", "have the daemon make a queue of a backup");
  in->add_option("file", arguments->file, "the backup")->type_name("FILE")->required();
  in->add_option("--as", arguments->queue, "another name for the queue")->type_name("NAME");
  in->callback([&context, arguments] {
    context.command = [&context, arguments] { return restore(context, *arguments); };
  });
}

}  // namespace shmqctl
