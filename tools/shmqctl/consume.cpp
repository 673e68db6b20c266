// SPDX-License-Identifier: Apache-2.0
//
// shmqctl consume: messages to stdout or to a command, acknowledged when that has succeeded.
//
// Invariants:
// 1. A message is acked only after write(2) took all of its bytes (or --exec's command exited 0).
//    A reader that goes away costs nothing: what it did not take is delivered again.
// 2. Whatever ends the command early (a signal, an error), what is in hand is released, which does
//    not count as a failure of the message. A Delivery left to itself would count as one.
// 3. Messages are taken in batches and written in one block, but what has arrived is never held
//    back: receive_batch waits for the first message only.
// 4. Leases are prolonged while there is progress: a command that runs, a reader that reads. A
// reader
//    that takes nothing for as long as the lease loses it, and others of the group go on.
#include <poll.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <chrono>
#include <climits>
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
using std::chrono::steady_clock;

constexpr std::size_t batch_messages = 256;
// What one consumer of a shared group takes, the others cannot have; if it is killed, they see it
// again.
constexpr std::size_t shared_batch_messages = 32;
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
  shmq::Durability durability = shmq::Durability::memory;
  std::optional<nanoseconds> timeout;
  bool follow = false;
  std::optional<std::string> command;
  bool nul = false;
  bool frame = false;
  std::string format = "raw";
};

std::string messages(std::uint64_t count) {
  return std::to_string(count) + (count == 1 ? " message" : " messages");
}

class ConsumeCommand {
 public:
  ConsumeCommand(const Context& context, const ConsumeArguments& arguments)
      : arguments_(arguments),
        queue_(open_queue(context, arguments.queue, shmq::Access::participant)),
        group_(choose_group()),
        shared_(group_.mode == shmq::GroupMode::shared),
        tells_waits_(!context.quiet && ::isatty(STDERR_FILENO) != 0),
        what_("consume queue '" + arguments.queue + "', group '" + group_.name + "'"),
        consumer_(take(queue_.consumer(group_.name,
                                       {.name = "shmqctl consume", .expect_mode = arguments.mode}),
                       what_)) {
    if (arguments.format == "json" || context.json) framing_ = Framing::json;
    if (arguments.nul) framing_ = Framing::nul;
    if (arguments.frame) framing_ = Framing::length;
    if (arguments.durability != shmq::Durability::memory && !queue_.info().durable) {
      throw failure_of(shmq::Errc::not_durable, what_);
    }
    // "Publishing has not begun" is not "drained": then the first message is waited for.
    first_wait_ = !arguments.timeout && nothing_was_published();
    if (first_wait_ && !arguments.follow) {
      tell_wait("waiting for the first message of queue '" + arguments.queue + "'");
    }
  }

