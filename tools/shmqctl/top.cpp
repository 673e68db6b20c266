// SPDX-License-Identifier: Apache-2.0
//
// shmqctl top: the groups of all queues, live on a terminal, or one table after the other.
#define NCURSES_NOMACROS 1  // their names are also those of containers' members
#include <curses.h>
#include <poll.h>
#include <unistd.h>

#include <algorithm>
#include <clocale>
#include <memory>

#include "context.hpp"
#include "failure.hpp"
#include "output.hpp"
#include "top_rows.hpp"
#include "units.hpp"

namespace shmqctl {
namespace {

struct TopArguments {
  bool batch = false;
  std::uint64_t count = ~0ULL;
  std::chrono::nanoseconds interval = std::chrono::seconds{1};
  std::string filter;
  std::size_t column = 2;
};

int milliseconds_of(std::chrono::nanoseconds time) {
  return static_cast<int>(std::chrono::ceil<std::chrono::milliseconds>(time).count());
}

// --- One table after the other -----------------------------------------------------------------

void print_rows(const Context& context, const std::vector<TopRow>& rows) {
  if (context.json) {
    Json list = Json::array();
    for (const TopRow& row : rows) list.push_back(json_of(row));
    const Json object{{"schema_version", json_schema_version},
                      {"time", rfc3339(std::chrono::system_clock::now())},
                      {"groups", list}};
    write_all(STDOUT_FILENO,
              object.dump(-1, ' ', false, nlohmann::json::error_handler_t::replace) + "\n", nullptr,
              "write to stdout");
    return;
  }
  Table table({top_columns.begin(), top_columns.end()}, {2, 3, 4, 5, 6, 7, 8, 9, 10, 11});
  for (const TopRow& row : rows) {
    const auto cells = cells_of(row);
    table.add({cells.begin(), cells.end()});
  }
  table.print(context);
}

int run_batch(const Context& context, const TopArguments& arguments) {
  const StopSignals stop;
  TopSampler sampler{context};
  static_cast<void>(sampler.sample());  // rates need two looks
  for (std::uint64_t i = 0; i < arguments.count; ++i) {
    pollfd item{stop.fd(), POLLIN, 0};
    ::poll(&item, 1, milliseconds_of(arguments.interval));
    if (stop.signal() != 0) return stop.exit_code();
    if (i > 0 && !context.json && !context.no_headers) {
      write_all(STDOUT_FILENO, "\n", nullptr, "write to stdout");
    }
    print_rows(context, arranged(sampler.sample(), arguments.filter, arguments.column, false));
  }
  return exit_ok;
}

// --- The screen ----------------------------------------------------------------------------------

/// The terminal is as it was when this is gone, whichever way.
class Screen {
 public:
  Screen() {
    std::setlocale(LC_CTYPE, "");
    screen_ = ::newterm(nullptr, stdout, stdin);
    if (screen_ == nullptr) {
      const char* terminal = std::getenv("TERM");
      throw Failure{exit_error, "show the screen",
                    "the terminal '" + std::string{terminal != nullptr ? terminal : ""} +
                        "' is not known here",
                    "set TERM, or give --batch"};
    }
    ::cbreak();
    ::noecho();
    ::keypad(stdscr, TRUE);
    ::curs_set(0);
    ::set_escdelay(25);
  }
  ~Screen() {
    ::endwin();
    ::delscreen(screen_);
  }
  Screen(const Screen&) = delete;
  Screen& operator=(const Screen&) = delete;

 private:
  SCREEN* screen_ = nullptr;
};

class Top {
 public:
  Top(const Context& context, const TopArguments& arguments, const StopSignals& stop)
      : context_(context),
        stop_(stop),
        interval_(arguments.interval),
        sampler_(context),
        filter_(arguments.filter),
        column_(arguments.column) {}

  void run() {
    look();
    auto due = std::chrono::steady_clock::now() + interval_;
    while (!is_over_ && stop_.signal() == 0) {
      draw();
      const auto left = due - std::chrono::steady_clock::now();
      ::timeout(std::max(0, milliseconds_of(std::min<std::chrono::nanoseconds>(
                                left, std::chrono::milliseconds{200}))));
      if (const int key = ::getch(); key != ERR) press(key);
      if (std::chrono::steady_clock::now() >= due) {
        look();
        due = std::chrono::steady_clock::now() + interval_;
      }
    }
  }

 private:
  void look() {
    rows_ = sampler_.sample();
    if (!is_inside_) return;
    participants_.clear();
    const auto queue =
        shmq::Queue::open(chosen_.first, open_options(context_, shmq::Access::observer));
    if (!queue) {
      inside_problem_ = queue.error().why();
      return;
    }
    inside_problem_.clear();
    for (shmq::ParticipantInfo& each : queue->participants()) {
      const bool is_consumer = each.role == shmq::Role::consumer;
      if (is_consumer && each.group != chosen_.second) continue;
      participants_.push_back(std::move(each));
    }
  }

