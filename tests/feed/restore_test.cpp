// SPDX-License-Identifier: Apache-2.0
//
// A queue over its lives: the real segment, source, writer, recovery and restore over a simulated
// disk; producers and consumers through the public interface. SHMQ_SEED=n plays that one story.
#include "daemon/feed/restore.hpp"

#include <gtest/gtest.h>

#include <cstdlib>
#include <random>
#include <set>

#include "daemon/feed/segment_source.hpp"
#include "daemon/journal/writer.hpp"
#include "support/durable_queue.hpp"
#include "support/sim_disk.hpp"

namespace {

using namespace shmq;
using namespace shmq::testing;

constexpr std::uint64_t file_bytes = 65536;

template <typename T>
T need(Result<T> result) {
  return DurableQueue::need(std::move(result));
}

QueueOptions story_options(const std::string& name_space) {
  QueueOptions options = SmallQueue::options(
      Overflow::fail, {{.name = "one", .mode = GroupMode::exclusive},
                       {.name = "many", .mode = GroupMode::shared, .delivery_limit = 60}});
  options.slots = 64;
  options.arena_bytes = 64 * 4096;
  options.window_entries = 32;
  options.durable = true;
  options.name_space = name_space;
  return options;
}

struct Confirmation {
  std::uint64_t looked = 0;
  std::uint64_t seq = 0;
};

struct GroupModel {
  std::set<std::uint64_t> acked;  // in this life
  std::set<std::uint64_t> stays;  // acked, and that is on stable storage
  std::vector<Confirmation> waiting;
  std::map<std::uint64_t, std::uint32_t> failures;  // nacks that are on stable storage
  std::vector<std::pair<Confirmation, std::uint32_t>> failing;
};

class Story {
 public:
  explicit Story(std::uint64_t seed) : random_(seed), disk_(seed * 77 + 1) {
    auto segment =
        need(shm::Segment::create("q", story_options(scratch_.name_space), shm::Authority::daemon));
    start(std::move(segment), true);
  }
  ~Story() { stop(); }

  void play() {
    for (int life = 0; life < 6 && !::testing::Test::HasFailure(); ++life) {
      disk_.cut_after.reset();
      try {
        if (random(2) == 0) disk_.cut_after = random(400);
        for (int i = 0; i < 150; ++i) step();
      } catch (const SimCut&) {
      }
      disk_.cut_after.reset();
      confirm();
      const bool gone = random(2) == 0;
      end_life(gone);
      if (gone) judge();
      if (gone) check_room();
    }
  }
  std::uint64_t checks = 0;

 private:
  std::uint64_t random(std::uint64_t below) { return random_() % below; }
  journal::Uuid uuid() const { return uuid_; }

  void start(std::shared_ptr<shm::Segment> segment, bool memory) {
    journal::RecoverOptions options;
    options.identity.name_space = scratch_.name_space;
    options.identity.queue = "q";
    if (segment) std::copy_n(segment->header().uuid, 16, uuid_.begin());
    options.identity.queue_uuid = uuid_;
    options.memory_is_newer = memory;
    options.first_file_bytes = file_bytes;
    if (segment) options.initial = feed::initial_state(*segment);
    auto recovery = need(journal::recover(disk_, options));
    if (!recovery.start) throw std::runtime_error{"recovery refused"};
    if (!segment) {
      journal::DiskDirectory directory{disk_};
      segment = need(feed::restore({.name_space = scratch_.name_space, .queue = "q"}, directory,
                                   recovery.plan, *recovery.start));
    }
    segment_ = std::move(segment);
    mark_ = std::make_unique<shm::MarkWriter>(need(shm::MarkWriter::open(*segment_)));
    if (auto mapped = segment_->map_mark({}); !mapped) {
      throw std::runtime_error{mapped.error().message()};
    }
    source_ = std::make_unique<feed::SegmentSource>(*segment_, *mark_, recovery.start->state,
                                                    recovery.start->watermark);
    sync::store_release(segment_->control().daemon_generation, 1);
    journal::WriterOptions writer;
    writer.files = {.first_file_bytes = file_bytes, .usual_file_bytes_max = 2 * file_bytes};
    writer.ring_slots = 64;
    writer_ =
        std::make_unique<journal::Writer>(disk_, *source_, writer, std::move(*recovery.start));
    for (int i = 0; i < 1000 && sync::load_relaxed(mark_->mark().seq_ceiling) == 0; ++i) {
      writer_->pump();
      disk_.poll(false);
    }
    queue_ = std::make_unique<Queue>(need(Queue::open("q", {.name_space = scratch_.name_space})));
    attach();
  }
  void attach() {
    producer_ = std::make_unique<Producer>(need(queue_->producer()));
    for (int g = 0; g < 2; ++g) {
      consumers_[g] = std::make_unique<Consumer>(need(queue_->consumer(g == 0 ? "one" : "many")));
    }
  }
  void detach() {
    for (int g = 0; g < 2; ++g) {
      for (auto& delivery : held_[g]) (void)delivery.release();
      held_[g].clear();
      consumers_[g].reset();
    }
    producer_.reset();
  }
  void stop() {
    writer_.reset();
    source_.reset();
    detach();
    queue_.reset();
  }