  int run() {
    try {
      receive_all();
    } catch (...) {
      give_back();
      throw;
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

  [[nodiscard]] bool nothing_was_published() const { return queue_.stats().tail.value == 0; }

  void tell_wait(const std::string& text) {
    if (tells_waits_) std::cerr << "shmqctl: " << text << " (--timeout limits it)\n";
    tells_waits_ = false;
  }

  void receive_all() {
    while (settled_ < arguments_.count) {
      const std::size_t got = receive();
      if (stop_.signal() != 0) return;
      if (got == 0) {
        if (done()) return;
        continue;
      }
      first_wait_ = false;
      if (arguments_.command) {
        run_command(batch_[0]);
        if (stop_.signal() != 0) return;
      } else {
        write_out(std::span{batch_}.first(got));
      }
    }
  }

  /// Fills batch_; 0 when nothing came in time. Meanwhile it keeps the leases of what --ack none
  /// holds.
  std::size_t receive() {
    std::size_t room = shared_ ? shared_batch_messages : batch_.size();
    if (arguments_.command) room = 1;
    room = static_cast<std::size_t>(std::min<std::uint64_t>(room, arguments_.count - settled_));
    nanoseconds left = arguments_.timeout.value_or(default_timeout);
    if (arguments_.follow) left = shmq::forever;
    for (;;) {
      nanoseconds wait = left;
      if (!held_.empty() && group_.lease.count() > 0) wait = std::min(wait, group_.lease / 2);
      auto got = consumer_.receive_batch(std::span{batch_}.first(room), wait, stop_.token());
      if (!got) {
        if (got.error() == shmq::Errc::interrupted && stop_.signal() != 0) return 0;
        throw failure_of(got.error(), what_);
      }
      if (!held_.empty()) keep_leases({});
      if (left != shmq::forever) left -= wait;
      if (*got != 0 || left.count() <= 0) return *got;
    }
  }

  /// Nothing came in time. Is that the end?
  bool done() {
    if (arguments_.follow) return false;
    if (first_wait_) {
      // Somebody else of the group may have taken it all: then the usual time is waited for.
      first_wait_ = nothing_was_published();
      return false;
    }
    const shmq::GroupInfo group = find_group(queue_, arguments_.queue, group_.name);
    const std::uint64_t held = held_.size();
    const std::uint64_t unsettled = group.ready + group.in_flight + group.delayed;
    if (unsettled <= held) return true;
    if (!consumer_.active()) {
      obstacle_ = ", another consumer of the group is active";
      return true;
    }
    // What is delayed will come; what others of a shared group hold comes back if they fail. With
    // --ack none two could wait for each other.
    if (!arguments_.timeout && (!shared_ || arguments_.ack)) {
      tell_wait("waiting for " + messages(unsettled - held) +
                " that others hold or that are delayed");
      return false;
    }
    const std::uint64_t others = group.in_flight > held ? group.in_flight - held : 0;
    if (group.delayed > 0) obstacle_ += ", " + messages(group.delayed) + " delayed";
    if (others > 0) obstacle_ += ", " + messages(others) + " held by others of the group";
    if (group.at_in_flight_limit) obstacle_ += ", the group is at its limit of messages in flight";
    if (obstacle_.empty()) obstacle_ = ", " + messages(unsettled - held) + " left";
    return true;
  }

  // --- to stdout -------------------------------------------------------------------------------

  void write_out(std::span<shmq::Delivery> deliveries) {
    block_.clear();
    ends_.clear();
    for (const shmq::Delivery& delivery : deliveries) {
      append(delivery);
      ends_.push_back(block_.size());
    }
    std::size_t written = 0;
    try {
      while (written < block_.size()) {
        await_reader();
        const auto piece = std::string_view{block_}.substr(written, PIPE_BUF);
        write_all(STDOUT_FILENO, piece, &stop_, "write to stdout");
        written += piece.size();
        keep_leases(deliveries);
      }
    } catch (Failure& failure) {
      if (stop_.signal() != 0) {
        const auto whole = std::upper_bound(ends_.begin(), ends_.end(), written) - ends_.begin();
        settle(deliveries.first(static_cast<std::size_t>(whole)));
      } else if (failure.what == "write to stdout" && !failure.why.empty()) {
        failure.remedy =
            "the messages of this write were not acknowledged, and come to the next who consumes";
      }
      throw;
    }
    settle(deliveries);
  }

  void append(const shmq::Delivery& delivery) {
    if (framing_ != Framing::json) {
      append_payload(block_, delivery.text(), framing_);
      return;
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

  /// Until a piece of PIPE_BUF bytes can be written without blocking, so that a signal is never
  /// missed.
  void await_reader() {
    std::array<pollfd, 2> items{{{STDOUT_FILENO, POLLOUT, 0}, {stop_.fd(), POLLIN, 0}}};
    while (::poll(items.data(), items.size(), -1) < 0 && errno == EINTR) {
    }
    if (stop_.signal() != 0) throw Failure{stop_.exit_code(), what_, "", ""};
  }

  /// Written: acknowledges, or holds until the end.
  void settle(std::span<shmq::Delivery> deliveries) {
    if (deliveries.empty()) return;
    settled_ += deliveries.size();
    if (!arguments_.ack) {
      for (shmq::Delivery& delivery : deliveries) held_.push_back(std::move(delivery));
      return;
    }
    std::size_t refused = 0;
    if (shared_) {
      for (shmq::Delivery& delivery : deliveries) {
        if (delivery.ack(ack_options()) == shmq::Settlement::lease_lost) ++refused;
      }
    } else if (consumer_.ack_through(deliveries.back().seq(), ack_options()) ==
               shmq::Settlement::lease_lost) {
      refused = deliveries.size();
    }
    if (refused != 0) tell_lost(messages(refused) + " of those written");
    confirm_acks();
  }

  /// Of single acks; what shall be synced is waited for once for all that were written.
  [[nodiscard]] shmq::AckOptions ack_options() const {
    return {.durability = arguments_.durability == shmq::Durability::flushed
                              ? shmq::Durability::flushed
                              : shmq::Durability::memory};
  }

  void confirm_acks() {
    if (arguments_.durability != shmq::Durability::synced) return;
    const auto confirmed = consumer_.wait_acks_synced(shmq::forever, stop_.token());
    if (confirmed) return;
    Failure failure = failure_of(confirmed.error(), what_);
    failure.why = "acknowledged, but not confirmed to be on stable storage: " + failure.why;
    failure.remedy = "wait with shmqctl sync " + arguments_.queue;
    if (stop_.signal() != 0) failure.exit_code = stop_.exit_code();
    throw failure;
  }

  // --- to a command ----------------------------------------------------------------------------

  void run_command(shmq::Delivery& delivery) {
    const std::string name = "message " + std::to_string(delivery.seq().value);
    bool lost = false;
    const auto keep = [&] {
      keep_leases({});
      // A lost lease is no reason to kill the command; the ack after it will be refused.
      if (lost || delivery.extend() != shmq::Settlement::lease_lost) return;
      lost = true;
      tell_lost(name + ", whose command is running,");
    };
    const ExecOptions options{*arguments_.command, arguments_.queue, group_.name, group_.lease,
                              keep};
    const CommandEnd end = run_for(delivery, options, stop_);
    if (end != CommandEnd::success) {
      give_up(delivery, end);
      return;
    }
    if (!arguments_.ack) {
      held_.push_back(std::move(delivery));
    } else if (delivery.ack(ack_options()) == shmq::Settlement::lease_lost) {
      if (!lost) tell_lost(name + ", whose command has succeeded,");
      return;
    } else {
      confirm_acks();
    }
    ++settled_;
  }

  /// The command failed.
  void give_up(shmq::Delivery& delivery, CommandEnd end) {
    if (stop_.signal() != 0) {
      static_cast<void>(delivery.release());  // stopped, not failed
      return;
    }
    // Doubling: a command that fails for ever shall not spin.
    const unsigned shift = std::min(delivery.failures(), 10U);
    const shmq::Settlement nacked =
        delivery.nack(std::min(first_back_off * (1 << shift), longest_back_off));
    if (end == CommandEnd::not_run && settled_ == 0) {
      // Not one has succeeded: a mistyped command shall not fail every message of the queue.
      throw Failure{exit_error, "run '" + *arguments_.command + "'", "sh cannot find or execute it",
                    "the message will be delivered again"};
    }
    if (shared_ && nacked == shmq::Settlement::settled &&
        delivery.failures() + 1 == group_.delivery_limit) {
      std::cerr << "shmqctl: " << what_ << ": message " << delivery.seq().value << " failed "
                << (group_.delivery_limit == 1 ? "once"
                                               : std::to_string(group_.delivery_limit) + " times")
                << ", it is dead now: kept, but not handed out again (see shmqctl stat)\n";
    }
  }

  // --- leases ----------------------------------------------------------------------------------

  /// Prolongs what is held and what is in `current`, when a quarter of the lease is over since the
  /// last time: a reader that lets us go on a little more often than each half must not come just
  /// too early, and the next time too late.
  void keep_leases(std::span<shmq::Delivery> current) {
    const auto now = steady_clock::now();
    if (group_.lease.count() == 0 || now - kept_at_ < group_.lease / 4) return;
    kept_at_ = now;
    // What is lost here is told when its ack is refused.
    for (shmq::Delivery& delivery : current) static_cast<void>(delivery.extend());
    const auto is_lost = [](shmq::Delivery& delivery) {
      return delivery.extend() == shmq::Settlement::lease_lost;
    };
    const auto lost = std::erase_if(held_, is_lost);
    if (lost != 0) tell_lost(messages(lost) + " of those held");
  }

  /// They belong to another consumer by now: say so, it may be a duplicate.
  void tell_lost(const std::string& which) {
    std::cerr << "shmqctl: " << what_ << ": lease lost, " << which
              << " may be delivered again (give the group a longer --lease)\n";
  }

  /// Releases what is in hand, the youngest first, so that none is handed out past an older one.
  /// What is settled already does not mind.
  void give_back() {
    for (std::size_t i = batch_.size(); i-- > 0;) static_cast<void>(batch_[i].release());
    while (!held_.empty()) {
      static_cast<void>(held_.back().release());
      held_.pop_back();
    }
  }

  const ConsumeArguments& arguments_;
  StopSignals stop_;
  shmq::Queue queue_;
  shmq::GroupInfo group_;
  bool shared_;
  bool tells_waits_;  // to a person, once
  std::string what_;
  shmq::Consumer consumer_;
  std::array<shmq::Delivery, batch_messages> batch_;  // after consumer_: must not outlive it
  std::vector<shmq::Delivery> held_;                  // by --ack none
  steady_clock::time_point kept_at_ = steady_clock::now();
  Framing framing_ = Framing::newline;
  std::string block_;
  std::vector<std::size_t> ends_;  // of each message, in block_
  std::string obstacle_;
  std::uint64_t settled_ = 0;  // written, or run with success
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
      "end when nothing came for so long (default 1s, but then the first message of a new queue, "
      "what is delayed, and what others of a shared group hold are waited for without limit)");
  command.add_flag("--follow,-f", a->follow, "go on until a signal: SIGHUP, SIGINT, SIGTERM")
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
          "auto (default): after the write; none: all are held, and given back at the end")
      ->type_name("auto|none")
      ->check(CLI::IsMember({"auto", "none"}));
  add_durability(*command, a->durability,
                 "how long an ack must last: memory (default), flushed, synced");
  add_end_options(*command, a);
  add_output_options(*command, a);
  command->callback([&context, arguments] {
    context.command = [&context, arguments] { return ConsumeCommand(context, *arguments).run(); };
  });
}

}  // namespace shmqctl
