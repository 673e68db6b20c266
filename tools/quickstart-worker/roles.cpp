// SPDX-License-Identifier: Apache-2.0
#include "roles.hpp"

#include <fcntl.h>
#include <unistd.h>

#include <chrono>
#include <cstdio>
#include <cstring>
#include <fstream>
#include <map>
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

int create() {
  // Small enough that the producer waits for its consumers: the flow is real.
  auto queue = shmq::Queue::create(
      queue_name,
      {.slots = 4096,
       .arena_bytes = 4_MiB,
       .chunk_bytes = 64_KiB,
       .groups = {
           {.name = "archive"},
           {.name = "words", .mode = shmq::GroupMode::shared, .lease = 1s, .delivery_limit = 20}}});
  return queue ? 0 : complain(queue.error());
}

int publish(const std::string& file) {
  auto queue = open_queue();
  if (!queue) return complain(queue.error());
  auto producer = queue->producer({.name = "publisher", .publish_time = true});
  if (!producer) return complain(producer.error());
  std::ifstream input{file, std::ios::binary};
  if (!input) return complain("cannot read " + file + ": " + std::strerror(errno));
  std::string line;
  bool newline_at_end = true;
  unsigned long long lines = 0;
  const auto start = std::chrono::steady_clock::now();
  while (std::getline(input, line)) {
    if (const auto result = producer->publish(line); !result) {
      return complain("line " + std::to_string(lines + 1) + ", " + std::to_string(line.size()) +
                      " bytes: " + result.error().message());
    }
    newline_at_end = !input.eof();
    ++lines;
  }
  const shmq::Attribute end[] = {{end_key, newline_at_end ? "newline" : "none"}};
  if (const auto result = producer->publish("", {.attributes = end}); !result) {
    return complain(result.error());
  }
  const std::chrono::duration<double> taken = std::chrono::steady_clock::now() - start;
  std::printf("rate %.0f\n", static_cast<double>(lines) / taken.count());
  return 0;
}

// Exactly once in effect, though delivery is at least once: the rebuilt bytes and the seq that they
// reach stand in the progress file before the ack, and a successor cuts off what lies beyond.
int archive(const std::string& output, unsigned long long hang_after) {
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
  const int code = consume("archive", take, done);
  if (descriptor >= 0) close(descriptor);
  return code;
}

int index() {
  {
    auto queue = open_queue();
    if (!queue) return complain(queue.error());
    if (auto made = queue->create_group({.name = "index"}); !made) return complain(made.error());
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

int remove() {
  auto removed = shmq::Queue::remove(queue_name);
  return removed ? 0 : complain(removed.error());
}

}  // namespace quickstart
