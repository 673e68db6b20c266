// SPDX-License-Identifier: Apache-2.0
#include "api/producer_core.hpp"

#include <algorithm>
#include <cstring>
#if defined(__SSE2__)
#include <emmintrin.h>
#endif

#include "api/readiness.hpp"
#include "base/clock.hpp"
#include "queue/head.hpp"
#include "queue/shared_group.hpp"

namespace shmq::detail {
namespace {

// Payloads up to here are copied in line: libc's call and dispatch cost more than the copy, and a
// call in the middle makes the compiler save registers, whose stores the CAS waits for.
constexpr std::size_t inline_copy_max_bytes = 256;

inline void copy_8(std::byte* to, const std::byte* from) noexcept { __builtin_memcpy(to, from, 8); }

// 16 bytes by loads of 8: a wider load of fields that the caller has just stored one by one waits
// until those stores have left the store buffer (measured: 3 ns of 12). The store is one where it
// can be: stores leave the buffer one by one, and the CAS waits for all of them.
inline void copy_16(std::byte* to, const std::byte* from) noexcept {
#if defined(__SSE2__)
  __m128i both = _mm_loadl_epi64(reinterpret_cast<const __m128i*>(from));
  __asm__("" : "+x"(both));  // the compiler would join the two loads
  both = _mm_castpd_si128(
      _mm_loadh_pd(_mm_castsi128_pd(both), reinterpret_cast<const double*>(from + 8)));
  _mm_storeu_si128(reinterpret_cast<__m128i*>(to), both);
#else
  copy_8(to, from);
  copy_8(to + 8, from + 8);
#endif
}

// At most inline_copy_max_bytes. The ends overlap rather than being copied byte by byte.
[[gnu::always_inline]] inline void copy_small(std::byte* to, const std::byte* from,
                                              std::size_t bytes) noexcept {
  if (SHMQ_LIKELY(bytes >= 16)) {
    std::byte* const last_to = to + bytes - 16;
    const std::byte* const last_from = from + bytes - 16;
    for (; to + 16 < last_to; to += 32, from += 32) {
      copy_16(to, from);
      copy_16(to + 16, from + 16);
    }
    if (to < last_to) copy_16(to, from);
    copy_16(last_to, last_from);
  } else if (bytes >= 8) {
    copy_8(to, from);
    copy_8(to + bytes - 8, from + bytes - 8);
  } else {
    for (; bytes > 0; --bytes) *to++ = *from++;
  }
}

inline void copy_payload(std::byte* to, const std::byte* from, std::size_t bytes) noexcept {
  if (bytes <= inline_copy_max_bytes) return copy_small(to, from, bytes);
  std::memcpy(to, from, bytes);
}

}  // namespace

ProducerCore::ProducerCore(std::shared_ptr<shm::Segment> segment,
                           queue::Participation participation, std::byte* arena,
                           const ProducerOptions& options)
    : segment_(segment),
      participation_(std::move(participation)),
      publisher_(std::move(segment), arena, participation_.entry_number() + 1,
                 participation_.generation()),
      confirms_(*segment_, participation_, options.confirm_spin),
      overflow_(static_cast<Overflow>(segment_->limits().overflow)),
      max_message_bytes_(segment_->limits().max_message_bytes),
      publish_time_(options.publish_time),
      fast_end_bytes_(publish_time_ ? 0 : max_message_bytes_ + 1),
      small_end_bytes_(std::min<std::uint64_t>(fast_end_bytes_, inline_copy_max_bytes + 1)),
      entry_(participation_.entry()),
      backoff_(segment_->limits().slots, segment_->limits().arena_bytes) {}

ProducerCore::~ProducerCore() { close(); }

Errc ProducerCore::check(const PublishOptions& options) noexcept {
  if (SHMQ_UNLIKELY(participation_.in_forked_child())) return Errc::forked;
  if (SHMQ_UNLIKELY(publisher_.removed())) return Errc::removed;
  if (SHMQ_LIKELY(options.durability == Durability::memory)) return Errc::ok;
  switch (const Errc code = confirms_.look_for(options.durability)) {
    case Errc::daemon_away:
    case Errc::degraded: return Errc::not_published;
    default: return code;
  }
}

Errc ProducerCore::shape(std::size_t payload_bytes, std::span<const Attribute> attributes,
                         queue::RecordShape& shape) const noexcept {
  if (!queue::shape_record(payload_bytes, attributes, publish_time_, shape)) {
    return payload_bytes > max_message_bytes_ ? Errc::message_too_large : Errc::invalid_argument;
  }
  if (payload_bytes + shape.attribute_bytes > max_message_bytes_) return Errc::message_too_large;
  return Errc::ok;
}

[[gnu::always_inline]] inline void ProducerCore::count(std::uint64_t messages,
                                                       std::uint64_t bytes) noexcept {
  // relaxed: figures for people, on a line that only we write.
  sync::store_relaxed(entry_.messages_total, sync::load_relaxed(entry_.messages_total) + messages);
  sync::store_relaxed(entry_.bytes_total, sync::load_relaxed(entry_.bytes_total) + bytes);
}

// Called when there is no room. ok: look again.
Errc ProducerCore::make_room(bool for_arena, const PublishOptions& options, Blocking& blocking,
                             int& attempts) noexcept {
  const std::uint32_t self = participation_.entry_number();
  // What a dead producer left open may be what is missing, and what one consumer holds.
  const bool is_spilling = overflow_ == Overflow::spill;
  // Bounded: the freed chunks may all be pinned, or too scattered for a large message.
  if (is_spilling && attempts < 256 && queue::spill(*segment_, for_arena)) {
    ++attempts;
    return Errc::ok;
  }
  const bool waits = (overflow_ == Overflow::block || is_spilling) && options.timeout.count() > 0;
  if (attempts++ == 0) {
    if (for_arena) queue::reclaim_in_passing(*segment_);
    if (!waits) {
      queue::clear_floors(*segment_, self, queue::SharedGroup::Patience::none);
      return Errc::ok;
    }
  } else if (waits) {
    // A lease at the floor gets a little time first: most end soon by themselves.
    queue::clear_floors(
        *segment_, self,
        blocking.slept() ? queue::SharedGroup::Patience::none : queue::SharedGroup::Patience::some);
  }
  switch (overflow_) {
    case Overflow::fail: return Errc::full;
    case Overflow::drop_oldest:
      return attempts < 256 && queue::drop_oldest(*segment_, self, for_arena) ? Errc::ok
                                                                              : Errc::full;
    case Overflow::block:
    case Overflow::spill: break;
  }
  if (!waits) return Errc::full;
  publisher_.move_hint();
  publisher_.notify();
  // The ring may be full of what is not on stable storage yet.
  if (confirms_.durable() && (attempts <= 2 || blocking.sleeps())) confirms_.ring();
  const std::uint64_t messages = sync::load_relaxed(entry_.messages_total);
  if (messages != messages_at_last_wait_) {
    const std::uint64_t bytes = sync::load_relaxed(entry_.bytes_total);
    backoff_.made_progress(messages - messages_at_last_wait_, bytes - bytes_at_last_wait_);
    messages_at_last_wait_ = messages;
    bytes_at_last_wait_ = bytes;
  }
  if (blocking.slept()) {
    if (publisher_.removed()) return Errc::removed;
    queue::reclaim_in_passing(*segment_);
  }
  switch (blocking.step(segment_->control().room_event, &backoff_, sync::sleep_limit)) {
    case Blocking::Step::timed_out: return Errc::timed_out;
    case Blocking::Step::interrupted: return Errc::interrupted;
    case Blocking::Step::look_again: break;
  }
  return Errc::ok;
}

Errc ProducerCore::allocate(std::uint64_t bytes, const PublishOptions& options,
                            std::byte*& place) noexcept {
  place = publisher_.chunks().allocate(bytes);
  if (SHMQ_LIKELY(place != nullptr)) return Errc::ok;
  Blocking blocking{options.timeout, options.stop, interrupted_, gate_, entry_.asleep_since_ms};
  int attempts = 0;
  while (place == nullptr) {
    if (const Errc code = make_room(true, options, blocking, attempts); code != Errc::ok) {
      return code;
    }
    place = publisher_.chunks().allocate(bytes);
  }
  return Errc::ok;
}

PublishResult ProducerCore::publish_record(std::byte* place, std::uint32_t chunk,
                                           const PublishOptions& options) noexcept {
  std::uint64_t seq = 0;
  queue::Attempt attempt = publisher_.try_publish(place, chunk, seq);
  if (SHMQ_UNLIKELY(attempt == queue::Attempt::no_room)) {
    Blocking blocking{options.timeout, options.stop, interrupted_, gate_, entry_.asleep_since_ms};
    int attempts = 0;
    while (attempt == queue::Attempt::no_room) {
      if (const Errc code = make_room(false, options, blocking, attempts); code != Errc::ok) {
        return code;
      }
      attempt = publisher_.try_publish(place, chunk, seq);
    }
  }
  if (SHMQ_UNLIKELY(attempt == queue::Attempt::corrupt)) return Errc::corrupt;
  return Seq{seq};
}

PublishResult ProducerCore::publish_one(std::span<const std::byte> payload,
                                        const PublishOptions& options) noexcept {
  queue::RecordShape shape;
  if (const Errc code = this->shape(payload.size(), options.attributes, shape);
      SHMQ_UNLIKELY(code != Errc::ok)) {
    return code;
  }
  std::byte* place = nullptr;
  if (const Errc code = allocate(shape.total_bytes(), options, place);
      SHMQ_UNLIKELY(code != Errc::ok)) {
    return code;
  }
  queue::write_record_head(place, shape, options.attributes,
                           publish_time_ ? base::clock->realtime_ns() : 0);
  copy_payload(place + shape.payload_offset, payload.data(), payload.size());
  const PublishResult result = publish_record(place, publisher_.chunks().current(), options);
  if (SHMQ_UNLIKELY(!result)) {
    publisher_.chunks().undo_last(place);
    return result;
  }
  count(1, payload.size());
  return result;
}

// The usual message: no attributes, no publish time, room in the chunk and in the ring. False:
// nothing happened, and the general way finds out why.
template <auto copy>
[[gnu::always_inline]] inline bool ProducerCore::publish_fast(
    std::span<const std::byte> payload) noexcept {
  std::byte* place = nullptr;
  if (SHMQ_UNLIKELY(!publisher_.chunks().bump(sizeof(shm::Record) + payload.size(), place))) {
    return false;
  }
  queue::write_plain_head(place, static_cast<std::uint32_t>(payload.size()));
  copy(place + sizeof(shm::Record), payload.data(), payload.size());
  if (SHMQ_UNLIKELY(!publisher_.publish_at_guess(place))) {
    publisher_.chunks().undo_last(place);
    return false;
  }
  count(1, payload.size());
  return true;
}

// A small one without a call on its way: what is rare ends in a tail call, which leaves the gate.
[[gnu::always_inline]] inline PublishResult ProducerCore::publish(
    std::span<const std::byte> payload) noexcept {
  if (SHMQ_UNLIKELY(payload.size() >= small_end_bytes_ || !gate_.enter() ||
                    participation_.in_forked_child() || publisher_.removed() ||
                    !publish_fast<copy_small>(payload))) {
    return publish_large(payload);
  }
  if (SHMQ_UNLIKELY(publisher_.hint_is_due() || publisher_.somebody_sleeps())) {
    return after_publish();
  }
  gate_.leave();
  return Seq{publisher_.last_published()};
}

// After a publish whose turn it is.
inline void ProducerCore::move_hint() noexcept {
  publisher_.move_hint();
  confirms_.ring_if_behind(publisher_.last_published() + 1);
}

[[gnu::noinline]] PublishResult ProducerCore::after_publish() noexcept {
  if (publisher_.hint_is_due()) move_hint();
  publisher_.notify();
  gate_.leave();
  return Seq{publisher_.last_published()};
}

// The usual message of any size.
[[gnu::noinline]] PublishResult ProducerCore::publish_large(
    std::span<const std::byte> payload) noexcept {
  const sync::CallScope scope{gate_};
  if (SHMQ_LIKELY(payload.size() < fast_end_bytes_ && scope && !participation_.in_forked_child() &&
                  !publisher_.removed() && publish_fast<copy_payload>(payload))) {
    if (publisher_.hint_is_due()) move_hint();
    publisher_.notify();
    return Seq{publisher_.last_published()};
  }
  return publish_slowly(payload, PublishOptions{});
}

PublishResult ProducerCore::publish(std::span<const std::byte> payload,
                                    const PublishOptions& options) noexcept {
  return publish_slowly(payload, options);
}

PublishResult ProducerCore::publish_slowly(std::span<const std::byte> payload,
                                           const PublishOptions& options) noexcept {
  const sync::CallScope scope{gate_};
  if (SHMQ_UNLIKELY(!scope)) return Errc::closed;
  if (const Errc code = check(options); SHMQ_UNLIKELY(code != Errc::ok)) return code;
  if (SHMQ_UNLIKELY(options.durability != Durability::memory)) {
    const CallTime time{options.timeout};
    const PublishResult result = publish_one(payload, options);
    if (!result) return result;
    publisher_.notify();
    return {confirm(result.seq(), options, time.left()), result.seq()};
  }
  const PublishResult result = publish_one(payload, options);
  if (SHMQ_LIKELY(result.has_value())) {
    publisher_.notify();
    if (SHMQ_UNLIKELY(publisher_.hint_is_due())) {
      confirms_.ring_if_behind(publisher_.last_published() + 1);
    }
  }
  return result;
}

// It is in the queue. ok, or published_unconfirmed.
Errc ProducerCore::confirm(Seq seq, const PublishOptions& options,
                           std::chrono::nanoseconds left) noexcept {
  if (options.durability == Durability::flushed) {
    confirms_.ring();
    return Errc::ok;
  }
  Blocking blocking{left, options.stop, interrupted_, gate_, entry_.asleep_since_ms};
  return confirms_.wait_synced(seq.value, blocking) == Errc::ok ? Errc::ok
                                                                : Errc::published_unconfirmed;
}

Errc ProducerCore::wait_synced(Seq seq, std::chrono::nanoseconds timeout,
                               const std::stop_token& stop) noexcept {
  const sync::CallScope scope{gate_};
  if (!scope) return Errc::closed;
  if (participation_.in_forked_child()) return Errc::forked;
  if (!confirms_.durable()) return Errc::not_durable;
  Blocking blocking{timeout, stop, interrupted_, gate_, entry_.asleep_since_ms};
  return confirms_.wait_synced(seq.value, blocking);
}

Producer::BatchResult ProducerCore::publish_batch(
    std::span<const std::span<const std::byte>> payloads, const PublishOptions& options) noexcept {
  Producer::BatchResult batch;
  const sync::CallScope scope{gate_};
  batch.code = scope ? check(options) : Errc::closed;
  if (SHMQ_UNLIKELY(batch.code != Errc::ok)) return batch;
  const bool is_memory = options.durability == Durability::memory;
  const CallTime time{is_memory ? forever : options.timeout};
  for (const auto& payload : payloads) {
    if (SHMQ_LIKELY(options.attributes.empty() && payload.size() < fast_end_bytes_ &&
                    publish_fast<copy_payload>(payload))) {
      batch.last = {publisher_.last_published()};
      ++batch.published;
      continue;
    }
    const PublishResult result = publish_one(payload, options);
    if (SHMQ_UNLIKELY(!result)) {
      batch.code = result.code();
      break;
    }
    batch.last = result.seq();
    ++batch.published;
  }
  if (batch.published != 0) {
    move_hint();
    publisher_.notify();
    if (SHMQ_UNLIKELY(!is_memory)) {
      const Errc code = confirm(batch.last, options, time.left());
      if (code != Errc::ok) batch.code = code;
    }
  }
  return batch;
}

// --- Loans -------------------------------------------------------------------------------------

Errc ProducerCore::loan(std::size_t payload_bytes, const PublishOptions& options,
                        std::span<std::byte>& bytes, std::uint32_t& ticket) noexcept {
  const sync::CallScope scope{gate_};
  if (!scope) return Errc::closed;
  if (const Errc code = check(options); code != Errc::ok) return code;
  ticket = 0;
  while (ticket < loans_max && loans_[ticket].place != nullptr) ++ticket;
  if (ticket == loans_max) return Errc::in_flight_limit;
  LoanEntry& loan = loans_[ticket];
  if (const Errc code = shape(payload_bytes, options.attributes, loan.shape); code != Errc::ok) {
    return code;
  }
  std::byte* place = nullptr;
  if (const Errc code = allocate(loan.shape.total_bytes(), options, place); code != Errc::ok) {
    return code;
  }
  queue::write_record_head(place, loan.shape, options.attributes, 0);
  loan.place = place;
  loan.chunk = publisher_.chunks().current();
  publisher_.chunks().add_loan(loan.chunk);
  bytes = {place + loan.shape.payload_offset, payload_bytes};
  return Errc::ok;
}

PublishResult ProducerCore::commit(std::uint32_t ticket, std::size_t payload_bytes,
                                   const PublishOptions& options) noexcept {
  const sync::CallScope scope{gate_};
  if (!scope) return Errc::closed;
  if (const Errc code = check(options); code != Errc::ok) return code;
  LoanEntry& loan = loans_[ticket];
  if (payload_bytes > loan.shape.payload_bytes) return Errc::invalid_argument;
  auto* record = reinterpret_cast<shm::Record*>(loan.place);
  record->payload_bytes = static_cast<std::uint32_t>(payload_bytes);
  if (publish_time_) {
    const std::uint64_t now = base::clock->realtime_ns();
    std::memcpy(loan.place + sizeof(shm::Record), &now, sizeof(now));
  }
  const bool is_memory = options.durability == Durability::memory;
  const CallTime time{is_memory ? forever : options.timeout};
  const PublishResult result = publish_record(loan.place, loan.chunk, options);
  if (!result) return result;
  loan.place = nullptr;
  publisher_.chunks().end_loan(loan.chunk);
  publisher_.notify();
  count(1, payload_bytes);
  if (is_memory) return result;
  return {confirm(result.seq(), options, time.left()), result.seq()};
}

void ProducerCore::abandon(std::uint32_t ticket) noexcept {
  const sync::CallScope scope{gate_};
  LoanEntry& loan = loans_[ticket];
  if (!scope || participation_.in_forked_child() || loan.place == nullptr) return;
  loan.place = nullptr;
  publisher_.chunks().end_loan(loan.chunk);
}

// --- Ending ------------------------------------------------------------------------------------

Result<int> ProducerCore::fd() {
  if (readiness_ == nullptr) {
    auto made = ReadinessSource::make(segment_, segment_->control().room_event,
                                      [this] { return queue::has_room_for_one(*segment_); });
    if (!made) return tl::unexpected(made.error());
    readiness_ = std::move(*made);
  }
  return readiness_->descriptor();
}

void ProducerCore::interrupt() noexcept {
  // release, pairs with the exchange in Blocking::step: what the caller did before is seen there.
  interrupted_.store(true, std::memory_order_release);
  if (segment_ != nullptr && participation_.attached()) {
    sync::event_wake_unconditionally(segment_->control().room_event);
    confirms_.wake();
  }
}

void ProducerCore::close() noexcept {
  if (!gate_.start_closing()) return;
  readiness_.reset();
  while (!gate_.idle()) {
    sync::event_wake_unconditionally(segment_->control().room_event);
    confirms_.wake();
    sync::cpu_pause();
  }
  if (!participation_.in_forked_child()) {
    publisher_.move_hint();
    publisher_.chunks().seal_all();
    participation_.detach();
    sync::event_notify(segment_->control().room_event);
  }
}

}  // namespace shmq::detail

