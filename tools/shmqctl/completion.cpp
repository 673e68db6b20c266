// SPDX-License-Identifier: Apache-2.0
//
// shmqctl completion: scripts for shells, made from the commands and options that there are, so
// that they never lag behind.
#include <map>
#include <memory>

#include "context.hpp"
#include "failure.hpp"
#include "output.hpp"

namespace shmqctl {
namespace {

struct Place {
  std::vector<std::string> words;     // commands and options that may follow
  std::vector<std::string> commands;  // of these, the commands
  bool takes_queue = false;
};

std::vector<std::string> options_of(const CLI::App& command) {
  std::vector<std::string> options;
  for (const CLI::Option* option : command.get_options()) {
    for (const std::string& name : option->get_lnames()) options.push_back("--" + name);
  }
  return options;
}

// By path: "" for the program, "queue create" for that command.
using Places = std::map<std::string, Place>;

void collect(const CLI::App& command, const std::string& path,
             const std::vector<std::string>& global, Places& places) {
  Place& place = places[path];
  place.words = options_of(command);
  if (!path.empty()) place.words.insert(place.words.end(), global.begin(), global.end());
  for (const CLI::Option* option : command.get_options()) {
    if (option->get_positional() && option->get_name() == "queue") place.takes_queue = true;
  }
  for (const CLI::App* each : command.get_subcommands([](const CLI::App*) { return true; })) {
    place.commands.push_back(each->get_name());
    collect(*each, path.empty() ? each->get_name() : path + " " + each->get_name(), global, places);
  }
  place.words.insert(place.words.end(), place.commands.begin(), place.commands.end());
}

std::string joined(const std::vector<std::string>& words) {
  std::string text;
  for (const std::string& word : words) text += (text.empty() ? "" : " ") + word;
  return text;
}

constexpr const char* list_queues = "shmqctl --no-headers queue ls 2>/dev/null | cut -d ' ' -f 1";

// The branches of a case that goes along the words; `quote` as the shell wants its patterns.
std::string path_patterns(const Places& places) {
  std::string text;
  for (const auto& [path, place] : places) {
    if (path.empty()) continue;
    const auto space = path.rfind(' ');
    const std::string before = space == std::string::npos ? "" : path.substr(0, space);
    const std::string last = space == std::string::npos ? path : path.substr(space + 1);
    text += (text.empty() ? "" : "|") + ("'" + before + ":" + last + "'");
  }
  return text;
}

std::string bash_script(const Places& places) {
  std::string text =
      "# bash completion of shmqctl\n"
      "_shmqctl() {\n"
      "  local current=${COMP_WORDS[COMP_CWORD]} place='' words='' word\n"
      "  for word in \"${COMP_WORDS[@]:1:COMP_CWORD-1}\"; do\n"
      "    case \"$place:$word\" in\n"
      "      " +
      path_patterns(places) +
      ") place=\"${place:+$place }$word\" ;;\n"
      "    esac\n"
      "  done\n"
      "  case \"$place\" in\n";
  for (const auto& [path, place] : places) {
    text += "    '" + path + "') words='" + joined(place.words) + "'";
    if (place.takes_queue) {
      text += "; [[ $current == -* ]] || words+=\" $(" + std::string{list_queues} + ")\"";
    }
    text += " ;;\n";
  }
  return text +
         "  esac\n"
         "  COMPREPLY=($(compgen -W \"$words\" -- \"$current\"))\n"
         "}\n"
         "complete -o default -F _shmqctl shmqctl\n";
}

std::string zsh_script(const Places& places) {
  std::string text =
      "#compdef shmqctl\n"
      "_shmqctl() {\n"
      "  local place='' word\n"
      "  local -a candidates\n"
      "  for word in ${words[2,CURRENT-1]}; do\n"
      "    case \"$place:$word\" in\n"
      "      " +
      path_patterns(places) +
      ") place=\"${place:+$place }$word\" ;;\n"
      "    esac\n"
      "  done\n"
      "  case \"$place\" in\n";
  for (const auto& [path, place] : places) {
    text += "    ('" + path + "') candidates=(" + joined(place.words) + ")";
    if (place.takes_queue) text += "; candidates+=(${(f)\"$(" + std::string{list_queues} + ")\"})";
    text += " ;;\n";
  }
  return text +
         "  esac\n"
         "  compadd -- $candidates || _files\n"
         "}\n"
         "compdef _shmqctl shmqctl\n";
}

std::string fish_script(const Places& places) {
  std::string text =
      "# fish completion of shmqctl\n"
      "function __shmqctl_at\n"
      "  set -l place ''\n"
      "  for word in (commandline -opc)[2..-1]\n"
      "    switch \"$place:$word\"\n"
      "      case ";
  std::string patterns = path_patterns(places);
  for (char& c : patterns) c = c == '|' ? ' ' : c;
  text += patterns +
          "\n"
          "        set place (string trim \"$place $word\")\n"
          "    end\n"
          "  end\n"
          "  test \"$place\" = \"$argv[1]\"\n"
          "end\n";
  for (const auto& [path, place] : places) {
    // Where a command must follow, a file cannot.
    text += std::string{"complete -c shmqctl"} + (place.commands.empty() ? "" : " -f") +
            " -n \"__shmqctl_at '" + path + "'\" -a '" + joined(place.words);
    text += place.takes_queue ? " (" + std::string{list_queues} : "'\n";
    if (place.takes_queue) {
      // In single quotes, those of the command have to be escaped.
      const std::string inner{"' '"};
      const auto at = text.rfind(inner);
      text.replace(at, inner.size(), "\\' \\'");
      text += ")'\n";
    }
  }
  return text;
}

int print(const CLI::App& app, const std::string& shell) {
  Places places;
  collect(app, "", options_of(app), places);
  const std::string text = shell == "bash"  ? bash_script(places)
                           : shell == "zsh" ? zsh_script(places)
                                            : fish_script(places);
  write_all(STDOUT_FILENO, text, nullptr, "write to stdout");
  return exit_ok;
}

}  // namespace

void add_completion_command(CLI::App& app, Context& context) {
  CLI::App* command = app.add_subcommand("completion", "a completion script for a shell");
  auto shell = std::make_shared<std::string>();
  command->add_option("shell", *shell, "bash, zsh or fish")
      ->required()
      ->check(CLI::IsMember({"bash", "zsh", "fish"}));
  command->callback(
      [&app, &context, shell] { context.command = [&app, shell] { return print(app, *shell); }; });
}

}  // namespace shmqctl
