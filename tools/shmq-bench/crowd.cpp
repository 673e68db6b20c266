// SPDX-License-Identifier: Apache-2.0
#include "crowd.hpp"

#include <sched.h>
#include <semaphore.h>
#include <sys/resource.h>
#include <unistd.h>

#include <optional>
#include <shmq/shmq.hpp>

#include "children.hpp"
#include "vyukov_ring.hpp"

namespace shmq_bench {
namespace {

constexpr std::uint32_t producers_max = 2, consumers_max = 2;
constexpr std::uint32_t workers = producers_max + consumers_max;
constexpr std::uint64_t messages_max = 16U << 20;  // of one run
constexpr std::size_t small_batch = 32;
constexpr std::uint64_t end_mark = ~std::uint64_t{0};

std::uint64_t own_cpu_ns() {
  rusage usage{};
  getrusage(RUSAGE_SELF, &usage);
  const auto ns = [](const timeval& time) {
    return (static_cast<std::uint64_t>(time.tv_sec) * 1'000'000 +
            static_cast<std::uint64_t>(time.tv_usec)) *
           1000;
  };
  return ns(usage.ru_utime) + ns(usage.ru_stime);
}

}  // namespace

// What one run needs to know. A message is its number: producer * count + index.
struct CrowdRun {
  std::uint32_t producers, consumers;
  std::uint64_t count;  // per producer
  std::size_t bytes;
  std::uint32_t number;              // of this producer or consumer
  std::atomic<std::uint32_t>* left;  // producers that are not done
  std::atomic<std::uint32_t>* ended;
  std::uint64_t* seen;  // one bit a message: what this consumer got
  std::uint64_t got = 0;
  std::uint64_t next[producers_max] = {};  // at least this index must come from each producer

  /// False: it was the end mark.
  bool note(const std::byte* payload) {
    std::uint64_t message = 0;
    std::memcpy(&message, payload, 8);
    check(payload, bytes, message);
    if (message == end_mark) return false;
    const std::uint64_t producer = message / count;
    if (producer >= producers || message - producer * count < next[producer]) {
      fail("message " + std::to_string(message) + " came twice, out of order, or never was");
    }
    next[producer] = message - producer * count + 1;
    seen[message / 64] |= 1ULL << (message % 64);
    ++got;
    return true;
  }
  void note_end() const { ended->store(1, std::memory_order_release); }
  /// Nothing was there: is the run over? The mark is the last message, so all others were taken.
  [[nodiscard]] bool is_over() const {
    if (ended->load(std::memory_order_acquire) != 0) return true;
    sched_yield();
    return false;
  }
};

class CrowdPeer {
 public:
  explicit CrowdPeer(std::string name) : name_(std::move(name)) {}
  CrowdPeer(const CrowdPeer&) = delete;
  CrowdPeer& operator=(const CrowdPeer&) = delete;
  virtual ~CrowdPeer() = default;
  [[nodiscard]] const std::string& name() const noexcept { return name_; }
  /// Opens what the process needs.
  virtual void prepare(bool producer) = 0;
  virtual void produce(CrowdRun& run) = 0;
  virtual void consume(CrowdRun& run) = 0;

 protected:
  template <typename TrySend>
  void produce_by(CrowdRun& run, TrySend try_send) {
    std::byte* payload = buffer_->bytes.data();
    const auto send = [&](std::uint64_t message) {
      stamp(payload, run.bytes, message);
      while (!try_send(payload, run.bytes)) sched_yield();
    };
    const std::uint64_t first = run.number * run.count;
    for (std::uint64_t i = 0; i < run.count; ++i) send(first + i);
    // acq_rel: who sends the mark sends it after the messages of all.
    if (run.left->fetch_sub(1, std::memory_order_acq_rel) == 1) send(end_mark);
  }
  std::byte* buffer() noexcept { return buffer_->bytes.data(); }

 private:
  std::string name_;
  std::unique_ptr<Buffer> buffer_ = std::make_unique<Buffer>();
};

namespace {

class VyukovPeer final : public CrowdPeer {
 public:
  explicit VyukovPeer(std::size_t bytes) : CrowdPeer("vyukov"), ring_(bytes, Mode::throughput) {}
  void prepare(bool) override {}
  void produce(CrowdRun& run) override {
    produce_by(run, [&](const std::byte* payload, std::size_t bytes) {
      return ring_.try_send(payload, bytes);
    });
  }
  void consume(CrowdRun& run) override {
    for (;;) {
      if (!ring_.try_receive(buffer(), run.bytes)) {
        if (run.is_over()) return;
      } else if (!run.note(buffer())) {
        return run.note_end();
      }
    }
  }

