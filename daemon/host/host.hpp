// SPDX-License-Identifier: Apache-2.0
//
// A whole daemon but for the process around it: loop, engine, control socket. shmqd runs one on its
// main thread, EmbeddedDaemon one on a thread of its own.
#pragma once

#include <atomic>
#include <memory>
#include <string>

#include "daemon/control/requests.hpp"
#include "daemon/control/server.hpp"
#include "daemon/engine/engine.hpp"

namespace shmq::host {

struct HostOptions {
  engine::EngineOptions engine;  ///< its doorbell_path is set by the host
  std::string runtime_dir;       ///< the namespace's directory is made below it
  io::BackendChoice backend = io::BackendChoice::automatic;
  std::uint64_t drain_limit_ns = 10'000'000'000;
  control::Permissions permissions;
  /// An eventfd of the caller's, non-blocking, by which other threads ask for its end: add
  /// wake_to_drain or wake_to_stop. -1: the host makes one.
  int wake = -1;
};

inline constexpr std::uint64_t wake_to_drain = 1;
inline constexpr std::uint64_t wake_to_stop = 1ULL << 32;  ///< even while it drains

class Host {
 public:
  static Result<std::unique_ptr<Host>> create(HostOptions options, engine::Log log);
  Host(const Host&) = delete;
  Host& operator=(const Host&) = delete;
  ~Host();

  /// Until it is drained, or told to stop. `each_turn` is called before each sleep, and may give a
  /// deadline for it.
  void run(const std::function<std::uint64_t()>& each_turn = {});

  /// What `reload` does besides trying again: reads the configuration. Before run().
  void on_reload(std::function<Result<void>()> reread) { reread_ = std::move(reread); }
  Result<void> reload();
  /// Takes effect at once.
  void set_permissions(const control::Permissions& permissions);
  void set_timing(std::uint64_t sweep_ns, std::uint64_t spin_ns);
  /// Writes what is there, then lets run() return.
  void begin_drain();
  /// begin_drain() from another thread.
  void ask_for_drain() noexcept;

  [[nodiscard]] loop::Loop& loop() noexcept { return *loop_; }
  [[nodiscard]] const engine::Engine& engine() const noexcept { return *engine_; }
  [[nodiscard]] bool is_ready() const noexcept { return engine_->is_ready(); }
  [[nodiscard]] const char* backend_name() const noexcept;
  [[nodiscard]] std::string control_directory() const;
  /// After run(): everything that was published before the drain is on stable storage.
  [[nodiscard]] bool has_written_all() const noexcept { return has_written_all_; }

 private:
  explicit Host(HostOptions options, engine::Log log);
  Result<void> set_up();
  void end_drain();
  void on_wake();

  HostOptions options_;
  engine::Log log_;
  std::unique_ptr<io::Backend> backend_;
  std::unique_ptr<loop::Loop> loop_;
  std::unique_ptr<engine::Engine> engine_;
  std::unique_ptr<control::Requests> requests_;
  std::unique_ptr<control::Server> server_;
  std::function<Result<void>()> reread_;
  int wake_ = -1;  // an eventfd
  std::uint64_t drain_by_ns_ = 0;
  bool is_done_ = false;
  bool has_written_all_ = false;
  std::vector<std::function<void(Result<void>)>> drain_answers_;
};

}  // namespace shmq::host