// --- The public face ---------------------------------------------------------------------------

namespace shmq {

Producer::Producer(std::unique_ptr<detail::ProducerCore> core) noexcept : core_(std::move(core)) {}
Producer::Producer(Producer&&) noexcept = default;
Producer& Producer::operator=(Producer&&) noexcept = default;
Producer::~Producer() = default;

PublishResult Producer::publish(std::span<const std::byte> payload) noexcept {
  return core_ != nullptr ? core_->publish(payload) : PublishResult{Errc::closed};
}

PublishResult Producer::publish(std::span<const std::byte> payload,
                                const PublishOptions& options) noexcept {
  return core_ != nullptr ? core_->publish(payload, options) : PublishResult{Errc::closed};
}

Producer::BatchResult Producer::publish_batch(std::span<const std::span<const std::byte>> payloads,
                                              const PublishOptions& options) noexcept {
  if (core_ == nullptr) return {.code = Errc::closed};
  return core_->publish_batch(payloads, options);
}

Result<Loan> Producer::loan(std::size_t payload_bytes, const PublishOptions& options) noexcept {
  if (core_ == nullptr) return tl::unexpected(Error{Errc::closed});
  Loan loan;
  const Errc code = core_->loan(payload_bytes, options, loan.bytes_, loan.ticket_);
  if (code != Errc::ok) return tl::unexpected(Error{code});
  loan.core_ = core_.get();
  return loan;
}

Result<void> Producer::wait_synced(Seq seq, std::chrono::nanoseconds timeout,
                                   std::stop_token stop) noexcept {
  const Errc code = core_ != nullptr ? core_->wait_synced(seq, timeout, stop) : Errc::closed;
  if (code != Errc::ok) return tl::unexpected(Error{code});
  return {};
}
Seq Producer::synced_end() const noexcept { return core_ != nullptr ? core_->synced_end() : Seq{}; }

Result<int> Producer::fd() {
  if (core_ == nullptr) return tl::unexpected(Error{Errc::closed});
  return core_->fd();
}
void Producer::interrupt() noexcept {
  if (core_ != nullptr) core_->interrupt();
}
void Producer::close() noexcept {
  if (core_ != nullptr) core_->close();
}

Loan::Loan(Loan&& other) noexcept
    : core_(std::exchange(other.core_, nullptr)),
      bytes_(std::exchange(other.bytes_, {})),
      ticket_(other.ticket_) {}
Loan& Loan::operator=(Loan&& other) noexcept {
  if (this != &other) {
    abandon();
    core_ = std::exchange(other.core_, nullptr);
    bytes_ = std::exchange(other.bytes_, {});
    ticket_ = other.ticket_;
  }
  return *this;
}
Loan::~Loan() { abandon(); }

PublishResult Loan::commit(std::size_t payload_bytes, const PublishOptions& options) noexcept {
  if (core_ == nullptr) return Errc::closed;
  const PublishResult result = core_->commit(ticket_, payload_bytes, options);
  if (result || result.code() == Errc::published_unconfirmed) {
    core_ = nullptr;
    bytes_ = {};
  }
  return result;
}

void Loan::abandon() noexcept {
  if (core_ == nullptr) return;
  core_->abandon(ticket_);
  core_ = nullptr;
  bytes_ = {};
}

}  // namespace shmq
