// SPDX-License-Identifier: Apache-2.0
//
// shmqctl consume: messages to stdout or to a command, acknowledged when that has succeeded.
//
// Invariants:
// 1. A message is acked only after write(2) took all of its bytes (or --exec's command exited 0).
//    A reader that goes away costs nothing: what it did not take is delivered again.
// 2. Messages are taken in batches and written in one block, but what has arrived is never held
//    back: receive_batch waits for the first message only.
#include <unistd.h>

#include <algorithm>
#include <array>
#include <chrono>
#include <iostream>
#include <limits>
#include <memory>

#include "context.hpp"
#include "exec.hpp"
#include "failure.hpp"
#include "output.hpp"
#include "units.hpp"

namespace shmqctl {
namespace {

using std::chrono::nanoseconds;

constexpr std::size_t batch_messages = 256;
constexpr nanoseconds default_timeout = std::chrono::seconds{1};
constexpr nanoseconds first_back_off = std::chrono::milliseconds{50};
constexpr nanoseconds longest_back_off = std::chrono::seconds{1};

struct ConsumeArguments {
  std::string queue;
  std::optional<std::string> group;
  std::optional<shmq::GroupMode> mode;
  std::uint64_t count = std::numeric_limits<std::uint64_t>::max();
  bool counted = false;
  bool ack = true;
  std::optional<nanoseconds> timeout;
  bool follow = false;
  std::optional<std::string> command;
  bool nul = false;
  bool frame = false;
  std::string format = "raw";
};

class ConsumeCommand {
 public:
  ConsumeCommand(const Context& context, const ConsumeArguments& arguments)
      : arguments_(arguments),
        queue_(open_queue(context, arguments.queue, shmq::Access::participant)),
        group_(choose_group()),
        what_("consume queue '" + arguments.queue + "', group '" + group_.name + "'"),
        consumer_(take(queue_.consumer(group_.name,
                                       {.name = "shmqctl consume", .expect_mode = arguments.mode}),
                       what_)) {
    if (arguments.format == "json" || context.json) framing_ = Framing::json;
    if (arguments.nul) framing_ = Framing::nul;
    if (arguments.frame) framing_ = Framing::length;
    // "Publishing has not begun" is not "drained": then the first message is waited for.
    first_wait_ = !arguments.timeout && queue_.stats().tail.value == 0;
    if (first_wait_ && !arguments.follow && !context.quiet && ::isatty(STDERR_FILENO) != 0) {
      std::cerr << "shmqctl: waiting for the first message of queue '" << arguments.queue
                << "' (--timeout limits it)\n";
    }
  }

  int run() {
    while (settled_ < arguments_.count) {
      const std::size_t got = receive();
      if (stop_.signal() != 0) break;
      if (got == 0) {
        if (done()) break;
        continue;
      }
      first_wait_ = false;
      if (arguments_.command) {
        run_command(batch_[0]);
      } else {
        write_out(std::span{batch_}.first(got));
      }
    }
    give_back();
    if (stop_.signal() != 0) return stop_.exit_code();
    if (arguments_.counted && settled_ < arguments_.count) {
      throw Failure{exit_timed_out, what_,
                    "only " + std::to_string(settled_) + " of " + std::to_string(arguments_.count) +
                        " messages came in time" + obstacle_,
                    "give a longer --timeout, or --follow"};
    }
    if (!obstacle_.empty()) {
      throw Failure{exit_timed_out, what_, "timed out" + obstacle_,
                    "give a longer --timeout, or --follow"};
    }
    return exit_ok;
  }

 private:
  shmq::GroupInfo choose_group() {
    if (arguments_.group) return find_group(queue_, arguments_.queue, *arguments_.group);
    const auto groups = queue_.groups();
    for (const shmq::GroupInfo& group : groups) {
      if (group.name == "default") return group;
    }
    if (groups.size() == 1) return groups.front();
    if (groups.empty()) {
      throw failure_of(shmq::Errc::no_such_group, "consume queue '" + arguments_.queue + "'");
    }
    throw Failure{exit_usage, "consume queue '" + arguments_.queue + "'",
                  "it has " + std::to_string(groups.size()) + " groups and none named 'default'",
                  "name one with --group"};
  }

  std::size_t receive() {
    std::size_t room = batch_.size();
    if (arguments_.command) room = 1;
    room = static_cast<std::size_t>(std::min<std::uint64_t>(room, arguments_.count - settled_));
    const nanoseconds wait = arguments_.follow || first_wait_
                                 ? shmq::forever
                                 : arguments_.timeout.value_or(default_timeout);
    auto got = consumer_.receive_batch(std::span{batch_}.first(room), wait, stop_.token());
    if (got) return *got;
    if (got.error() == shmq::Errc::interrupted && stop_.signal() != 0) return 0;
    give_back();
    throw failure_of(got.error(), what_);
  }

  /// Nothing came in time. Is that the end?
  bool done() {
    if (arguments_.follow || first_wait_) return false;
    const shmq::GroupInfo group = find_group(queue_, arguments_.queue, group_.name);
    const std::uint64_t held = held_.size();
    const std::uint64_t unsettled = group.ready + group.in_flight + group.delayed;
    if (unsettled <= held) return true;
    if (consumer_.active()) {
      // Ours, and held back only by a nack's delay: it will come.
      if (!arguments_.timeout) return false;
      obstacle_ = ", " + std::to_string(unsettled - held) + " messages are delayed";
      return true;
    }
    obstacle_ = ", another consumer of the group is active";
    return true;
  }

