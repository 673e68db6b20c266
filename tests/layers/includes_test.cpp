// SPDX-License-Identifier: Apache-2.0
//
// Arrows point down: reads every #include of the tree and fails on an upward one.
#include <gtest/gtest.h>
#include <unistd.h>

#include <filesystem>
#include <fstream>
#include <map>
#include <regex>
#include <set>
#include <string>
#include <vector>

namespace {

namespace fs = std::filesystem;

// Which layers each layer of lib/src may include.
const std::map<std::string, std::set<std::string>> allowed_below{
    {"base", {"base"}},
    {"sync", {"base", "sync"}},
    {"journal", {"base", "journal"}},
    {"control", {"base", "control"}},
    {"shm", {"base", "sync", "shm"}},
    {"queue", {"base", "sync", "shm", "journal", "queue"}},
    {"api", {"base", "sync", "shm", "queue", "journal", "control", "api"}},
};

struct Findings {
  std::vector<std::string> upward;
  int includes = 0;
};

std::string layer_of(const fs::path& file, const fs::path& root) {
  const auto relative = fs::relative(file, root).generic_string();
  std::smatch match;
  if (std::regex_match(relative, match, std::regex{"lib/src/([a-z]+)/.*"})) return match[1];
  if (relative.starts_with("lib/include/")) return "include";
  if (relative.starts_with("daemon/")) return "daemon";
  return relative.starts_with("tools/") ? "tools" : "";
}

bool is_allowed(const std::string& layer, const std::string& included, bool quoted) {
  // The daemon alone talks to io_uring and writes logs; it may use all of the library's inside.
  if (layer == "daemon") return !included.starts_with("tools/") && !included.starts_with("tests/");
  if (included.starts_with("daemon/")) return false;
  if (included.starts_with("liburing") || included.starts_with("spdlog")) return false;
  if (layer == "include" || layer == "tools") {
    const auto slash = included.find('/');
    const std::string first = slash == std::string::npos ? "" : included.substr(0, slash);
    return !(quoted && allowed_below.contains(first));
  }
  const auto slash = included.find('/');
  if (!quoted || slash == std::string::npos) return !quoted;
  return allowed_below.at(layer).contains(included.substr(0, slash));
}

Findings look_through(const fs::path& root) {
  Findings findings;
  const std::regex include{R"(^\s*#\s*include\s*([<"])([^>"]+)[>"])"};
  for (const char* part : {"lib", "daemon", "tools"}) {
    if (!fs::exists(root / part)) continue;
    for (const auto& entry : fs::recursive_directory_iterator{root / part}) {
      const auto extension = entry.path().extension();
      if (extension != ".hpp" && extension != ".cpp" && extension != ".h") continue;
      const std::string layer = layer_of(entry.path(), root);
      std::ifstream file{entry.path()};
      for (std::string line; std::getline(file, line);) {
        std::smatch match;
        if (!std::regex_search(line, match, include)) continue;
        ++findings.includes;
        if (!is_allowed(layer, match[2], match[1] == "\"")) {
          findings.upward.push_back(entry.path().string() + ": " + line);
        }
      }
    }
  }
  return findings;
}

TEST(Layers, no_include_points_upward) {
  const Findings findings = look_through(SHMQ_SOURCE_DIR);
  std::printf("%d includes read\n", findings.includes);
  EXPECT_GT(findings.includes, 100);
  for (const auto& upward : findings.upward) ADD_FAILURE() << upward;
}

TEST(Layers, an_upward_include_is_found) {
  const fs::path root = fs::temp_directory_path() / ("layers" + std::to_string(getpid()));
  fs::create_directories(root / "lib/src/sync");
  fs::create_directories(root / "lib/include/shmq");
  fs::create_directories(root / "tools/shmqctl");
  std::ofstream{root / "lib/src/sync/a.hpp"} << "#include \"queue/head.hpp\"\n#include <vector>\n";
  std::ofstream{root / "lib/include/shmq/b.hpp"} << "#include \"shm/layout.hpp\"\n";
  std::ofstream{root / "tools/shmqctl/c.cpp"}
      << "#include \"queue/head.hpp\"\n#include \"c.hpp\"\n";
  fs::create_directories(root / "lib/src/journal");
  fs::create_directories(root / "daemon/io");
  std::ofstream{root / "lib/src/journal/d.cpp"}
      << "#include <liburing.h>\n#include \"shm/layout.hpp\"\n#include \"base/clock.hpp\"\n";
  std::ofstream{root / "lib/src/journal/e.cpp"} << "#include \"daemon/io/disk.hpp\"\n";
  std::ofstream{root / "daemon/io/f.cpp"}
      << "#include <liburing.h>\n#include \"journal/reader.hpp\"\n#include \"tests/f.hpp\"\n";
  const Findings findings = look_through(root);
  fs::remove_all(root);
  EXPECT_EQ(findings.includes, 12);
  EXPECT_EQ(findings.upward.size(), 7U);
}

}  // namespace
