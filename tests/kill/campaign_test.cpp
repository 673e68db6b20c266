// SPDX-License-Identifier: Apache-2.0
//
// KILL: two producers and two groups (each with a stand-by) under random SIGKILL and SIGSTOP. Every
// process writes down what it begins and what it has done; the checker reads it when all is over.
#include <gtest/gtest.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include <cstring>
#include <functional>
#include <map>
#include <random>

#include "kill/checker.hpp"
#include "support/small_queue.hpp"

namespace {

using namespace shmq;
using namespace shmq::testing;
using namespace std::chrono_literals;

constexpr std::size_t events_max = 1 << 20;
constexpr const char* group_names[] = {"g0", "g1"};

// The history of one process, in memory that outlives it. An event counts once `count` covers it;
// `inside` tells whether an operation was going on.
struct Log {
  std::uint64_t count;
  std::uint64_t inside;
  std::uint64_t stop;  // set by the supervisor: end well
  Event events[events_max];

  void add(const Event& event) {
    if (count == events_max) _exit(3);
    events[count] = event;
    __atomic_store_n(&count, count + 1, __ATOMIC_RELEASE);
  }
  void enter() { __atomic_store_n(&inside, 1, __ATOMIC_RELEASE); }
  void leave() { __atomic_store_n(&inside, 0, __ATOMIC_RELEASE); }
  [[nodiscard]] bool asked_to_stop() const { return __atomic_load_n(&stop, __ATOMIC_ACQUIRE) != 0; }
};

Log* make_log() {
  void* place = mmap(nullptr, sizeof(Log), PROT_READ | PROT_WRITE,
                     MAP_SHARED | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (place == MAP_FAILED) throw std::runtime_error{"mmap failed"};
  return static_cast<Log*>(place);
}

struct Payload {
  std::uint16_t producer;
  std::uint64_t message;
};

std::string make_payload(std::uint16_t producer, std::uint64_t message) {
  std::string text(sizeof(Payload) + 16 + (message * 37 + producer) % 1500,
                   static_cast<char>('a' + (message + producer) % 26));
  const Payload head{producer, message};
  std::memcpy(text.data(), &head, sizeof(head));
  return text;
}

void produce(const std::string& name_space, Log& log, std::uint16_t number) {
  auto queue = Queue::open("q", {.name_space = name_space});
  auto producer = queue->producer();
  if (!producer) _exit(2);
  for (std::uint64_t i = 0; !log.asked_to_stop(); ++i) {
    const std::string payload = make_payload(number, i);
    log.add({.what = What::publish_begin, .producer = number, .message = i});
    log.enter();
    PublishResult result = Errc::full;
    while (!result && !log.asked_to_stop()) result = producer->publish(payload, {.timeout = 50ms});
    log.leave();
    if (result) {
      log.add(
          {.what = What::publish_end, .producer = number, .message = i, .seq = result.seq().value});
    }
  }
  producer->close();
  _exit(0);
}

Event event_of(const Delivery& delivery, std::uint8_t group) {
  Event event{.what = What::receive,
              .group = group,
              .hand_outs = delivery.hand_outs(),
              .seq = delivery.seq().value,
              .token = delivery.fencing_token().number};
  Payload head{};
  if (delivery.payload().size() < sizeof(head)) {
    event.damaged = 1;
    return event;
  }
  std::memcpy(&head, delivery.payload().data(), sizeof(head));
  event.producer = head.producer;
  event.message = head.message;
  event.damaged = delivery.text() != make_payload(head.producer, head.message) ? 1 : 0;
  return event;
}

void consume(const std::string& name_space, Log& log, std::uint8_t group) {
  auto queue = Queue::open("q", {.name_space = name_space});
  auto consumer = queue->consumer(group_names[group]);
  if (!consumer) _exit(2);
  std::vector<Delivery> batch(4);
  while (!log.asked_to_stop()) {
    log.enter();
    const auto count = consumer->receive_batch(batch, 50ms);
    log.leave();
    if (!count) _exit(2);
    for (std::size_t i = 0; i < *count; ++i) log.add(event_of(batch[i], group));
    for (std::size_t i = 0; i < *count; ++i) {
      Event event{.what = What::ack_begin,
                  .group = group,
                  .seq = batch[i].seq().value,
                  .token = batch[i].fencing_token().number};
      log.add(event);
      log.enter();
      const Settlement settlement = batch[i].ack();
      log.leave();
      if (settlement == Settlement::settled) {
        event.what = What::ack_end;
        log.add(event);
      }
    }
  }
  batch.clear();
  consumer->close();
  _exit(0);
}

struct Actor {
  std::function<void(Log&)> body;
  pid_t pid = -1;
  Log* log = nullptr;
};

class Supervisor {
 public:
  explicit Supervisor(std::uint64_t seed) : random_(seed) {}
  ~Supervisor() {
    for (Actor& actor : actors_) {
      if (actor.pid > 0) ::kill(actor.pid, SIGKILL), waitpid(actor.pid, nullptr, 0);
    }
  }

  void add(std::function<void(Log&)> body) {
    actors_.push_back({std::move(body)});
    start(actors_.back());
  }
  // Kills one at a random moment; true if it was inside an operation.
  bool kill_one() {
    pause_a_little();
    Actor& actor = actors_[random_() % actors_.size()];
    ::kill(actor.pid, SIGKILL);
    waitpid(actor.pid, nullptr, 0);
    const bool inside = __atomic_load_n(&actor.log->inside, __ATOMIC_ACQUIRE) != 0;
    start(actor);
    return inside;
  }
  void stop_one_for_a_while() {
    Actor& actor = actors_[random_() % actors_.size()];
    ::kill(actor.pid, SIGSTOP);
    pause_a_little();
    ::kill(actor.pid, SIGCONT);
  }
  void end_all() {
    for (Actor& actor : actors_) __atomic_store_n(&actor.log->stop, 1, __ATOMIC_RELEASE);
    for (Actor& actor : actors_) {
      int status = 0;
      waitpid(actor.pid, &status, 0);
      actor.pid = -1;
      EXPECT_TRUE(WIFEXITED(status) && WEXITSTATUS(status) == 0) << "a worker failed";
    }
  }
  [[nodiscard]] std::vector<History> histories() const {
    std::vector<History> all;
    for (const Log* log : logs_) {
      all.push_back(
          {static_cast<std::uint32_t>(all.size()), {log->events, log->events + log->count}});
    }
    return all;
  }
  [[nodiscard]] Log& new_log() {
    logs_.push_back(make_log());
    return *logs_.back();
  }

 private:
  void start(Actor& actor) {
    actor.log = &new_log();
    actor.pid = fork();
    if (actor.pid == 0) actor.body(*actor.log);
  }
  void pause_a_little() {
    // Time is what is random here, not what is waited for.
    const timespec time{0, static_cast<long>(random_() % 6'000'000)};
    clock_nanosleep(CLOCK_MONOTONIC, 0, &time, nullptr);
  }

  std::mt19937_64 random_;
  std::vector<Actor> actors_;
  std::vector<Log*> logs_;
};

TEST(Kill, nothing_is_lost_nothing_comes_twice_whoever_dies) {
  const char* given = std::getenv("SHMQ_SEED");
  const std::uint64_t seed =
      given != nullptr ? std::strtoull(given, nullptr, 10) : std::random_device{}();
  const int kills_wanted = std::getenv("SHMQ_LONG") != nullptr ? 20000 : 300;
  std::printf("SHMQ_SEED=%llu\n", static_cast<unsigned long long>(seed));
  QueueOptions options = SmallQueue::options(Overflow::block, {{.name = "g0"}, {.name = "g1"}});
  options.slots = 64;
  options.max_participants = 32;
  options.arena_bytes = 64 * 4096;
  SmallQueue small{options};
  const std::string& name_space = small.scratch.name_space;

  int inside = 0;
  std::vector<History> histories;
  {
    Supervisor supervisor{seed};
    // Each life of a producer is a producer of its own to the checker, named by its pid.
    for (int i = 0; i < 2; ++i) {
      supervisor.add([&name_space](Log& log) {
        produce(name_space, log, static_cast<std::uint16_t>(getpid() & 0xffff));
      });
    }
    for (std::uint8_t group = 0; group < 2; ++group) {
      for (int i = 0; i < 2; ++i) {
        supervisor.add([&name_space, group](Log& log) { consume(name_space, log, group); });
      }
    }
    for (int kill = 0; kill < kills_wanted; ++kill) {
      if (kill % 3 == 0) supervisor.stop_one_for_a_while();
      inside += supervisor.kill_one() ? 1 : 0;
    }
    supervisor.end_all();
    // What is left is consumed here, and written down as well.
    ASSERT_TRUE(small.queue->reclaim());
    Log& rest = supervisor.new_log();
    for (std::uint8_t group = 0; group < 2; ++group) {
      auto consumer = small.consumer(group_names[group]);
      while (small.group(group_names[group]).floor < small.queue->stats().tail) {
        auto delivery = consumer.receive(10s);
        ASSERT_TRUE(delivery && !delivery->empty());
        Event event = event_of(*delivery, group);
        rest.add(event);
        ASSERT_EQ(delivery->ack(), Settlement::settled);
        event.what = What::ack_end;
        rest.add(event);
      }
    }
    histories = supervisor.histories();
  }
  const Verdict verdict = check_histories(histories, 2, small.queue->stats().tail.value);
  for (const std::string& broken : verdict.broken) ADD_FAILURE() << broken;
  std::printf(
      "%d kills, %d inside an operation; %llu published, %llu deliveries, %llu again, %llu "
      "checks\n",
      kills_wanted, inside, static_cast<unsigned long long>(verdict.published),
      static_cast<unsigned long long>(verdict.deliveries),
      static_cast<unsigned long long>(verdict.redeliveries),
      static_cast<unsigned long long>(verdict.checks));
  EXPECT_GE(inside * 10, kills_wanted * 3) << "too few kills hit inside an operation";
  EXPECT_GT(verdict.published, 1000U);
  EXPECT_GT(verdict.redeliveries, 0U);
  EXPECT_TRUE(small.queue->participants().empty());
  EXPECT_EQ(small.queue->stats().chunks_open, 0U);
}

}  // namespace
