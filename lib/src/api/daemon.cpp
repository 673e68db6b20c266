// SPDX-License-Identifier: Apache-2.0
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <nlohmann/json.hpp>
#include <shmq/daemon.hpp>

#include "api/daemon_calls.hpp"
#include "base/names.hpp"
#include "control/client.hpp"
#include "control/protocol.hpp"
#include "control/settings.hpp"
#include "journal/seek_time.hpp"
#include "shm/segment.hpp"

namespace shmq {
namespace {

Result<std::string> call(const DaemonOptions& options, std::string what, const std::string& request,
                         int attachment = -1) {
  control::Call call{
      .name_space = base::resolve_namespace(options.name_space),
      .runtime_dir = options.runtime_dir,
      .timeout = options.timeout,
      .trusts = [&](uid_t uid) { return shm::is_trusted_owner(uid, options.trusted_owners); },
      .attachment = attachment,
      .what = std::move(what)};
  if (!base::is_valid_name(call.name_space)) {
    return tl::unexpected(Error{make_error_code(Errc::invalid_name), call.what,
                                "'" + call.name_space + "' is not a valid namespace",
                                "use [a-z0-9][a-z0-9._-]{0,63}"});
  }
  return control::call_daemon(call, request);
}

Result<void> without_value(Result<std::string> answer) {
  if (!answer) return tl::unexpected(answer.error());
  return {};
}

}  // namespace

Result<std::string> daemon_status(const DaemonOptions& options) {
  return call(options, "ask the daemon", control::make_request(control::verb_status));
}

Result<void> daemon_reload(const DaemonOptions& options) {
  return without_value(
      call(options, "reload the daemon", control::make_request(control::verb_reload)));
}

Result<void> daemon_drain(const DaemonOptions& options) {
  return without_value(
      call(options, "drain the daemon", control::make_request(control::verb_drain)));
}

namespace detail {

Result<void> create_durable(const std::string& name, const QueueOptions& options) {
  const DaemonOptions to{.name_space = options.name_space,
                         .runtime_dir = options.runtime_dir,
                         .trusted_owners = options.trusted_owners};
  return without_value(
      call(to, "create queue '" + name + "'",
           control::make_request(control::verb_create, name, control::text_of(options))));
}

Result<void> remove_durable(const std::string& name, const OpenOptions& options) {
  const DaemonOptions to{.name_space = options.name_space,
                         .runtime_dir = options.runtime_dir,
                         .trusted_owners = options.trusted_owners};
  return without_value(
      call(to, "remove queue '" + name + "'", control::make_request(control::verb_remove, name)));
}

Result<void> restore_durable(const std::string& name, int descriptor,
                             const DaemonOptions& options) {
  return without_value(call(options, "restore queue '" + name + "'",
                            control::make_request(control::verb_restore, name), descriptor));
}

Result<std::optional<std::uint64_t>> first_seq_since(const shm::Segment& segment,
                                                     std::chrono::nanoseconds realtime,
                                                     const std::string& what) {
  DaemonOptions to;
  to.name_space = segment.name_space();
  to.trusted_owners = {segment.owner()};
  const auto directory = journal_directory(segment.queue(), to, what);
  if (!directory) return tl::unexpected(directory.error());
  const auto source = journal::open_directory(*directory);
  journal::Uuid uuid;
  std::copy_n(segment.header().uuid, uuid.size(), uuid.begin());
  return journal::first_seq_since(
      *source, uuid, realtime.count() < 0 ? 0 : static_cast<std::uint64_t>(realtime.count()));
}

Result<std::string> journal_directory(const std::string& queue, const DaemonOptions& options,
                                      const std::string& what) {
  const auto text = daemon_status(options);
  if (!text) return tl::unexpected(text.error());
  const auto status = nlohmann::json::parse(*text, nullptr, false);
  if (!status.is_object() || !status.contains("directory") || !status.at("directory").is_string()) {
    return tl::unexpected(Error{make_error_code(Errc::version_mismatch), what,
                                "the daemon's answer cannot be read", ""});
  }
  std::string path = status.at("directory").get<std::string>() + "/" + queue;
  struct stat there {};
  if (::stat(path.c_str(), &there) != 0 && errno == ENOENT) {
    return tl::unexpected(
        Error{make_error_code(Errc::no_such_queue), what, "no such durable queue", ""});
  }
  return path;
}

}  // namespace detail
}  // namespace shmq
