// SPDX-License-Identifier: Apache-2.0
//
// Each key of the configuration: taken, refused outside its range with the line, and in the manual.
#include "daemon/main/config.hpp"

#include <gtest/gtest.h>

#include <fstream>
#include <set>
#include <sstream>

namespace {

using namespace shmq;
using namespace shmq::daemon_main;

struct Case {
  std::string key;
  std::string good;
  std::function<bool(const Config&)> is_taken;
  std::vector<std::string> bad;
};

const std::vector<Case>& cases() {
  static const std::vector<Case> all{
      {"data_dir", "'/d'", [](const Config& c) { return c.data_dir == "/d"; }, {"'d'", "''", "1"}},
      {"runtime_dir", "'/r'", [](const Config& c) { return c.runtime_dir == "/r"; }, {"'r'", "[]"}},
      {"log_level",
       "'error'",
       [](const Config& c) { return c.log_level == "error"; },
       {"'loud'", "3"}},
      {"backend",
       "'plain'",
       [](const Config& c) { return c.backend == io::BackendChoice::plain; },
       {"'aio'", "true"}},
      {"sweep",
       "'20ms'",
       [](const Config& c) { return c.sweep_ns == 20'000'000; },
       {"'0s'", "'2s'", "20", "'20'", "'-1ms'", "'20 parsecs'"}},
      {"spin", "'50us'", [](const Config& c) { return c.spin_ns == 50'000; }, {"'11ms'", "'x'"}},
      {"drain_limit",
       "'1min'",
       [](const Config& c) { return c.drain_limit_ns == 60'000'000'000; },
       {"'2h'", "1.5"}},
      {"control.create_group",
       "'root'",
       [](const Config& c) { return c.create_group == 0U; },
       {"'no such group'", "''", "0", "'4294967295'"}},
      {"control.trusted_owners",
       "['root', '77']",
       [](const Config& c) {
         return c.trusted_owners == std::vector<uid_t>{0, 77};
       },
       {"'root'", "['no such user']", "[0]"}},
      {"journal.max_disk",
       "'2GiB'",
       [](const Config& c) { return c.journal.files.max_disk_bytes == 2ULL << 30; },
       {"'1MiB'", "-1", "'-4GiB'", "'1e99GiB'", "'nan'", "'99999999TiB'"}},
      {"journal.file_max",
       "8388608",
       [](const Config& c) { return c.journal.files.usual_file_bytes_max == 8ULL << 20; },
       {"'4KiB'", "'2GiB'", "false"}},
      {"journal.recycle",
       "false",
       [](const Config& c) { return !c.journal.files.recycles; },
       {"'no'", "0"}},
      {"journal.idle_close",
       "'5ms'",
       [](const Config& c) { return c.journal.idle_close_ns == 5'000'000; },
       {"'1us'", "'1h'"}},
      {"journal.degraded_retry",
       "'1s'",
       [](const Config& c) { return c.journal.degraded_retry_ns == 1'000'000'000; },
       {"'1ms'", "'1d'"}},
      {"journal.check_at_start",
       "0",
       [](const Config& c) { return c.check_bytes == 0; },
       {"'all'", "-5"}},
  };
  return all;
}

std::string line_of(const std::string& key, const std::string& value) {
  return "# a comment\n" + key + " = " + value + "\n";
}

TEST(Config, nothing_in_it_is_the_default) {
  const auto config = parse_config("", "f");
  ASSERT_TRUE(config);
  EXPECT_EQ(config->log_level, "info");
  EXPECT_FALSE(config->create_group);
}

TEST(Config, each_key_has_a_case_here_and_stands_in_the_manual) {
  std::set<std::string> here;
  for (const Case& c : cases()) here.insert(c.key);
  const auto keys = config_keys();
  EXPECT_EQ(here, (std::set<std::string>{keys.begin(), keys.end()}));
  std::ifstream page{std::string{SHMQ_SOURCE_DIR} + "/man/shmqd.toml.5"};
  std::set<std::string> in_manual;
  std::string prefix;
  for (std::string line; std::getline(page, line);) {
    if (line.starts_with(".Ss [")) prefix = line.substr(5, line.size() - 6) + ".";
    if (line.starts_with(".It Ic ")) {
      std::istringstream words{line.substr(7)};
      std::string key;
      words >> key;
      in_manual.insert(prefix + key);
    }
  }
  EXPECT_EQ(in_manual, here);
}

TEST(Config, each_key_is_taken) {
  for (const Case& c : cases()) {
    const auto config = parse_config(line_of(c.key, c.good), "f");
    ASSERT_TRUE(config) << c.key << ": " << config.error().message();
    EXPECT_TRUE(c.is_taken(*config)) << c.key;
    EXPECT_FALSE(c.is_taken(Config{})) << c.key << ": the case would pass without it";
  }
}

TEST(Config, a_bad_value_is_refused_with_its_line_and_what_it_must_be) {
  for (const Case& c : cases()) {
    for (const std::string& bad : c.bad) {
      const auto config = parse_config(line_of(c.key, bad), "/etc/f");
      ASSERT_FALSE(config) << c.key << " = " << bad;
      const std::string text = config.error().message();
      EXPECT_NE(text.find("'/etc/f', line 2"), std::string::npos) << text;
      EXPECT_NE(text.find(c.key + " must be "), std::string::npos) << text;
      EXPECT_EQ(text.find('\n'), std::string::npos) << text;
    }
  }
}

TEST(Config, an_unknown_key_is_an_error_wherever_it_stands) {
  for (const char* text : {"\nspeed = 1", "\n[journal]\nspeed = 1", "\n[speed]\n",
                           "\n[journal.x]\n", "\njournal = 1", "\ndata_dir.x = 1"}) {
    const auto config = parse_config(text, "f");
    ASSERT_FALSE(config) << text;
    EXPECT_NE(config.error().message().find("line "), std::string::npos)
        << config.error().message();
  }
}

TEST(Config, what_is_not_toml_is_refused_with_its_line) {
  const auto config = parse_config("\n\nsweep = = 3", "f");
  ASSERT_FALSE(config);
  EXPECT_NE(config.error().message().find("line 3"), std::string::npos) << config.error().message();
}

TEST(Config, a_file_that_is_missing_is_an_error) {
  EXPECT_FALSE(read_config("/nonexistent/shmqd.toml"));
}

}  // namespace
