// SPDX-License-Identifier: Apache-2.0
#include "held.hpp"

#include <semaphore.h>
#include <unistd.h>

#include <nlohmann/json.hpp>
#include <optional>
#include <shmq/shmq.hpp>

#include "children.hpp"
#include "runner.hpp"

namespace shmq_bench {
namespace {

using namespace std::chrono_literals;

constexpr std::size_t held_count = 64, held_bytes = 256;
constexpr std::size_t nacked_count = 1000;
constexpr std::size_t stream_bytes = 64, stream_batch = 32;
constexpr std::uint64_t slow_mark = 1ULL << 63;  // in the first word of what is not in the stream
constexpr std::size_t enough = 5, enough_of_any = 50;

shmq::Queue open_queue(const HeldOptions& options, const std::string& name) {
  shmq::OpenOptions open;
  open.name_space = options.name_space;
  auto queue = shmq::Queue::open(name, open);
  if (!queue) fail(queue.error().message());
  return std::move(*queue);
}

void create_queue(const HeldOptions& options, const std::string& name) {
  note_shmq_queue(options.name_space, name);
  shmq::QueueOptions create;
  create.name_space = options.name_space;
  create.slots = 1024;
  create.arena_bytes = options.arena_bytes;
  create.chunk_bytes = options.chunk_bytes;
  create.groups = {{.name = "default", .mode = shmq::GroupMode::shared, .lease = 1s}};
  if (auto queue = shmq::Queue::create(name, create); !queue) fail(queue.error().message());
}

/// The stream of one queue, from the child to the parent.
class Stream final : public Contender {
 public:
  Stream(const std::string& name, const HeldOptions& options)
      : Contender(name), options_(options), buffer_(std::make_unique<Buffer>()) {
    create_queue(options, name);
  }
  [[nodiscard]] bool supports(Mode mode, std::size_t) const override {
    return mode == Mode::throughput;
  }
  void send_all(std::uint64_t count, std::size_t bytes) override {
    if (!producer_) {
      auto opened = open_queue(options_, name()).producer();
      if (!opened) fail(opened.error().message());
      producer_.emplace(std::move(*opened));
    }
    std::byte* payload = buffer_->bytes.data();
    for (std::uint64_t i = 0; i < count; ++i) {
      stamp(payload, bytes, i);
      if (const auto result = producer_->publish({payload, bytes}); !result) {
        fail("publish: " + result.error().message());
      }
    }
  }
  void receive_all(std::uint64_t count, std::size_t bytes) override {
    if (!consumer_) {
      auto opened = open_queue(options_, name()).consumer("default");
      if (!opened) fail(opened.error().message());
      consumer_.emplace(std::move(*opened));
    }
    for (std::uint64_t i = 0; i < count;) {
      const auto got = consumer_->receive_batch(deliveries_, 20s);
      if (!got) fail("receive_batch: " + got.error().message());
      if (*got == 0) fail("receive_batch: nothing came in 20 s");
      for (std::size_t k = 0; k < *got; ++k) {
        const auto view = deliveries_[k].payload();
        copy_payload(buffer_->bytes.data(), view.data(), view.size());
        std::uint64_t first = 0;
        std::memcpy(&first, view.data(), 8);
        if ((first & slow_mark) == 0) {
          check(buffer_->bytes.data(), bytes, i++);
          ++passed_;
        } else {
          ++slow_;  // the lease of one that is held has ended: it is ours now
        }
        if (deliveries_[k].ack() != shmq::Settlement::settled) fail("ack: lease lost");
      }
    }
    for (shmq::Delivery& delivery : deliveries_) delivery = shmq::Delivery{};
  }
  void ping(std::uint64_t, std::size_t) override {}
  void pong(std::uint64_t, std::size_t) override {}

  [[nodiscard]] std::uint64_t passed() const noexcept { return passed_; }
  [[nodiscard]] std::uint64_t slow() const noexcept { return slow_; }

