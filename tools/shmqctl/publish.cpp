// SPDX-License-Identifier: Apache-2.0
//
// shmqctl publish: one message from the command line or a file, or a stream of them from stdin.
//
// The stream is published as it arrives: what one read(2) gave goes out before the next one, in
// batches, so that a slow writer's lines are not delayed and a fast one's cost little.
#include <fcntl.h>
#include <poll.h>
#include <unistd.h>

#include <array>
#include <chrono>
#include <cmath>
#include <deque>
#include <memory>

#include "context.hpp"
#include "failure.hpp"
#include "output.hpp"
#include "splitter.hpp"
#include "units.hpp"

namespace shmqctl {
namespace {

using Payload = std::span<const std::byte>;
constexpr std::size_t batch_messages = 64;
constexpr std::size_t pending_max = 65536;

struct PublishArguments {
  std::string queue;
  std::optional<std::string> message;
  std::optional<std::string> file;
  bool nul = false;
  bool frame = false;
  shmq::Durability durability = shmq::Durability::memory;
  bool print_seq = false;
  bool publish_time = false;
  std::chrono::nanoseconds timeout = shmq::forever;
  std::vector<std::pair<std::string, std::string>> attributes;
  double rate = 0;  ///< messages a second; 0: as fast as it goes
};

/// Reads from `fd` what is there; 0 at the end. A stop request is a Failure.
std::size_t read_some(int fd, std::span<char> room, const StopSignals& stop,
                      const std::string& what) {
  for (;;) {
    std::array<pollfd, 2> items{{{fd, POLLIN, 0}, {stop.fd(), POLLIN, 0}}};
    if (::poll(items.data(), items.size(), -1) < 0 && errno != EINTR) {
      throw failure_of_errno(errno, what);
    }
    if (stop.signal() != 0) throw Failure{stop.exit_code(), what, "", ""};
    if (items[0].revents == 0) continue;
    const ssize_t got = ::read(fd, room.data(), room.size());
    if (got >= 0) return static_cast<std::size_t>(got);
    if (errno != EINTR && errno != EAGAIN) throw failure_of_errno(errno, what);
  }
}

class Publisher {
 public:
  Publisher(const Context& context, const PublishArguments& arguments)
      : context_(context),
        arguments_(arguments),
        queue_(open_queue(context, arguments.queue, shmq::Access::participant)),
        producer_(take(
            queue_.producer({.name = "shmqctl publish", .publish_time = arguments.publish_time}),
            "publish to queue '" + arguments.queue + "'")),
        max_message_bytes_(queue_.info().max_message_bytes) {
    for (const auto& [key, value] : arguments.attributes) attributes_.push_back({key, value});
    options_.timeout = arguments.timeout;
    // Many are on their way to stable storage at once; each is waited for before its seq is
    // printed.
    options_.durability = waits_ ? shmq::Durability::flushed : arguments.durability;
    options_.attributes = attributes_;
    options_.stop = stop_.token();
  }

  int run() {
    try {
      if (arguments_.message) {
        publish_one(
            std::as_bytes(std::span{arguments_.message->data(), arguments_.message->size()}));
      } else if (arguments_.file) {
        publish_file(*arguments_.file);
      } else {
        publish_stream(STDIN_FILENO);
      }
    } catch (Failure& failure) {
      tell_unconfirmed(failure);
      throw;
    }
    await_all();
    flush_seqs();
    if (context_.json && !arguments_.print_seq) {
      Json fields{{"queue", arguments_.queue}, {"published", published_}};
      if (published_ > 0) fields["last_seq"] = last_.value;
      print_json(fields);
    }
    return exit_ok;
  }

