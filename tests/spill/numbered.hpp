// SPDX-License-Identifier: Apache-2.0
//
// Messages that say what they are: number, filling and attributes of all lengths follow from the
// number.
#pragma once

#include <shmq/shmq.hpp>
#include <string>

#include "support/journaled_queue.hpp"

namespace shmq::testing {

inline std::string payload_of(std::uint64_t number, std::size_t most = 700) {
  std::string text = std::to_string(number) + ":";
  const std::size_t bytes = text.size() + number * 7919 % most;
  while (text.size() < bytes) text += static_cast<char>('a' + (number + text.size()) % 26);
  return text;
}
inline std::string attribute_of(std::uint64_t number) {
  return std::string(number % 13, static_cast<char>('A' + number % 26));
}
// Two of three have attributes, of each alignment.
inline bool has_attribute(std::uint64_t number) { return number % 3 != 0; }

/// Empty: the delivery is message `number`, whole.
inline std::string fault_of(const Delivery& delivery, std::uint64_t number) {
  if (delivery.text() != payload_of(number)) {
    return "payload of " + std::to_string(number) + " is " +
           std::string{delivery.text().substr(0, 40)};
  }
  const auto attributes = delivery.attributes();
  if (attributes.size() != (has_attribute(number) ? 1U : 0U)) return "number of attributes";
  if (has_attribute(number) &&
      (attributes[0].key != "k" || attributes[0].value != attribute_of(number))) {
    return "attribute";
  }
  return {};
}

inline QueueOptions spill_options(std::vector<GroupOptions> groups) {
  QueueOptions options{.slots = 64,
                       .arena_bytes = 16 * 4096,
                       .chunk_bytes = 4096,
                       .max_groups = 4,
                       .max_participants = 16,
                       .window_entries = 32,
                       .straggler_entries = 32,
                       .overflow = Overflow::spill,
                       .groups = std::move(groups)};
  return options;
}

/// Publishes message after message, with the journal written where there is no room.
class Publishing {
 public:
  explicit Publishing(JournaledQueue& journaled, bool publish_time = false)
      : journaled_(journaled),
        queue_(journaled.open()),
        producer_(std::move(queue_.producer({.publish_time = publish_time}).value())) {}

  void publish(std::uint64_t count) {
    for (const std::uint64_t end = next_ + count; next_ < end; ++next_) {
      const std::string attribute = attribute_of(next_);
      const Attribute attributes[] = {{"k", attribute}};
      PublishOptions options{.timeout = std::chrono::nanoseconds::zero()};
      if (has_attribute(next_)) options.attributes = attributes;
      auto published = producer_.publish(payload_of(next_), options);
      for (int attempt = 0; !published && attempt < 3; ++attempt) {
        journaled_.pump();
        published = producer_.publish(payload_of(next_), options);
      }
      ASSERT_TRUE(published) << "message " << next_ << ": "
                             << make_error_code(published.code()).message();
      ASSERT_EQ(published.seq().value, next_);
    }
  }
  [[nodiscard]] std::uint64_t next() const { return next_; }
  void set_next(std::uint64_t next) { next_ = next; }
  [[nodiscard]] Queue& queue() { return queue_; }

 private:
  JournaledQueue& journaled_;
  Queue queue_;
  Producer producer_;
  std::uint64_t next_ = 0;
};

}  // namespace shmq::testing
