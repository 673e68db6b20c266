// SPDX-License-Identifier: Apache-2.0
//
// shmqctl verify, dump: journals on disk, read only, with or without a daemon.
#include <unistd.h>

#include <cstdlib>
#include <filesystem>
#include <memory>
#include <optional>
#include <shmq/journal.hpp>

#include "context.hpp"
#include "failure.hpp"
#include "output.hpp"

namespace shmqctl {
namespace {

// --- verify --------------------------------------------------------------------------------------

Json end_json(std::uint64_t end_seq) {
  return end_seq == shmq::journal_end_unknown ? Json(nullptr) : Json(end_seq);
}

Json report_json(const shmq::JournalReport& report) {
  Json groups = Json::array();
  for (const shmq::JournalGroup& group : report.groups) {
    groups.push_back({{"uuid", group.uuid},
                      {"incarnation", group.incarnation},
                      {"floor_seq", group.floor},
                      {"settled_above_floor", group.settled_above},
                      {"handed_out", group.handed_out}});
  }
  Json findings = Json::array();
  for (const shmq::JournalFinding& finding : report.findings) {
    findings.push_back({{"case", std::string(1, finding.letter)},
                        {"refuses", finding.refuses},
                        {"file", finding.file},
                        {"offset_bytes", finding.offset},
                        {"bytes", finding.bytes},
                        {"first_seq", finding.first_seq},
                        {"end_seq", end_json(finding.end_seq)},
                        {"text", finding.text}});
  }
  return {{"refused", report.is_refused},
          {"empty", report.is_empty},
          {"queue_uuid", report.queue_uuid},
          {"first_seq", report.first_seq},
          {"end_seq", report.end_seq},
          {"next_seq", report.next_seq},
          {"groups", groups},
          {"findings", findings},
          {"plan", report.plan}};
}

struct VerifyArguments {
  std::string target;  // a directory, or the name of a queue
  std::optional<std::string> data_dir;
};

/// Where the journal of a queue lies: a directory a namespace, in it one a queue.
std::string journal_of(const Context& context, const VerifyArguments& arguments) {
  const std::string what = "verify the journal of queue '" + arguments.target + "'";
  std::string data_dir = arguments.data_dir.value_or("");
  const char* variable = std::getenv("SHMQ_NAMESPACE");
  std::string name_space = context.name_space;
  if (name_space.empty()) name_space = variable != nullptr && *variable != 0 ? variable : "default";
  if (data_dir.empty()) {
    const auto status = shmq::daemon_status(daemon_options(context));
    if (!status) {
      Failure failure = failure_of(status.error(), what);
      failure.what = what + ": " + failure.what;
      failure.remedy = "name the daemon's data directory with --data-dir, or the journal's own";
      throw failure;
    }
    const Json object = Json::parse(*status, nullptr, false);
    data_dir = object.value("data_dir", "");
  }
  for (const std::string& directory :
       {data_dir + "/" + name_space + "/" + arguments.target, data_dir + "/" + arguments.target}) {
    if (std::filesystem::is_directory(directory)) return directory;
  }
  throw Failure{exit_no_such_thing, what,
                "no journal of it in '" + data_dir + "/" + name_space + "'",
                "see shmqctl daemon status, or name the directory"};
}

int verify(const Context& context, const VerifyArguments& arguments) {
  if (!arguments.data_dir && std::filesystem::is_regular_file(arguments.target)) {
    return verify_backup(context, arguments.target);
  }
  const bool is_directory =
      arguments.target.find('/') != std::string::npos ||
      (!arguments.data_dir && std::filesystem::is_directory(arguments.target));
  const std::string directory = is_directory ? arguments.target : journal_of(context, arguments);
  const shmq::JournalReport report =
      take(shmq::verify_journal(directory), "verify journal '" + directory + "'");
  if (context.json) {
    print_json({{"directory", directory}, {"journal", report_json(report)}});
  } else {
    std::string out;
    for (const shmq::JournalFinding& finding : report.findings) {
      out += finding.refuses ? "REFUSED " : "ok      ";
      out += std::string(1, finding.letter) + "  " + finding.text + "\n";
    }
    out += report.is_refused ? "plan: nothing is done before a person has decided\n"
                             : "plan, at the next start:\n";
    int number = 0;
    for (const std::string& step : report.plan) {
      out += "  " + std::to_string(++number) + ". " + step + "\n";
    }
    write_all(STDOUT_FILENO, out, nullptr, "write to stdout");
  }
  return report.is_refused ? exit_error : exit_ok;
}

void add_verify(CLI::App& app, Context& context) {
  CLI::App* command =
      app.add_subcommand("verify", "check the journal of a queue, or a backup, read only");
  auto arguments = std::make_shared<VerifyArguments>();
  command
      ->add_option("queue", arguments->target,
                   "a durable queue, the directory of one queue's journal files, or a backup")
      ->type_name("QUEUE|DIR|FILE")
      ->required();
  command
      ->add_option("--data-dir", arguments->data_dir,
                   "the daemon's data directory (default: the running daemon is asked)")
      ->type_name("DIR");
  command->callback([&context, arguments] {
    context.command = [&context, arguments] { return verify(context, *arguments); };
  });
}

// --- dump ----------------------------------------------------------------------------------------

struct DumpArguments {
  std::string file;
  bool messages = false;
  bool nul = false;
  bool frame = false;
};

std::string_view kind_text(shmq::JournalItemKind kind) {
  switch (kind) {
    case shmq::JournalItemKind::file: return "file";
    case shmq::JournalItemKind::batch: return "batch";
    case shmq::JournalItemKind::damaged: return "damaged";
    case shmq::JournalItemKind::hole: return "hole";
    case shmq::JournalItemKind::record: return "record";
  }
  return "unknown";
}

std::string item_text(const Context& context, const shmq::JournalItem& item) {
  if (context.json) {
    const Json line{{"kind", kind_text(item.kind)},
                    {"offset_bytes", item.offset},
                    {"bytes", item.bytes},
                    {"description", item.description}};
    return line.dump(-1, ' ', false, Json::error_handler_t::replace) + "\n";
  }
  std::string line = item.kind == shmq::JournalItemKind::record ? "    " : "";
  line += std::string{kind_text(item.kind)} + " offset=" + std::to_string(item.offset) +
          " bytes=" + std::to_string(item.bytes) + " " + item.description;
  line.erase(line.find_last_not_of(' ') + 1);
  return line + "\n";
}

int dump(const Context& context, const DumpArguments& arguments) {
  Framing framing = Framing::newline;
  if (arguments.nul) framing = Framing::nul;
  if (arguments.frame) framing = Framing::length;
  bool is_whole = true;
  std::string out;
  const auto flush = [&out](std::size_t most) {
    if (out.size() <= most) return;
    write_all(STDOUT_FILENO, out, nullptr, "write to stdout");
    out.clear();
  };
  const auto print = [&](const shmq::JournalItem& item) {
    is_whole = is_whole && item.kind != shmq::JournalItemKind::damaged;
    if (!arguments.messages) {
      out += item_text(context, item);
    } else if (item.is_message) {
      append_payload(out, {reinterpret_cast<const char*>(item.payload.data()), item.payload.size()},
                     framing);
    }
    flush(65536);
    return true;
  };
  take(shmq::dump_journal(arguments.file, print), "dump journal file '" + arguments.file + "'");
  flush(0);
  return is_whole ? exit_ok : exit_error;
}

void add_dump(CLI::App& app, Context& context) {
  CLI::App* command = app.add_subcommand("dump", "show what a journal file holds, read only");
  auto arguments = std::make_shared<DumpArguments>();
  DumpArguments* a = arguments.get();
  command->add_option("file", a->file, "a journal file")->type_name("FILE")->required();
  auto* messages = command->add_flag("--messages", a->messages,
                                     "only the payloads, in the form that publish reads");
  auto* nul = command->add_flag("--null,-0", a->nul, "NUL instead of newline after each message");
  auto* frame =
      command->add_flag("--frame", a->frame, "4-byte little-endian length before each message");
  nul->excludes(frame)->needs(messages);
  frame->needs(messages);
  command->callback([&context, arguments] {
    context.command = [&context, arguments] { return dump(context, *arguments); };
  });
}

}  // namespace

void add_journal_commands(CLI::App& app, Context& context) {
  add_verify(app, context);
  add_dump(app, context);
}

}  // namespace shmqctl