  void step() {
    const auto g = random(2);
    GroupModel& group = groups_[g];
    auto& held = held_[g];
    switch (random(8)) {
      case 0:
      case 1: {
        const std::string payload = std::to_string(random_()) + std::string(random(200), 'x');
        auto seq = producer_->publish(std::as_bytes(std::span{payload}));
        if (seq) {
          ++checks;
          if (!ever_.emplace(seq.seq().value, payload).second) {
            ADD_FAILURE() << "seq " << seq.seq().value << " was given out twice";
          }
        }
        break;
      }
      case 2:
      case 3: {
        auto delivery = consumers_[g]->try_receive();
        if (delivery && !delivery->empty()) {
          check(g, *delivery);
          held.push_back(std::move(*delivery));
        }
        break;
      }
      case 4:
      case 5:
        if (!held.empty()) {
          const std::size_t i = random(held.size());
          const std::uint64_t seq = held[i].seq().value;
          if (held[i].ack() == Settlement::settled) {
            group.acked.insert(seq);
            group.waiting.push_back({looked(), seq});
          }
          held.erase(held.begin() + static_cast<std::ptrdiff_t>(i));
        }
        break;
      case 6:
        if (!held.empty()) {
          const std::size_t i = random(held.size());
          const std::uint64_t seq = held[i].seq().value;
          const auto failures = static_cast<std::uint32_t>(held[i].failures() + 1);
          const auto delay = std::chrono::hours{random(8) == 0 && g == 1 ? 1 : 0};
          if (failures < 40 && held[i].nack(delay) == Settlement::settled) {
            group.failing.push_back({{looked(), seq}, failures});
            held.erase(held.begin() + static_cast<std::ptrdiff_t>(i));
          }
        }
        break;
      default: break;
    }
    writer_->pump();
    for (std::uint64_t i = random(12); i > 0; --i) disk_.poll(false);
    confirm();
  }
  std::uint64_t looked() const { return sync::load_acquire(mark_->mark().acks_looked); }

  void confirm() {
    watermark_ = sync::load_acquire(mark_->mark().watermark);
    const std::uint64_t synced = sync::load_acquire(mark_->mark().acks_synced);
    for (GroupModel& group : groups_) {
      std::erase_if(group.waiting, [&](const Confirmation& each) {
        if (synced > each.looked) group.stays.insert(each.seq);
        return synced > each.looked;
      });
      std::erase_if(group.failing, [&](const auto& each) {
        if (synced > each.first.looked) {
          auto& known = group.failures[each.first.seq];
          known = std::max(known, each.second);
        }
        return synced > each.first.looked;
      });
    }
  }

  void check(std::size_t g, const Delivery& delivery) {
    const std::uint64_t seq = delivery.seq().value;
    const std::string payload(reinterpret_cast<const char*>(delivery.payload().data()),
                              delivery.payload().size());
    ++checks;
    EXPECT_EQ(payload, ever_.at(seq)) << seq;
    EXPECT_FALSE(lost_.contains(seq)) << seq;
    EXPECT_FALSE(groups_[g].stays.contains(seq)) << "acked and synced, and back: " << seq;
    EXPECT_FALSE(groups_[g].acked.contains(seq)) << "acked in this life, and back: " << seq;
    const auto failures = groups_[g].failures.find(seq);
    if (failures != groups_[g].failures.end()) {
      EXPECT_GE(delivery.failures(), failures->second) << "a count went back: " << seq;
    }
  }

  void end_life(bool gone) {
    if (!gone) {
      writer_.reset();
      source_.reset();
      detach();
      queue_.reset();
      disk_.kill_process();
      start(segment_, true);
      return;
    }
    disk_.cut_power();  // what the participants do on their way out reaches memory alone
    stop();
    mark_.reset();
    segment_.reset();
    auto removed =
        shm::Segment::remove("q", {.name_space = scratch_.name_space}, shm::Authority::daemon);
    if (!removed) throw std::runtime_error{removed.error().message()};
    start(nullptr, false);
  }

