// SPDX-License-Identifier: Apache-2.0
#include "durable.hpp"

#include <fcntl.h>
#include <sys/uio.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <cstdlib>
#include <filesystem>
#include <nlohmann/json.hpp>
#include <optional>
#include <shmq/shmq.hpp>
#include <thread>

#include "contender.hpp"
#include "private_daemon.hpp"
#include "redis_peer.hpp"
#include "runner.hpp"

namespace shmq_bench {
namespace {

using namespace std::chrono_literals;
using Steady = std::chrono::steady_clock;

constexpr std::size_t message_bytes = 256;
constexpr std::size_t batch = 64;
constexpr int crowd = 16;
constexpr std::uint64_t slots = 1U << 20;

double us_since(Steady::time_point start) {
  return std::chrono::duration<double, std::micro>(Steady::now() - start).count();
}

double median(std::vector<double> values) { return summarise(std::move(values)).median; }

shmq::Queue make_queue(const DurableOptions& options, const std::string& name, bool durable,
                       const PrivateDaemon& daemon) {
  shmq::QueueOptions create;
  create.name_space = options.name_space;
  create.slots = slots;
  create.arena_bytes = 512ULL << 20;
  create.durable = durable;
  return make_queue(daemon, name, create);
}

template <typename T>
T need(shmq::Result<T> result, const char* what) {
  if (!result) fail(std::string{what} + ": " + result.error().message());
  return std::move(*result);
}

class Bench {
 public:
  Bench(const DurableOptions& options, const std::string& directory, const PrivateDaemon& daemon)
      : durable_(make_queue(options, "durable", true, daemon)),
        transient_(make_queue(options, "transient", false, daemon)),
        producer_(need(durable_.producer(), "producer")),
        consumer_(need(durable_.consumer("default"), "consumer")),
        transient_producer_(need(transient_.producer(), "producer")),
        transient_consumer_(need(transient_.consumer("default"), "consumer")) {
    file_ =
        open((directory + "/overwritten").c_str(), O_CREAT | O_RDWR | O_DIRECT | O_CLOEXEC, 0600);
    if (file_ < 0) fail("cannot make a file with O_DIRECT in " + directory);
    block_ = static_cast<std::byte*>(std::aligned_alloc(4096, 1U << 20));
    std::memset(block_, 1, 1U << 20);
    for (int i = 0; i < 4; ++i) {
      if (pwrite(file_, block_, 1U << 20, static_cast<off_t>(i) << 20) < 0) fail("cannot write");
    }
    fsync(file_);
  }
  Bench(const Bench&) = delete;
  Bench& operator=(const Bench&) = delete;
  ~Bench() {
    close(file_);
    std::free(block_);
  }

  double overwrite_us(int count) {
    std::vector<double> values;
    for (int i = 0; i < count; ++i) {
      const auto start = Steady::now();
      iovec piece{block_, 4096};
      if (pwritev2(file_, &piece, 1, static_cast<off_t>(i % 1024) * 4096, RWF_DSYNC) != 4096) {
        fail("overwrite failed");
      }
      values.push_back(us_since(start));
    }
    return median(std::move(values));
  }

  double one_sleeping_us(int count) {
    std::vector<double> values;
    for (int i = 0; i < count; ++i) {
      const auto start = Steady::now();
      publish_synced(producer_);
      values.push_back(us_since(start));
    }
    drain();
    return median(std::move(values));
  }

  double one_spinning_us(int count) {
    std::vector<double> values;
    for (int i = 0; i < count; ++i) {
      const auto start = Steady::now();
      const auto seq = producer_.publish(payload(), {.durability = shmq::Durability::flushed});
      if (!seq) fail("publish: " + seq.error().message());
      while (producer_.synced_end() <= *seq) __builtin_ia32_pause();
      values.push_back(us_since(start));
    }
    drain();
    return median(std::move(values));
  }

  /// Million messages a second, from the first publish until the last one is synced.
  double pipelined(std::uint64_t count) {
    const auto start = Steady::now();
    publish_all(producer_, count);
    const double taken = us_since(start);
    drain();
    return static_cast<double>(count) / taken;
  }

  /// The same with a consumer at work, until its last ack is synced, too.
  double end_to_end(std::uint64_t count) {
    const auto start = Steady::now();
    std::thread publisher{[&] { publish_all(producer_, count); }};
    consume(consumer_, count);
    if (auto waited = consumer_.wait_acks_synced(20s); !waited) {
      fail("wait_acks_synced: " + waited.error().message());
    }
    const double taken = us_since(start);
    publisher.join();
    return static_cast<double>(count) / taken;
  }

