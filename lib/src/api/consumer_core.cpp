// SPDX-License-Identifier: Apache-2.0
#include "api/consumer_core.hpp"

#include <algorithm>
#include <cstring>

#include "api/readiness.hpp"
#include "base/clock.hpp"

namespace shmq::detail {
namespace {

using queue::Fetch;
using namespace std::chrono_literals;

// A successor must go on within 200 ms of a death: half of it for the look, half for the machine.
constexpr std::chrono::nanoseconds standby_look_interval = 50ms;
// Its end is told within 200 ms: a look, the patience, a look.
constexpr std::chrono::nanoseconds daemon_look_interval = 40ms;
constexpr std::chrono::nanoseconds daemon_patience = 100ms;
constexpr std::uint32_t idle_looks_before_unpin = 256;
constexpr std::uint32_t quick_looks = 16;
constexpr std::uint32_t latency_looks = 256;  // about 150 ns: a round trip

std::chrono::nanoseconds back_off_of(std::uint32_t failures) noexcept {
  return std::min<std::chrono::nanoseconds>(100ms * (1U << std::min(failures, 8U)), 30s);
}

// A tick of the coarse clock later than it is due, so that it is then.
std::chrono::nanoseconds until_due(std::uint64_t due_in_ns) noexcept {
  return std::chrono::nanoseconds{due_in_ns + 1'000'000};
}

}  // namespace

ConsumerCore::ConsumerCore(std::shared_ptr<shm::Segment> segment,
                           queue::Participation participation, std::uint32_t group,
                           std::uint64_t group_word, std::chrono::nanoseconds confirm_spin)
    : segment_(std::move(segment)),
      participation_(std::move(participation)),
      confirms_(*segment_, participation_, confirm_spin),
      reader_(shm::group_mode(group_word) == static_cast<std::uint8_t>(GroupMode::shared)
                  ? static_cast<queue::Reader&>(shared_.emplace(*segment_, group, group_word,
                                                                participation_.entry_number() + 1,
                                                                participation_.generation()))
                  : exclusive_.emplace(*segment_, group, group_word,
                                       participation_.entry_number() + 1,
                                       participation_.generation())),
      entry_(participation_.entry()),
      arena_(segment_->arena()),
      sees_synced_only_(segment_->limits().visible != 0),
      backoff_(segment_->limits().slots, segment_->limits().arena_bytes) {}

ConsumerCore::~ConsumerCore() { close(); }

// --- Receiving ---------------------------------------------------------------------------------

[[gnu::always_inline]] inline void ConsumerCore::fill(Delivery& delivery,
                                                      const queue::HandOut& hand_out) noexcept {
  delivery.core_ = this;
  delivery.payload_ = arena_ + hand_out.payload_offset;
  delivery.seq_ = {hand_out.seq};
  delivery.payload_bytes_ = hand_out.payload_bytes;
  delivery.token_ = shared_ ? hand_out.hand_outs : exclusive_->token();
  delivery.hand_outs_ = hand_out.hand_outs;
  delivery.failures_ = hand_out.failures;
  delivery.settled_ = false;
  delivery.pin_ = hand_out.pin | (hand_out.head_bytes << pin_bits);
}

inline void ConsumerCore::release_bytes(const Delivery& delivery) noexcept {
  reader_.release_bytes(pin_of(delivery), delivery.payload_, delivery.pin_ >> pin_bits);
}

inline std::uint64_t ConsumerCore::record_bytes(const Delivery& delivery) noexcept {
  // What is in the journal holds nothing of the arena.
  if (SHMQ_UNLIKELY(pin_of(delivery) == queue::Pins::of_batch)) return 0;
  return std::uint64_t{delivery.pin_ >> pin_bits} + delivery.payload_bytes_;
}

// Not settled through this delivery, but no longer ours to settle: a cheap look, which may err
// towards no.
inline bool ConsumerCore::is_lost(const Delivery& delivery) const noexcept {
  if (shared_) return shared_->is_lost(delivery.seq_.value, delivery.token_);
  return exclusive_->is_below_floor(delivery.seq_.value) || delivery.token_ != exclusive_->token();
}

inline bool ConsumerCore::is_over(const Delivery& delivery) noexcept {
  if (delivery.settled_ || (shared_ && shared_->holds_nothing())) return true;
  if (!is_lost(delivery)) return false;
  if (shared_) shared_->forget(delivery.seq_.value, delivery.token_);
  return true;
}

// Lets go of what the caller's array held before, within a call. Most of it is settled and lies in
// one chunk: for such a row the pin's count is lowered once.
void ConsumerCore::clear(std::span<Delivery> deliveries) noexcept {
  const auto end = deliveries.end();
  for (auto each = deliveries.begin(); each != end;) {
    if (each->core_ == nullptr) {
      ++each;
      continue;
    }
    const std::uint32_t pin = pin_of(*each);
    const auto row = each;
    for (; each != end && each->core_ == this && pin_of(*each) == pin && is_over(*each) &&
           !queue::Pins::is_private(pin);
         ++each) {
      forget(*each);
    }
    if (SHMQ_LIKELY(each != row)) {
      reader_.pins().drop_deliveries(pin, static_cast<std::uint32_t>(each - row));
      continue;
    }
    if (each->core_ == this) {
      let_go(*each);
    } else {
      each->core_->drop(*each);  // of another consumer
    }
    forget(*each++);
  }
}

[[gnu::always_inline]] inline void ConsumerCore::note_received(std::uint64_t messages,
                                                               std::uint64_t bytes) noexcept {
  // relaxed: figures for people, on a line that only we write.
  sync::store_relaxed(entry_.messages_total, sync::load_relaxed(entry_.messages_total) + messages);
  sync::store_relaxed(entry_.bytes_total, sync::load_relaxed(entry_.bytes_total) + bytes);
}

// The usual single message. What stands between the load of the record and the next publish or ack
// is kept short in stores: they leave the store buffer one by one, and a locked instruction waits
// for them.
[[gnu::always_inline]] inline bool ConsumerCore::receive_next(Delivery& delivery) noexcept {
  queue::HandOut hand_out;
  if (shared_) {
    if (!shared_->fetch_next(hand_out)) return false;
  } else if (!exclusive_->fetch_next(hand_out)) {
    return false;
  }
  fill(delivery, hand_out);
  if (empty_looks_ != 0) empty_looks_ = 0;
  note_received(1, hand_out.payload_bytes);
  return true;
}

[[gnu::always_inline]] inline void ConsumerCore::keep_lease() noexcept {
  if (shared_) {
    shared_->read_clock();
  } else {
    exclusive_->keep_lease();
  }
}

// About every 50 ms, by the tick that was read anyway.
[[gnu::always_inline]] inline void ConsumerCore::look_for_the_dead() noexcept {
  if (SHMQ_UNLIKELY(reader_.last_tick() - last_reap_tick_ >= 3)) reap();
}

// The usual call for one message into a delivery that is empty or settled, without a call on its
// way and with few stores. False: nothing of the queue was changed, and the general way finds out
// why.
[[gnu::always_inline]] inline bool ConsumerCore::receive_fast(Delivery& delivery) noexcept {
  bool received = false;
  if (SHMQ_LIKELY(gate_.enter() && !participation_.in_forked_child() && !reached_the_end_)) {
    const std::uint32_t pin = pin_of(delivery);
    const bool ours = delivery.core_ == this;
    if (SHMQ_LIKELY(ours ? delivery.settled_ && !queue::Pins::is_private(pin)
                         : delivery.core_ == nullptr)) {
      keep_lease();
      received = receive_next(delivery);
      if (SHMQ_LIKELY(received)) {
        // The bytes that the object held before; it was overwritten, not dropped.
        if (SHMQ_LIKELY(ours)) reader_.pins().drop_delivery(pin);
        look_for_the_dead();
      }
    }
  }
  gate_.leave();
  return received;
}

// What has only a seq is settled here; gives whether there was any. It is never a plain record, so
// most hand-outs cost a compare.
bool ConsumerCore::settle_voids(std::size_t& count) noexcept {
  std::size_t kept = 0;
  for (std::size_t i = 0; i < count; ++i) {
    const queue::HandOut& hand_out = hand_outs_[i];
    const std::byte* payload = arena_ + hand_out.payload_offset;
    const auto* record = reinterpret_cast<const shm::Record*>(payload - hand_out.head_bytes);
    if (SHMQ_LIKELY(hand_out.head_bytes == sizeof(shm::Record)) ||
        (sync::load_relaxed(record->flags) & shm::record_is_void) == 0) {
      if (kept != i) hand_outs_[kept] = hand_out;
      ++kept;
      continue;
    }
    // Lost, it is another's to settle.
    if (shared_) {
      shared_->ack(hand_out.seq, hand_out.hand_outs);
    } else {
      exclusive_->ack(hand_out.seq, exclusive_->token());
    }
    reader_.release_bytes(hand_out.pin, payload, hand_out.head_bytes);
  }
  const bool any = kept != count;
  count = kept;
  return any;
}

Fetch ConsumerCore::try_receive(std::span<Delivery> deliveries, std::size_t& count) noexcept {
  const std::size_t capacity = std::min(deliveries.size(), batch_max);
  Fetch fetch = Fetch::nothing;
  do {
    fetch = shared_ ? shared_->fetch(hand_outs_.data(), capacity, count)
                    : exclusive_->fetch(hand_outs_.data(), capacity, count);
  } while (SHMQ_UNLIKELY(settle_voids(count)) && count == 0);
  std::uint64_t bytes = 0;
  for (std::size_t i = 0; i < count; ++i) {
    fill(deliveries[i], hand_outs_[i]);
    bytes += hand_outs_[i].payload_bytes;
  }
  if (count != 0) {
    empty_looks_ = 0;
    note_received(count, bytes);
    reached_the_end_ = count < capacity;
  } else if (++empty_looks_ == idle_looks_before_unpin) {
    reader_.pins().clear_idle();
  }
  return fetch;
}

void ConsumerCore::reap() noexcept {
  last_reap_tick_ = reader_.last_tick();
  queue::reclaim_in_passing(*segment_);
}

// What came since the back-off was asked last.
void ConsumerCore::note_burst() noexcept {
  const std::uint64_t messages = sync::load_relaxed(entry_.messages_total);
  const std::uint64_t bytes = sync::load_relaxed(entry_.bytes_total);
  backoff_.made_progress(messages - messages_at_last_wait_, bytes - bytes_at_last_wait_);
  messages_at_last_wait_ = messages;
  bytes_at_last_wait_ = bytes;
}

// With visible = synced something is published, and not yet to be seen. A daemon that restarts is
// waited for a little: gone is what has been gone for 100 ms of looks.
Errc ConsumerCore::hurry_the_daemon(const Blocking& blocking) noexcept {
  const std::uint64_t watermark = confirms_.watermark();
  if (rung_at_ != watermark || blocking.slept()) {
    rung_at_ = watermark;
    confirms_.ring();
  }
  if (!blocking.sleeps()) return Errc::ok;
  if (confirms_.look() != Errc::daemon_away) {
    away_since_ns_ = 0;
    return Errc::ok;
  }
  const std::uint64_t now = base::clock->monotonic_ns();
  if (away_since_ns_ == 0) away_since_ns_ = now;
  if (std::chrono::nanoseconds{now - away_since_ns_} < daemon_patience) return Errc::ok;
  away_since_ns_ = 0;
  return Errc::daemon_away;
}

// Nothing was there: ok means look again.
Errc ConsumerCore::wait(Fetch why, Blocking& blocking) noexcept {
  shm::Control& control = segment_->control();
  if (sync::load_acquire(control.queue_state) !=
      static_cast<std::uint32_t>(shm::QueueState::active)) {
    return Errc::removed;
  }
  if (blocking.slept()) {
    reader_.pins().clear_idle();
    queue::reclaim_in_passing(*segment_);
  }
  auto step = Blocking::Step::look_again;
  if (why == Fetch::nothing) {
    reached_the_end_ = false;
    note_burst();
    std::chrono::nanoseconds limit = sync::sleep_limit;
    if (SHMQ_UNLIKELY(sees_synced_only_) &&
        (shared_ ? shared_->next_awaits_sync() : exclusive_->next_awaits_sync())) {
      if (const Errc code = hurry_the_daemon(blocking); code != Errc::ok) return code;
      limit = daemon_look_interval;
    }
    if (shared_) limit = std::min(limit, until_due(shared_->due_in_ns()));
    step = blocking.step(control.message_event, &backoff_, limit);
    // After the wait, not before: a look that always finds the next one at once would keep the
    // bursts short, and the other side's lines going back and forth.
    const std::uint32_t looks = backoff_.wants_latency() ? latency_looks : quick_looks;
    const auto next_is_there = [this] {
      return shared_ ? shared_->next_is_there() : exclusive_->next_is_there();
    };
    for (std::uint32_t look = 0; look < looks && !next_is_there(); ++look) {
    }
  } else if (shared_) {
    // All that the group may have in flight is: until something of it is settled, or due again.
    reader_.pins().clear_idle();
    step = blocking.step(control.room_event, nullptr, until_due(shared_->due_in_ns()));
  } else {
    // Standing by, or waiting for a due time: no message changes that, so not on message_event.
    reader_.pins().clear_idle();
    std::chrono::nanoseconds limit = standby_look_interval;
    if (why == Fetch::held_back) {
      limit = std::min(limit, until_due(exclusive_->due_in_ns().value_or(1'000'000)));
    }
    step = blocking.step(control.ownership_event, nullptr, limit);
  }
  // After the sleep, not before: what comes with the wake-up is leased from now on.
  if (blocking.sleeps()) keep_lease();
  switch (step) {
    case Blocking::Step::timed_out: return Errc::timed_out;
    case Blocking::Step::interrupted: return Errc::interrupted;
    case Blocking::Step::look_again: break;
  }
  return Errc::ok;
}

std::size_t ConsumerCore::receive(std::span<Delivery> deliveries, std::chrono::nanoseconds timeout,
                                  const std::stop_token& stop, Errc& code) noexcept {
  const sync::CallScope scope{gate_};
  code = Errc::ok;
  if (SHMQ_UNLIKELY(!scope)) {
    code = Errc::closed;
    return 0;
  }
  if (SHMQ_UNLIKELY(participation_.in_forked_child())) {
    code = Errc::forked;
    return 0;
  }
  clear(deliveries);
  if (deliveries.empty()) {
    code = Errc::invalid_argument;
    return 0;
  }
  keep_lease();
  // A batch that the tail cut short is an empty look in disguise: a reader as fast as the writer
  // would never find nothing, and pull each line away while it is being filled.
  if (reached_the_end_ && timeout.count() > 0) {
    note_burst();
    backoff_.wait(0);
  }
  if (deliveries.size() == 1 && receive_next(deliveries[0])) {
    look_for_the_dead();
    return 1;
  }
  std::size_t count = 0;
  Fetch fetch = try_receive(deliveries, count);
  look_for_the_dead();
  if (SHMQ_LIKELY(count != 0)) return count;
  Blocking blocking{timeout, stop, interrupted_, gate_, entry_.asleep_since_ms};
  for (;;) {
    switch (fetch) {
      case Fetch::some: return count;
      case Fetch::removed: code = Errc::removed; return 0;
      case Fetch::corrupt:
      case Fetch::past_failed: code = Errc::corrupt; return 0;
      case Fetch::in_flight_limit: code = Errc::in_flight_limit; return 0;
      case Fetch::nothing:
      case Fetch::standing_by:
      case Fetch::held_back: break;
    }
    code = wait(fetch, blocking);
    if (code == Errc::timed_out) {
      code = Errc::ok;
      if (readiness_ != nullptr) readiness_->refresh();
      return 0;
    }
    if (SHMQ_UNLIKELY(code != Errc::ok)) return 0;
    if (deliveries.size() == 1 && receive_next(deliveries[0])) return 1;
    fetch = try_receive(deliveries, count);
  }
}

// --- Settling ----------------------------------------------------------------------------------

[[gnu::always_inline]] inline bool ConsumerCore::is_open_here() noexcept {
  return !participation_.in_forked_child();
}

[[gnu::always_inline]] inline Settlement ConsumerCore::ack(Delivery& delivery) noexcept {
  const sync::CallScope scope{gate_};
  if (!scope || !is_open_here() || delivery.settled_) return Settlement::lease_lost;
  const bool done = shared_ ? shared_->ack(delivery.seq_.value, delivery.token_)
                            : exclusive_->ack(delivery.seq_.value, delivery.token_);
  if (!done) return Settlement::lease_lost;
  delivery.settled_ = true;
  return Settlement::settled;
}

Settlement ConsumerCore::ack_through(Seq seq) noexcept {
  const sync::CallScope scope{gate_};
  if (!scope || !is_open_here()) return Settlement::lease_lost;
  const bool done = shared_ ? shared_->ack_through(seq.value) : exclusive_->ack_through(seq.value);
  return done ? Settlement::settled : Settlement::lease_lost;
}

// Settles, then waits for as much as was asked for.
template <typename Settle>
Settlement ConsumerCore::settle(const AckOptions& options, Settle settle_it) noexcept {
  const sync::CallScope scope{gate_};
  if (!scope || !is_open_here()) return Settlement::lease_lost;
  if (options.durability != Durability::memory && !confirms_.durable()) {
    return Settlement::not_durable;
  }
  const CallTime time{options.timeout};
  if (!settle_it()) return Settlement::lease_lost;
  bool confirmed = true;
  switch (options.durability) {
    case Durability::memory: break;
    case Durability::flushed:
      confirms_.ring();
      confirmed = confirms_.look() == Errc::ok;
      break;
    case Durability::synced: {
      Blocking blocking{time.left(), options.stop, interrupted_, gate_, entry_.asleep_since_ms};
      confirmed = confirms_.wait_acks_synced(blocking) == Errc::ok;
      break;
    }
  }
  return confirmed ? Settlement::settled : Settlement::settled_unconfirmed;
}

Settlement ConsumerCore::ack(Delivery& delivery, const AckOptions& options) noexcept {
  return settle(options, [&] {
    if (delivery.settled_) return false;
    delivery.settled_ = shared_ ? shared_->ack(delivery.seq_.value, delivery.token_)
                                : exclusive_->ack(delivery.seq_.value, delivery.token_);
    return delivery.settled_;
  });
}

Settlement ConsumerCore::ack_through(Seq seq, const AckOptions& options) noexcept {
  return settle(options, [&] {
    return shared_ ? shared_->ack_through(seq.value) : exclusive_->ack_through(seq.value);
  });
}

Errc ConsumerCore::wait_acks_synced(std::chrono::nanoseconds timeout,
                                    const std::stop_token& stop) noexcept {
  const sync::CallScope scope{gate_};
  if (!scope) return Errc::closed;
  if (!is_open_here()) return Errc::forked;
  if (!confirms_.durable()) return Errc::not_durable;
  Blocking blocking{timeout, stop, interrupted_, gate_, entry_.asleep_since_ms};
  return confirms_.wait_acks_synced(blocking);
}

Settlement ConsumerCore::give_back(Delivery& delivery, std::chrono::nanoseconds delay,
                                   bool failed) noexcept {
  const sync::CallScope scope{gate_};
  const std::uint64_t delay_ns = delay.count() > 0 ? static_cast<std::uint64_t>(delay.count()) : 0;
  if (!scope || !is_open_here() || delivery.settled_) return Settlement::lease_lost;
  const std::uint64_t seq = delivery.seq_.value;
  const bool done =
      shared_ ? shared_->give_back(seq, delivery.token_, delay_ns, failed, record_bytes(delivery))
              : exclusive_->give_back(seq, delivery.token_, delay_ns, failed);
  if (!done) return Settlement::lease_lost;
  delivery.settled_ = true;
  return Settlement::settled;
}

Settlement ConsumerCore::reject(Delivery& delivery) noexcept {
  const sync::CallScope scope{gate_};
  if (!scope || !is_open_here() || delivery.settled_) return Settlement::lease_lost;
  const bool done =
      shared_ ? shared_->reject(delivery.seq_.value, delivery.token_, record_bytes(delivery))
              : exclusive_->reject(delivery.seq_.value, delivery.token_);
  if (!done) return Settlement::lease_lost;
  delivery.settled_ = true;
  return Settlement::settled;
}

Settlement ConsumerCore::extend(const Delivery& delivery, std::chrono::nanoseconds lease) noexcept {
  const sync::CallScope scope{gate_};
  const std::uint64_t lease_ns = lease.count() > 0 ? static_cast<std::uint64_t>(lease.count()) : 0;
  if (!scope || !is_open_here() || delivery.settled_ || is_lost(delivery)) {
    return Settlement::lease_lost;
  }
  const bool done = shared_ ? shared_->extend(delivery.seq_.value, delivery.token_, lease_ns)
                            : exclusive_->extend(lease_ns);
  return done ? Settlement::settled : Settlement::lease_lost;
}

void ConsumerCore::drop(Delivery& delivery) noexcept {
  const sync::CallScope scope{gate_};  // close() may come from another thread
  if (SHMQ_LIKELY(scope && is_open_here())) {
    let_go(delivery);
  } else if (queue::Pins::is_private(pin_of(delivery))) {
    release_bytes(delivery);  // of the queue nothing is touched, but a copy is the process's own
  }
}

void ConsumerCore::let_go(const Delivery& delivery) noexcept {
  if (!is_over(delivery)) {
    const auto delay = static_cast<std::uint64_t>(back_off_of(delivery.failures_).count());
    if (shared_) {
      shared_->give_back(delivery.seq_.value, delivery.token_, delay, true, record_bytes(delivery));
    } else {
      exclusive_->give_back(delivery.seq_.value, delivery.token_, delay, true);
    }
  }
  release_bytes(delivery);
}

// --- Ending ------------------------------------------------------------------------------------

Result<int> ConsumerCore::fd() {
  if (readiness_ == nullptr) {
    auto made = ReadinessSource::make(segment_, segment_->control().message_event, [this] {
      return shared_ ? shared_->may_have_some() : exclusive_->may_have_some();
    });
    if (!made) return tl::unexpected(made.error());
    readiness_ = std::move(*made);
  }
  return readiness_->descriptor();
}

void ConsumerCore::interrupt() noexcept {
  // release, pairs with the exchange in Blocking::step: what the caller did before is seen there.
  interrupted_.store(true, std::memory_order_release);
  if (segment_ == nullptr) return;
  wake_own_waits();
}

// Wherever a receive may sleep.
void ConsumerCore::wake_own_waits() noexcept {
  shm::Control& control = segment_->control();
  sync::event_wake_unconditionally(control.message_event);
  sync::event_wake_unconditionally(shared_ ? control.room_event : control.ownership_event);
  confirms_.wake();
}

void ConsumerCore::close() noexcept {
  if (!gate_.start_closing()) return;
  readiness_.reset();
  while (!gate_.idle()) {
    wake_own_waits();
    sync::cpu_pause();
  }
  if (!participation_.in_forked_child()) {
    if (shared_) {
      shared_->resign();
    } else {
      exclusive_->resign();
    }
    participation_.detach();
    sync::event_notify(segment_->control().ownership_event);
  }
}

}  // namespace shmq::detail

