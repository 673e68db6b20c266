// SPDX-License-Identifier: Apache-2.0
//
// shmq-bench: throughput and round trip of one producer and one consumer process, libshmq beside
// peers; --crowd: several producers and consumers on one shared group. Exit codes: 0 done, 1 a
// wrong message, a failed run or a failed --check, 77 the --check could not decide because too few
// runs were near.
#include <unistd.h>

#include <CLI/CLI.hpp>
#include <nlohmann/json.hpp>
#include <sstream>

#include "crowd.hpp"
#include "durable.hpp"
#include "held.hpp"
#include "idle.hpp"
#include "runner.hpp"

namespace shmq_bench {
namespace {

constexpr int exit_undecided = 77;
constexpr std::size_t near_needed = 5;

struct Options {
  std::vector<std::size_t> sizes{};
  std::vector<std::string> contenders{};
  std::string mode = "all";
  std::string output = "table";
  std::uint64_t rounds = 0;
  double seconds = 60;
  std::uint64_t smoke = 0;
  bool check = false;
  bool crowd = false;
  bool pin = false;
  bool held = false;
  bool durable = false;
  std::uint64_t idle = 0;
  std::string shmqd = "shmqd";
  std::string data_dir = ".";
  std::uint64_t arena_kib = 64U << 10;
  std::uint32_t chunk_kib = 256;
};

const char* name_of(Mode mode) { return mode == Mode::throughput ? "throughput" : "round_trip"; }
const char* unit_of(Mode mode) { return mode == Mode::throughput ? "M/s" : "ns"; }

std::vector<Series> choose(const Contenders& contenders, const Options& options) {
  std::vector<Series> chosen;
  for (const std::string& wanted : options.contenders) {
    if (std::none_of(contenders.begin(), contenders.end(),
                     [&](const auto& contender) { return contender->name() == wanted; })) {
      std::fprintf(stderr, "shmq-bench: no contender '%s'\n", wanted.c_str());
      std::exit(2);
    }
  }
  for (const Mode mode : {Mode::throughput, Mode::round_trip}) {
    if (options.mode == "throughput" && mode != Mode::throughput) continue;
    if (options.mode == "roundtrip" && mode != Mode::round_trip) continue;
    for (const std::size_t bytes : options.sizes) {
      for (const auto& contender : contenders) {
        const bool wanted = options.contenders.empty() ||
                            std::find(options.contenders.begin(), options.contenders.end(),
                                      contender->name()) != options.contenders.end();
        if (wanted && contender->supports(mode, bytes)) {
          chosen.push_back({.contender = contender.get(), .mode = mode, .bytes = bytes});
        }
      }
    }
  }
  return chosen;
}

Series* find(std::vector<Series>& all, const std::string& name, Mode mode, std::size_t bytes) {
  for (Series& series : all) {
    if (series.contender->name() == name && series.mode == mode && series.bytes == bytes) {
      return &series;
    }
  }
  return nullptr;
}

nlohmann::json report(std::vector<Series>& all) {
  nlohmann::json rows = nlohmann::json::array();
  for (Series& series : all) {
    for (const Distance distance : {Distance::near, Distance::far}) {
      const Summary summary = summarise(series, distance);
      if (summary.n == 0) continue;
      nlohmann::json row{{"contender", series.contender->name()},
                         {"mode", name_of(series.mode)},
                         {"payload_bytes", series.bytes},
                         {"class", distance == Distance::near ? "near" : "far"},
                         {"unit", unit_of(series.mode)},
                         {"median", summary.median},
                         {"min", summary.min},
                         {"max", summary.max},
                         {"n", summary.n}};
      const char* own = series.mode == Mode::throughput ? "shmq" : "shmq-single";
      if (Series* shmq = find(all, own, series.mode, series.bytes);
          shmq != nullptr && shmq != &series) {
        const Summary ratio = paired_ratio(*shmq, series, distance);
        if (ratio.n != 0) {
          row["shmq_ratio"] = {{"median", ratio.median}, {"n", ratio.n}};
        }
      }
      rows.push_back(std::move(row));
    }
  }
  return {{"schema_version", 1}, {"results", rows}};
}

void print_table(const nlohmann::json& document) {
  std::printf("%-15s %-10s %7s %-5s %10s %10s %10s %5s %-4s %s\n", "contender", "mode", "bytes",
              "class", "median", "min", "max", "n", "unit", "shmq/this (n)");
  for (const auto& row : document["results"]) {
    std::printf("%-15s %-10s %7zu %-5s %10.2f %10.2f %10.2f %5zu %-4s",
                row["contender"].get<std::string>().c_str(), row["mode"].get<std::string>().c_str(),
                row["payload_bytes"].get<std::size_t>(), row["class"].get<std::string>().c_str(),
                row["median"].get<double>(), row["min"].get<double>(), row["max"].get<double>(),
                row["n"].get<std::size_t>(), row["unit"].get<std::string>().c_str());
    if (row.contains("shmq_ratio")) {
      std::printf(" %.2f (%zu)", row["shmq_ratio"]["median"].get<double>(),
                  row["shmq_ratio"]["n"].get<std::size_t>());
    }
    std::printf("\n");
  }
}

struct Criterion {
  const char* text;
  Summary (*measure)(std::vector<Series>&);
  double bound;
  bool at_least;
};

Series& need(std::vector<Series>& all, const char* name, Mode mode, std::size_t bytes) {
  Series* series = find(all, name, mode, bytes);
  if (series == nullptr) fail(std::string{"no series "} + name);
  return *series;
}

Summary ratio_at_64(std::vector<Series>& all, const char* peer) {
  return paired_ratio(need(all, "shmq", Mode::throughput, 64),
                      need(all, peer, Mode::throughput, 64), Distance::near);
}

const Criterion criteria[] = {
    {"64 B copy / plain ring",
     [](std::vector<Series>& all) { return ratio_at_64(all, "plain-ring"); }, 3.0, true},
    {"64 B copy / Vyukov ring with back-off",
     [](std::vector<Series>& all) { return ratio_at_64(all, "vyukov-backoff"); }, 0.75, true},
    {"64 B shared group, lease and ack each / plain ring",
     [](std::vector<Series>& all) {
       return paired_ratio(need(all, "shmq-shared", Mode::throughput, 64),
                           need(all, "plain-ring", Mode::throughput, 64), Distance::near);
     },
     2.5, true},
    {"8 B round trip / bare ping-pong",
     [](std::vector<Series>& all) {
       return paired_ratio(need(all, "shmq-single", Mode::round_trip, 8),
                           need(all, "ping-pong", Mode::round_trip, 8), Distance::near);
     },
     2.4, false},
    {"64 KiB loan, million/s",
     [](std::vector<Series>& all) {
       return summarise(need(all, "shmq-loan", Mode::throughput, 65536), Distance::near);
     },
     5.0, true},
};

// What one line of a check came to.
struct Verdict {
  bool passed = true;
  bool decided = true;