 private:
  void publish_file(const std::string& path) {
    const std::string what = "read '" + path + "'";
    const int fd = path == "-" ? STDIN_FILENO : ::open(path.c_str(), O_RDONLY | O_CLOEXEC);
    if (fd < 0) throw failure_of_errno(errno, what);
    std::vector<char> bytes(1U << 16U);
    std::size_t filled = 0;
    for (;;) {
      const std::size_t got = read_some(fd, std::span{bytes}.subspan(filled), stop_, what);
      if (got == 0) break;
      filled += got;
      if (filled > max_message_bytes_) refuse_large();
      if (filled == bytes.size()) bytes.resize(bytes.size() * 2);
    }
    if (fd != STDIN_FILENO) ::close(fd);
    publish_one(std::as_bytes(std::span{bytes}.first(filled)));
  }

  void publish_stream(int fd) {
    Framing framing = Framing::newline;
    if (arguments_.nul) framing = Framing::nul;
    if (arguments_.frame) framing = Framing::length;
    Splitter splitter(framing, max_message_bytes_);
    const bool singly = arguments_.print_seq || arguments_.rate > 0;
    std::array<Payload, batch_messages> batch;
    std::size_t count = 0;
    for (;;) {
      const Splitter::Next next = splitter.next(batch.at(count));
      if (next == Splitter::Next::message) ++count;
      const bool message = next == Splitter::Next::message;
      if (count > 0 && (!message || singly || count == batch.size())) {
        publish_all(std::span{batch}.first(count));
        count = 0;
      }
      if (message) continue;
      if (next == Splitter::Next::end) return;
      if (next == Splitter::Next::too_large) refuse_large();
      if (next == Splitter::Next::truncated) {
        throw Failure{exit_error, attempt(), "the input ends in the middle of a frame",
                      "a frame is a 4-byte little-endian length and as many bytes"};
      }
      if (waits_) await_until_readable(fd);
      flush_seqs();
      const std::span<char> room = splitter.room();
      const std::size_t got = read_some(fd, room, stop_, "read from stdin");
      if (got == 0) {
        splitter.ended();
      } else {
        splitter.added(got);
      }
    }
  }

  void publish_all(std::span<const Payload> payloads) {
    if (arguments_.print_seq || arguments_.rate > 0) {
      for (const Payload payload : payloads) publish_one(payload);
      return;
    }
    const auto result = producer_.publish_batch(payloads, options_);
    if (result.published > 0) note_published(result.last, result.published);
    if (result.code != shmq::Errc::ok) refuse(result.code);
  }

  void publish_one(Payload payload) {
    pace();
    const shmq::PublishResult result = producer_.publish(payload, options_);
    if (!result) refuse(result.code());
    note_published(result.seq(), 1);
    if (!arguments_.print_seq) return;
    if (waits_) {
      pending_.push_back(last_);
      if (pending_.size() >= pending_max) await(pending_.front());
      take_confirmed();
    } else {
      add_seq(last_);
    }
    if (seqs_.size() > 4096 || arguments_.rate > 0) flush_seqs();
  }

  void note_published(shmq::Seq last, std::uint64_t count) {
    // Others' may lie between those of a batch, so that the first of one may be lower.
    if (published_ == 0) first_seq_ = last.value + 1 - count;
    published_ += count;
    last_ = last;
  }

  void add_seq(shmq::Seq seq) {
    if (context_.json) {
      seqs_ += Json{{"schema_version", json_schema_version}, {"seq", seq.value}}.dump() + "\n";
    } else {
      seqs_ += std::to_string(seq.value) + "\n";
    }
  }

  // --- what shall be on stable storage ---------------------------------------------------------

  /// Their seqs may be printed now.
  void take_confirmed() {
    const shmq::Seq end = producer_.synced_end();
    while (!pending_.empty() && pending_.front() < end) {
      add_seq(pending_.front());
      pending_.pop_front();
    }
  }

  void await(shmq::Seq seq) {
    const auto done = producer_.wait_synced(seq, arguments_.timeout, stop_.token());
    take_confirmed();
    if (done) return;
    flush_seqs();
    Failure failure = failure_of(done.error(), "publish to queue '" + arguments_.queue + "'");
    if (const std::string told = unconfirmed(); !told.empty())
      failure.why = told + ": " + failure.why;
    failure.remedy = "they are in the queue: wait with shmqctl sync " + arguments_.queue;
    if (stop_.signal() != 0) failure.exit_code = stop_.exit_code();
    is_told_ = true;
    throw failure;
  }

