// SPDX-License-Identifier: Apache-2.0
#include <gtest/gtest.h>

#include <set>
#include <shmq/error.hpp>
#include <shmq/remedy.hpp>

namespace {

using namespace shmq;

TEST(Errors, each_says_why_and_what_to_do) {
  std::set<std::string> texts;
  int code = 0;
  for (; make_error_code(static_cast<Errc>(code)).message() != "unknown error"; ++code) {
    const auto errc = static_cast<Errc>(code);
    const std::string message = Error{errc}.message();
    EXPECT_TRUE(texts.insert(message).second) << message;
    EXPECT_NE(remedy_for(make_error_code(errc)), "see shmqctl doctor") << message;
    EXPECT_TRUE(message.ends_with(" (" + remedy_for(make_error_code(errc)) + ")")) << message;
    EXPECT_EQ(message.find('\n'), std::string::npos) << message;
  }
  EXPECT_GT(code, 30);
  EXPECT_EQ(make_error_code(static_cast<Errc>(code + 1)).message(), "unknown error");
}

TEST(Errors, those_of_the_system_say_what_to_do_as_well) {
  for (int number = 1; number < 134; ++number) {
    for (const std::error_category* category :
         {&std::generic_category(), &std::system_category()}) {
      const Error error{{number, *category}, "open 'x'", "", ""};
      const std::string start = "open 'x': " + error.why() + " (";
      EXPECT_TRUE(error.message().starts_with(start)) << error.message();
      EXPECT_GT(error.message().size(), start.size() + 2) << error.message();
    }
  }
  const Error denied{{EACCES, std::generic_category()}, "", "", ""};
  EXPECT_NE(denied.message().find("owner, group or mode"), std::string::npos) << denied.message();
}

TEST(Errors, a_remedy_that_is_known_comes_first) {
  const Error error{make_error_code(Errc::full), "publish", "no room", "ask the owner"};
  EXPECT_EQ(error.message(), "publish: no room (ask the owner)");
}

}  // namespace