  void note(const char* text, const Summary& got, double bound, bool at_least) {
    const bool enough = got.n >= near_needed;
    const bool good = at_least ? got.median >= bound : got.median <= bound;
    decided = decided && enough;
    passed = passed && (good || !enough);
    std::printf("%-9s %-52s %7.2f (%.2f to %.2f, n = %zu), must be at %s %.2f\n",
                !enough ? "UNDECIDED"
                : good  ? "pass"
                        : "FAIL",
                text, got.median, got.min, got.max, got.n, at_least ? "least" : "most", bound);
  }
  [[nodiscard]] int exit_code(double elapsed_s) const {
    if (!passed) return 1;
    if (decided) return 0;
    std::printf("not enough near runs: fewer than %zu in %.0f s; run it again later\n", near_needed,
                elapsed_s);
    return exit_undecided;
  }
};

int run_check(Runner& runner, const Contenders& contenders) {
  std::vector<Series> all;
  const auto add = [&](const char* name, Mode mode, std::size_t bytes) {
    for (const auto& contender : contenders) {
      if (contender->name() == name) {
        all.push_back({.contender = contender.get(), .mode = mode, .bytes = bytes});
      }
    }
  };
  // Partners stand side by side, so that they meet the same state of the machine.
  add("plain-ring", Mode::throughput, 64);
  add("shmq-shared", Mode::throughput, 64);
  add("shmq", Mode::throughput, 64);
  add("vyukov-backoff", Mode::throughput, 64);
  add("shmq-loan", Mode::throughput, 65536);
  add("shmq-single", Mode::round_trip, 8);
  add("ping-pong", Mode::round_trip, 8);
  const auto fewest = [&] {
    std::size_t n = SIZE_MAX;
    for (const Criterion& criterion : criteria) n = std::min(n, criterion.measure(all).n);
    return n;
  };
  const std::uint64_t start = now_ns();
  const auto elapsed_s = [&] { return static_cast<double>(now_ns() - start) / 1e9; };
  for (std::uint64_t round = 0;
       elapsed_s() < 15 || (elapsed_s() < 50 && fewest() < 4 * near_needed); ++round) {
    runner.run_round(all, round);
  }
  Verdict verdict;
  for (const Criterion& criterion : criteria) {
    verdict.note(criterion.text, criterion.measure(all), criterion.bound, criterion.at_least);
  }
  return verdict.exit_code(elapsed_s());
}

// Every contender carries and checks `count` messages; nothing is timed.
int run_smoke(Runner& runner, std::vector<Series>& all, std::uint64_t count) {
  std::uint64_t messages = 0;
  for (Series& series : all) {
    // Round trips are fewer: without a CPU of its own each side spins until it is preempted. Twice,
    // so that a run also begins where another one ended.
    const std::uint64_t now =
        series.mode == Mode::throughput ? count : std::max<std::uint64_t>(count / 10, 4);
    runner.run_plain(series, now);
    runner.run_plain(series, now);
    messages += 2 * now;
  }
  std::printf("%zu contenders, sizes and modes; %llu messages carried and checked\n", all.size(),
              static_cast<unsigned long long>(messages));
  return messages == 0 ? 1 : 0;
}

// --- Crowds ------------------------------------------------------------------------------------

int run_crowd_check(Crowd& crowd) {
  std::vector<CrowdSeries> all = crowd.all({{2, 2}});
  const auto ratio = [&] { return paired_ratio(all[1].rates, all[0].rates, Distance::near); };
  const std::uint64_t start = now_ns();
  const auto elapsed_s = [&] { return static_cast<double>(now_ns() - start) / 1e9; };
  for (std::uint64_t round = 0;
       elapsed_s() < 15 || (elapsed_s() < 50 && ratio().n < 4 * near_needed); ++round) {
    crowd.run_round(all, round);
  }
  Verdict verdict;
  verdict.note("64 B shared group, 2P2C / Vyukov ring, both yielding", ratio(), 1.2, true);
  return verdict.exit_code(elapsed_s());
}

int run_crowd(const Options& options) {
  if (options.sizes.size() != 1) {
    std::fprintf(stderr, "shmq-bench: --crowd takes one size\n");
    return 2;
  }
  Crowd crowd{"bench-" + std::to_string(getpid()), options.sizes[0], options.pin};
  if (options.check) return run_crowd_check(crowd);
  std::vector<CrowdSeries> all = crowd.all(crowd_shapes());
  if (options.smoke != 0) {
    for (int turn = 0; turn < 2; ++turn) {
      for (const CrowdSeries& series : all) crowd.run_plain(series, options.smoke);
    }
    std::printf("%zu contenders and shapes; all messages accounted for\n", all.size());
    return 0;
  }
  const std::uint64_t start = now_ns();
  for (std::uint64_t round = 0;; ++round) {
    const double elapsed_s = static_cast<double>(now_ns() - start) / 1e9;
    if (options.rounds != 0 ? round == options.rounds : elapsed_s >= options.seconds) break;
    crowd.run_round(all, round);
  }
  const nlohmann::json document = crowd.report(all);
  if (options.output == "json") {
    std::printf("%s\n", document.dump(2).c_str());
  } else {
    print_crowd_table(document);
  }
  return 0;
}

int run(Options options) {
  if (options.held) {
    return run_held({.name_space = "bench-" + std::to_string(getpid()),
                     .arena_bytes = options.arena_kib << 10,
                     .chunk_bytes = options.chunk_kib << 10,
                     .seconds = options.seconds,
                     .smoke = options.smoke,
                     .output = options.output});
  }
  if (options.durable) {
    return run_durable({.name_space = "bench-" + std::to_string(getpid()),
                        .shmqd = options.shmqd,
                        .directory = options.data_dir,
                        .seconds = options.seconds,
                        .smoke = options.smoke,
                        .output = options.output,
                        .check = options.check});
  }
  if (options.idle != 0) {
    return run_idle({.name_space = "bench-" + std::to_string(getpid()),
                     .shmqd = options.shmqd,
                     .directory = options.data_dir,
                     .queues = options.idle,
                     .seconds = std::min(options.seconds, 60.0),
                     .output = options.output,
                     .check = options.check});
  }
  if (options.crowd) {
    if (options.sizes.empty()) options.sizes = {64};
    return run_crowd(options);
  }
  if (options.sizes.empty()) options.sizes = {8, 64, 256, 1024, 4096, 16384, 65536};
  std::vector<std::size_t> sizes = options.check ? std::vector<std::size_t>{8, 64} : options.sizes;
  Contenders contenders;
  add_shmq(contenders, "bench-" + std::to_string(getpid()));
  add_ring_peers(contenders, sizes);
  if (!options.check) add_system_peers(contenders, sizes);
  add_limits(contenders);
  std::vector<Series> all = choose(contenders, options);
  if (all.empty()) {
    std::fprintf(stderr, "shmq-bench: nothing to run\n");
    return 2;
  }
  Runner runner{contenders, options.smoke == 0};
  if (options.smoke != 0) return run_smoke(runner, all, options.smoke);
  if (options.check) return run_check(runner, contenders);
  const std::uint64_t start = now_ns();
  for (std::uint64_t round = 0;; ++round) {
    const double elapsed_s = static_cast<double>(now_ns() - start) / 1e9;
    if (options.rounds != 0 ? round == options.rounds : elapsed_s >= options.seconds) break;
    runner.run_round(all, round);
  }
  const nlohmann::json document = report(all);
  if (options.output == "json") {
    std::printf("%s\n", document.dump(2).c_str());
  } else {
    print_table(document);
  }
  return 0;
}

}  // namespace
}  // namespace shmq_bench