  /// "seqs 3 to 7 published, but not confirmed to be on stable storage"; "": all are.
  [[nodiscard]] std::string unconfirmed() const {
    std::uint64_t first = std::max(first_seq_, producer_.synced_end().value);
    if (arguments_.print_seq) first = pending_.empty() ? last_.value + 1 : pending_.front().value;
    if (first > last_.value) return {};
    return (first == last_.value ? "seq " : "seqs " + std::to_string(first) + " to ") +
           std::to_string(last_.value) + " published, but not confirmed to be on stable storage";
  }

  /// Something else went wrong, and messages are still on their way: they are waited for, and those
  /// that cannot be confirmed are told as well, since they are in the queue.
  void tell_unconfirmed(Failure& failure) {
    if (!waits_ || published_ == 0 || is_told_) return;
    static_cast<void>(producer_.wait_synced(last_, arguments_.timeout, stop_.token()));
    take_confirmed();
    const std::string told = unconfirmed();
    try {
      flush_seqs();
    } catch (const Failure&) {
      // stdout may be what went wrong; the first failure counts.
    }
    if (told.empty()) return;
    if (failure.why.empty()) failure.what = "publish to queue '" + arguments_.queue + "'";
    failure.why += (failure.why.empty() ? "" : "; ") + told;
    failure.remedy += std::string{failure.remedy.empty() ? "" : "; "} +
                      "what is not confirmed is in the queue: wait with shmqctl sync " +
                      arguments_.queue;
  }

  /// While no more comes in, what is on its way is waited for, the oldest first.
  void await_until_readable(int fd) {
    take_confirmed();
    while (!pending_.empty()) {
      flush_seqs();
      pollfd item{fd, POLLIN, 0};
      if (::poll(&item, 1, 0) > 0) return;
      await(pending_.front());
    }
  }

  void await_all() {
    if (waits_ && published_ > 0) await(last_);
  }

  /// Waits until this message's turn at --rate. Deadlines are absolute, so that the average holds;
  /// a pause of the input does not save up a burst.
  void pace() {
    if (arguments_.rate <= 0) return;
    using Clock = std::chrono::steady_clock;
    auto now = Clock::now();
    if (due_ < now - std::chrono::milliseconds{100}) due_ = now;
    while (now < due_) {
      flush_seqs();
      if (!pending_.empty()) take_confirmed();
      auto left = std::chrono::ceil<std::chrono::milliseconds>(due_ - now).count();
      if (!pending_.empty()) left = std::min<decltype(left)>(left, 2);  // they are printed soon
      pollfd item{stop_.fd(), POLLIN, 0};
      ::poll(&item, 1, static_cast<int>(std::min<long long>(left, 1000)));
      if (stop_.signal() != 0) refuse(shmq::Errc::interrupted);
      now = Clock::now();
    }
    due_ += std::chrono::nanoseconds{std::llround(1e9 / arguments_.rate)};
  }

  void flush_seqs() {
    if (seqs_.empty()) return;
    write_all(STDOUT_FILENO, seqs_, &stop_, "write to stdout");
    seqs_.clear();
  }

  /// "publish message 17 to queue 'q'": counted from 1, as lines are.
  [[nodiscard]] std::string attempt() const {
    return "publish message " + std::to_string(published_ + 1) + " to queue '" + arguments_.queue +
           "'";
  }

  [[noreturn]] void refuse(shmq::Errc code) {
    take_confirmed();
    flush_seqs();
    if (code == shmq::Errc::message_too_large) refuse_large();
    Failure failure = failure_of(code, attempt());
    if (code == shmq::Errc::interrupted && stop_.signal() != 0) {
      failure.exit_code = stop_.exit_code();
      failure.remedy = "this message and those after it were not published";
    }
    throw failure;
  }