 private:
  const HeldOptions& options_;
  std::unique_ptr<Buffer> buffer_;
  std::optional<shmq::Producer> producer_;
  std::optional<shmq::Consumer> consumer_;
  std::array<shmq::Delivery, stream_batch> deliveries_;
  std::uint64_t passed_ = 0, slow_ = 0;
};

/// The process that holds messages and does nothing else.
class Holder {
 public:
  struct Shared {
    sem_t ready, check, done;
    std::uint32_t changed, differ;
  };
  Holder(const HeldOptions& options, const std::string& queue, Shared& shared)
      : options_(options), shared_(shared), queue_(open_queue(options, queue)) {}

  [[noreturn]] void run() {
    auto producer = queue_.producer();
    auto consumer = queue_.consumer("default");
    if (!producer || !consumer) fail("the holder cannot attach");
    producer_.emplace(std::move(*producer));
    consumer_.emplace(std::move(*consumer));
    hold();
    nack();
    producer_->close();
    sem_post(&shared_.ready);
    while (sem_wait(&shared_.check) != 0) {
    }
    shared_.changed = 0;
    for (std::size_t i = 0; i < held_count; ++i) {
      const auto view = held_[i].payload();
      const auto expected = pattern(i);
      if (view.size() != held_bytes || std::memcmp(view.data(), expected.data(), held_bytes) != 0) {
        ++shared_.changed;
      }
    }
    // Each in a chunk of its own, or this would have shown nothing.
    shared_.differ = distinct_chunks();
    sem_post(&shared_.done);
    while (sem_wait(&shared_.check) != 0) {
    }
    _exit(0);
  }

 private:
  static std::array<std::byte, held_bytes> pattern(std::size_t index) {
    std::array<std::byte, held_bytes> bytes;
    for (std::size_t i = 0; i < held_bytes; ++i) {
      bytes[i] = static_cast<std::byte>(index * 31 + i * 7 + 1);
    }
    const std::uint64_t first = slow_mark | index;
    std::memcpy(bytes.data(), &first, 8);
    return bytes;
  }
  [[nodiscard]] std::uint32_t distinct_chunks() const {
    std::vector<std::uintptr_t> chunks;
    for (const shmq::Delivery& delivery : held_) {
      chunks.push_back(reinterpret_cast<std::uintptr_t>(delivery.payload().data()) /
                       options_.chunk_bytes);
    }
    std::sort(chunks.begin(), chunks.end());
    return static_cast<std::uint32_t>(std::unique(chunks.begin(), chunks.end()) - chunks.begin());
  }
  shmq::Delivery pass(std::span<const std::byte> payload) {
    if (const auto result = producer_->publish(payload); !result) {
      fail("the holder cannot publish: " + result.error().message());
    }
    // What it holds comes back to it when a lease ends; to its next look, not to this one.
    for (;;) {
      auto delivery = consumer_->receive(1s);
      if (!delivery || delivery->empty()) fail("the holder got nothing");
      if (delivery->hand_outs() == 1) return std::move(*delivery);
      if (delivery->release() != shmq::Settlement::settled) fail("release: lease lost");
    }
  }
  void fill(std::size_t bytes) {
    if (pass({filler_.bytes.data(), bytes}).ack() != shmq::Settlement::settled) {
      fail("ack: lease lost");
    }
  }
  void hold() {
    for (std::size_t i = 0; i < held_count; ++i) {
      const auto bytes = pattern(i);
      held_[i] = pass(bytes);
      for (std::size_t filled = 0; filled < options_.chunk_bytes;) {
        const std::size_t now = std::min<std::size_t>(options_.chunk_bytes / 4, payload_max_bytes);
        fill(now);
        filled += now;
      }
    }
  }
  void nack() {
    std::array<std::byte, stream_bytes> payload{};
    for (std::size_t i = 0; i < nacked_count; ++i) {
      const std::uint64_t first = slow_mark | (1000 + i);
      std::memcpy(payload.data(), &first, 8);
      if (pass(payload).nack(60s) != shmq::Settlement::settled) fail("nack: lease lost");
      fill(std::min<std::size_t>(options_.chunk_bytes / 2, 4096));
    }
  }