 private:
  VyukovRing<NoBackoff> ring_;
};

class SharedPeer final : public CrowdPeer {
 public:
  SharedPeer(const std::string& name, const std::string& name_space, std::size_t batch)
      : CrowdPeer(name), queue_name_("crowd-" + name), name_space_(name_space), batch_(batch) {
    note_shmq_queue(name_space, queue_name_);
    shmq::QueueOptions options;
    options.name_space = name_space;
    // Full at once, so that the producer waits as the ring's does.
    options.overflow = shmq::Overflow::fail;
    options.groups = {{.name = "default", .mode = shmq::GroupMode::shared}};
    if (auto queue = shmq::Queue::create(queue_name_, options); !queue) {
      fail(queue.error().message());
    }
  }
  ~SharedPeer() override { remove_shmq_queues(); }

  void prepare(bool producer) override {
    if (producer_ || consumer_) return;
    shmq::OpenOptions options;
    options.name_space = name_space_;
    auto queue = shmq::Queue::open(queue_name_, options);
    if (!queue) fail(queue.error().message());
    if (producer) {
      auto opened = queue->producer();
      if (!opened) fail(opened.error().message());
      producer_.emplace(std::move(*opened));
    } else {
      auto opened = queue->consumer("default");
      if (!opened) fail(opened.error().message());
      consumer_.emplace(std::move(*opened));
    }
  }
  void produce(CrowdRun& run) override {
    shmq::Producer& producer = *producer_;
    produce_by(run, [&](const std::byte* payload, std::size_t bytes) {
      const auto result = producer.publish({payload, bytes});
      if (!result && result.code() != shmq::Errc::full) {
        fail("publish: " + result.error().message());
      }
      return result.has_value();
    });
  }
  void consume(CrowdRun& run) override {
    const std::span<shmq::Delivery> deliveries = std::span{deliveries_}.first(batch_);
    for (bool ended = false; !ended;) {
      const auto got = consumer_->receive_batch(deliveries, std::chrono::nanoseconds::zero());
      if (!got) fail("receive: " + got.error().message());
      if (*got == 0) {
        if (run.is_over()) break;
        continue;
      }
      for (std::size_t i = 0; i < *got; ++i) {
        const auto view = deliveries[i].payload();
        if (view.size() != run.bytes) fail("wrong length");
        copy_payload(buffer(), view.data(), view.size());
        ended = !run.note(buffer());
        if (batch_ == 1 && deliveries[i].ack() != shmq::Settlement::settled) {
          fail("ack: lease lost");
        }
      }
      if (batch_ != 1 &&
          consumer_->ack_through(deliveries[*got - 1].seq()) != shmq::Settlement::settled) {
        fail("ack_through: lease lost");
      }
      if (ended) run.note_end();
    }
    for (shmq::Delivery& delivery : deliveries) delivery = shmq::Delivery{};
  }

