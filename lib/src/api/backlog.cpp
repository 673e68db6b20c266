// SPDX-License-Identifier: Apache-2.0
//
// BacklogSampler: rates from the difference of two samples, ages from when a tail was first seen.
#include <algorithm>
#include <array>
#include <deque>
#include <map>
#include <shmq/backlog.hpp>
#include <tuple>

#include "base/clock.hpp"

namespace shmq {
namespace {

// A group's life. A name that was removed and created again may have the same incarnation in
// another entry; it was not created at the same time.
using GroupKey = std::tuple<std::string, std::uint64_t, std::chrono::system_clock::time_point>;

GroupKey key_of(const GroupInfo& group) { return {group.name, group.incarnation, group.created}; }

struct GroupMoment {
  std::uint64_t drained = 0;
  std::uint32_t consumers = 0;
  std::uint32_t busy = 0;
  bool has_ready = false;
};

struct Moment {
  std::uint64_t monotonic_ns = 0;
  std::uint64_t tail = 0;
  std::map<GroupKey, GroupMoment> groups;
};

// What the figures of different moments of a call leave a little lower now and then.
void keep_totals_from_falling(GroupInfo& now, GroupInfo& highest) {
  for (const auto total :
       {&GroupInfo::acked_total, &GroupInfo::dropped_total, &GroupInfo::redelivered_death_total,
        &GroupInfo::redelivered_lease_total, &GroupInfo::redelivered_nack_total,
        &GroupInfo::redelivered_release_total, &GroupInfo::dead_lettered_total}) {
    highest.*total = std::max(highest.*total, now.*total);
    now.*total = highest.*total;
  }
}

// When which tail was first seen: a message below it was published before. Thinned out where it is
// old, which makes an age found in it lower, never too high.
class TailTimes {
 public:
  void add(std::uint64_t monotonic_ns, std::uint64_t tail) {
    if (!times_.empty() && tail <= times_.back().tail) return;
    times_.push_back({monotonic_ns, tail});
    if (times_.size() <= most_times) return;
    std::size_t number = 0;
    std::erase_if(times_, [&number](const TailTime&) {
      const bool is_old = number < most_times / 2;
      return number++ % 2 == 1 && is_old;  // the first one stays
    });
  }
  // Since when `seq` is known to be in the queue; none if it was not there at the last sample.
  [[nodiscard]] std::optional<std::uint64_t> first_seen_ns(std::uint64_t seq) const {
    const auto found =
        std::upper_bound(times_.begin(), times_.end(), seq,
                         [](std::uint64_t wanted, const TailTime& t) { return wanted < t.tail; });
    if (found == times_.end()) return std::nullopt;
    return found->monotonic_ns;
  }

 private:
  static constexpr std::size_t most_times = 1024;
  struct TailTime {
    std::uint64_t monotonic_ns;
    std::uint64_t tail;
  };
  std::deque<TailTime> times_;
};

}  // namespace

class BacklogSampler::History {
 public:
  explicit History(std::chrono::nanoseconds span) : span_(span) {}

  std::vector<GroupFigures> add(const Queue& queue) {
    if (const auto uuid = queue.info().uuid; uuid != uuid_) {
      *this = History{span_};
      uuid_ = uuid;
    }
    Moment moment;
    // The groups are looked at after the tail: what they have drained may lie beyond it, and is
    // then drained before it arrived, for one sample.
    moment.tail = queue.stats().tail.value;
    if (!moments_.empty()) moment.tail = std::max(moment.tail, moments_.back().tail);
    std::vector<GroupInfo> groups = queue.groups();
    moment.monotonic_ns = base::clock->monotonic_ns();
    tails_.add(moment.monotonic_ns, moment.tail);
    std::map<GroupKey, GroupInfo> highest;
    for (GroupInfo& group : groups) {
      const GroupKey key = key_of(group);
      GroupInfo& totals = highest[key];
      if (const auto before = highest_.find(key); before != highest_.end()) {
        totals = before->second;
      }
      keep_totals_from_falling(group, totals);
      moment.groups[key] = {.drained = group.acked_total + group.dead_lettered_total,
                            .consumers = group.consumers,
                            .busy = group.consumers_busy,
                            .has_ready = group.ready > 0};
    }
    highest_ = std::move(highest);
    moments_.push_back(std::move(moment));
    forget_before_span();
    std::vector<GroupFigures> figures;
    for (GroupInfo& group : groups) figures.push_back(figures_of(std::move(group)));
    return figures;
  }

 private:
  void forget_before_span() {
    const std::uint64_t now = moments_.back().monotonic_ns;
    const auto span_ns = static_cast<std::uint64_t>(span_.count());
    // The first one kept is the last one that is a whole span old.
    while (moments_.size() > 2 && now - moments_[1].monotonic_ns >= span_ns) moments_.pop_front();
  }

  GroupFigures figures_of(GroupInfo group) const {
    const GroupKey key = key_of(group);
    const Moment& last = moments_.back();
    improve(group.oldest_ready, last.monotonic_ns);
    improve(group.oldest_in_flight, last.monotonic_ns);
    GroupFigures figures;
    figures.group = std::move(group);
    figures.never_without_ready = true;
    const Moment* first = nullptr;
    std::size_t samples = 0;
    for (const Moment& moment : moments_) {
      const auto found = moment.groups.find(key);
      if (found == moment.groups.end()) continue;
      if (first == nullptr) first = &moment;
      ++samples;
      figures.mean_consumers += found->second.consumers;
      figures.mean_consumers_busy += found->second.busy;
      figures.never_without_ready = figures.never_without_ready && found->second.has_ready;
    }
    figures.mean_consumers /= static_cast<double>(samples);
    figures.mean_consumers_busy /= static_cast<double>(samples);
    if (first->monotonic_ns >= last.monotonic_ns) return figures;
    figures.span = std::chrono::nanoseconds{last.monotonic_ns - first->monotonic_ns};
    const double seconds = std::chrono::duration<double>(figures.span).count();
    figures.arrivals_per_second = static_cast<double>(last.tail - first->tail) / seconds;
    figures.drained_per_second =
        static_cast<double>(last.groups.at(key).drained - first->groups.at(key).drained) / seconds;
    return figures;
  }

  void improve(std::optional<OldestMessage>& oldest, std::uint64_t now) const {
    if (!oldest || oldest->basis == AgeBasis::publish_time) return;
    const auto seen = tails_.first_seen_ns(oldest->seq.value);
    if (!seen) return;
    const std::chrono::nanoseconds age{now - *seen};
    if (oldest->basis == AgeBasis::hand_out && oldest->age >= age) return;
    oldest->age = age;
    oldest->basis = AgeBasis::observed;
  }

  std::chrono::nanoseconds span_;
  std::array<std::uint8_t, 16> uuid_{};
  TailTimes tails_;
  std::deque<Moment> moments_;
  std::map<GroupKey, GroupInfo> highest_;
};

BacklogSampler::BacklogSampler(std::chrono::nanoseconds span)
    : history_(std::make_unique<History>(std::max(span, std::chrono::nanoseconds{1}))) {}
BacklogSampler::BacklogSampler(BacklogSampler&&) noexcept = default;
BacklogSampler& BacklogSampler::operator=(BacklogSampler&&) noexcept = default;
BacklogSampler::~BacklogSampler() = default;

std::vector<GroupFigures> BacklogSampler::sample(const Queue& queue) {
  return history_->add(queue);
}

}  // namespace shmq