  // --- Keys --------------------------------------------------------------------------------------

  void press(int key) {
    if (is_typing_) {
      type(key);
      return;
    }
    switch (key) {
      case 'q':
      case 'Q': is_over_ = true; break;
      case KEY_UP:
      case 'k': selected_ = selected_ > 0 ? selected_ - 1 : 0; break;
      case KEY_DOWN:
      case 'j': ++selected_; break;  // draw() keeps it on the list
      case KEY_HOME: selected_ = 0; break;
      case KEY_LEFT:
      case '<': column_ = (column_ + top_columns.size() - 1) % top_columns.size(); break;
      case KEY_RIGHT:
      case '>':
      case 's': column_ = (column_ + 1) % top_columns.size(); break;
      case 'r': is_reversed_ = !is_reversed_; break;
      case '/':
        is_typing_ = true;
        filter_.clear();
        break;
      case '\n':
      case '\r':
      case KEY_ENTER: go_inside(); break;
      case 27:  // Escape
      case KEY_BACKSPACE:
      case 127:
        if (is_inside_) {
          is_inside_ = false;
        } else {
          filter_.clear();
        }
        break;
      default: break;
    }
  }

  void type(int key) {
    if (key == '\n' || key == '\r' || key == KEY_ENTER) {
      is_typing_ = false;
    } else if (key == 27) {
      is_typing_ = false;
      filter_.clear();
    } else if (key == KEY_BACKSPACE || key == 127) {
      if (!filter_.empty()) filter_.pop_back();
    } else if (key > ' ' && key < 127) {
      filter_ += static_cast<char>(key);
    }
  }

  void go_inside() {
    const auto rows = arranged(rows_, filter_, column_, is_reversed_);
    if (is_inside_ || selected_ >= rows.size()) return;
    chosen_ = {rows[selected_].queue, rows[selected_].group};
    is_inside_ = true;
    look();
  }

  // --- Drawing -----------------------------------------------------------------------------------

  static void put(int line, const std::string& text, attr_t attributes) {
    if (line >= LINES) return;
    ::attrset(attributes);
    ::mvaddnstr(line, 0, text.c_str(), COLS);
    for (int column = static_cast<int>(text.size()); column < COLS; ++column) ::addch(' ');
    ::attrset(A_NORMAL);
  }

  /// Texts to the left, figures to the right, in as much room as the longest needs.
  static std::vector<std::string> aligned(const std::vector<std::vector<std::string>>& table,
                                          std::size_t texts) {
    std::vector<std::size_t> widths;
    for (const auto& row : table) {
      widths.resize(std::max(widths.size(), row.size()));
      for (std::size_t i = 0; i < row.size(); ++i) widths[i] = std::max(widths[i], row[i].size());
    }
    std::vector<std::string> lines;
    for (const auto& row : table) {
      std::string line;
      for (std::size_t i = 0; i < row.size(); ++i) {
        const std::string padding(widths[i] - row[i].size(), ' ');
        line += (i > 0 ? "  " : "") + (i < texts ? row[i] + padding : padding + row[i]);
      }
      lines.push_back(std::move(line));
    }
    return lines;
  }

  void draw() {
    ::erase();
    const std::string name_space = context_.name_space.empty() ? "" : " " + context_.name_space;
    std::string title =
        "shmqctl top" + name_space + "  " +
        rfc3339(std::chrono::floor<std::chrono::seconds>(std::chrono::system_clock::now()))
            .substr(11, 8) +
        " UTC";
    if (is_inside_) title += "  " + chosen_.first + " / " + chosen_.second;
    if (!filter_.empty() || is_typing_) title += "  filter: " + filter_ + (is_typing_ ? "_" : "");
    put(0, title, A_BOLD);
    is_inside_ ? draw_participants() : draw_groups();
    const char* const help =
        is_inside_ ? "Esc back   q quit"
                   : "q quit   <> sort by   r reverse   / filter   Enter who is there";
    put(LINES - 1, help, A_REVERSE);
    ::refresh();
  }

  void draw_groups() {
    const auto rows = arranged(rows_, filter_, column_, is_reversed_);
    selected_ = rows.empty() ? 0 : std::min(selected_, rows.size() - 1);
    std::vector<std::vector<std::string>> table{{top_columns.begin(), top_columns.end()}};
    table.front()[column_] += is_reversed_ ? "^" : "v";
    for (const TopRow& row : rows) {
      const auto cells = cells_of(row);
      table.emplace_back(cells.begin(), cells.end());
    }
    draw_list(aligned(table, 2), selected_ + 1);
    if (rows.empty()) put(3, filter_.empty() ? "no queue" : "no queue or group holds that", A_DIM);
  }

