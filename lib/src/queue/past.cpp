// SPDX-License-Identifier: Apache-2.0
#include "queue/past.hpp"

#include <algorithm>
#include <cstdlib>
#include <cstring>
#include <new>
#include <shmq/error.hpp>

#include "base/mutant.hpp"
#include "shm/mark.hpp"

namespace shmq::queue {

using journal::MessageRecord;
using journal::Record;
using journal::RecordType;

namespace {

constexpr std::uint64_t detached_bytes_max = 32ULL << 20;
// Headers are walked over rather than the directory searched, for so many seqs.
constexpr std::uint64_t walk_seqs_max = 1U << 20;
// A record that was made of a journal's one in place.
constexpr auto converted = static_cast<RecordType>(0xffff);

struct VoidRecord {
  shm::Record record;
  std::uint64_t value;
};
constexpr VoidRecord void_record{
    .record = {.seq = 0, .payload_bytes = 0, .attribute_bytes = 0, .flags = shm::record_is_void},
    .value = 0};

std::uint64_t seq_of(const Record& record) noexcept {
  // Where the converted one has its seq; of a message and of a gap alike.
  if (record.type == converted) return journal::load<shm::Record>(record.bytes).seq;
  if (record.type == RecordType::gap)
    return journal::load<journal::GapRecord>(record.bytes).first_seq;
  return journal::load<MessageRecord>(record.bytes).seq;
}

}  // namespace

struct Past::Batch {
  journal::BatchBuffer buffer;  // its records: messages and gaps alone
  bool has_gaps = false;
  std::uint32_t deliveries = 0;
  bool is_current = false;  // of a Reading
};

Past::Past(const shm::Segment& segment) noexcept : segment_(segment) {}
Past::~Past() = default;

std::uint64_t Past::detached_bytes() const noexcept {
  std::uint64_t sum = 0;
  for (const auto& batch : batches_) {
    if (!batch->is_current && batch->deliveries != 0) sum += batch->buffer.capacity();
  }
  return sum;
}

// One that nothing hangs on, with its memory; so a sequential reader allocates two, once.
Past::Batch* Past::take_batch() {
  for (const auto& batch : batches_) {
    if (!batch->is_current && batch->deliveries == 0) return batch.get();
  }
  batches_.push_back(std::make_unique<Batch>());
  return batches_.back().get();
}

// Keeps one to be used again.
void Past::let_go(Batch* batch) noexcept {
  batch->is_current = false;
  bool keeps = true;
  std::erase_if(batches_, [&](const std::unique_ptr<Batch>& each) {
    if (each->is_current || each->deliveries != 0) return false;
    return !std::exchange(keeps, false);
  });
}

void Past::release(const std::byte* record) noexcept {
  Batch* batch = nullptr;
  std::memcpy(&batch, record - sizeof(batch), sizeof(batch));
  --batch->deliveries;
}

PastLook Past::load(std::uint64_t seq, Reading& reading, Way way) {
  const shm::Mark* mark = segment_.mark();
  // [M1] acquire: all below is on stable storage, and files that it lies in have their names.
  const std::uint64_t bound = mark != nullptr ? sync::load_acquire(mark->watermark) : 0;
  if (seq >= bound) return PastLook::not_yet;
  if (reading.cursor == nullptr) {
    const std::string directory = shm::journal_directory(*mark);
    if (directory.empty()) {
      error_ = Error{make_error_code(Errc::daemon_away), segment_.describe("read the journal of"),
                     "the daemon has not said where it is", "use a shorter data directory"};
      return PastLook::failed;
    }
    reading.cursor = std::make_unique<journal::Cursor>(
        journal::open_directory(directory, journal::ReadLock::yes),
        journal::uuid_of(segment_.header().uuid));
    if (way == Way::back) reading.cursor->set_read_ahead(0);
    reading.cursor->seek(seq);
  }
  const std::uint64_t at = reading.cursor->position();
  if (seq > at && seq - at <= walk_seqs_max) {
    reading.cursor->skip_to(seq);
  } else if (seq != at) {
    reading.cursor->seek(seq);
  }
  if (reading.batch != nullptr) let_go(std::exchange(reading.batch, nullptr));
  Batch* batch = take_batch();
  auto got = reading.cursor->next(batch->buffer, bound);
  if (!got) {
    error_ = got.error();
    return PastLook::failed;
  }
  if (!*got) return PastLook::not_yet;
  batch->has_gaps = false;
  std::erase_if(batch->buffer.records, [&](const Record& record) {
    batch->has_gaps |= record.type == RecordType::gap;
    return record.type != RecordType::message && record.type != RecordType::gap;
  });
  batch->is_current = true;
  reading.batch = batch;
  return PastLook::found;
}

// The journal's record is longer than the one in shared memory, so that one is made of it where it
// lies, behind a pointer to the batch. Not where that would not be aligned: those are copied.
PastLook Past::view(Batch& batch, std::uint64_t seq, bool copies, PastMessage& message) {
  std::vector<Record>& records = batch.buffer.records;
  std::size_t index = seq - batch.buffer.header.first_seq;
  if (batch.has_gaps) {
    const auto behind = std::upper_bound(
        records.begin(), records.end(), seq,
        [](std::uint64_t wanted, const Record& record) { return wanted < seq_of(record); });
    index = static_cast<std::size_t>(behind - records.begin()) - 1;
  }
  Record& record = records.at(index);
  if (record.type == RecordType::gap) {
    message.payload = reinterpret_cast<const std::byte*>(&void_record) + sizeof(void_record);
    message.payload_bytes = 0;
    message.head_bytes = sizeof(void_record);
    message.memory = PastMessage::Memory::none;
    return PastLook::found;
  }
  shm::Record head{};
  std::size_t head_bytes = 0;
  const std::byte* payload = nullptr;
  journal::MessageView source{};
  if (record.type == converted) {
    head = journal::load<shm::Record>(record.bytes);
    head_bytes = record.bytes.size() - head.payload_bytes;
    payload = record.bytes.data() + head_bytes;
  } else {
    source = journal::message_of(record);
    const std::size_t attributes = (source.attributes.size() + 7) & ~std::size_t{7};
    const bool has_time = source.publish_realtime_ns != 0;
    head_bytes = sizeof(shm::Record) + (has_time ? sizeof(std::uint64_t) : 0) + attributes;
    head = {.seq = source.seq,
            .payload_bytes = static_cast<std::uint32_t>(source.payload.size()),
            .attribute_bytes = static_cast<std::uint16_t>(source.attributes.size()),
            .flags = has_time ? std::uint16_t{shm::record_has_publish_time} : std::uint16_t{0}};
    payload = source.payload.data();
  }
  message.payload_bytes = head.payload_bytes;
  message.head_bytes = static_cast<std::uint32_t>(head_bytes);
  const auto write_head = [&](std::byte* place) {
    std::memcpy(place, &head, sizeof(head));
    std::byte* cursor = place + sizeof(head);
    if (head.flags != 0) {
      std::memcpy(cursor, &source.publish_realtime_ns, sizeof(source.publish_realtime_ns));
      cursor += sizeof(source.publish_realtime_ns);
    }
    if (!source.attributes.empty()) {
      std::memmove(cursor, source.attributes.data(), source.attributes.size());
    }
  };
  if (copies || (record.type != converted && head.attribute_bytes % 8 != 0)) {
    auto* copy = static_cast<std::byte*>(std::malloc(head_bytes + head.payload_bytes));
    if (copy == nullptr) return PastLook::no_memory;
    if (record.type == converted) {
      std::memcpy(copy, record.bytes.data(), record.bytes.size());
    } else {
      std::memset(copy, 0, head_bytes);
      write_head(copy);
      if (head.payload_bytes != 0) std::memcpy(copy + head_bytes, payload, head.payload_bytes);
    }
    message.payload = copy + head_bytes;
    message.memory = PastMessage::Memory::copy;
    return PastLook::found;
  }
  if (record.type != converted) {
    static_assert(sizeof(MessageRecord) >= sizeof(shm::Record) + 8 + sizeof(Batch*));
    auto* place = const_cast<std::byte*>(payload) - head_bytes;
    write_head(place);
    Batch* const owner = &batch;
    std::memcpy(place - sizeof(owner), &owner, sizeof(owner));
    record.type = converted;
    record.bytes = {place, head_bytes + head.payload_bytes};
  }
  ++batch.deliveries;
  message.payload = payload;
  message.memory = PastMessage::Memory::batch;
  return PastLook::found;
}

PastLook Past::find(std::uint64_t seq, Way way, PastMessage& message) noexcept {
  try {
    Batch* batch = nullptr;
    for (const Reading& reading : readings_) {
      if (reading.batch != nullptr && reading.batch->buffer.holds(seq)) batch = reading.batch;
    }
    if (batch == nullptr) {
      Reading& reading = readings_[static_cast<std::size_t>(way)];
      if (const PastLook look = load(seq, reading, way); look != PastLook::found) return look;
      batch = reading.batch;
    }
    const bool copies = detached_bytes() > detached_bytes_max;
    return view(*batch, seq, copies, message);
  } catch (const std::bad_alloc&) {
    return PastLook::no_memory;
  } catch (const std::exception& exception) {
    error_ = Error{make_error_code(Errc::corrupt), segment_.describe("read the journal of"),
                   exception.what(), ""};
    return PastLook::failed;
  }
}

}  // namespace shmq::queue
