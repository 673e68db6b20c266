// SPDX-License-Identifier: Apache-2.0
//
// The workers of the shared group `words`, and the sum of what they counted.
//
// Delivery is at least once, so a message may be counted by two of them: the first was killed
// before it acked, or lost its lease. And one killed after its ack has left no more than its notes.
// So each worker notes {seq, words} in a file of its own *before* the ack, and the sum takes each
// seq once. Invariants: what is settled is noted; two notes of one seq say the same.
#include <signal.h>

#include <algorithm>
#include <cstdio>
#include <cstring>
#include <fstream>
#include <limits>
#include <memory>
#include <sstream>
#include <thread>
#include <vector>

#include "common.hpp"

namespace quickstart {
namespace {

using namespace std::chrono_literals;

constexpr std::size_t batch_max = 64;

// A word is what holds a printable character, between white space; other bytes neither begin nor
// end one. So it is in wc, in the C locale.
unsigned words_in(std::string_view text) {
  unsigned words = 0;
  bool inside = false;
  for (const char c : text) {
    if (c == ' ' || (c >= '\t' && c <= '\r')) {
      inside = false;
    } else if (c > ' ' && c <= '~' && !inside) {
      inside = true;
      ++words;
    }
  }
  return words;
}

sigset_t set_of(int signal) {
  sigset_t set;
  sigemptyset(&set);
  sigaddset(&set, signal);
  return set;
}

void await(int signal) {
  const sigset_t set = set_of(signal);
  int ignored = 0;
  sigwait(&set, &ignored);
}

// SIGTERM as a stop token, SIGCONT for await(). Before any other thread.
std::stop_token watch_signals() {
  for (const int signal : {SIGTERM, SIGCONT}) {
    const sigset_t set = set_of(signal);
    pthread_sigmask(SIG_BLOCK, &set, nullptr);
  }
  std::stop_source source;
  std::thread([source]() mutable {
    await(SIGTERM);
    source.request_stop();
  }).detach();
  return source.get_token();
}

struct Notes {
  explicit Notes(const std::string& name) : file(std::fopen(name.c_str(), "we"), &std::fclose) {}
  void handled(const shmq::Delivery& delivery) const {
    double latency_us = 0;
    if (const auto published = delivery.publish_time()) {
      latency_us =
          std::chrono::duration<double, std::micro>(std::chrono::system_clock::now() - *published)
              .count();
    }
    std::fprintf(file.get(), "handled %llu %u %.1f\n",
                 static_cast<unsigned long long>(delivery.seq().value), words_in(delivery.text()),
                 latency_us);
  }
  void answered(const shmq::Delivery& delivery, bool settled) const {
    std::fprintf(file.get(), "%s %llu\n", settled ? "settled" : "refused",
                 static_cast<unsigned long long>(delivery.seq().value));
  }
  [[nodiscard]] bool flush() const { return std::fflush(file.get()) == 0; }

  std::unique_ptr<std::FILE, int (*)(std::FILE*)> file;
};

// Stands still with a batch in hand: handled, noted, not acked.
void stand_still(const std::string& how, const std::string& mark, std::span<shmq::Delivery> batch) {
  std::ofstream{mark}.flush();
  if (how == "until-continued") {
    await(SIGCONT);
    return;
  }
  for (;;) {  // to be killed, and holding on until then
    for (shmq::Delivery& delivery : batch) static_cast<void>(delivery.extend());
    std::this_thread::sleep_for(100ms);
  }
}

}  // namespace

int work_on_words(const std::string& notes_name, const std::string& stall,
                  unsigned long long stall_after) {
  const std::stop_token stop = watch_signals();
  auto queue = open_queue();
  if (!queue) return complain(queue.error());
  auto consumer =
      queue->consumer("words", {.name = "words-worker", .expect_mode = shmq::GroupMode::shared});
  if (!consumer) return complain(consumer.error());
  const Notes notes{notes_name};
  if (notes.file == nullptr) return complain("cannot write " + notes_name);
  unsigned long long handled = 0;
  bool stalls = !stall.empty();
  std::vector<shmq::Delivery> batch(batch_max);
  for (;;) {
    const auto count = consumer->receive_batch(batch, shmq::forever, stop);
    if (!count) {
      if (stop.stop_requested() && count.error() == shmq::Errc::interrupted) break;
      return complain(count.error());
    }
    const std::span got{batch.data(), *count};
    for (const shmq::Delivery& delivery : got) notes.handled(delivery);
    if (!notes.flush()) return complain("cannot write " + notes_name);
    handled += got.size();
    if (stalls && handled > stall_after) {
      stand_still(stall, notes_name + ".stalls", got);
      stalls = false;
    }
    for (shmq::Delivery& delivery : got) {
      // Refused: the lease is lost, and another has the message. That is no error.
      notes.answered(delivery, delivery.ack() == shmq::Settlement::settled);
    }
  }
  batch.clear();
  return notes.flush() ? 0 : complain("cannot write " + notes_name);
}

int sum_of_words(const std::vector<std::string>& notes_names) {
  struct Message {
    unsigned words = 0, handled = 0, settled = 0;
  };
  std::vector<Message> messages;
  std::vector<double> latencies_us;
  unsigned long long words = 0, handled = 0, refused = 0, contradictions = 0;
  const auto message = [&](unsigned long long seq) -> Message& {
    if (seq >= messages.size()) messages.resize(seq + 1);
    return messages[seq];
  };
  for (const std::string& name : notes_names) {
    std::ifstream notes{name};
    if (!notes) return complain("cannot read " + name);
    std::string line, what;
    while (std::getline(notes, line)) {
      std::istringstream fields{line};
      unsigned long long seq = 0;
      if (!(fields >> what >> seq) || seq > (1ULL << 40))
        return complain(name + ": bad line " + line);
      Message& noted = message(seq);
      if (what == "refused") ++refused;
      if (what == "settled" && ++noted.settled == 2) ++contradictions;
      if (what != "handled") continue;
      unsigned count = 0;
      double latency_us = 0;
      if (!(fields >> count >> latency_us)) return complain(name + ": bad line " + line);
      ++handled;
      latencies_us.push_back(latency_us);
      if (noted.handled++ == 0) {
        noted.words = count;
        words += count;
      } else if (noted.words != count) {
        ++contradictions;
      }
    }
  }
  const auto missing = std::count_if(messages.begin(), messages.end(),
                                     [](const Message& noted) { return noted.handled == 0; });
  std::sort(latencies_us.begin(), latencies_us.end());
  const auto at = [&](double share) {
    return latencies_us.empty() ? 0.0
                                : latencies_us[static_cast<std::size_t>(
                                      share * static_cast<double>(latencies_us.size() - 1))];
  };
  std::printf("words %llu\nlatency %.1f %.1f\n", words, at(0.5), at(0.99));
  std::printf("handled %llu\ntwice %llu\nrefused %llu\nmissing %lld\ncontradictions %llu\n",
              handled, handled - messages.size() + static_cast<unsigned long long>(missing),
              refused, static_cast<long long>(missing), contradictions);
  return 0;
}

}  // namespace quickstart
