// SPDX-License-Identifier: Apache-2.0
#include "roles.hpp"

#include <fcntl.h>
#include <unistd.h>

#include <algorithm>
#include <bit>
#include <chrono>
#include <cstdio>
#include <cstring>
#include <fstream>
#include <map>
#include <thread>
#include <vector>

#include "common.hpp"

namespace quickstart {
namespace {

using namespace std::chrono_literals;
using namespace shmq::literals;

constexpr std::size_t batch_max = 64;

// Receives in batches and calls `take` for each; acks after `done`. Ends after the last message.
template <typename Take, typename Done>
int consume(const char* group, Take take, Done done) {
  auto queue = open_queue();
  if (!queue) return complain(queue.error());
  auto consumer = queue->consumer(group, {.name = std::string{group} + "-worker"});
  if (!consumer) return complain(consumer.error());
  std::vector<shmq::Delivery> batch(batch_max);
  for (bool ended = false; !ended;) {
    const auto count = consumer->receive_batch(batch);
    if (!count) return complain(count.error());
    for (std::size_t i = 0; i < *count; ++i) ended = take(batch[i]) || ended;
    if (!done()) return 1;
    if (*count != 0 &&
        consumer->ack_through(batch[*count - 1].seq()) != shmq::Settlement::settled) {
      return complain(std::string{group} + ": the lease was lost");  // fenced: another goes on
    }
  }
  batch.clear();
  return 0;
}

bool write_all(int descriptor, const char* bytes, std::size_t count) {
  while (count != 0) {
    const ssize_t written = write(descriptor, bytes, count);
    if (written <= 0) return false;
    bytes += written;
    count -= static_cast<std::size_t>(written);
  }
  return true;
}

}  // namespace

int create(unsigned long long lines, unsigned long long bytes) {
  // Room for all of it, since group `recovered` takes nothing before the end.
  shmq::QueueOptions options{
      .slots = std::bit_ceil(std::max(lines + 2, 4096ULL)),
      .arena_bytes = 64_KiB * ((bytes + bytes / 4 + lines * 64) / 64_KiB + 64),
      .chunk_bytes = 64_KiB,
      .durable = true,
      .groups = {
          {.name = "archive"},
          {.name = "words", .mode = shmq::GroupMode::shared, .lease = 1s, .delivery_limit = 20},
          {.name = "recovered"}}};
  // The daemon has just been started.
  for (int attempt = 0;; ++attempt) {
    auto queue = shmq::Queue::create(queue_name, options);
    if (queue) return 0;
    if (!(queue.error() == shmq::Errc::daemon_away) || attempt == 500) {
      return complain(queue.error());
    }
    std::this_thread::sleep_for(20ms);
  }
}

int publish(const std::string& file, unsigned long long half, const std::string& mark) {
  auto queue = open_queue();
  if (!queue) return complain(queue.error());
  auto producer = queue->producer({.name = "publisher", .publish_time = true});
  if (!producer) return complain(producer.error());
  std::ifstream input{file, std::ios::binary};
  if (!input) return complain("cannot read " + file + ": " + std::strerror(errno));
  std::string line;
  bool newline_at_end = true;
  unsigned long long lines = 0;
  std::chrono::steady_clock::duration paused{};
  const auto start = std::chrono::steady_clock::now();
  while (std::getline(input, line)) {
    if (const auto result = producer->publish(line); !result) {
      return complain("line " + std::to_string(lines + 1) + ", " + std::to_string(line.size()) +
                      " bytes: " + result.error().message());
    }
    newline_at_end = !input.eof();
    if (++lines != half) continue;
    // The daemon is killed here; the second half does without it.
    const auto halted = std::chrono::steady_clock::now();
    std::ofstream{mark + ".half"};
    while (access((mark + ".go-on").c_str(), F_OK) != 0) std::this_thread::sleep_for(1ms);
    paused += std::chrono::steady_clock::now() - halted;
  }
  const shmq::Attribute end[] = {{end_key, newline_at_end ? "newline" : "none"}};
  const auto last = producer->publish("", {.attributes = end});
  if (!last) return complain(last.error());
  const std::chrono::duration<double> taken = std::chrono::steady_clock::now() - start - paused;
  std::printf("rate %.0f\n", static_cast<double>(lines) / taken.count());
  // The daemon may be away at this moment: it comes back, and so does its answer.
  for (int attempt = 0;; ++attempt) {
    auto synced = producer->wait_synced(*last, 30s);
    if (synced) break;
    if (!(synced.error() == shmq::Errc::daemon_away) || attempt == 500) {
      return complain(synced.error());
    }
    std::this_thread::sleep_for(20ms);
  }
  std::printf("synced %llu\n", static_cast<unsigned long long>(last.seq().value + 1));
  return 0;
}

// Exactly once in effect, though delivery is at least once: the rebuilt bytes and the seq that they
// reach stand in the progress file before the ack, and a successor cuts off what lies beyond.
int archive(const std::string& group, const std::string& output, unsigned long long hang_after) {
  const std::string progress_name = output + ".progress";
  std::uint64_t next_seq = 0;
  std::uint64_t bytes = 0;
  int descriptor = -1;
  std::string pending;
  // Opened at the first message: until then a predecessor may be at work.
  const auto begin = [&] {
    if (descriptor >= 0) return true;
    if (std::FILE* progress = std::fopen(progress_name.c_str(), "re")) {
      unsigned long long seq = 0;
      unsigned long long length = 0;
      if (std::fscanf(progress, "%llu %llu", &seq, &length) == 2) {
        next_seq = seq;
        bytes = length;
      }
      std::fclose(progress);
    }
    descriptor = open(output.c_str(), O_WRONLY | O_CREAT | O_CLOEXEC, 0600);
    return descriptor >= 0 && ftruncate(descriptor, static_cast<off_t>(bytes)) == 0 &&
           lseek(descriptor, static_cast<off_t>(bytes), SEEK_SET) >= 0;
  };
  bool failed = false;
  const auto take = [&](const shmq::Delivery& delivery) {
    if (!begin()) {
      failed = true;
      return true;
    }
    bool newline_at_end = true;
    const bool end = is_end(delivery, newline_at_end);
    if (delivery.seq().value < next_seq) return end;  // written by the predecessor
    const bool first_line = delivery.seq().value == 0;
    // A line's newline is written with its successor, since only that tells whether it had one.
    if (!first_line && (!end || newline_at_end)) pending += '\n';
    if (!end) pending += delivery.text();
    next_seq = delivery.seq().value + 1;
    return end;
  };
  const auto done = [&] {
    if (failed || !write_all(descriptor, pending.data(), pending.size())) return false;
    if (next_seq > hang_after) {
      // To be killed here: written, neither noted nor acked.
      std::ofstream{output + ".hangs"};
      for (;;) pause();
    }
    bytes += pending.size();
    pending.clear();
    const std::string next_name = progress_name + ".next";
    std::FILE* progress = std::fopen(next_name.c_str(), "we");
    if (progress == nullptr) return false;
    std::fprintf(progress, "%llu %llu\n", static_cast<unsigned long long>(next_seq),
                 static_cast<unsigned long long>(bytes));
    std::fclose(progress);
    return std::rename(next_name.c_str(), progress_name.c_str()) == 0;
  };
  const int code = consume(group.c_str(), take, done);
  if (descriptor >= 0) close(descriptor);
  return code;
}

int index() {
  // A group of a durable queue is made once the daemon has it on disk; it is just coming back.
  for (int attempt = 0;; ++attempt) {
    auto queue = open_queue();
    if (!queue) return complain(queue.error());
    auto made = queue->create_group({.name = "index"});
    if (made || made.error() == shmq::Errc::already_exists) break;
    if (!(made.error() == shmq::Errc::daemon_away) || attempt == 500) {
      return complain(made.error());
    }
    std::this_thread::sleep_for(20ms);
  }
  std::map<std::string, unsigned long long> fields;
  unsigned long long lines = 0;
  const int code = consume(
      "index",
      [&](const shmq::Delivery& delivery) {
        bool ignored = false;
        if (is_end(delivery, ignored)) return true;
        ++lines;
        const auto colon = delivery.text().find(": ");
        if (colon != std::string_view::npos && colon < 40) {
          ++fields[std::string{delivery.text().substr(0, colon)}];
        }
        return false;
      },
      [] { return true; });
  if (code != 0) return code;
  std::printf("index %llu %zu\n", lines, fields.size());
  return 0;
}

int wait_until_open() {
  for (int attempt = 0;; ++attempt) {
    auto queue = open_queue();
    if (queue) return 0;
    const bool may_come =
        queue.error() == shmq::Errc::daemon_away || queue.error() == shmq::Errc::no_such_queue;
    if (!may_come || attempt == 1500) return complain(queue.error());
    std::this_thread::sleep_for(20ms);
  }
}

int remove() {
  auto removed = shmq::Queue::remove(queue_name);
  return removed ? 0 : complain(removed.error());
}

}  // namespace quickstart
