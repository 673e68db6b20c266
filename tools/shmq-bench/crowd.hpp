// SPDX-License-Identifier: Apache-2.0
//
// Several producer and consumer processes on one queue: a shared group against Vyukov's ring.
//
// All wait alike: what finds the queue full or empty yields the CPU and tries again, without the
// library's own back-off. Beside the rate stands the CPU time per message, of all processes. Every
// message is accounted for: the union of what the consumers got is whole, none came twice, and of
// one producer each consumer got rising numbers.
#pragma once

#include <nlohmann/json.hpp>

#include "runner.hpp"

namespace shmq_bench {

struct Shape {
  std::uint32_t producers;
  std::uint32_t consumers;
  [[nodiscard]] std::string name() const {
    return std::to_string(producers) + "P" + std::to_string(consumers) + "C";
  }
};

class CrowdPeer;

struct CrowdSeries {
  std::uint32_t peer = 0;
  Shape shape{};
  std::uint64_t count = 1000;  // per producer, adapted
  bool warm = false;
  std::vector<Sample> rates{};   // million messages a second
  std::vector<Sample> cpu_ns{};  // of all processes, per message
};

class Crowd {
 public:
  /// Forks. Call with nothing of libshmq attached. `pin`: producers to CPU 1, consumers to CPU 0,
  /// else where the kernel puts them.
  Crowd(const std::string& name_space, std::size_t bytes, bool pin);
  Crowd(const Crowd&) = delete;
  Crowd& operator=(const Crowd&) = delete;
  ~Crowd();

  /// Each peer with each shape; peers of a shape side by side.
  [[nodiscard]] std::vector<CrowdSeries> all(const std::vector<Shape>& shapes) const;
  [[nodiscard]] const std::string& peer_name(std::uint32_t peer) const;
  /// One run without measuring.
  void run_plain(const CrowdSeries& series, std::uint64_t count);
  void run_round(std::vector<CrowdSeries>& all, std::uint64_t round);

  [[nodiscard]] nlohmann::json report(const std::vector<CrowdSeries>& all) const;

 private:
  struct Shared;
  struct Outcome {
    double elapsed_ns;
    double cpu_ns;
    bool undisturbed;
  };
  [[noreturn]] void worker_loop(std::uint32_t worker);
  Outcome run(const CrowdSeries& series, std::uint64_t count);
  double probe();
  void start(const std::vector<std::uint32_t>& workers);
  void account(const CrowdSeries& series, std::uint64_t count);

  std::vector<std::unique_ptr<CrowdPeer>> peers_;
  std::size_t bytes_;
  bool pin_;
  PingPong ping_pong_;
  Shared* shared_;
};

const std::vector<Shape>& crowd_shapes();
void print_crowd_table(const nlohmann::json& document);

}  // namespace shmq_bench