 private:
  std::string queue_name_;
  std::string name_space_;
  std::size_t batch_;
  std::optional<shmq::Producer> producer_;
  std::optional<shmq::Consumer> consumer_;
  std::array<shmq::Delivery, small_batch> deliveries_;
};

enum class Task : std::uint32_t { end, ping, pong, produce, consume };

}  // namespace

struct Crowd::Shared {
  struct alignas(128) Worker {
    sem_t start;
    Task task;
    std::uint32_t number;
    std::uint64_t began_ns, end_ns, cpu_ns, got;
  };
  Worker worker[workers];
  sem_t done;
  std::uint32_t peer, producers, consumers;
  std::uint64_t count;
  alignas(128) std::atomic<std::uint32_t> waiting;
  alignas(128) std::atomic<std::uint32_t> left;
  alignas(128) std::atomic<std::uint32_t> ended;
  alignas(4096) std::uint64_t seen[consumers_max][messages_max / 64];
};

Crowd::Crowd(const std::string& name_space, std::size_t bytes, bool pin)
    : bytes_(bytes), pin_(pin), shared_(reinterpret_cast<Shared*>(map_shared(sizeof(Shared)))) {
  peers_.push_back(std::make_unique<VyukovPeer>(bytes));
  peers_.push_back(std::make_unique<SharedPeer>("shmq-shared", name_space, 1));
  peers_.push_back(std::make_unique<SharedPeer>("shmq-shared-32", name_space, small_batch));
  sem_init(&shared_->done, 1, 0);
  for (auto& worker : shared_->worker) sem_init(&worker.start, 1, 0);
  for (std::uint32_t i = 0; i < workers; ++i) {
    if (fork_child()) worker_loop(i);
  }
  watch_children();
}

Crowd::~Crowd() {
  let_children_end();
  for (auto& worker : shared_->worker) {
    worker.task = Task::end;
    sem_post(&worker.start);
  }
  await_children();
}

void Crowd::worker_loop(std::uint32_t number) {
  Shared::Worker& self = shared_->worker[number];
  const bool producer = number < producers_max;
  for (;;) {
    while (sem_wait(&self.start) != 0) {
    }
    if (self.task == Task::end) _exit(0);
    const bool probing = self.task == Task::ping || self.task == Task::pong;
    if (probing || pin_) {
      pin_to(producer ? 1 : 0);
    } else {
      unpin();
    }
    CrowdRun run{.producers = shared_->producers,
                 .consumers = shared_->consumers,
                 .count = shared_->count,
                 .bytes = bytes_,
                 .number = self.number,
                 .left = &shared_->left,
                 .ended = &shared_->ended,
                 .seen = producer ? nullptr : shared_->seen[self.number]};
    CrowdPeer& peer = *peers_[shared_->peer];
    if (!probing) peer.prepare(producer);
    shared_->waiting.fetch_sub(1, std::memory_order_acq_rel);
    while (shared_->waiting.load(std::memory_order_acquire) != 0) sched_yield();
    const std::uint64_t cpu = own_cpu_ns();
    const std::uint64_t began = now_ns();
    switch (self.task) {
      case Task::ping: ping_pong_.ping(probe_round_trips, 8); break;
      case Task::pong: ping_pong_.pong(probe_round_trips, 8); break;
      case Task::produce: peer.produce(run); break;
      case Task::consume: peer.consume(run); break;
      case Task::end: break;
    }
    self.end_ns = now_ns();
    self.began_ns = began;
    self.cpu_ns = own_cpu_ns() - cpu;
    self.got = run.got;
    sem_post(&shared_->done);
  }
}

void Crowd::start(const std::vector<std::uint32_t>& chosen) {
  limit_run(hung_after_s);
  shared_->waiting.store(static_cast<std::uint32_t>(chosen.size()), std::memory_order_release);
  for (const std::uint32_t worker : chosen) sem_post(&shared_->worker[worker].start);
  for (std::size_t i = 0; i < chosen.size(); ++i) {
    while (sem_wait(&shared_->done) != 0) {
    }
  }
  limit_run(0);
}

double Crowd::probe() {
  Shared::Worker& ping = shared_->worker[producers_max];
  ping.task = Task::ping;
  shared_->worker[0].task = Task::pong;
  start({0, producers_max});
  return static_cast<double>(ping.end_ns - ping.began_ns) / static_cast<double>(probe_round_trips);
}

Crowd::Outcome Crowd::run(const CrowdSeries& series, std::uint64_t count) {
  shared_->peer = series.peer;
  shared_->producers = series.shape.producers;
  shared_->consumers = series.shape.consumers;
  shared_->count = count;
  shared_->left.store(series.shape.producers, std::memory_order_relaxed);
  shared_->ended.store(0, std::memory_order_relaxed);
  std::vector<std::uint32_t> chosen;
  const auto choose = [&](std::uint32_t first, std::uint32_t how_many, Task task) {
    for (std::uint32_t i = 0; i < how_many; ++i) {
      shared_->worker[first + i].task = task;
      shared_->worker[first + i].number = i;
      chosen.push_back(first + i);
    }
  };
  choose(0, series.shape.producers, Task::produce);
  choose(producers_max, series.shape.consumers, Task::consume);
  start(chosen);
  account(series, count);
  std::uint64_t began = ~std::uint64_t{0}, first_end = began, last_end = 0, cpu = 0;
  for (const std::uint32_t each : chosen) {
    const Shared::Worker& worker = shared_->worker[each];
    began = std::min(began, worker.began_ns);
    first_end = std::min(first_end, worker.end_ns);
    last_end = std::max(last_end, worker.end_ns);
    cpu += worker.cpu_ns;
  }
  // Nobody sleeps, so until the first one ends two CPUs are busy with this run alone.
  const auto available = static_cast<double>(2 * (first_end - began));
  return {static_cast<double>(last_end - began), static_cast<double>(cpu),
          static_cast<double>(cpu) > 0.9 * available};
}

// Whole, and nothing twice.
void Crowd::account(const CrowdSeries& series, std::uint64_t count) {
  const std::uint64_t messages = series.shape.producers * count;
  std::uint64_t got = 0;
  for (std::uint32_t c = 0; c < series.shape.consumers; ++c) {
    got += shared_->worker[producers_max + c].got;
  }
  for (std::uint64_t word = 0; word * 64 < messages; ++word) {
    std::uint64_t all = 0;
    for (std::uint32_t c = 0; c < series.shape.consumers; ++c) {
      std::uint64_t& seen = shared_->seen[c][word];
      if ((all & seen) != 0) fail("a message came to two consumers");
      all |= seen;
      seen = 0;
    }
    const std::uint64_t rest = messages - word * 64;
    if (all != (rest >= 64 ? ~std::uint64_t{0} : (1ULL << rest) - 1)) fail("a message is missing");
  }
  if (got != messages) {
    fail(std::to_string(got) + " messages came of " + std::to_string(messages));
  }
}

std::vector<CrowdSeries> Crowd::all(const std::vector<Shape>& shapes) const {
  std::vector<CrowdSeries> all;
  for (const Shape& shape : shapes) {
    for (std::uint32_t peer = 0; peer < peers_.size(); ++peer) {
      all.push_back({.peer = peer, .shape = shape});
    }
  }
  return all;
}

const std::string& Crowd::peer_name(std::uint32_t peer) const { return peers_[peer]->name(); }

void Crowd::run_plain(const CrowdSeries& series, std::uint64_t count) {
  run(series, std::min(count, messages_max / series.shape.producers));
}

void Crowd::run_round(std::vector<CrowdSeries>& all, std::uint64_t round) {
  constexpr double wanted_ns = 40e6;
  double before = probe();
  for (CrowdSeries& series : all) {
    const Outcome outcome = run(series, series.count);
    const double after = probe();
    const double messages = static_cast<double>(series.count * series.shape.producers);
    const double each_ns = outcome.elapsed_ns / messages;
    if (series.warm) {
      const Distance distance = outcome.undisturbed ? classify(before, after) : Distance::mixed;
      series.rates.push_back({round, distance, 1e3 / each_ns});
      series.cpu_ns.push_back({round, distance, outcome.cpu_ns / messages});
    }
    series.warm = outcome.elapsed_ns > wanted_ns / 4;
    const double next = std::min(wanted_ns / each_ns / series.shape.producers,
                                 static_cast<double>(series.count) * 8);
    series.count = std::clamp<std::uint64_t>(static_cast<std::uint64_t>(next), 1000,
                                             messages_max / series.shape.producers);
    before = after;
  }
}

nlohmann::json Crowd::report(const std::vector<CrowdSeries>& all) const {
  nlohmann::json rows = nlohmann::json::array();
  for (const CrowdSeries& series : all) {
    for (const Distance distance : {Distance::near, Distance::far, Distance::mixed}) {
      const auto of_class = [&](const std::vector<Sample>& samples) {
        return distance == Distance::mixed ? of_any_class(samples) : samples;
      };
      const Summary rate = summarise(of_class(series.rates), distance);
      if (rate.n == 0) continue;
      nlohmann::json row{
          {"contender", peer_name(series.peer)},
          {"mode", "crowd"},
          {"shape", series.shape.name()},
          {"payload_bytes", bytes_},
          {"class", distance == Distance::near  ? "near"
                    : distance == Distance::far ? "far"
                                                : "any"},
          {"unit", "M/s"},
          {"median", rate.median},
          {"min", rate.min},
          {"max", rate.max},
          {"n", rate.n},
          {"cpu_ns_per_message", summarise(of_class(series.cpu_ns), distance).median}};
      for (const CrowdSeries& peer : all) {
        if (peer.peer != 0 || series.peer == 0 || peer.shape.name() != series.shape.name()) {
          continue;
        }
        const Summary ratio = paired_ratio(of_class(series.rates), of_class(peer.rates), distance);
        if (ratio.n != 0) row["vyukov_ratio"] = {{"median", ratio.median}, {"n", ratio.n}};
      }
      rows.push_back(std::move(row));
    }
  }
  return {{"schema_version", 1}, {"results", rows}};
}

const std::vector<Shape>& crowd_shapes() {
  static const std::vector<Shape> shapes{{1, 1}, {2, 1}, {1, 2}, {2, 2}};
  return shapes;
}

void print_crowd_table(const nlohmann::json& document) {
  std::printf("%-15s %-5s %7s %-5s %10s %10s %10s %5s %-4s %10s  %s\n", "contender", "shape",
              "bytes", "class", "median", "min", "max", "n", "unit", "CPU ns/msg",
              "this/vyukov (n)");
  for (const auto& row : document["results"]) {
    std::printf("%-15s %-5s %7zu %-5s %10.2f %10.2f %10.2f %5zu %-4s %10.1f",
                row["contender"].get<std::string>().c_str(),
                row["shape"].get<std::string>().c_str(), row["payload_bytes"].get<std::size_t>(),
                row["class"].get<std::string>().c_str(), row["median"].get<double>(),
                row["min"].get<double>(), row["max"].get<double>(), row["n"].get<std::size_t>(),
                row["unit"].get<std::string>().c_str(), row["cpu_ns_per_message"].get<double>());
    if (row.contains("vyukov_ratio")) {
      std::printf("  %.2f (%zu)", row["vyukov_ratio"]["median"].get<double>(),
                  row["vyukov_ratio"]["n"].get<std::size_t>());
    }
    std::printf("\n");
  }
}

}  // namespace shmq_bench
