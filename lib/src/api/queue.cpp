// SPDX-License-Identifier: Apache-2.0
//
// Queue: creating, opening, and making producers and consumers.
#include <shmq/queue.hpp>

#include "api/alarm_state.hpp"
#include "api/confirms.hpp"
#include "api/consumer_core.hpp"
#include "api/daemon_calls.hpp"
#include "api/producer_core.hpp"
#include "api/readiness.hpp"
#include "base/names.hpp"
#include "queue/groups.hpp"
#include "queue/head.hpp"
#include "queue/look.hpp"
#include "queue/participants.hpp"

namespace shmq {
namespace detail {

class QueueCore {
 public:
  explicit QueueCore(std::shared_ptr<shm::Segment> opened) : segment(std::move(opened)) {}
  std::shared_ptr<shm::Segment> segment;
};

}  // namespace detail

namespace {

tl::unexpected<Error> failure(Errc code, std::string what, std::string why, std::string remedy) {
  return tl::unexpected(
      Error{make_error_code(code), std::move(what), std::move(why), std::move(remedy)});
}

// The first limit in which an existing queue differs from what was asked for; empty: none.
std::string difference(const shm::Limits& there, const shm::Limits& wanted) {
  const auto differs = [](const char* name, std::uint64_t have, std::uint64_t want) {
    return have == want ? std::string{}
                        : std::string{name} + " is " + std::to_string(have) + ", not " +
                              std::to_string(want);
  };
  for (std::string text :
       {differs("slots", there.slots, wanted.slots),
        differs("arena_bytes", there.arena_bytes, wanted.arena_bytes),
        differs("chunk_bytes", there.chunk_bytes, wanted.chunk_bytes),
        differs("max_groups", there.max_groups, wanted.max_groups),
        differs("max_participants", there.max_participants, wanted.max_participants),
        differs("max_producers", there.max_producers, wanted.max_producers),
        differs("window_entries", there.window_entries, wanted.window_entries),
        differs("straggler_entries", there.straggler_entries, wanted.straggler_entries),
        differs("max_message_bytes", there.max_message_bytes, wanted.max_message_bytes),
        differs("overflow", there.overflow, wanted.overflow),
        differs("durable", there.durable, wanted.durable),
        differs("visible", there.visible, wanted.visible),
        differs("the retention's age in ns", there.retain_age_ns, wanted.retain_age_ns),
        differs("the retention's bytes", there.retain_bytes, wanted.retain_bytes),
        differs("the retention's messages", there.retain_messages, wanted.retain_messages),
        differs("max_disk_bytes", there.max_disk_bytes, wanted.max_disk_bytes)}) {
    if (!text.empty()) return text;
  }
  return {};
}

Result<void> check_writable(const shm::Segment& segment, const std::string& what) {
  if (!segment.writable()) {
    return failure(Errc::no_permission, what, "it was opened as an observer",
                   "open it as a participant");
  }
  if (sync::load_acquire(segment.control().queue_state) !=
      static_cast<std::uint32_t>(shm::QueueState::active)) {
    return failure(Errc::removed, what, "it was removed", "");
  }
  return {};
}

// What a durable queue's group is must not be lost with the power: done once the journal says it.
template <typename Change>
Result<void> administer(const std::shared_ptr<shm::Segment>& segment_pointer,
                        const std::string& verb, const char* done, Change change) {
  const shm::Segment& segment = *segment_pointer;
  if (segment.limits().durable == 0) return change();
  const std::string what = segment.describe(verb.c_str());
  auto participation =
      queue::Participation::attach(segment_pointer, Role::administrator, "groups", 0);
  if (!participation) return tl::unexpected(participation.error());
  const detail::Confirms confirms{segment, *participation, {}};
  const auto text_of = [](Errc code) { return make_error_code(code).message(); };
  if (const Errc code = confirms.look(); code != Errc::ok) {
    return failure(code, what, text_of(code), "nothing was changed: try again when it runs");
  }
  if (auto changed = change(); !changed) return changed;
  std::atomic<bool> interrupted{false};
  const sync::CallGate gate;
  const std::stop_token stop;
  std::uint64_t asleep_since_ms = 0;  // no participant sleeps here
  detail::Blocking blocking{std::chrono::seconds{30}, stop, interrupted, gate, asleep_since_ms};
  const Errc code = confirms.wait_acks_synced(blocking);
  if (code == Errc::ok) return {};
  return failure(code, what,
                 std::string{"it was "} + done +
                     ", but that was not confirmed to be on stable storage: " + text_of(code),
                 "it will be once the daemon writes again");
}

std::uint32_t count_producers(const shm::Segment& segment) {
  return queue::read_stats(segment).producers;
}

}  // namespace

Queue::Queue(std::shared_ptr<detail::QueueCore> core) noexcept : core_(std::move(core)) {}
Queue::Queue(Queue&&) noexcept = default;
Queue& Queue::operator=(Queue&&) noexcept = default;
Queue::~Queue() = default;

Result<Queue> Queue::create(std::string_view name, const QueueOptions& options) {
  if (options.durable) {
    if (auto made = detail::create_durable(std::string{name}, options); !made) {
      return tl::unexpected(made.error());
    }
    OpenOptions opening{.name_space = options.name_space, .trusted_owners = options.trusted_owners};
    if (options.owner) opening.trusted_owners.push_back(*options.owner);
    return open(name, opening);
  }
  auto segment = shm::Segment::create(std::string{name}, options);
  if (!segment) return tl::unexpected(segment.error());
  return Queue{std::make_shared<detail::QueueCore>(std::move(*segment))};
}

Result<Queue> Queue::open(std::string_view name, const OpenOptions& options) {
  auto segment = shm::Segment::open(std::string{name}, options);
  if (!segment) return tl::unexpected(segment.error());
  return Queue{std::make_shared<detail::QueueCore>(std::move(*segment))};
}

Result<Queue> Queue::open_or_create(std::string_view name, const QueueOptions& options) {
  for (int attempt = 0; attempt < 100; ++attempt) {
    auto created = create(name, options);
    // A daemon that is away keeps nobody from a queue that is there.
    const bool is_away = !created && created.error() == Errc::daemon_away;
    if (created || !(is_away || created.error() == Errc::already_exists)) return created;
    auto opened =
        open(name, {.name_space = options.name_space, .trusted_owners = options.trusted_owners});
    if (!opened) {
      if (opened.error() == Errc::no_such_queue && is_away) return created;
      if (opened.error() == Errc::no_such_queue) continue;  // removed between the two
      return opened;
    }
    const shm::Segment& segment = *opened->core_->segment;
    if (std::string text = difference(segment.limits(), shm::limits_from(options)); !text.empty()) {
      return failure(Errc::exists_with_other_limits, segment.describe("open or create"),
                     "it exists with other limits: " + text,
                     "ask for the same limits, or open it as it is");
    }
    for (const GroupOptions& group : options.groups) {
      if (queue::find_group(segment, group.name)) continue;
      auto made = opened->create_group(group);
      if (!made && !(made.error() == Errc::already_exists)) return tl::unexpected(made.error());
    }
    return opened;
  }
  return failure(Errc::busy, "open or create queue '" + std::string{name} + "'",
                 "its name is taken, but it cannot be opened",
                 "try again, or see what holds the name: ls -l /dev/shm");
}

Result<void> Queue::remove(std::string_view name, const OpenOptions& options) {
  auto removed = shm::Segment::remove(std::string{name}, options);
  if (removed) return removed;
  if (removed.error() == Errc::daemon_away) {  // a durable one
    return detail::remove_durable(std::string{name}, options);
  }
  if (removed.error() == Errc::no_such_queue) {
    // The daemon may have a journal of it that it does not serve. If there is no daemon, then what
    // is known is that there is no such queue.
    auto asked = detail::remove_durable(std::string{name}, options);
    if (asked || !(asked.error() == Errc::daemon_away || asked.error() == Errc::foreign_owner)) {
      return asked;
    }
  }
  return removed;
}

Result<std::vector<std::string>> Queue::list(std::string_view name_space) {
  return shm::Segment::list(std::string{name_space});
}

Result<Producer> Queue::producer(const ProducerOptions& options) {
  const auto& segment = core_->segment;
  const std::string what = segment->describe("publish to");
  if (auto fine = check_writable(*segment, what); !fine) return tl::unexpected(fine.error());
  auto arena = segment->writable_arena();
  if (!arena) return tl::unexpected(arena.error());
  auto participation = queue::Participation::attach(segment, Role::producer, options.name, 0);
  if (!participation) return tl::unexpected(participation.error());
  const std::uint32_t limit = segment->limits().max_producers;
  if (count_producers(*segment) > limit) {
    queue::reclaim_all(*segment);
    if (count_producers(*segment) > limit) {
      return failure(Errc::too_many_producers, what,
                     std::to_string(limit) + " producers are attached, as many as the arena allows",
                     "create the queue with a larger arena or smaller chunks");
    }
  }
  return Producer{
      std::make_unique<detail::ProducerCore>(segment, std::move(*participation), *arena, options)};
}

Result<Consumer> Queue::consumer(std::string_view group, const ConsumerOptions& options) {
  const auto& segment = core_->segment;
  const std::string what =
      "consume from group '" + std::string{group} + "' of queue '" + segment->queue() + "'";
  if (auto fine = check_writable(*segment, what); !fine) return tl::unexpected(fine.error());
  const auto found = queue::find_group(*segment, group);
  if (!found) {
    return failure(
        Errc::no_such_group, what, "no such group",
        "create it: shmqctl group create " + segment->queue() + " " + std::string{group});
  }
  const auto mode = static_cast<GroupMode>(shm::group_mode(found->word));
  if (options.expect_mode && *options.expect_mode != mode) {
    return failure(Errc::wrong_group_mode, what,
                   mode == GroupMode::exclusive ? "the group is exclusive, not shared"
                                                : "the group is shared, not exclusive",
                   "the mode belongs to the group: create another group");
  }
  auto participation = queue::Participation::attach(
      segment, Role::consumer, options.name,
      (shm::group_incarnation(found->word) << 16) | (found->index + 1));
  if (!participation) return tl::unexpected(participation.error());
  // The entry names the group first, then the group is looked at: its entry is not reused under us.
  sync::full_fence();
  if (sync::load_acquire(segment->group(found->index).word) != found->word) {
    return failure(Errc::no_such_group, what, "the group was removed", "");
  }
  return Consumer{std::make_unique<detail::ConsumerCore>(
      segment, std::move(*participation), found->index, found->word, options.confirm_spin)};
}

namespace {

// A time becomes a seq; anything else stays what it is. What is older than all that is on disk
// begins with the oldest.
Result<StartAt> without_time(const shm::Segment& segment, const StartAt& from,
                             const std::string& what) {
  if (from.kind != StartAt::Kind::time) return from;
  const auto since =
      std::chrono::duration_cast<std::chrono::nanoseconds>(from.time.time_since_epoch());
  if (segment.limits().durable != 0) {
    const auto seq = detail::first_seq_since(segment, since, what);
    if (!seq) return tl::unexpected(seq.error());
    if (!*seq) return StartAt::latest();
    const shm::Mark* mark = segment.mark();
    const std::uint64_t oldest = mark != nullptr ? sync::load_acquire(mark->first_retained) : 0;
    return StartAt::at({std::max(**seq, oldest)});
  }
  bool any_time = false;
  for (std::uint64_t seq = queue::read_head(segment);;) {
    const auto messages = queue::peek(segment, seq, 64);
    if (!messages) return tl::unexpected(messages.error());
    for (const PeekedMessage& message : *messages) {
      any_time |= message.publish_time.has_value();
      if (message.publish_time && *message.publish_time >= from.time) {
        return StartAt::at(message.seq);
      }
    }
    if (messages->empty()) break;
    seq = messages->back().seq.value + 1;
  }
  if (any_time || queue::find_tail(segment) == queue::read_head(segment)) return StartAt::latest();
  return failure(Errc::invalid_argument, what, "its messages have no publish time",
                 "name a seq; or have producers stamp their messages");
}

}  // namespace

Result<Seq> Queue::seek_group(std::string_view name, const StartAt& from) {
  const auto& segment = core_->segment;
  const std::string verb = "seek in group '" + std::string{name} + "' of";
  const std::string what = segment->describe(verb.c_str());
  if (auto fine = check_writable(*segment, what); !fine) return tl::unexpected(fine.error());
  const auto place = without_time(*segment, from, what);
  if (!place) return tl::unexpected(place.error());
  Seq begun{};
  auto done = administer(segment, verb, "moved", [&]() -> Result<void> {
    const auto seq = queue::seek_group(*segment, name, *place);
    if (!seq) return tl::unexpected(seq.error());
    begun = {*seq};
    return {};
  });
  if (!done) return tl::unexpected(done.error());
  return begun;
}

Result<Seq> Queue::find(const StartAt& from) const {
  const auto& segment = *core_->segment;
  const auto place = without_time(segment, from, segment.describe("find a message in"));
  if (!place) return tl::unexpected(place.error());
  const auto seq = queue::find_start(segment, *place);
  if (!seq) return tl::unexpected(seq.error());
  return Seq{*seq};
}

Result<void> Queue::create_group(const GroupOptions& options) {
  const auto& segment = core_->segment;
  if (auto fine = check_writable(*segment, segment->describe("create a group of")); !fine) {
    return fine;
  }
  const std::string verb = "create group '" + options.name + "' of";
  const auto place = without_time(*segment, options.from, segment->describe(verb.c_str()));
  if (!place) return tl::unexpected(place.error());
  GroupOptions placed = options;
  placed.from = *place;
  return administer(segment, verb, "made", [&] { return queue::create_group(*segment, placed); });
}

Result<void> Queue::remove_group(std::string_view name) {
  const auto& segment = core_->segment;
  if (auto fine = check_writable(*segment, segment->describe("remove a group of")); !fine) {
    return fine;
  }
  return administer(segment, "remove group '" + std::string{name} + "' of", "removed",
                    [&] { return queue::remove_group(*segment, name); });
}

Result<void> Queue::sync(std::chrono::nanoseconds timeout, std::stop_token stop) {
  const auto& segment = core_->segment;
  const std::string what = segment->describe("sync");
  if (auto fine = check_writable(*segment, what); !fine) return fine;
  auto participation = queue::Participation::attach(segment, Role::administrator, "sync", 0);
  if (!participation) return tl::unexpected(participation.error());
  const detail::Confirms confirms{*segment, *participation, {}};
  Errc code = confirms.durable() ? Errc::ok : Errc::not_durable;
  if (code == Errc::ok) {
    std::atomic<bool> interrupted{false};
    const sync::CallGate gate;
    std::uint64_t asleep_since_ms = 0;  // no participant sleeps here
    detail::Blocking blocking{timeout, stop, interrupted, gate, asleep_since_ms};
    const std::uint64_t tail = queue::find_tail(*segment);
    if (tail != 0) code = confirms.wait_synced(tail - 1, blocking);
    if (code == Errc::ok) code = confirms.wait_acks_synced(blocking);
  }
  if (code == Errc::ok) return {};
  return failure(code, what, make_error_code(code).message(), "");
}

Result<std::uint64_t> Queue::purge() {
  const auto& segment = core_->segment;
  if (auto fine = check_writable(*segment, segment->describe("purge")); !fine) {
    return tl::unexpected(fine.error());
  }
  auto participation = queue::Participation::attach(segment, Role::administrator, "purge", 0);
  if (!participation) return tl::unexpected(participation.error());
  return queue::drop_below(*segment, participation->entry_number(), queue::find_tail(*segment),
                           queue::Drop::all);
}

Result<std::vector<PeekedMessage>> Queue::peek(Seq from, std::size_t max_messages) const {
  return queue::peek(*core_->segment, from.value, max_messages);
}

Result<BacklogAlarm> Queue::backlog_alarm(std::string_view group, std::uint64_t threshold) const {
  const auto& segment = core_->segment;
  const auto found = queue::find_group(*segment, group);
  if (!found) {
    return failure(Errc::no_such_group,
                   segment->describe(("watch group '" + std::string{group} + "' of").c_str()),
                   "no such group", "see which there are: shmqctl group ls " + segment->queue());
  }
  auto state = std::make_unique<BacklogAlarm::State>();
  state->segment = segment;
  state->name = group;
  state->index = found->index;
  state->word = found->word;
  state->threshold = threshold;
  auto source = detail::ReadinessSource::make(
      segment, state->event, [watched = state.get()] { return watched->is_due(); });
  if (!source) return tl::unexpected(source.error());
  state->source = std::move(*source);
  return BacklogAlarm{std::move(state)};
}

Result<std::size_t> Queue::reclaim() {
  const auto& segment = core_->segment;
  if (auto fine = check_writable(*segment, segment->describe("reclaim in")); !fine) {
    return tl::unexpected(fine.error());
  }
  return queue::reclaim_all(*segment);
}

QueueInfo Queue::info() const { return queue::describe_queue(*core_->segment); }
QueueStats Queue::stats() const { return queue::read_stats(*core_->segment); }
std::vector<GroupInfo> Queue::groups() const { return queue::list_groups(*core_->segment); }
std::vector<ParticipantInfo> Queue::participants() const {
  return queue::list_participants(*core_->segment);
}
std::vector<ParticipantInfo> Queue::former_participants() const {
  return queue::list_former_participants(*core_->segment);
}

}  // namespace shmq
