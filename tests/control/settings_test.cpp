// SPDX-License-Identifier: Apache-2.0
#include "control/settings.hpp"

#include <gtest/gtest.h>

#include "control/protocol.hpp"

namespace shmq::control {
namespace {

using namespace std::chrono_literals;

TEST(Settings, a_queue_comes_back_as_it_was) {
  QueueOptions options{.slots = 1024,
                       .arena_bytes = 8ULL << 20,
                       .chunk_bytes = 65536,
                       .max_groups = 3,
                       .overflow = Overflow::fail,
                       .durable = true,
                       .visible = Visible::synced,
                       .retention = {.age = 36h, .bytes = 5ULL << 30, .messages = 7},
                       .max_disk_bytes = 9ULL << 30,
                       .mode = 0660,
                       .owner_group = 7};
  options.groups = {{.name = "billing", .mode = GroupMode::shared, .lease = 5s}, {.name = "a"}};
  const auto read = queue_options_from(text_of(options), "read");
  ASSERT_TRUE(read) << read.error().message();
  EXPECT_EQ(text_of(*read), text_of(options));
  EXPECT_EQ(read->groups.at(0).lease, 5s);
  EXPECT_EQ(read->groups.at(0).mode, GroupMode::shared);
  EXPECT_EQ(read->owner_group, 7U);
  EXPECT_FALSE(read->owner);
  EXPECT_EQ(read->overflow, Overflow::fail);
  EXPECT_EQ(read->visible, Visible::synced);
  EXPECT_EQ(read->retention.age, 36h);
  EXPECT_EQ(read->retention.bytes, 5ULL << 30);
  EXPECT_EQ(read->retention.messages, 7U);
  EXPECT_EQ(read->max_disk_bytes, 9ULL << 30);
}

TEST(Settings, a_group_comes_back_as_it_was) {
  const GroupSettings settings{.options = {.name = "w",
                                           .mode = GroupMode::shared,
                                           .lease = 0s,
                                           .delivery_limit = 9,
                                           .expire_idle = 1h},
                               .born_seq = ~std::uint64_t{0} - 1,
                               .created_realtime_ns = 1234567890123456789};
  const auto read = group_settings_from(text_of(settings), "read");
  ASSERT_TRUE(read);
  EXPECT_EQ(text_of(*read), text_of(settings));
  EXPECT_EQ(read->born_seq, ~std::uint64_t{0} - 1);
  EXPECT_EQ(read->options.expire_idle, 1h);
}

TEST(Settings, what_is_missing_has_its_default_and_what_is_unknown_is_ignored) {
  const auto read = queue_options_from(R"({"slots": 16, "of_a_later_version": [1]})", "read");
  ASSERT_TRUE(read);
  EXPECT_EQ(read->slots, 16U);
  EXPECT_EQ(read->arena_bytes, QueueOptions{}.arena_bytes);
}

TEST(Settings, damaged_text_is_an_error) {
  for (const char* text :
       {"", "{", "[]", "7", R"({"slots": "many"})", R"({"slots": -1e400})", "\xff\xfe"}) {
    const auto read = queue_options_from(text, "read the settings");
    ASSERT_FALSE(read) << text;
    EXPECT_EQ(read.error(), Errc::corrupt);
  }
}

TEST(Protocol, an_error_comes_back_with_its_parts) {
  const Error error{make_error_code(Errc::already_exists), "create queue 'q'", "it exists", "no"};
  const Error back = error_from(error_response(error), "x");
  EXPECT_EQ(back, Errc::already_exists);
  EXPECT_EQ(back.message(), error.message());
  const Error system{{ENOSPC, std::generic_category()}, "create", "", ""};
  EXPECT_EQ(error_from(error_response(system), "x").code(), system.code());
  EXPECT_EQ(error_from("{}", "ask"), Errc::version_mismatch);
}

}  // namespace
}  // namespace shmq::control