  // What the shared group has, whether or not it may be handed out now, and what both hand out.
  void judge() {
    for (std::size_t g = 0; g < 2; ++g) {
      GroupModel& group = groups_[g];
      const auto acked = group.acked;
      group.acked = group.stays;
      group.waiting.clear();
      group.failing.clear();
      const std::uint64_t index = queue_index(g == 0 ? "one" : "many");
      journal::CheckpointState state;
      feed::GroupScan scan{*segment_};
      feed::GroupPicture picture;
      ASSERT_TRUE(scan.scan(static_cast<std::uint32_t>(index),
                            segment_->group(static_cast<std::uint32_t>(index)).word, {}, picture));
      journal::GroupState seen;
      seen.raise_floor(picture.floor);
      for (const auto& range : picture.settled) seen.settle(range.first_seq, range.end_seq);
      for (const auto& [seq, payload] : ever_) {
        // Not confirmed: either lost, for good, or on the disk all the same.
        if (seq >= watermark_ && !acked.contains(seq) && (seen.is_settled(seq) || is_void(seq))) {
          lost_.insert(seq);
        }
        if (seq >= watermark_ || lost_.contains(seq)) continue;
        ++checks;
        if (!acked.contains(seq)) {
          EXPECT_FALSE(seen.is_settled(seq)) << "confirmed, and lost to group " << g << ": " << seq;
        }
        if (group.stays.contains(seq)) {
          EXPECT_TRUE(seen.is_settled(seq)) << "acked and synced, and back: " << seq;
        } else if (seen.is_settled(seq)) {
          group.acked.insert(seq);  // reached the disk without being confirmed
        }
      }
      for (const auto& entry : picture.entries) {
        const auto failures = group.failures.find(entry.seq);
        if (failures == group.failures.end()) continue;
        EXPECT_GE(entry.failures, failures->second) << entry.seq;
      }
    }
  }
  // Whatever gap the loss of power has left: who publishes has the room that the messages leave.
  void check_room() {
    const QueueStats stats = queue_->stats();
    const auto first = ever_.lower_bound(stats.head.value);
    const auto held = static_cast<std::uint64_t>(std::distance(first, ever_.end()));
    std::uint64_t room = story_options({}).slots - std::min(story_options({}).slots, held);
    if (random(4) != 0) room = std::min<std::uint64_t>(room, 8);
    const std::string payload(8, 'r');
    for (; room > 0; --room) {
      auto seq = producer_->publish(std::as_bytes(std::span{payload}));
      ++checks;
      ASSERT_TRUE(seq) << held << " held, and no room for " << room << " more";
      EXPECT_TRUE(ever_.emplace(seq.seq().value, payload).second);
    }
  }
  bool is_void(std::uint64_t seq) const {
    const sync::Word16& slot = segment_->slots()[seq & (segment_->limits().slots - 1)];
    if (slot.low != seq) return false;
    const auto* record = reinterpret_cast<const shm::Record*>(segment_->arena() +
                                                              (slot.high << shm::ref_unit_shift));
    return record->seq == seq && (record->flags & shm::record_is_void) != 0;
  }
  std::uint64_t queue_index(const std::string& name) const {
    for (std::uint32_t i = 0; i < segment_->limits().max_groups; ++i) {
      if (name == segment_->group(i).name) return i;
    }
    throw std::runtime_error{"no group " + name};
  }

  Scratch scratch_;
  std::mt19937_64 random_;
  SimDisk disk_;
  journal::Uuid uuid_{};
  std::shared_ptr<shm::Segment> segment_;
  std::unique_ptr<shm::MarkWriter> mark_;
  std::unique_ptr<feed::SegmentSource> source_;
  std::unique_ptr<journal::Writer> writer_;
  std::unique_ptr<Queue> queue_;
  std::unique_ptr<Producer> producer_;
  std::unique_ptr<Consumer> consumers_[2];
  std::vector<Delivery> held_[2];
  GroupModel groups_[2];
  std::map<std::uint64_t, std::string> ever_;
  std::set<std::uint64_t> lost_;
  std::uint64_t watermark_ = 0;
};

TEST(Restore, over_many_lives_nothing_confirmed_is_lost_and_nothing_synced_comes_back) {
  const char* chosen = std::getenv("SHMQ_SEED");
  const std::uint64_t first = chosen != nullptr ? std::strtoull(chosen, nullptr, 10) : 1;
  const std::uint64_t end = chosen != nullptr ? first + 1 : first + 200;
  std::uint64_t checks = 0;
  for (std::uint64_t seed = first; seed != end && !HasFailure(); ++seed) {
    SCOPED_TRACE("SHMQ_SEED=" + std::to_string(seed));
    Story story{seed};
    story.play();
    checks += story.checks;
  }
  std::printf("seeds %llu to %llu, %llu checks\n", static_cast<unsigned long long>(first),
              static_cast<unsigned long long>(end - 1), static_cast<unsigned long long>(checks));
  EXPECT_GT(checks, 100U);
}

}  // namespace