// --- The public face ---------------------------------------------------------------------------

namespace shmq {

Settlement Delivery::ack() noexcept {
  return core_ != nullptr ? core_->ack(*this) : Settlement::lease_lost;
}
Settlement Delivery::ack(const AckOptions& options) noexcept {
  return core_ != nullptr ? core_->ack(*this, options) : Settlement::lease_lost;
}
Settlement Delivery::nack(std::chrono::nanoseconds delay) noexcept {
  return core_ != nullptr ? core_->give_back(*this, delay, true) : Settlement::lease_lost;
}
Settlement Delivery::release() noexcept {
  return core_ != nullptr ? core_->give_back(*this, {}, false) : Settlement::lease_lost;
}
Settlement Delivery::reject() noexcept {
  return core_ != nullptr ? core_->reject(*this) : Settlement::lease_lost;
}
Settlement Delivery::extend(std::chrono::nanoseconds lease) noexcept {
  return core_ != nullptr ? core_->extend(*this, lease) : Settlement::lease_lost;
}
void Delivery::drop() noexcept { core_->drop(*this); }

std::optional<std::chrono::system_clock::time_point> Delivery::publish_time() const noexcept {
  if (core_ == nullptr) return std::nullopt;
  const std::byte* record = payload_ - (pin_ >> detail::pin_bits);
  const auto* header = reinterpret_cast<const shm::Record*>(record);
  if ((header->flags & shm::record_has_publish_time) == 0 ||
      (pin_ >> detail::pin_bits) < sizeof(shm::Record) + sizeof(std::uint64_t)) {
    return std::nullopt;
  }
  std::uint64_t ns = 0;
  std::memcpy(&ns, record + sizeof(shm::Record), sizeof(ns));
  return std::chrono::system_clock::time_point{
      std::chrono::duration_cast<std::chrono::system_clock::duration>(
          std::chrono::nanoseconds{ns})};
}

std::vector<Attribute> Delivery::attributes() const {
  if (core_ == nullptr) return {};
  const std::uint32_t head_bytes = pin_ >> detail::pin_bits;
  const std::byte* record = payload_ - head_bytes;
  return queue::parse_attributes(record, head_bytes);
}

Consumer::Consumer(std::unique_ptr<detail::ConsumerCore> core) noexcept : core_(std::move(core)) {}
Consumer::Consumer(Consumer&&) noexcept = default;
Consumer& Consumer::operator=(Consumer&&) noexcept = default;
Consumer::~Consumer() = default;

Result<Delivery> Consumer::receive(std::chrono::nanoseconds timeout,
                                   std::stop_token stop) noexcept {
  Result<Delivery> delivery{tl::in_place};  // one object for both outcomes, so that none is moved
  Errc code = Errc::closed;
  if (core_ != nullptr) {
    if (SHMQ_LIKELY(core_->receive_fast(*delivery))) return delivery;
    core_->receive({&*delivery, 1}, timeout, stop, code);
  }
  if (SHMQ_UNLIKELY(code != Errc::ok)) {
    delivery = tl::unexpected(core_ != nullptr ? core_->error_of(code) : Error{code});
  }
  return delivery;
}

Result<std::size_t> Consumer::receive_batch(std::span<Delivery> deliveries,
                                            std::chrono::nanoseconds timeout,
                                            std::stop_token stop) noexcept {
  if (core_ == nullptr) return tl::unexpected(Error{Errc::closed});
  if (deliveries.size() == 1 && core_->receive_fast(deliveries[0])) return std::size_t{1};
  Errc code = Errc::ok;
  const std::size_t count = core_->receive(deliveries, timeout, stop, code);
  if (code != Errc::ok) return tl::unexpected(core_->error_of(code));
  return count;
}

Settlement Consumer::ack_through(Seq seq) noexcept {
  return core_ != nullptr ? core_->ack_through(seq) : Settlement::lease_lost;
}
Settlement Consumer::ack_through(Seq seq, const AckOptions& options) noexcept {
  return core_ != nullptr ? core_->ack_through(seq, options) : Settlement::lease_lost;
}
Result<void> Consumer::wait_acks_synced(std::chrono::nanoseconds timeout,
                                        std::stop_token stop) noexcept {
  const Errc code = core_ != nullptr ? core_->wait_acks_synced(timeout, stop) : Errc::closed;
  if (code != Errc::ok) return tl::unexpected(Error{code});
  return {};
}
bool Consumer::active() const noexcept { return core_ != nullptr && core_->active(); }
Result<int> Consumer::fd() {
  if (core_ == nullptr) return tl::unexpected(Error{Errc::closed});
  return core_->fd();
}
void Consumer::interrupt() noexcept {
  if (core_ != nullptr) core_->interrupt();
}
void Consumer::close() noexcept {
  if (core_ != nullptr) core_->close();
}

}  // namespace shmq
