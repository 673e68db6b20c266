// SPDX-License-Identifier: Apache-2.0
//
// shmqctl: create, look at, feed and drain queues from the command line. Uses the public API only.
//
// The command line is parsed here; each command registers itself from its own file. Whatever goes
// wrong becomes one line on stderr and the exit code of shmqctl(1).
#include <fcntl.h>
#include <unistd.h>

#include <cerrno>
#include <csignal>
#include <cstdio>
#include <exception>
#include <iostream>

#include "context.hpp"
#include "failure.hpp"
#include "units.hpp"

namespace shmqctl {
namespace {

void add_global_options(CLI::App& app, Context& context) {
  app.add_option("--namespace", context.name_space,
                 "namespace of the queues (default: SHMQ_NAMESPACE, else \"default\")")
      ->type_name("N");
  app.add_option_function<std::string>(
         "-o,--output",
         [&context](const std::string& form) {
           if (form != "table" && form != "json") {
             throw CLI::ValidationError("--output", "'" + form + "' is neither table nor json");
           }
           context.json = form == "json";
         },
         "table for people (default) or json for programs")
      ->type_name("table|json");
  app.add_flag("--no-headers", context.no_headers, "tables without their first line");
  app.add_flag("-q,--quiet", context.quiet, "no remarks about what was done");
  app.add_option_function<std::vector<std::string>>(
         "--trust-owner",
         [&context](const std::vector<std::string>& users) {
           for (const std::string& user : users) {
             const auto uid = parse_user(user);
             if (!uid) throw CLI::ValidationError("--trust-owner", "no user '" + user + "'");
             context.trusted_owners.push_back(*uid);
           }
         },
         "open queues that belong to USER, too; repeatable")
      ->type_name("USER")
      ->allow_extra_args(false);
  app.add_option("--runtime-dir", context.runtime_dir,
                 "where the daemon has its sockets (default: SHMQ_RUNTIME_DIR, else "
                 "$XDG_RUNTIME_DIR/shmq, then /run/shmq)")
      ->type_name("DIR");
  app.set_version_flag("--version", std::string{"shmqctl "} + shmq::version());
}

int report(const Failure& failure) {
  if (!failure.why.empty()) {
    const std::string line = "shmqctl: " + failure.message() + "\n";
    std::fputs(line.c_str(), stderr);
  }
  return failure.exit_code;
}

/// Options of the program are understood after the command as well.
void fall_through(CLI::App& app) {
  for (CLI::App* command : app.get_subcommands([](CLI::App*) { return true; })) {
    command->fallthrough();
    fall_through(*command);
  }
}

int run(int argc, char** argv) {
  CLI::App app{"Message queues in shared memory: create, look at, feed and drain them.", "shmqctl"};
  Context context;
  // One command and no more: what follows it is never taken for another command.
  app.require_subcommand(1);
  add_global_options(app, context);
  add_queue_commands(app, context);
  add_group_commands(app, context);
  add_publish_command(app, context);
  add_consume_command(app, context);
  add_look_commands(app, context);
  add_journal_commands(app, context);
  add_backup_commands(app, context);
  add_daemon_commands(app, context);
  add_monitor_commands(app, context);
  add_doctor_commands(app, context);
  add_events_command(app, context);
  add_top_command(app, context);
  add_completion_command(app, context);
  fall_through(app);
  app.footer(
      "Sizes as 64MiB, times as 30s or 5ms. Exit: 0 ok, 1 error, 2 usage, 3 no such thing, "
      "4 permission, 5 timed out.\nSee shmqctl(1).");
  try {
    app.parse(argc, argv);
  } catch (const CLI::ParseError& error) {
    if (error.get_exit_code() == 0) return app.exit(error);  // --help, --version
    return report(usage_failure("command line", error.what()));
  }
  return context.command();
}

/// A standard stream that is closed would be the next file opened here, a queue's among them. In
/// its place stands one that fails as a closed one does: read only where it is written to.
void keep_standard_streams_apart() {
  for (const int fd : {STDIN_FILENO, STDOUT_FILENO, STDERR_FILENO}) {
    if (::fcntl(fd, F_GETFD) >= 0 || errno != EBADF) continue;
    // The lowest free number is this one: those below are open.
    static_cast<void>(::open("/dev/null", fd == STDIN_FILENO ? O_WRONLY : O_RDONLY));
  }
}

}  // namespace
}  // namespace shmqctl

int main(int argc, char** argv) {
  shmqctl::keep_standard_streams_apart();
  // A reader that goes away is an error of write(2), so that messages are not acknowledged.
  std::signal(SIGPIPE, SIG_IGN);
  try {
    return shmqctl::run(argc, argv);
  } catch (const shmqctl::Failure& failure) {
    return shmqctl::report(failure);
  } catch (const std::exception& error) {
    return shmqctl::report(
        {shmqctl::exit_error, "internal error", error.what(), "report it, with the command"});
  }
}