  void draw_participants() const {
    if (!inside_problem_.empty()) {
      put(2, inside_problem_, A_BOLD);
      return;
    }
    std::vector<std::vector<std::string>> table{
        {"ENTRY", "ROLE", "NAME", "STATE", "PID", "IN FLIGHT", "MESSAGES", "ASLEEP"}};
    for (const shmq::ParticipantInfo& each : participants_) {
      const char* const role = each.role == shmq::Role::producer   ? "producer"
                               : each.role == shmq::Role::consumer ? "consumer"
                                                                   : "administrator";
      table.push_back({"#" + std::to_string(each.entry), role, each.name.empty() ? "-" : each.name,
                       each.alive ? "alive" : "dead", std::to_string(each.pid),
                       std::to_string(each.in_flight), std::to_string(each.messages_total),
                       each.asleep_for ? human_time(*each.asleep_for) : "-"});
    }
    draw_list(aligned(table, 4), 0);
    if (participants_.empty()) put(3, "nobody", A_DIM);
  }

  /// The first line is the headers'; the list is moved so that `marked` is seen.
  static void draw_list(const std::vector<std::string>& lines, std::size_t marked) {
    put(2, lines.front(), A_BOLD);
    const std::size_t room = LINES > 4 ? static_cast<std::size_t>(LINES) - 4 : 1;
    const std::size_t first = marked > room ? marked - room + 1 : 1;
    for (std::size_t i = first; i < lines.size() && i < first + room; ++i) {
      put(static_cast<int>(3 + i - first), lines[i], i == marked ? A_REVERSE : A_NORMAL);
    }
  }

  const Context& context_;
  const StopSignals& stop_;
  const std::chrono::nanoseconds interval_;
  TopSampler sampler_;
  std::vector<TopRow> rows_;
  std::string filter_;
  std::size_t column_;
  bool is_reversed_ = false, is_typing_ = false, is_inside_ = false, is_over_ = false;
  std::size_t selected_ = 0;
  std::pair<std::string, std::string> chosen_;
  std::vector<shmq::ParticipantInfo> participants_;
  std::string inside_problem_;
};

int top(const Context& context, const TopArguments& arguments) {
  if (arguments.batch || context.json) return run_batch(context, arguments);
  if (::isatty(STDOUT_FILENO) == 0 || ::isatty(STDIN_FILENO) == 0) {
    throw Failure{exit_usage, "show the screen", "stdin and stdout are not a terminal",
                  "give --batch"};
  }
  const StopSignals stop;
  {
    const Screen screen;
    Top{context, arguments, stop}.run();
  }
  return stop.signal() != 0 ? stop.exit_code() : exit_ok;
}

}  // namespace

void add_top_command(CLI::App& app, Context& context) {
  CLI::App* command = app.add_subcommand("top", "the groups of all queues, live");
  auto arguments = std::make_shared<TopArguments>();
  TopArguments* a = arguments.get();
  command->add_flag("-b,--batch", a->batch, "no screen: a table after each interval");
  add_count(
      *command, "-n,--count", [a](std::uint64_t n) { a->count = n; },
      "with --batch: end after so many tables (default: go on)");
  add_time(
      *command, "--interval",
      [a](std::chrono::nanoseconds time) {
        if (time < std::chrono::milliseconds{10} || time > std::chrono::hours{1}) {
          throw CLI::ValidationError("--interval", "it must be from 10ms to 1h");
        }
        a->interval = time;
      },
      "time between two looks (default 1s)");
  command->add_option("--filter", a->filter, "only queues and groups whose name holds TEXT")
      ->type_name("TEXT");
  command
      ->add_option_function<std::string>(
          "--sort",
          [a](const std::string& text) {
            const auto found = std::find_if(
                top_columns.begin(), top_columns.end(), [&](const std::string_view column) {
                  return std::equal(column.begin(), column.end(), text.begin(), text.end(),
                                    [](char wanted, char given) {
                                      return wanted == std::toupper(static_cast<unsigned char>(
                                                           given == '-' ? ' ' : given));
                                    });
                });
            if (found == top_columns.end()) {
              throw CLI::ValidationError("--sort", "there is no column '" + text + "'");
            }
            a->column = static_cast<std::size_t>(found - top_columns.begin());
          },
          "the column to sort by, as ready or in-flight (default ready)")
      ->type_name("COLUMN");
  command->callback([&context, arguments] {
    context.command = [&context, arguments] { return top(context, *arguments); };
  });
}

}  // namespace shmqctl