  /// Messages a second of 16 producers with one outstanding each.
  double crowd_rate(std::chrono::milliseconds time) {
    std::atomic<bool> stop{false};
    std::atomic<std::uint64_t> total{0};
    std::vector<std::thread> threads;
    const auto start = Steady::now();
    for (int i = 0; i < crowd; ++i) {
      threads.emplace_back([&] {
        auto producer = need(durable_.producer(), "producer");
        std::uint64_t count = 0;
        for (; !stop.load(); ++count) publish_synced(producer);
        total += count;
      });
    }
    std::this_thread::sleep_for(time);
    stop = true;
    for (std::thread& thread : threads) thread.join();
    const double taken = us_since(start);
    drain();
    return static_cast<double>(total.load()) / taken * 1e6;
  }

  /// Mean time of a publish call at `rate` a second, in ns, while a consumer keeps up.
  double call_ns(bool durable, double rate, std::uint64_t count) {
    shmq::Producer& producer = durable ? producer_ : transient_producer_;
    shmq::Consumer& consumer = durable ? consumer_ : transient_consumer_;
    std::thread other{[&] { consume(consumer, count); }};
    double calls_us = 0;
    const auto start = Steady::now();
    for (std::uint64_t done = 0; done < count; done += batch) {
      const auto due = start + std::chrono::duration_cast<Steady::duration>(
                                   std::chrono::duration<double>(static_cast<double>(done) / rate));
      while (Steady::now() < due) __builtin_ia32_pause();
      const auto begin = Steady::now();
      for (std::size_t i = 0; i < batch; ++i) {
        if (!producer.publish(payload())) fail("publish failed");
      }
      calls_us += us_since(begin);
    }
    other.join();
    return calls_us * 1e3 / static_cast<double>(count);
  }

 private:
  [[nodiscard]] std::span<const std::byte> payload() const { return {block_, message_bytes}; }

  void publish_synced(shmq::Producer& producer) const {
    const auto seq =
        producer.publish(payload(), {.durability = shmq::Durability::synced, .timeout = 20s});
    if (!seq) fail("publish: " + seq.error().message());
  }

  void publish_all(shmq::Producer& producer, std::uint64_t count) const {
    std::vector<std::span<const std::byte>> payloads(batch, payload());
    shmq::Seq last{};
    for (std::uint64_t done = 0; done < count; done += batch) {
      const auto result = producer.publish_batch(payloads);
      if (result.code != shmq::Errc::ok) fail("publish_batch failed");
      last = result.last;
    }
    if (auto waited = producer.wait_synced(last, 20s); !waited) {
      fail("wait_synced: " + waited.error().message());
    }
  }

  static void consume(shmq::Consumer& consumer, std::uint64_t count) {
    std::vector<shmq::Delivery> deliveries(batch);
    for (std::uint64_t done = 0; done < count;) {
      const auto got = consumer.receive_batch(deliveries, 20s);
      if (!got || *got == 0) fail("receive_batch: nothing came");
      if (consumer.ack_through(deliveries[*got - 1].seq()) != shmq::Settlement::settled) {
        fail("ack_through: lease lost");
      }
      done += *got;
    }
  }

  void drain() {
    std::vector<shmq::Delivery> deliveries(batch);
    for (;;) {
      const auto got = consumer_.receive_batch(deliveries, 0ns);
      if (!got || *got == 0) return;
      static_cast<void>(consumer_.ack_through(deliveries[*got - 1].seq()));
    }
  }

  shmq::Queue durable_, transient_;
  shmq::Producer producer_;
  shmq::Consumer consumer_;
  shmq::Producer transient_producer_;
  shmq::Consumer transient_consumer_;
  int file_ = -1;
  std::byte* block_ = nullptr;
};

struct Figure {
  const char* name;
  const char* unit;
  std::vector<double> values{};
};

struct Figures {
  Figure overwrite{"bare synced overwrite of 4 KiB, p50", "us"};
  Figure sleeping{"one outstanding, 256 B, waiter sleeps, p50", "us"};
  Figure spinning{"one outstanding, 256 B, waiter spins, p50", "us"};
  Figure pipelined{"pipelined, 256 B", "M/s"};
  Figure end_to_end{"publish, consume, synced ack, 256 B", "M/s"};
  Figure crowd_rate{"16 producers with one outstanding each", "1/s"};
  Figure durable_call{"memory publish on a durable queue at half the disk's rate", "ns"};
  Figure transient_call{"memory publish on a transient queue at that rate", "ns"};
  Figure redis{"Redis Streams, appendfsync always, pipelined, 256 B", "M/s"};