  void write_out(std::span<shmq::Delivery> deliveries) {
    block_.clear();
    for (const shmq::Delivery& delivery : deliveries) {
      if (framing_ != Framing::json) {
        append_payload(block_, delivery.text(), framing_);
        continue;
      }
      MessageView view{.seq = delivery.seq(),
                       .payload = delivery.text(),
                       .publish_time = delivery.publish_time(),
                       .attributes = {},
                       .hand_outs = delivery.hand_outs(),
                       .failures = delivery.failures()};
      for (const shmq::Attribute& attribute : delivery.attributes()) {
        view.attributes.emplace_back(attribute.key, attribute.value);
      }
      append_message(block_, view, Framing::json);
    }
    try {
      write_all(STDOUT_FILENO, block_, &stop_, "write to stdout");
    } catch (Failure& failure) {
      for (shmq::Delivery& delivery : deliveries) held_.push_back(std::move(delivery));
      give_back();
      if (failure.remedy.empty() && !failure.why.empty()) {
        failure.remedy = "the messages of this write were not acknowledged";
      }
      throw;
    }
    settled_ += deliveries.size();
    if (!arguments_.ack) {
      for (shmq::Delivery& delivery : deliveries) held_.push_back(std::move(delivery));
      return;
    }
    // Refused means that another consumer took over: it will get them again, which is its right.
    if (consumer_.ack_through(deliveries.back().seq()) == shmq::Settlement::lease_lost)
      lost(deliveries);
  }

  void run_command(shmq::Delivery& delivery) {
    const ExecOptions options{*arguments_.command, arguments_.queue, group_.name, group_.lease};
    const bool success = run_for(delivery, options);
    if (!success) {
      // Doubling: a command that fails for ever shall not spin.
      const unsigned shift = std::min(delivery.failures(), 10U);
      static_cast<void>(delivery.nack(std::min(first_back_off * (1 << shift), longest_back_off)));
      return;
    }
    ++settled_;
    if (!arguments_.ack) {
      held_.push_back(std::move(delivery));
    } else if (delivery.ack() == shmq::Settlement::lease_lost) {
      lost(std::span{&delivery, 1});
    }
  }

  /// Messages were written, but belong to another consumer by now: say so, it may be a duplicate.
  void lost(std::span<const shmq::Delivery> deliveries) {
    std::cerr << "shmqctl: " << what_ << ": lease lost, " << deliveries.size()
              << " messages may be delivered again (they took longer than the group's lease)\n";
  }

  /// Releases what is held, the youngest first, so that none is handed out past an older one.
  void give_back() {
    while (!held_.empty()) {
      static_cast<void>(held_.back().release());
      held_.pop_back();
    }
  }

  const ConsumeArguments& arguments_;
  StopSignals stop_;
  shmq::Queue queue_;
  shmq::GroupInfo group_;
  std::string what_;
  shmq::Consumer consumer_;
  std::array<shmq::Delivery, batch_messages> batch_;  // after consumer_: must not outlive it
  std::vector<shmq::Delivery> held_;
  Framing framing_ = Framing::newline;
  std::string block_;
  std::string obstacle_;
  std::uint64_t settled_ = 0;
  bool first_wait_ = false;
};

void add_end_options(CLI::App& command, ConsumeArguments* a) {
  add_count(
      command, "-n,--count",
      [a](std::uint64_t n) {
        a->count = n;
        a->counted = true;
      },
      "end after so many messages; exit 5 if fewer come in time");
  add_time(
      command, "--timeout", [a](nanoseconds time) { a->timeout = time; },
      "end when nothing came for so long (default 1s, but the first message of a new queue is "
      "waited for without limit)");
  command.add_flag("--follow,-f", a->follow, "go on until SIGINT or SIGTERM")
      ->excludes("--timeout");
}

void add_output_options(CLI::App& command, ConsumeArguments* a) {
  auto* execute = command
                      .add_option("--exec", a->command,
                                  "run CMD for each message, which it finds on stdin: exit 0 acks, "
                                  "else it is delivered again")
                      ->type_name("CMD");
  auto* nul = command.add_flag("--null,-0", a->nul, "NUL instead of newline after each message")
                  ->excludes(execute);
  auto* frame =
      command.add_flag("--frame", a->frame, "4-byte little-endian length before each message")
          ->excludes(execute)
          ->excludes(nul);
  command.add_option("--format", a->format, "raw (default) or json, one object a line")
      ->type_name("raw|json")
      ->check(CLI::IsMember({"raw", "json"}))
      ->excludes(execute)
      ->excludes(nul)
      ->excludes(frame);
}

}  // namespace

void add_consume_command(CLI::App& app, Context& context) {
  CLI::App* command = app.add_subcommand("consume", "receive messages and acknowledge them");
  auto arguments = std::make_shared<ConsumeArguments>();
  ConsumeArguments* a = arguments.get();
  command->add_option("queue", a->queue, "name of the queue")->required();
  command
      ->add_option("--group", a->group, "name of the group (default: \"default\", or the only one)")
      ->type_name("G");
  command
      ->add_option_function<std::string>(
          "--mode", [a](const std::string& text) { a->mode = read_mode_name("--mode", text); },
          "fail unless the group has this mode")
      ->type_name("exclusive|shared");
  command
      ->add_option_function<std::string>(
          "--ack", [a](const std::string& text) { a->ack = text == "auto"; },
          "auto (default): after the write; none: all are given back at the end")
      ->type_name("auto|none")
      ->check(CLI::IsMember({"auto", "none"}));
  add_end_options(*command, a);
  add_output_options(*command, a);
  command->callback([&context, arguments] {
    context.command = [&context, arguments] { return ConsumeCommand(context, *arguments).run(); };
  });
}

}  // namespace shmqctl