  const HeldOptions& options_;
  Shared& shared_;
  shmq::Queue queue_;
  std::optional<shmq::Producer> producer_;
  std::optional<shmq::Consumer> consumer_;
  std::array<shmq::Delivery, held_count> held_;
  Buffer filler_;
};

void wait_for(sem_t& semaphore) {
  while (sem_wait(&semaphore) != 0) {
  }
}

}  // namespace

int run_held(const HeldOptions& options) {
  constexpr double bound = 0.9;
  auto& shared = *reinterpret_cast<Holder::Shared*>(map_shared(sizeof(Holder::Shared)));
  for (sem_t* each : {&shared.ready, &shared.check, &shared.done}) sem_init(each, 1, 0);
  Contenders contenders;
  auto* const with = new Stream("held-with", options);
  contenders.emplace_back(with);
  contenders.push_back(std::make_unique<Stream>("held-without", options));
  add_limits(contenders);
  if (fork_child()) std::make_unique<Holder>(options, "held-with", shared)->run();
  watch_children();
  limit_run(hung_after_s);
  wait_for(shared.ready);
  limit_run(0);
  int code = 0;
  {
    Runner runner{contenders, options.smoke == 0};
    std::vector<Series> all{
        {.contender = contenders[0].get(), .mode = Mode::throughput, .bytes = stream_bytes},
        {.contender = contenders[1].get(), .mode = Mode::throughput, .bytes = stream_bytes}};
    if (options.smoke != 0) {
      for (Series& series : all) runner.run_plain(series, options.smoke);
    }
    const std::uint64_t start = now_ns();
    const auto elapsed_s = [&] { return static_cast<double>(now_ns() - start) / 1e9; };
    for (std::uint64_t round = 0; options.smoke == 0 && elapsed_s() < options.seconds; ++round) {
      runner.run_round(all, round);
    }
    sem_post(&shared.check);
    wait_for(shared.done);
    let_children_end();
    sem_post(&shared.check);
    nlohmann::json document{{"schema_version", 1},
                            {"arena_bytes", options.arena_bytes},
                            {"chunk_bytes", options.chunk_bytes},
                            {"passed", with->passed()},
                            {"handed_out_again", with->slow()},
                            {"held_chunks", shared.differ},
                            {"held_changed", shared.changed},
                            {"results", nlohmann::json::array()}};
    bool decided = false;
    const auto note = [&](const char* name, const std::vector<Sample>& left,
                          const std::vector<Sample>& right, Distance distance, std::size_t needed) {
      const Summary ratio = paired_ratio(left, right, distance);
      if (ratio.n == 0) return;
      if (ratio.n >= needed) {
        decided = true;
        if (ratio.median < bound) code = 1;
      }
      document["results"].push_back({{"class", name},
                                     {"with_m_per_s", summarise(left, distance).median},
                                     {"without_m_per_s", summarise(right, distance).median},
                                     {"ratio", ratio.median},
                                     {"min", ratio.min},
                                     {"max", ratio.max},
                                     {"n", ratio.n}});
    };
    note("near", all[0].samples, all[1].samples, Distance::near, enough);
    note("far", all[0].samples, all[1].samples, Distance::far, enough);
    note("any", of_any_class(all[0].samples), of_any_class(all[1].samples), Distance::mixed,
         enough_of_any);
    if (!decided && options.smoke == 0) code = 77;
    if (shared.changed != 0 || shared.differ != held_count) code = 1;
    if (options.output == "json") {
      std::printf("%s\n", document.dump(2).c_str());
    } else {
      std::printf(
          "arena %llu KiB, chunks of %u KiB: %llu messages passed, %llu handed out again; %u held "
          "in %u chunks, %u changed\n",
          static_cast<unsigned long long>(options.arena_bytes >> 10), options.chunk_bytes >> 10,
          static_cast<unsigned long long>(with->passed()),
          static_cast<unsigned long long>(with->slow()), static_cast<unsigned>(held_count),
          shared.differ, shared.changed);
      for (const auto& row : document["results"]) {
        std::printf(
            "%-5s with %8.2f M/s, without %8.2f M/s, with/without %.3f (%.3f to %.3f, n = %zu)\n",
            row["class"].get<std::string>().c_str(), row["with_m_per_s"].get<double>(),
            row["without_m_per_s"].get<double>(), row["ratio"].get<double>(),
            row["min"].get<double>(), row["max"].get<double>(), row["n"].get<std::size_t>());
      }
    }
  }
  remove_shmq_queues();
  return code;
}

}  // namespace shmq_bench
