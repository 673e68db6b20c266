// SPDX-License-Identifier: Apache-2.0
//
// All durable queues of one namespace: found, recovered, created, served, removed. Hosted by shmqd
// and by EmbeddedDaemon; knows neither sockets nor configuration files.
//
//   DATA/<namespace>/                daemon.lock: one engine at a time
//   DATA/<namespace>/<queue>/        the journal's files, and nothing else
//   DATA/<namespace>/.removed.…/     of a queue that was removed; its files go one by one
//
// Invariants:
//  1. A queue exists from the moment its journal's first incarnation is on stable storage; whoever
//     asked hears of it once its first seqs may be given out. What a cut before that left behind is
//     removed at the next start.
//  2. A queue is gone from the moment its directory has its other name on stable storage. What is
//     left of it is removed at the next start.
//  3. A queue that is refused, for whatever reason, is left as it is, says why in the status, and
//     stops no other.
//  4. Queues are recovered and made on threads of their own, one at a time each: those that are
//     served do not wait for one that is being rebuilt.
#pragma once

#include <deque>
#include <map>
#include <memory>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "daemon/engine/death_watch.hpp"
#include "daemon/engine/managed_queue.hpp"
#include "daemon/engine/restore_job.hpp"
#include "daemon/io/backend.hpp"
#include "daemon/loop/helper.hpp"
#include "daemon/loop/loop.hpp"

namespace shmq::engine {

struct EngineOptions {
  std::string name_space = "default";
  std::string data_dir;                    ///< the namespace's directory is made below it
  std::string doorbell_path;               ///< told to clients; may be empty
  journal::WriterOptions journal;          ///< ring_slots is each queue's own
  std::uint64_t check_bytes = 1ULL << 30;  ///< journals up to this size are checked whole at start
  std::uint64_t sweep_ns = 100'000'000;
  std::uint64_t spin_ns =
      100'000;  ///< after traffic, its host looks on for so long before it sleeps
  std::vector<uid_t> trusted_owners;
};

struct QueueStatus {
  std::string name;
  std::string state;  ///< "restoring", "recovering", "ok", "no_space", "degraded", "refused"
  std::string why;    ///< of all but ok
  std::string remedy;
  QueueFigures figures;
  std::uint64_t reclaimed = 0;  ///< messages that the daemon took back from dead participants
};

class Engine {
 public:
  using Outcome = std::function<void(Result<void>)>;

  /// Takes the namespace's directory and finds its queues; work() recovers them.
  static Result<std::unique_ptr<Engine>> create(EngineOptions options, loop::Loop& loop,
                                                const io::Backend& backend, Log log);
  Engine(const Engine&) = delete;
  Engine& operator=(const Engine&) = delete;
  /// As if killed, unless it was drained: nothing is waited for.
  ~Engine();

  void create_queue(const std::string& name, const QueueOptions& options, Outcome outcome);
  void remove_queue(const std::string& name, Outcome outcome);
  /// From a backup; the descriptor is the engine's from here on. `adjust` decides whose the queue
  /// will be; it is called on another thread. One at a time: else busy.
  void restore_queue(const std::string& name, int backup,
                     std::function<Result<void>(QueueOptions&)> adjust, Outcome outcome);
  /// Tries again what failed: degraded queues, queues that are refused.
  void reload();
  void set_timing(std::uint64_t sweep_ns, std::uint64_t spin_ns) noexcept;

  /// The doorbell. A name that is none of a queue: all.
  void rung(const std::string& queue);
  /// What is due. Once in each turn of the loop.
  void work(std::uint64_t now_ns);
  /// Before the loop sleeps, which it must not if this says false.
  bool prepare_sleep();
  [[nodiscard]] std::uint64_t next_timer_ns() const noexcept;
  /// For a host that spins before it sleeps: has a queue been written since the last call?
  [[nodiscard]] bool take_activity() noexcept { return std::exchange(was_active_, false); }
  /// Wakes those of the hot queues that have news.
  void look_at_hot();

  /// No queue waits for its recovery any more, and clients can open all that are not refused, but
  /// for those whose disk fails.
  [[nodiscard]] bool is_ready() const noexcept;
  /// From now on: writes what is there, closes the journals.
  void begin_drain();
  [[nodiscard]] bool is_draining() const noexcept { return is_draining_; }
  [[nodiscard]] bool is_drained() const noexcept;
  /// While it drains: what was there when that began is on stable storage, of each queue.
  [[nodiscard]] bool has_written_all() const noexcept;
  /// Tells clients that the daemon serves no more. Before an end that is on purpose.
  void close() noexcept;

  [[nodiscard]] std::vector<QueueStatus> status() const;
  [[nodiscard]] const std::string& directory() const noexcept { return directory_; }
  [[nodiscard]] std::size_t served() const noexcept { return queues_.size(); }
  [[nodiscard]] std::size_t refused() const noexcept { return refused_.size(); }

 private:
  struct Waiting {
    std::string name;
    std::uint64_t not_before_ns = 0;
    std::string why;           // it had to be put off
    bool is_for_room = false;  // on the disk: that may take for ever
  };
  // In the order of the sweep.
  struct Swept {
    ManagedQueue* queue;
    DeathWatch* watch;
  };
  struct Creation {
    std::string name;
    Outcome outcome;
  };

  Engine(EngineOptions options, loop::Loop& loop, const io::Backend& backend, Log log);
  Result<void> take_directory();
  Result<void> find_queues();
  void forget_memory(const std::string& name);
  void recover_next(std::uint64_t now_ns);
  void on_recovered(Waiting waiting, Result<QueueParts> parts);
  void on_made(const std::string& name, Outcome outcome, Result<QueueParts> parts);
  void serve(const std::string& name, QueueParts parts);
  void refuse(const std::string& name, const Error& error);
  Result<void> check_free(const std::string& name, const std::string& what) const;
  void answer_creations();
  void finish_restore();
  void make_hot(ManagedQueue& queue);
  void sweep(std::uint64_t now_ns);
  void set_sweep_order();
  void cool_down();
  void stop_damaged();
  void collect_garbage();
  [[nodiscard]] std::string path_of(const std::string& name) const;
  Result<void> bury(const std::string& name);

  EngineOptions options_;
  loop::Loop& loop_;
  const io::Backend& backend_;
  Log log_;
  std::string directory_;
  int lock_ = -1;
  int directory_descriptor_ = -1;
  std::map<std::string, std::unique_ptr<ManagedQueue>> queues_;
  std::map<std::string, std::unique_ptr<DeathWatch>> watches_;
  std::map<std::string, Error> refused_;
  std::deque<Waiting> waiting_;  // for their recovery
  std::vector<Creation> creations_;
  std::unique_ptr<RestoreJob> restore_;
  Outcome restore_outcome_;
  int restore_event_ = -1;  // written when it has come to an end
  std::vector<ManagedQueue*> hot_;
  std::vector<Swept> swept_;          // all of queues_
  std::size_t next_swept_ = 0;        // whose turn it is in the next sweep
  std::vector<std::string> garbage_;  // directories of removed queues
  std::uint64_t next_sweep_ns_ = 0;
  std::uint64_t rounds_ = 0;  // of the sweep, over all queues
  std::uint64_t burials_ = 0;
  bool was_active_ = false;
  bool is_draining_ = false;
  std::set<std::string> in_recovery_;
  std::set<std::string> in_creation_;
  // Last, so that their jobs end first.
  std::unique_ptr<loop::Helper> recoverer_;
  std::unique_ptr<loop::Helper> maker_;
};

}  // namespace shmq::engine
