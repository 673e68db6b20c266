// SPDX-License-Identifier: Apache-2.0
#include "journal/story.hpp"

#include <algorithm>
#include <cerrno>

#include "journal/damage.hpp"

namespace shmq::testing {

using namespace shmq::journal;

namespace {

constexpr std::uint64_t small_file_bytes = 32768;

std::uint64_t mix(std::uint64_t hash, std::uint64_t value) {
  return (hash ^ value) * 0x9e3779b97f4a7c15ULL + (hash >> 29);
}

}  // namespace

std::uint64_t Outcome::fingerprint() const {
  std::uint64_t hash = mix(plan.end_seq, plan.is_refused ? 1 : 0);
  for (const auto& [seq, payload] : messages) {
    hash = mix(hash, seq);
    hash = mix(hash, checksum_of(std::as_bytes(std::span{payload})));
  }
  for (const auto& [uuid, group] : plan.state.groups) {
    hash = mix(hash, group.floor);
    for (const auto& [first, end] : group.settled) hash = mix(mix(hash, first), end);
    for (const auto& [seq, entry] : group.entries) hash = mix(mix(hash, seq), entry.hand_outs);
  }
  return mix(hash, plan.next_seq);
}

Outcome look(SimDisk& disk, const Uuid& queue_uuid, bool memory_is_newer) {
  DiskDirectory directory{disk};
  auto plan = analyse(directory, {.queue_uuid = queue_uuid, .memory_is_newer = memory_is_newer});
  if (!plan) throw std::runtime_error{"analysis failed: " + plan.error().message()};
  Outcome outcome{.plan = std::move(*plan), .messages = {}, .gaps = {}};
  if (outcome.plan.is_refused) return outcome;
  const auto read =
      read_messages(directory, outcome.plan, outcome.plan.state.least_floor(outcome.plan.end_seq),
                    [&outcome](const Record& record) {
                      if (record.type == RecordType::gap) {
                        const auto gap = load<GapRecord>(record.bytes);
                        outcome.gaps.push_back({gap.first_seq, gap.end_seq});
                        return;
                      }
                      const MessageView view = message_of(record);
                      outcome.messages[view.seq].assign(
                          reinterpret_cast<const char*>(view.payload.data()), view.payload.size());
                    });
  if (!read) throw std::runtime_error{"reading failed: " + read.error().message()};
  return outcome;
}

Story::Story(std::uint64_t seed, Tally& tally)
    : seed_(seed), tally_(tally), random_(seed), disk_(seed ^ 0x5151), world_(seed ^ 0xabcd) {
  identity_.name_space = "sim";
  identity_.queue = "q";
  identity_.queue_uuid[0] = 0x42;
  identity_.queue_uuid[15] = static_cast<std::uint8_t>(seed);
}

bool Story::fail(const std::string& why) {
  failed_ = true;
  tally_.failures.push_back("SHMQ_SEED=" + std::to_string(seed_) + ": " + why);
  return false;
}

void Story::count(const Plan& plan) {
  for (const Finding& finding : plan.findings) ++tally_.letters[finding.letter];
}

RecoverOptions Story::recover_options(bool memory_is_newer) const {
  return {.identity = identity_,
          .queue_uuid_is_known = true,
          .memory_is_newer = memory_is_newer,
          .check_all_bodies = true,
          .first_file_bytes = small_file_bytes,
          .initial = world_.initial_state()};
}

WriterOptions Story::writer_options() const {
  return {.files = {.first_file_bytes = small_file_bytes,
                    .usual_file_bytes_max = 2 * small_file_bytes,
                    .max_disk_bytes = seed_ % 5 == 0 ? 8 * small_file_bytes : ~0ULL,
                    .keep = {.age_ns = seed_ % 7 == 0 ? 1'000'000'000U : 0U,
                             .bytes = seed_ % 7 == 1 ? 6 * small_file_bytes : 0,
                             .messages = seed_ % 7 == 2 ? 300U : 0U}},
          .ring_slots = 48,
          .batch_bytes_max = 24576,
          .write_piece_bytes = 8192};
}

// Some lives have a bad disk.
void Story::add_faults() {
  disk_.faults.clear();
  disk_.capacity_bytes = ~0ULL;
  if (random(3) != 0) return;
  constexpr SimOperation operations[] = {
      SimOperation::write,    SimOperation::write,  SimOperation::sync,
      SimOperation::sync,     SimOperation::sync,   SimOperation::sync_directory,
      SimOperation::allocate, SimOperation::create, SimOperation::rename};
  constexpr int errors[] = {EIO, EIO, EIO, 0, 0, EINTR, EAGAIN, ENOSPC};
  for (std::uint64_t i = random(3) + 1; i > 0; --i) {
    disk_.faults.push_back({.operation = operations[random(std::size(operations))],
                            .nth = disk_.operations() + random(60) + 1,
                            .error = errors[random(std::size(errors))]});
  }
  if (random(4) == 0) disk_.capacity_bytes = (4 + random(6)) * small_file_bytes;
}

// A real batch of this queue, to be published as a payload.
void Story::add_decoy() {
  decoy_.clear();
  for (const auto& [name, bytes] : disk_.snapshot()) {
    if (number_in_name(name) && bytes.size() >= 3 * block_bytes) {
      for (int copy = 0; copy < 2; ++copy) {
        decoy_.insert(decoy_.end(), bytes.begin() + block_bytes, bytes.begin() + 2 * block_bytes);
      }
    }
  }
  decoy_.resize(std::min<std::size_t>(decoy_.size(), 16384));
}

void Story::step(Writer& writer) {
  switch (random(8)) {
    case 0:
    case 1: world_.publish(random(6) + 1, decoy_); break;
    case 2: world_.settle_some(); break;
    case 3: world_.hand_out_some(); break;
    case 4:
      StandstillClock::advance(random(20) == 0 ? 61'000'000'000 : random(15) * 1'000'000);
      break;
    case 5:
      if (disk_.capacity_bytes != ~0ULL && random(10) == 0) disk_.capacity_bytes = ~0ULL;
      break;
    default: break;
  }
  writer.pump();
  for (std::uint64_t i = random(12); i > 0; --i) disk_.poll(false);
  tally_.disk_errors += writer.figures().errors - errors_seen_;
  errors_seen_ = writer.figures().errors;
  const bool is_degraded = writer.health() == Health::degraded;
  tally_.degradations += is_degraded && !was_degraded_ ? 1 : 0;
  was_degraded_ = is_degraded;
}

void Story::live(Start start) {
  add_faults();
  errors_seen_ = 0;
  was_degraded_ = false;
  disk_.cut_after = random(4) == 0 ? random(12) : random(260);
  try {
    Writer writer{disk_, world_, writer_options(), std::move(start)};
    writer.pump();
    for (int i = 0; i < 200; ++i) step(writer);
    tally_.recycled += writer.files().recycled();
  } catch (const SimCut&) {
  }
  disk_.faults.clear();
  disk_.capacity_bytes = ~0ULL;
  ++tally_.cuts;
}

bool Story::judge(bool memory_is_newer, const char* when) {
  const Outcome outcome = look(disk_, identity_.queue_uuid, memory_is_newer);
  count(outcome.plan);
  tally_.end_states.insert(outcome.fingerprint());
  const std::string wrong =
      world_.judge(outcome.plan, !memory_is_newer, outcome.messages, outcome.gaps);
  return wrong.empty() || fail(std::string{when} + ": " + wrong);
}

// The state after a power cut is settled: any number of cut recoveries comes to the same.
bool Story::check_fixpoint() {
  const std::uint64_t expected = look(disk_, identity_.queue_uuid, false).fingerprint();
  // A quick start believes the bodies of older files unread, and finds the same.
  DiskDirectory directory{disk_};
  const auto quick =
      analyse(directory, {.queue_uuid = identity_.queue_uuid, .check_all_bodies = false});
  const Outcome thorough = look(disk_, identity_.queue_uuid, false);
  if (!quick || quick->end_seq != thorough.plan.end_seq || quick->state != thorough.plan.state ||
      quick->next_seq != thorough.plan.next_seq || quick->is_refused) {
    return fail("a quick start finds another state");
  }
  SimDisk other = disk_;
  for (int attempt = 0; attempt < 4; ++attempt) {
    if (attempt < 3) other.cut_after = random(30);
    try {
      const auto recovered = recover(other, recover_options(false));
      if (!recovered) return fail("recovery failed: " + recovered.error().message());
    } catch (const SimCut&) {
      ++tally_.recovery_cuts;
    }
    other.cut_power();
    const Outcome outcome = look(other, identity_.queue_uuid, false);
    count(outcome.plan);
    ++tally_.checks;
    // Afterwards the gap is on disk: the end moved up to it, the next seq did not move.
    const std::uint64_t end = outcome.plan.end_seq;
    Outcome same = outcome;
    const Outcome first = look(disk_, identity_.queue_uuid, false);
    same.plan.end_seq = first.plan.end_seq;
    if (first.plan.writes_gap && end == first.plan.next_seq) same.plan.state = first.plan.state;
    if (same.fingerprint() != expected) return fail("recovery comes to another state");
    if (attempt == 3 && end != first.plan.next_seq) return fail("the gap was not written");
  }
  return true;
}

void Story::check_damage() {
  SimDisk other = disk_;
  const Outcome before = look(other, identity_.queue_uuid, false);
  const auto done = damage(other, before, random_);
  if (!done) return;
  const auto files = other.snapshot();
  const Outcome after = look(other, identity_.queue_uuid, false);
  count(after.plan);
  ++tally_.damages;
  tally_.checks += 2;
  const auto& findings = after.plan.findings;
  const bool has_letter =
      done->letter == 0 || std::any_of(findings.begin(), findings.end(),
                                       [&](const Finding& f) { return f.letter == done->letter; });
  const bool has_range =
      !done->range || std::any_of(findings.begin(), findings.end(), [&](const Finding& f) {
        return f.action == Action::refuse && f.first_seq == done->range->first_seq &&
               f.end_seq == done->range->end_seq;
      });
  if (after.plan.is_refused == done->is_refused && has_letter && has_range) {
    if (!done->is_refused) return;
    const auto recovered = recover(other, recover_options(false));
    if (recovered && !recovered->start && other.snapshot() == files) return;
  }
  std::string text = "damage (" + done->what + ") came to:";
  for (const Finding& finding : findings) {
    text += "\n  " + std::string{finding.letter} + " " + finding.text();
  }
  if (done->range) {
    text += "\n  expected " + std::to_string(done->range->first_seq) + " to " +
            std::to_string(done->range->end_seq);
  }
  fail(text);
}

// Recovers, with cuts in between by chance. Nothing if something was wrong.
std::optional<Start> Story::recover_with_cuts(bool& memory_is_newer) {
  for (int attempt = 0;; ++attempt) {
    if (attempt < 2 && random(3) == 0) disk_.cut_after = random(40);
    if (attempt < 2 && random(8) == 0) {
      disk_.faults.push_back(
          {.operation = random(2) == 0 ? SimOperation::sync : SimOperation::write,
           .nth = disk_.operations() + random(12) + 1,
           .error = random(3) == 0 ? 0 : EIO});
    }
    try {
      auto recovered = recover(disk_, recover_options(memory_is_newer));
      disk_.faults.clear();
      disk_.cut_after.reset();
      if (recovered && recovered->start) return std::move(*recovered->start);
      if (recovered) {
        fail("recovery refused");
        return std::nullopt;
      }
      if (attempt > 3) {
        fail("recovery failed: " + recovered.error().message());
        return std::nullopt;
      }
    } catch (const SimCut&) {
      disk_.faults.clear();
      ++tally_.recovery_cuts;
      if (random(2) == 0) {
        disk_.cut_power();
        memory_is_newer = false;
      } else {
        disk_.kill_process();
      }
      if (!judge(memory_is_newer, "after a cut in recovery")) return std::nullopt;
    }
  }
}

void Story::play() {
  const StandstillClock clock;
  bool memory_is_newer = false;
  bool is_first = true;
  for (std::uint64_t lives = 2 + random(4); lives > 0 && !failed_; --lives) {
    if (!is_first && !memory_is_newer) {
      if (!check_fixpoint()) return;
      if (random(2) == 0) check_damage();
    }
    auto start = recover_with_cuts(memory_is_newer);
    if (!start) return;
    const Outcome outcome = look(disk_, identity_.queue_uuid, memory_is_newer);
    const std::string wrong =
        world_.judge(outcome.plan, !memory_is_newer, outcome.messages, outcome.gaps);
    if (!wrong.empty()) {
      fail("after recovery: " + wrong);
      return;
    }
    if (memory_is_newer) {
      world_.restart_writer(outcome.plan);
    } else {
      world_.live_again(outcome.plan, outcome.messages);
    }
    is_first = false;
    add_decoy();
    live(std::move(*start));
    memory_is_newer = random(3) == 0;
    if (memory_is_newer) {
      disk_.kill_process();
    } else {
      disk_.cut_power();
    }
    if (!judge(memory_is_newer, memory_is_newer ? "after a kill" : "after a power cut")) return;
  }
  tally_.checks += world_.checks();
  tally_.confirmed += world_.confirmed();
}

}  // namespace shmq::testing
