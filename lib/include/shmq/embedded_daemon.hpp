// SPDX-License-Identifier: Apache-2.0
//
// The daemon of a namespace inside this process, for a program that brings its own: what shmqd
// does, on a thread. It is a library of its own, link shmq::daemon (pkg-config shmqd);
// shmq/shmq.hpp does not include this.
//
//   auto daemon = shmq::EmbeddedDaemon::start({.name_space = "shop", .data_dir = "/srv/shop"});
//   if (!daemon) return fail(daemon.error());        // Errc::busy: another one serves it
//   auto queue = shmq::Queue::open_or_create("orders", {.name_space = "shop", .durable = true});
//
// Whoever is killed takes the daemon along: durable queues stay usable in memory, and the next
// daemon, in whichever process, goes on where it was. Processes that outlive each other better use
// shmqd.
#pragma once

#include <sys/types.h>

#include <chrono>
#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <shmq/error.hpp>
#include <string>
#include <vector>

namespace shmq {

enum class LogLevel : std::uint8_t { debug, info, warning, error };

struct EmbeddedDaemonOptions {
  std::string name_space{};  ///< default: SHMQ_NAMESPACE, else "default"
  /// Where the journals are, a directory a namespace below it. Default: as shmqd, /var/lib/shmq for
  /// system users, $XDG_DATA_HOME/shmq for others.
  std::string data_dir{};
  /// Where clients find it, likewise. Default: SHMQ_RUNTIME_DIR, else as shmqd, /run/shmq or
  /// $XDG_RUNTIME_DIR/shmq. Clients look there, too, unless they are told another place.
  std::string runtime_dir{};
  /// How long drain() and the destructor wait for the disk.
  std::chrono::nanoseconds drain_limit = std::chrono::seconds{10};
  std::uint64_t max_disk_bytes = 0;     ///< of one queue's journal; 0: no limit
  std::optional<gid_t> create_group{};  ///< its members may create and remove queues, too
  std::vector<uid_t> trusted_owners{};  ///< see OpenOptions
  bool io_uring = true;                 ///< false, or where it is denied: plain calls
  /// What shmqd would log, a sentence each, on a thread that does nothing else. Must not throw. If
  /// it is slow, sentences beyond the thousandth that waits are dropped and counted.
  std::function<void(LogLevel level, const std::string& sentence)> log{};
};

/// Movable; one thread at a time may call it. It ends in a forked child: there the handle is inert.
///
/// Its thread blocks all signals and has a table of descriptors of its own, so neither a forked
/// child nor a program that closes all descriptors holds or harms what it has open. It ends with
/// the process by any means, SIGKILL included.
class SHMQ_API EmbeddedDaemon {
 public:
  /// Returns once clients can reach it; queues are recovered after that, see wait_ready().
  /// Errors: busy (another daemon, embedded or not, serves the namespace from this data_dir or
  /// answers in this runtime_dir; nothing was changed), invalid_name, invalid_argument,
  /// no_permission, errno values; not_supported where the kernel gives a thread no descriptors of
  /// its own.
  static Result<EmbeddedDaemon> start(const EmbeddedDaemonOptions& options = {});

  EmbeddedDaemon(EmbeddedDaemon&& other) noexcept;
  EmbeddedDaemon& operator=(EmbeddedDaemon&& other) noexcept;
  /// drain(), its result is lost.
  ~EmbeddedDaemon();

  /// Until each queue is recovered or refused. timed_out; closed: it has ended.
  Result<void> wait_ready(std::chrono::nanoseconds timeout) const;
  /// False after drain() or stop(), or once somebody else drained it (shmqctl daemon drain).
  [[nodiscard]] bool runs() const noexcept;
  /// As daemon_status(). daemon_away once it has ended.
  [[nodiscard]] Result<std::string> status() const;

  /// Everything on stable storage, journals closed, then its end; clients see daemon_away, and go
  /// on in memory. timed_out: the disk did not take everything within drain_limit. It has ended all
  /// the same; what is not on disk is in memory, and the next daemon writes it. A second call says
  /// what the first one did.
  Result<void> drain();
  /// Ends at once: the disk is waited for no longer than a write under way takes.
  void stop() noexcept;

 private:
  struct State;
  explicit EmbeddedDaemon(std::unique_ptr<State> state) noexcept;
  std::unique_ptr<State> state_;
};

}  // namespace shmq