  [[nodiscard]] std::vector<const Figure*> all() const {
    return {&overwrite,  &sleeping,     &spinning,       &pipelined, &end_to_end,
            &crowd_rate, &durable_call, &transient_call, &redis};
  }
};

void run_round(Bench& bench, RedisPeer& redis, Figures& figures) {
  figures.overwrite.values.push_back(bench.overwrite_us(200));
  figures.sleeping.values.push_back(bench.one_sleeping_us(200));
  figures.spinning.values.push_back(bench.one_spinning_us(200));
  figures.pipelined.values.push_back(bench.pipelined(batch * 6000));
  figures.end_to_end.values.push_back(bench.end_to_end(batch * 6000));
  figures.crowd_rate.values.push_back(bench.crowd_rate(300ms));
  const double half = median(figures.pipelined.values) * 1e6 / 2;
  figures.durable_call.values.push_back(bench.call_ns(true, half, batch * 4000));
  figures.transient_call.values.push_back(bench.call_ns(false, half, batch * 4000));
  if (redis.is_there()) {
    constexpr std::uint64_t count = 20000;
    const auto start = Steady::now();
    redis.add(count, message_bytes);
    figures.redis.values.push_back(static_cast<double>(count) / us_since(start));
    redis.forget();
  }
}

struct Bound {
  const char* text;
  double value;
  double bound;
  bool at_least;
  [[nodiscard]] bool holds() const { return at_least ? value >= bound : value <= bound; }
};

std::vector<Bound> bounds_of(const Figures& f) {
  const double bare = median(f.overwrite.values);
  std::vector<Bound> bounds{
      {"one outstanding, sleeping / bare overwrite", median(f.sleeping.values) / bare, 1.5, false},
      {"one outstanding, spinning / bare overwrite", median(f.spinning.values) / bare, 1.25, false},
      {"pipelined, million/s", median(f.pipelined.values), 1.5, true},
      {"end to end, million/s", median(f.end_to_end.values), 0.7, true},
      {"16 producers, in units of 1 / bare overwrite", median(f.crowd_rate.values) * bare / 1e6, 8,
       true},
      {"memory publish, durable / transient",
       median(f.durable_call.values) / median(f.transient_call.values), 1.3, false}};
  if (!f.redis.values.empty()) {
    bounds.push_back({"pipelined / Redis Streams",
                      median(f.pipelined.values) / median(f.redis.values), 10, true});
  }
  return bounds;
}

void print(const Figures& figures, const DurableOptions& options) {
  nlohmann::json document{{"schema_version", 1}, {"figures", nlohmann::json::array()}};
  for (const Figure* figure : figures.all()) {
    if (figure->values.empty()) continue;
    const Summary summary = summarise(figure->values);
    document["figures"].push_back({{"name", figure->name},
                                   {"unit", figure->unit},
                                   {"median", summary.median},
                                   {"min", summary.min},
                                   {"max", summary.max},
                                   {"n", summary.n}});
  }
  for (const Bound& bound : bounds_of(figures)) {
    document["ratios"].push_back({{"name", bound.text},
                                  {"value", bound.value},
                                  {"wanted", bound.bound},
                                  {"at_least", bound.at_least}});
  }
  if (options.output == "json") {
    std::printf("%s\n", document.dump(2).c_str());
    return;
  }
  std::printf("%-58s %10s %10s %10s %4s unit\n", "what", "median", "min", "max", "n");
  for (const auto& figure : document["figures"]) {
    std::printf("%-58s %10.2f %10.2f %10.2f %4d %s\n", figure["name"].get<std::string>().c_str(),
                figure["median"].get<double>(), figure["min"].get<double>(),
                figure["max"].get<double>(), figure["n"].get<int>(),
                figure["unit"].get<std::string>().c_str());
  }
  for (const Bound& bound : bounds_of(figures)) {
    std::printf("%-58s %10.2f   wanted %s %g%s\n", bound.text, bound.value,
                bound.at_least ? "at least" : "at most", bound.bound,
                bound.holds() ? "" : "   MISSED");
  }
}

}  // namespace

int run_durable(const DurableOptions& options) {
  std::string directory = options.directory + "/shmq-bench.XXXXXX";
  if (mkdtemp(directory.data()) == nullptr) fail("cannot make a directory in " + options.directory);
  setenv("SHMQ_NAMESPACE", options.name_space.c_str(), 1);
  int code = 0;
  {
    RedisPeer redis{directory};
    PrivateDaemon daemon{options.shmqd, options.name_space, directory};
    {
      Bench bench{options, directory, daemon};
      if (options.smoke != 0) {
        const std::uint64_t count = (options.smoke + batch - 1) / batch * batch;
        bench.pipelined(count);
        bench.end_to_end(count);
        bench.one_sleeping_us(3);
        bench.one_spinning_us(3);
        bench.call_ns(true, 1e6, count);
        std::printf("%llu messages synced, consumed and acked\n",
                    static_cast<unsigned long long>(3 * count));
      } else {
        Figures figures;
        Figures warm_up;
        run_round(bench, redis, warm_up);
        const auto start = Steady::now();
        do {
          run_round(bench, redis, figures);
        } while (us_since(start) < options.seconds * 1e6);
        print(figures, options);
        for (const Bound& bound : bounds_of(figures)) {
          if (options.check && !bound.holds()) code = 1;
        }
      }
    }
    for (const char* name : {"durable", "transient"}) {
      static_cast<void>(shmq::Queue::remove(name, {.name_space = options.name_space}));
    }
  }
  std::error_code ignored;
  std::filesystem::remove_all(directory, ignored);
  return code;
}

}  // namespace shmq_bench