int main(int argc, char** argv) {
  CLI::App app{"Measures libshmq and its peers between two processes."};
  shmq_bench::Options options;
  app.add_option("--sizes", options.sizes, "payload bytes, 8 to 65536, comma-separated")
      ->delimiter(',')
      ->check(CLI::Range(8, 65536));
  app.add_option("--contenders", options.contenders, "names, comma-separated; default all")
      ->delimiter(',');
  app.add_option("--mode", options.mode, "what to measure")
      ->check(CLI::IsMember({"throughput", "roundtrip", "all"}));
  app.add_option("-o,--output", options.output, "form of the result")
      ->check(CLI::IsMember({"table", "json"}));
  app.add_option("--rounds", options.rounds, "rounds, the first ones for warming up");
  app.add_option("--seconds", options.seconds, "how long, if --rounds is not given");
  app.add_option("--smoke", options.smoke, "carry this many messages each way, measure nothing");
  app.add_flag("--crowd", options.crowd,
               "several producers and consumers on a shared group, beside Vyukov's ring");
  app.add_flag("--pin", options.pin, "with --crowd: producers on CPU 1, consumers on CPU 0");
  app.add_flag("--held", options.held,
               "the rate beside 64 held and 1,000 delayed messages, against that without");
  app.add_option("--arena-kib", options.arena_kib, "with --held: payload memory of the queue");
  app.add_option("--chunk-kib", options.chunk_kib, "with --held: size of a chunk");
  app.add_flag("--durable", options.durable, "what durability costs, with a private daemon");
  app.add_option("--idle", options.idle, "what so many durable queues without traffic cost");
  app.add_option("--shmqd", options.shmqd, "with --durable and --idle: the daemon's program");
  app.add_option("--data-dir", options.data_dir, "with --durable and --idle: the disk");
  app.add_flag("--check", options.check, "the ratio check: exit 1 on a failure, 77 if undecided");
  try {
    app.parse(argc, argv);
  } catch (const CLI::ParseError& error) {
    return app.exit(error) == 0 ? 0 : 2;
  }
  return shmq_bench::run(options);
}