  [[noreturn]] void refuse_large() {
    flush_seqs();
    throw Failure{exit_error, attempt(),
                  "message too large, the queue takes " + std::to_string(max_message_bytes_) +
                      " bytes with attributes",
                  "create the queue with a larger --max-message or --arena"};
  }

  const Context& context_;
  const PublishArguments& arguments_;
  StopSignals stop_;
  shmq::Queue queue_;
  shmq::Producer producer_;
  std::uint64_t max_message_bytes_;
  std::vector<shmq::Attribute> attributes_;
  shmq::PublishOptions options_;
  const bool waits_ = arguments_.durability == shmq::Durability::synced;
  std::deque<shmq::Seq> pending_;  // published, and to be printed once on stable storage
  std::uint64_t published_ = 0;
  shmq::Seq last_{};
  std::uint64_t first_seq_ = 0;  // no seq of ours is lower
  bool is_told_ = false;         // the failure says what is not confirmed
  std::string seqs_;
  std::chrono::steady_clock::time_point due_{};
};

void add_attribute(PublishArguments& arguments, const std::string& text) {
  const std::size_t equals = text.find('=');
  if (equals == std::string::npos || equals == 0) {
    throw CLI::ValidationError("--attribute", "'" + text + "' is not key=value");
  }
  if (equals > 255 || text.size() - equals - 1 > 65535) {
    throw CLI::ValidationError("--attribute", "a key has at most 255 bytes, a value 65535");
  }
  arguments.attributes.emplace_back(text.substr(0, equals), text.substr(equals + 1));
}

void add_input_options(CLI::App& command, PublishArguments* a) {
  command.add_option("queue", a->queue, "name of the queue")->required();
  auto* message = command.add_option("message", a->message,
                                     "the message; without it, each line of stdin is one");
  auto* file = command.add_option("--file", a->file, "the whole file is one message; - is stdin")
                   ->type_name("FILE")
                   ->excludes(message);
  auto* nul = command.add_flag("--null,-0", a->nul, "messages on stdin end with NUL")
                  ->excludes(message)
                  ->excludes(file);
  command
      .add_flag("--frame", a->frame, "messages on stdin have a 4-byte little-endian length before")
      ->excludes(message)
      ->excludes(file)
      ->excludes(nul);
}

}  // namespace

void add_publish_command(CLI::App& app, Context& context) {
  CLI::App* command = app.add_subcommand("publish", "publish messages");
  auto arguments = std::make_shared<PublishArguments>();
  PublishArguments* a = arguments.get();
  add_input_options(*command, a);
  add_time(
      *command, "--timeout", [a](std::chrono::nanoseconds time) { a->timeout = time; },
      "how long to wait for room and for stable storage, each time (default: for ever)");
  command->add_flag("--print-seq", a->print_seq,
                    "print the seq of each message, once it is as durable as --durability says");
  add_durability(*command, a->durability,
                 "memory (default); flushed, its way to disk begins at once; synced, on stable "
                 "storage before it counts as published");
  command
      ->add_option_function<std::vector<std::string>>(
          "--attribute",
          [a](const std::vector<std::string>& texts) {
            for (const std::string& text : texts) add_attribute(*a, text);
          },
          "a header of each message; repeatable")
      ->type_name("KEY=VALUE")
      ->allow_extra_args(false);
  command->add_flag("--publish-time", a->publish_time, "stamp each message with the time");
  command
      ->add_option_function<double>(
          "--rate",
          [a](const double& rate) {
            if (!(rate >= 1e-6 && rate <= 1e9)) {
              throw CLI::ValidationError("--rate", "must lie between 0.000001 and 1e9 a second");
            }
            a->rate = rate;
          },
          "at most so many messages a second")
      ->type_name("PER_SECOND");
  command->callback([&context, arguments] {
    context.command = [&context, arguments] { return Publisher(context, *arguments).run(); };
  });
}

}  // namespace shmqctl
