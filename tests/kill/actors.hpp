// SPDX-License-Identifier: Apache-2.0
//
// The processes of a KILL campaign, and the supervisor that kills and stops them. Every process
// writes its history to a file of its own, mapped, so that it outlives the process; an event counts
// once the file's `count` covers it.
#pragma once

#include <sys/types.h>

#include <atomic>
#include <chrono>
#include <cstdint>
#include <filesystem>
#include <functional>
#include <random>
#include <shmq/shmq.hpp>
#include <string>
#include <vector>

#include "kill/checker.hpp"

namespace shmq::testing {

/// CLOCK_MONOTONIC, the same for all processes of the host.
std::uint64_t now_ns() noexcept;

/// The history of one process.
struct Log {
  static constexpr std::size_t events_max = 1 << 19;
  std::uint64_t number;    // of the life, from 0
  std::uint64_t count;     // of events
  std::uint64_t inside;    // an operation is going on
  std::uint64_t holding;   // leases, by what was written down
  std::uint64_t stop;      // set by the supervisor: end well
  std::uint64_t ended_ns;  // set by the supervisor: just before it killed the process
  Event events[events_max];

  void add(const Event& event);
  void enter() { __atomic_store_n(&inside, 1, __ATOMIC_RELEASE); }
  void leave() { __atomic_store_n(&inside, 0, __ATOMIC_RELEASE); }
  [[nodiscard]] bool is_inside() const { return __atomic_load_n(&inside, __ATOMIC_ACQUIRE) != 0; }
  [[nodiscard]] bool asked_to_stop() const { return __atomic_load_n(&stop, __ATOMIC_ACQUIRE) != 0; }
};

/// A message that tells who wrote it, whole or not.
std::string make_payload(std::uint16_t producer, std::uint64_t message);
/// The receive event of a delivery: payload looked at, token and hand-outs written down.
Event event_of(const Delivery& delivery, std::uint8_t group);

/// Publishes until it is told to stop; then ends the process.
[[noreturn]] void produce(const std::string& name_space, Log& log);
/// Receives and settles, mostly by ack; `gives_back`: some by nack and release, too. Ends the
/// process.
[[noreturn]] void consume(const std::string& name_space, Log& log, std::uint8_t group,
                          bool gives_back);
/// "g0", "g1" …
std::string group_name(std::uint8_t group);

class Supervisor {
 public:
  explicit Supervisor(std::uint64_t seed);
  Supervisor(const Supervisor&) = delete;
  Supervisor& operator=(const Supervisor&) = delete;
  ~Supervisor();

  void add(std::function<void(Log&)> body);
  /// Kills one at a random moment and starts another in its place; true if it was inside an
  /// operation.
  bool kill_one();
  void stop_one_for_a_while();
  /// Keeps one of the actors from number `first` on, if possible one that holds leases, stopped for
  /// at least `time`, the others going on; to be called again and again. Counts the stops that
  /// lasted.
  void keep_one_stopped(std::size_t first, std::chrono::nanoseconds time);
  [[nodiscard]] int long_stops() const noexcept { return long_stops_; }
  void end_all();
  [[nodiscard]] std::vector<History> histories() const;
  Log& new_log();
  /// The files stay where they are, for who wants to look.
  void keep_files();

 private:
  struct Actor {
    std::function<void(Log&)> body;
    pid_t pid = -1;
    Log* log = nullptr;
  };
  void start(Actor& actor);
  void pause_a_little();
  void let_the_stopped_go();

  std::mt19937_64 random_;
  std::vector<Actor> actors_;
  std::filesystem::path directory_;
  std::vector<Log*> logs_;
  pid_t stopped_ = -1;
  std::uint64_t stopped_at_ns_ = 0;
  int long_stops_ = 0;
};

/// SHMQ_SEED, or a random one; printed.
std::uint64_t campaign_seed();

/// `a` or, in a long run (SHMQ_LONG), `b`.
int by_length(int a, int b);

}  // namespace shmq::testing
