// SPDX-License-Identifier: Apache-2.0
#include "kill/actors.hpp"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include <cstdlib>
#include <cstring>

namespace shmq::testing {

using namespace std::chrono_literals;

std::uint64_t now_ns() noexcept {
  timespec now{};
  clock_gettime(CLOCK_MONOTONIC, &now);
  return static_cast<std::uint64_t>(now.tv_sec) * 1'000'000'000ULL +
         static_cast<std::uint64_t>(now.tv_nsec);
}

void Log::add(const Event& event) {
  if (count == events_max) _exit(3);
  events[count] = event;
  __atomic_store_n(&count, count + 1, __ATOMIC_RELEASE);
}

namespace {

struct Payload {
  std::uint16_t producer;
  std::uint64_t message;
};

}  // namespace

std::string make_payload(std::uint16_t producer, std::uint64_t message) {
  std::string text(sizeof(Payload) + 16 + (message * 37 + producer) % 1500,
                   static_cast<char>('a' + (message + producer) % 26));
  const Payload head{producer, message};
  std::memcpy(text.data(), &head, sizeof(head));
  return text;
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

std::string group_name(std::uint8_t group) { return "g" + std::to_string(group); }

void produce(const std::string& name_space, Log& log) {
  auto queue = Queue::open("q", {.name_space = name_space});
  auto producer = queue->producer();
  if (!producer) _exit(2);
  const auto number = static_cast<std::uint16_t>(log.number);
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

void consume(const std::string& name_space, Log& log, std::uint8_t group, bool gives_back) {
  auto queue = Queue::open("q", {.name_space = name_space});
  auto consumer = queue->consumer(group_name(group));
  if (!consumer) _exit(2);
  std::vector<Delivery> batch(4);
  while (!log.asked_to_stop()) {
    const std::uint64_t begin_ns = now_ns();
    log.enter();
    const auto count = consumer->receive_batch(batch, 50ms);
    log.leave();
    const std::uint64_t end_ns = now_ns();
    if (!count) _exit(2);
    for (std::size_t i = 0; i < *count; ++i) {
      Event event = event_of(batch[i], group);
      event.begin_ns = begin_ns;
      event.end_ns = end_ns;
      log.add(event);
    }
    __atomic_store_n(&log.holding, *count, __ATOMIC_RELEASE);
    for (std::size_t i = 0; i < *count; ++i) {
      Delivery& delivery = batch[i];
      const std::uint64_t choice = (delivery.seq().value + 7 * delivery.hand_outs()) % 32;
      const bool back = gives_back && choice < 3;
      Event event{.what = back ? What::give_back_begin : What::ack_begin,
                  .group = group,
                  .seq = delivery.seq().value,
                  .token = delivery.fencing_token().number,
                  .begin_ns = now_ns()};
      log.add(event);
      log.enter();
      const Settlement settlement = !back         ? delivery.ack()
                                    : choice == 0 ? delivery.release()
                                    : choice == 1 ? delivery.nack()
                                                  : delivery.nack(20ms);
      log.leave();
      event.end_ns = now_ns();
      event.what = settlement == Settlement::lease_lost ? What::refused
                   : back                               ? What::give_back_end
                                                        : What::ack_end;
      log.add(event);
      __atomic_store_n(&log.holding, *count - i - 1, __ATOMIC_RELEASE);
    }
  }
  batch.clear();
  consumer->close();
  _exit(0);
}

// --- Supervisor --------------------------------------------------------------------------------

Supervisor::Supervisor(std::uint64_t seed) : random_(seed) {
  std::string path = (std::filesystem::temp_directory_path() / "shmq-histories-XXXXXX").string();
  if (mkdtemp(path.data()) == nullptr) throw std::runtime_error{"mkdtemp failed"};
  directory_ = path;
}

Supervisor::~Supervisor() {
  for (Actor& actor : actors_) {
    if (actor.pid > 0) ::kill(actor.pid, SIGKILL), waitpid(actor.pid, nullptr, 0);
  }
  for (Log* log : logs_) munmap(log, sizeof(Log));
  std::error_code ignored;
  if (!directory_.empty()) std::filesystem::remove_all(directory_, ignored);
}

void Supervisor::keep_files() {
  std::printf("the histories are kept in %s\n", directory_.c_str());
  directory_.clear();
}

Log& Supervisor::new_log() {
  const std::string path = directory_ / ("life-" + std::to_string(logs_.size()));
  const int descriptor = open(path.c_str(), O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
  if (descriptor < 0 || ftruncate(descriptor, sizeof(Log)) != 0) {
    throw std::runtime_error{"cannot make " + path};
  }
  void* place = mmap(nullptr, sizeof(Log), PROT_READ | PROT_WRITE, MAP_SHARED, descriptor, 0);
  close(descriptor);
  if (place == MAP_FAILED) throw std::runtime_error{"mmap failed"};
  logs_.push_back(static_cast<Log*>(place));
  logs_.back()->number = logs_.size() - 1;
  return *logs_.back();
}

void Supervisor::add(std::function<void(Log&)> body) {
  actors_.push_back({std::move(body)});
  start(actors_.back());
}

void Supervisor::start(Actor& actor) {
  actor.log = &new_log();
  actor.pid = fork();
  if (actor.pid == 0) {
    // The supervisor goes first, or it would kill no more often than its turn comes.
    (void)setpriority(PRIO_PROCESS, 0, 5);
    actor.body(*actor.log);
    _exit(4);
  }
}

void Supervisor::pause_a_little() {
  // Time is what is random here, not what is waited for.
  const timespec time{0, static_cast<long>(random_() % 6'000'000)};
  clock_nanosleep(CLOCK_MONOTONIC, 0, &time, nullptr);
}

bool Supervisor::kill_one() {
  pause_a_little();
  Actor& actor = actors_[random_() % actors_.size()];
  if (actor.pid == stopped_) stopped_ = -1;
  actor.log->ended_ns = now_ns();
  ::kill(actor.pid, SIGKILL);
  waitpid(actor.pid, nullptr, 0);
  const bool inside = actor.log->is_inside();
  start(actor);
  return inside;
}

void Supervisor::stop_one_for_a_while() {
  Actor& actor = actors_[random_() % actors_.size()];
  if (actor.pid == stopped_) return;
  ::kill(actor.pid, SIGSTOP);
  pause_a_little();
  ::kill(actor.pid, SIGCONT);
}

void Supervisor::let_the_stopped_go() {
  if (stopped_ > 0) ::kill(stopped_, SIGCONT);
  stopped_ = -1;
}

void Supervisor::keep_one_stopped(std::size_t first, std::chrono::nanoseconds time) {
  if (stopped_ > 0) {
    if (now_ns() - stopped_at_ns_ < static_cast<std::uint64_t>(time.count())) return;
    ++long_stops_;
    let_the_stopped_go();
    return;  // it gets a moment to go on
  }
  for (int attempt = 0; attempt < 50; ++attempt) {
    const Actor& actor = actors_[first + random_() % (actors_.size() - first)];
    ::kill(actor.pid, SIGSTOP);
    int status = 0;
    if (waitpid(actor.pid, &status, WUNTRACED) != actor.pid || !WIFSTOPPED(status)) {
      throw std::runtime_error{"a worker ended"};
    }
    stopped_ = actor.pid;
    if (__atomic_load_n(&actor.log->holding, __ATOMIC_ACQUIRE) != 0) break;
    if (attempt != 49) let_the_stopped_go();
  }
  stopped_at_ns_ = now_ns();
}

void Supervisor::end_all() {
  let_the_stopped_go();
  for (Actor& actor : actors_) __atomic_store_n(&actor.log->stop, 1, __ATOMIC_RELEASE);
  for (Actor& actor : actors_) {
    int status = 0;
    waitpid(actor.pid, &status, 0);
    actor.pid = -1;
    EXPECT_TRUE(WIFEXITED(status) && WEXITSTATUS(status) == 0) << "a worker failed";
  }
}

std::vector<History> Supervisor::histories() const {
  std::vector<History> all;
  for (const Log* log : logs_) {
    all.push_back({static_cast<std::uint32_t>(all.size()),
                   {log->events, log->events + log->count},
                   log->ended_ns});
  }
  return all;
}

std::uint64_t campaign_seed() {
  const char* given = std::getenv("SHMQ_SEED");
  const std::uint64_t seed =
      given != nullptr ? std::strtoull(given, nullptr, 10) : std::random_device{}();
  std::printf("SHMQ_SEED=%llu\n", static_cast<unsigned long long>(seed));
  std::fflush(stdout);
  return seed;
}

int by_length(int a, int b) { return std::getenv("SHMQ_LONG") != nullptr ? b : a; }

}  // namespace shmq::testing
