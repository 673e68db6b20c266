// SPDX-License-Identifier: Apache-2.0
//
// What every command of shmqctl gets: the global options, signals, and the queue it names.
#pragma once

#include <CLI/CLI.hpp>
#include <atomic>
#include <functional>
#include <optional>
#include <shmq/shmq.hpp>
#include <stop_token>
#include <string>
#include <thread>
#include <vector>

namespace shmqctl {

struct Context {
  std::string name_space;   ///< empty: SHMQ_NAMESPACE, else "default"; the library decides
  std::string runtime_dir;  ///< of the daemon; empty: the library looks in the usual places
  bool json = false;
  bool no_headers = false;
  bool quiet = false;
  std::vector<uid_t> trusted_owners;

  /// Set by the command that the user named, run by main() after parsing.
  std::function<int()> command;
};

/// Opens for looking (observer) or for taking part; a Failure if that cannot be.
shmq::Queue open_queue(const Context& context, const std::string& name, shmq::Access access);
shmq::OpenOptions open_options(const Context& context, shmq::Access access);
/// The group, or a Failure with exit 3.
shmq::GroupInfo find_group(const shmq::Queue& queue, const std::string& queue_name,
                           const std::string& group);

/// Options of verbs that destroy.
struct Destructive {
  bool yes = false;
  bool dry_run = false;
  void add_to(CLI::App& command);
  /// True if the deed is to be done. Asks when stdin is a terminal; with --dry-run says what would
  /// be done and gives false; a "no" is a Failure with exit 1.
  [[nodiscard]] bool confirmed(const Context& context, const std::string& deed) const;
};

/// SIGHUP, SIGINT and SIGTERM as a stop token and as a descriptor that becomes readable and stays
/// so. One instance a process; make it before other threads are started.
class StopSignals {
 public:
  StopSignals();
  ~StopSignals();
  StopSignals(const StopSignals&) = delete;
  StopSignals& operator=(const StopSignals&) = delete;

  [[nodiscard]] std::stop_token token() const { return source_.get_token(); }
  [[nodiscard]] int fd() const { return pipe_[0]; }
  /// The signal that came, or 0.
  [[nodiscard]] int signal() const;
  /// 128 + signal: what a shell reports of a process that the signal ended.
  [[nodiscard]] int exit_code() const { return 128 + signal(); }

 private:
  std::stop_source source_;
  int pipe_[2] = {-1, -1};
  std::thread watcher_;
};

void add_queue_commands(CLI::App& app, Context& context);
void add_group_commands(CLI::App& app, Context& context);
void add_publish_command(CLI::App& app, Context& context);
void add_consume_command(CLI::App& app, Context& context);
void add_look_commands(CLI::App& app, Context& context);
void add_journal_commands(CLI::App& app, Context& context);
void add_backup_commands(CLI::App& app, Context& context);
/// Of a file that is none of a journal directory.
int verify_backup(const Context& context, const std::string& file);
void add_daemon_commands(CLI::App& app, Context& context);
/// --durability, of publishes and of acks.
CLI::Option* add_durability(CLI::App& command, shmq::Durability& durability,
                            const std::string& help);
shmq::DaemonOptions daemon_options(const Context& context);
void add_monitor_commands(CLI::App& app, Context& context);
void add_doctor_commands(CLI::App& app, Context& context);
void add_completion_command(CLI::App& app, Context& context);
void add_events_command(CLI::App& app, Context& context);
void add_top_command(CLI::App& app, Context& context);

// Options whose values have units. A value that cannot be read is CLI11's error: exit 2.
CLI::Option* add_size(CLI::App& command, const std::string& name,
                      std::function<void(std::uint64_t)> use, const std::string& help);
CLI::Option* add_count(CLI::App& command, const std::string& name,
                       std::function<void(std::uint64_t)> use, const std::string& help);
CLI::Option* add_time(CLI::App& command, const std::string& name,
                      std::function<void(std::chrono::nanoseconds)> use, const std::string& help);

/// The mode of a group that the command line names without one.
inline constexpr shmq::GroupMode default_group_mode = shmq::GroupMode::shared;
shmq::GroupMode read_mode_name(const std::string& option, const std::string& text);
CLI::Option* add_delivery_limit(CLI::App& command, std::optional<std::uint32_t>& limit);
/// A usage failure if the group is exclusive: those have none.
void set_delivery_limit(shmq::GroupOptions& group, const std::optional<std::uint32_t>& limit);

}  // namespace shmqctl
