// SPDX-License-Identifier: Apache-2.0
//
// The layout of a segment: THE law. Nothing else defines a shared structure.
//
//   header | control words | participants | groups | windows | straggler tables | slot ring |
//   chunk table | arena                                            (each part page-aligned)
//
// and of the watermark object of a durable queue: Mark, below.
//
// Invariants:
//  1. Only fixed-width integers, no pointers, no locks; little-endian hosts only.
//  2. The header never changes once the segment has its name. Readers copy it to private memory,
//     check the copy and use the copy.
//  3. Every other byte may be wrong at any time: load once, check the local value, use that.
//  4. Any change to a structure or to the meaning of a bit changes `layout_revision`.
//  5. Words written independently of each other stand 128 bytes apart (two lines: adjacent-line
//     prefetch); slots and window entries are dense.
//
// Notation: w: who writes; r: who reads; o: what orders it.
#pragma once

#include <cstddef>
#include <cstdint>

#include "sync/atomic16.hpp"

namespace shmq::shm {

using sync::Word16;

inline constexpr std::uint64_t segment_magic = 0x31474553514d4853ULL;  // "SHMQSEG1"
inline constexpr std::uint32_t abi_version = 1;
inline constexpr std::uint32_t layout_revision = 6;
inline constexpr std::uint32_t byte_order_mark = 0x01020304;
inline constexpr std::size_t name_field_bytes = 72;  // 64 and a NUL, kept to a multiple of 8
inline constexpr std::uint32_t pins_per_participant = 64;

enum class Architecture : std::uint32_t { x86_64 = 1, aarch64 = 2 };
#if defined(__x86_64__)
inline constexpr auto this_architecture = Architecture::x86_64;
#else
inline constexpr auto this_architecture = Architecture::aarch64;
#endif

// --- Header ------------------------------------------------------------------------------------

struct Part {
  std::uint64_t offset;
  std::uint64_t bytes;
};

enum PartIndex : std::uint32_t {
  part_control,
  part_participants,
  part_groups,
  part_windows,
  part_stragglers,
  part_slots,
  part_chunks,
  part_arena,
  part_count
};

/// Chosen at creation; w: creator before the link; r: everybody, from the private copy.
struct Limits {
  std::uint64_t slots;
  std::uint64_t arena_bytes;
  std::uint64_t max_message_bytes;
  // Of durable queues' journals, see Retention in options.hpp; 0: not limited by that.
  std::uint64_t retain_age_ns;
  std::uint64_t retain_bytes;
  std::uint64_t retain_messages;
  std::uint64_t max_disk_bytes;  // 0: the daemon's own limit
  std::uint32_t chunk_bytes;
  std::uint32_t chunks;
  std::uint32_t max_groups;
  std::uint32_t max_participants;
  std::uint32_t max_producers;
  std::uint32_t window_entries;
  std::uint32_t straggler_entries;
  std::uint32_t pins;      // per participant
  std::uint32_t overflow;  // Overflow
  std::uint32_t durable;   // 0 or 1
  std::uint32_t visible;   // 0 published, 1 synced (durable queues)
  std::uint32_t reserved[5];
};

inline constexpr std::uint64_t known_incompatible_flags = 0;  // a set bit not listed here: refuse

struct Header {
  std::uint64_t magic;
  std::uint32_t abi_version;
  std::uint32_t header_bytes;
  std::uint64_t compatible_flags;    // unknown bits may be ignored
  std::uint64_t incompatible_flags;  // unknown bits must be refused
  std::uint64_t layout_hash;
  std::uint32_t byte_order;
  std::uint32_t architecture;
  std::uint32_t page_bytes;  // the alignment of the parts
  std::uint32_t reserved0;
  std::uint8_t uuid[16];
  std::uint8_t boot_id[16];  // a segment of another boot is not one of this host's memory
  std::uint64_t created_realtime_ns;
  std::uint64_t segment_bytes;
  char name_space[name_field_bytes];
  char queue[name_field_bytes];
  Limits limits;
  Part parts[part_count];
  std::uint64_t checksum;  // XXH3-64 of all bytes above
};
static_assert(sizeof(Limits) == 120);
static_assert(sizeof(Header) <= 4096, "one page on every architecture");
static_assert(offsetof(Header, checksum) + 8 == sizeof(Header), "the checksum covers all before");

// --- Control words -----------------------------------------------------------------------------

enum class QueueState : std::uint32_t { active = 1, removed = 2 };

struct Control {
  // {head, epoch}: what lies below may be overwritten: it is settled in every group, or, on a queue
  // with Overflow::spill, on stable storage. A group of any durable queue may have its floor below;
  // it reads the journal until it is past it. w: who needs room, births and deletions of groups, by
  // CAS; r: all; o: CAS, acquire.
  alignas(128) Word16 head;
  // First seq that may be unpublished; a hint, at most the tail, never beyond it. w: producers; r:
  // all. Dying before the store is harmless.
  alignas(128) std::uint64_t tail_hint;
  // Where the search for a free chunk goes on. w, r: producers; any value will do.
  alignas(128) std::uint32_t small_chunk_cursor;
  std::uint32_t outer_chunk_cursor;  // the same beyond the working set
  // Read on every publish and receive, written rarely: share a line.
  // message_event: {count, sleeper} of those who wait for messages. w: sleepers, who wakes.
  alignas(128) std::uint32_t message_event;
  std::uint32_t queue_state;  // QueueState; w: remover, once; r: all
  std::uint32_t reserved4;
  std::uint32_t reserved0;
  // {count, sleeper} of those who wait for room. w: sleepers, who frees.
  alignas(128) std::uint32_t room_event;
  std::uint32_t reserved5;
  // {count, sleeper} of those who stand by in an exclusive group, or wait for a due time: apart
  // from message_event, so that they cost the publishers nothing. w: sleepers, who gives a group
  // up.
  alignas(128) std::uint32_t ownership_event;
  // Coarse milliseconds of the last look for dead participants. w: by CAS, the winner looks.
  alignas(128) std::uint64_t last_reap_ms;
  // Inode of the companion lock object, 0 until the first participant. w: once, by CAS under the
  // naming lock; r: who attaches or reclaims.
  alignas(128) std::uint64_t lock_inode;
  // Messages dropped by drop_oldest and purge. w: droppers, by add after the head moved.
  alignas(128) std::uint64_t dropped_total;
  // Chunks pinned when last counted, for the switch to private copies. w, r: producers.
  alignas(128) std::uint64_t pinned_chunks_hint;
  // No participant entry from here on was ever used. w: attachers, before they take an entry, by
  // CAS-max; r: who looks at the pins.
  alignas(128) std::uint32_t participants_used;
  std::uint32_t reserved3;
  // 1 while the daemon sleeps and wants the doorbell. w: daemon; r: who wants something durable
  // soon; o: daemon: store, full fence, a last look at the queue; they: publish or ack (a full
  // barrier), then this.
  alignas(128) std::uint32_t daemon_asleep;
  std::uint32_t reserved1;
  // 1 once a durable queue's segment holds all that it should: made new, or rebuilt from the
  // journal to the end. What says 0 is thrown away at the daemon's start. w: daemon.
  std::uint64_t daemon_generation;
  // Chunks that somebody gathers for a large message; a hint that keeps small ones out of them. w:
  // producers in want of a run, relaxed; r: producers in want of a chunk; any value will do.
  alignas(128) std::uint64_t run_hint;
  std::uint64_t reserved2[15];
};
static_assert(offsetof(Control, tail_hint) == 128 && offsetof(Control, message_event) == 384);
static_assert(sizeof(Control) <= 4096);

// Control::run_hint: {milliseconds 20, chunks 22, first chunk 22}; 0 chunks: none. The time is
// coarse, modulo 2^20: a hint that nobody renews, because its writer died or gave up, is over soon.
inline constexpr unsigned run_hint_chunk_bits = 22;
inline constexpr std::uint64_t run_hint_chunk_mask = (1ULL << run_hint_chunk_bits) - 1;
inline constexpr std::uint64_t run_hint_time_mask = (1ULL << 20) - 1;
inline constexpr std::uint64_t run_hint_valid_ms = 250;  // more than two sleeps of its writer
constexpr std::uint64_t run_hint(std::uint64_t first, std::uint64_t chunks,
                                 std::uint64_t now_ms) noexcept {
  return ((now_ms & run_hint_time_mask) << 44) |
         ((chunks & run_hint_chunk_mask) << run_hint_chunk_bits) | (first & run_hint_chunk_mask);
}
struct RunHint {
  std::uint32_t first = 0;
  std::uint32_t chunks = 0;  // 0: keep out of nothing
};
constexpr RunHint read_run_hint(std::uint64_t word, std::uint64_t now_ms) noexcept {
  if (((now_ms - (word >> 44)) & run_hint_time_mask) >= run_hint_valid_ms) return {};
  return {static_cast<std::uint32_t>(word & run_hint_chunk_mask),
          static_cast<std::uint32_t>((word >> run_hint_chunk_bits) & run_hint_chunk_mask)};
}

// --- Participants ------------------------------------------------------------------------------

enum class ParticipantState : std::uint8_t { free = 0, alive = 1, dead = 2 };

// {generation 48, role 8, state 8}. The generation moves at attach, so a word names one life.
constexpr std::uint64_t participant_word(std::uint64_t generation, std::uint8_t role,
                                         ParticipantState state) noexcept {
  return (generation << 16) | (static_cast<std::uint64_t>(role) << 8) |
         static_cast<std::uint64_t>(state);
}
constexpr ParticipantState participant_state(std::uint64_t word) noexcept {
  return static_cast<ParticipantState>(word & 0xff);
}
constexpr std::uint8_t participant_role(std::uint64_t word) noexcept {
  return static_cast<std::uint8_t>(word >> 8);
}
constexpr std::uint64_t participant_generation(std::uint64_t word) noexcept { return word >> 16; }
// A bit of the role in a free entry: its last life ended by a death, not by a detach. For people.
inline constexpr std::uint8_t participant_died = 0x80;

// A pin: {generation 20, chunks 22, first chunk + 1 22}; 0 in the lowest bits: none. A pin counts
// while its entry is alive in that generation; nobody but its owner ever writes it.
inline constexpr unsigned pin_chunk_bits = 22;
inline constexpr std::uint64_t pin_chunk_mask = (1ULL << pin_chunk_bits) - 1;
inline constexpr std::uint64_t pin_generation_mask = (1ULL << 20) - 1;
constexpr std::uint64_t pin_word(std::uint64_t generation, std::uint64_t first,
                                 std::uint64_t count) noexcept {
  return ((generation & pin_generation_mask) << 44) | (count << pin_chunk_bits) | (first + 1);
}

struct Participant {
  // w: attacher (free to alive, holding the lock of this entry's byte), reclaimer (alive to dead to
  // free, holding that lock), owner (alive to free); all by CAS. r: all; o: CAS, acquire.
  std::uint64_t word;
  // The rest: w: owner, after it became alive; r: people's tools and reclaim. Best effort.
  std::uint32_t pid;  // as seen in its own pid namespace
  std::uint32_t uid;
  std::uint64_t start_time_ticks;  // field 22 of /proc/pid/stat
  std::uint64_t pid_namespace_inode;
  std::uint64_t group_word;  // consumer: {incarnation 48, group entry + 1 16}; 0: none
  std::uint64_t attached_realtime_ns;
  char name[name_field_bytes];
  // As group_word: the shared group that this participant, consumer or not, moves the floor of
  // right now; 0: none. w: owner; r: who wants to use a group's entry again; o: store, full fence,
  // then a look at the group's word.
  std::uint64_t visiting;
  // Figures. w: owner, relaxed; r: stat.
  alignas(128) std::uint64_t messages_total;
  std::uint64_t bytes_total;
  // Coarse milliseconds, in the initial time namespace's terms, since when a call that waits has
  // been asleep; 0: in none. Written where a call goes to sleep and where it comes back.
  std::uint64_t asleep_since_ms;
  std::uint64_t reserved1[13];
  // w: owner only; r: who wants to reuse a chunk; o: store, full fence, then a look at the floor
  // (owner); head has passed, full fence, then the pins (reuser).
  alignas(128) std::uint64_t pins[pins_per_participant];
};
static_assert(sizeof(Participant) == 768 && offsetof(Participant, pins) == 256);

// --- Groups ------------------------------------------------------------------------------------

// free, then forming (fields being written) and joining (the floor counts) under the administration
// lock, then active; a removed one is retired until no live participant names it.
enum class GroupState : std::uint8_t {
  free = 0,
  forming = 1,
  joining = 2,
  active = 3,
  retired = 4
};

// {incarnation 48, mode 8, state 8}
constexpr std::uint64_t group_word(std::uint64_t incarnation, std::uint8_t mode,
                                   GroupState state) noexcept {
  return (incarnation << 16) | (static_cast<std::uint64_t>(mode) << 8) |
         static_cast<std::uint64_t>(state);
}
constexpr GroupState group_state(std::uint64_t word) noexcept {
  return static_cast<GroupState>(word & 0xff);
}
constexpr std::uint8_t group_mode(std::uint64_t word) noexcept {
  return static_cast<std::uint8_t>(word >> 8);
}
constexpr std::uint64_t group_incarnation(std::uint64_t word) noexcept { return word >> 16; }

// High half of an exclusive group's word: {owner 13: entry + 1, generation 29, deadline 22}.
inline constexpr std::uint32_t owner_none = 0;
inline constexpr std::uint32_t owner_mask = (1U << 13) - 1;
inline constexpr std::uint32_t ownership_generation_mask = (1U << 29) - 1;
constexpr std::uint64_t ownership(std::uint32_t owner, std::uint32_t generation,
                                  std::uint32_t deadline) noexcept {
  return (static_cast<std::uint64_t>(owner & owner_mask) << 51) |
         (static_cast<std::uint64_t>(generation & ownership_generation_mask) << 22) |
         (deadline & ((1U << 22) - 1));
}
constexpr std::uint32_t owner_of(std::uint64_t word) noexcept {
  return static_cast<std::uint32_t>(word >> 51);
}
constexpr std::uint32_t ownership_generation(std::uint64_t word) noexcept {
  return static_cast<std::uint32_t>(word >> 22) & ownership_generation_mask;
}
constexpr std::uint32_t deadline_of(std::uint64_t word) noexcept {
  return static_cast<std::uint32_t>(word) & ((1U << 22) - 1);
}

inline constexpr std::uint64_t next_hint_seq_mask = (1ULL << 48) - 1;

struct Group {
  // w: administrators under the administration lock, by CAS; r: all; o: CAS, acquire.
  std::uint64_t word;
  // w: creator while forming; r: all, once joining.
  char name[name_field_bytes];
  std::uint64_t lease_ns;
  std::uint64_t born_seq;
  std::uint64_t created_realtime_ns;
  std::uint32_t delivery_limit;  // shared groups: 0 none
  std::uint32_t dead_limit;      // shared groups: messages in the dead state
  std::uint64_t expire_idle_ns;  // 0: never
  std::uint64_t reserved0;
  // {floor, ownership}: all seqs below floor are settled. w: the active consumer (ack), a successor
  // (take-over), droppers and purge (floor only), removal; all by CAS. r: all.
  alignas(128) Word16 progress;
  // {ownership generation 16, seq 48}: no seq from here on was handed out in this group. w: active
  // consumer, release, before it hands out; r: successor, stat.
  std::uint64_t next_hint;  // a shared group: the seq alone, all 64 bits
  // Redelivered seqs wait below next. w: active consumer; r: stat.
  std::uint64_t returned_count;
  std::uint64_t reserved1[12];
  // Read by every receive of a shared group, written rarely: apart from what moves.
  // Tick (64 bits) from which on it is worth looking for what is due again. Lowered before and
  // looked at again after the CAS that makes something due earlier, raised by who looks. w, r:
  // consumers, reclaim.
  alignas(128) std::uint64_t next_due_tick;
  std::uint64_t table_due_tick;  // the same for what lies in the straggler table
  // Tick (64 bits) at which no unsettled deadline was past that a look did not see. Says which
  // moment the 22 bits of a deadline mean. w: who completes a look (shared), the owner when it
  // gives back with a delay (exclusive); r: who reads deadlines.
  std::uint64_t deadline_reference;
  std::uint64_t reserved3[13];
  // Totals. w: whoever causes it, by relaxed add, off the fast path; r: stat.
  alignas(128) std::uint64_t dropped_total;
  std::uint64_t redelivered_death_total;
  std::uint64_t redelivered_lease_total;
  std::uint64_t redelivered_nack_total;
  std::uint64_t redelivered_release_total;
  std::uint64_t dead_lettered_total;
  std::uint64_t stragglers;  // entries of the table in use; too high, never too low, after a kill
  std::uint64_t dead_messages;    // in the dead state now; off by what was killed while counting
  std::uint64_t discarded_total;  // rejected and settled: nowhere to keep it
  std::uint64_t dead_bytes;       // of the arena, that dead_messages hold
  // An entry of the straggler table lies at most so far behind its bucket. w: evictors, before they
  // reserve, by CAS-max; r: who looks for an entry by seq.
  std::uint64_t straggler_reach;
  std::uint64_t reserved2[5];
};
static_assert(sizeof(Group) == 512 && offsetof(Group, progress) == 128);

// Lease word: {state 3, owner 13, hand-outs 16, failures 6, deaths 4, deadline 22}: one word, so no
// lease is ever seen with another's deadline or count. The reserved states stand in straggler
// tables only: what the message will be there once its eviction is complete.
enum class LeaseState : std::uint8_t {
  settled = 0,
  leased = 1,
  ready = 2,
  moved = 3,
  dead = 4,
  reserved_leased = 5,
  reserved_ready = 6,
  reserved_dead = 7,
};

struct Lease {
  LeaseState state = LeaseState::settled;
  std::uint32_t owner = 0;  // participant entry + 1
  std::uint32_t hand_outs = 0;
  std::uint32_t failures = 0;  // saturates
  std::uint32_t deaths = 0;    // saturates
  std::uint32_t deadline = 0;  // ticks: leased: expiry; ready: when it is due
};
constexpr std::uint64_t pack(const Lease& lease) noexcept {
  return (static_cast<std::uint64_t>(lease.state) << 61) |
         (static_cast<std::uint64_t>(lease.owner & 0x1fff) << 48) |
         (static_cast<std::uint64_t>(lease.hand_outs & 0xffff) << 32) |
         (static_cast<std::uint64_t>(lease.failures & 0x3f) << 26) |
         (static_cast<std::uint64_t>(lease.deaths & 0xf) << 22) | (lease.deadline & 0x3fffff);
}
constexpr Lease unpack_lease(std::uint64_t word) noexcept {
  return {static_cast<LeaseState>(word >> 61),
          static_cast<std::uint32_t>(word >> 48) & 0x1fff,
          static_cast<std::uint32_t>(word >> 32) & 0xffff,
          static_cast<std::uint32_t>(word >> 26) & 0x3f,
          static_cast<std::uint32_t>(word >> 22) & 0xf,
          static_cast<std::uint32_t>(word) & 0x3fffff};
}
static_assert(unpack_lease(pack({LeaseState::ready, 4096, 65535, 63, 15, 0x3fffff})).deaths == 15);

// The upper half of a lease word, which no extension of the lease changes: who holds which
// hand-out.
constexpr std::uint32_t holder_bits(std::uint32_t owner, std::uint32_t hand_outs) noexcept {
  return static_cast<std::uint32_t>(pack({LeaseState::leased, owner, hand_outs, 0, 0, 0}) >> 32);
}

// A window entry is a Word16 {seq, lease word}: entry s % window_entries of the group belongs to s
// once its low half is s. w: consumers, successors, evictors, droppers, reclaim, by CAS; r: the
// same, stat. In the state moved, {table index 32, generation 29} stand below the state.
inline constexpr std::uint64_t straggler_generation_mask = (1ULL << 29) - 1;
constexpr std::uint64_t moved_word(std::uint32_t index, std::uint64_t generation) noexcept {
  return (static_cast<std::uint64_t>(LeaseState::moved) << 61) |
         (static_cast<std::uint64_t>(index) << 29) | (generation & straggler_generation_mask);
}
constexpr std::uint32_t moved_index(std::uint64_t word) noexcept {
  return static_cast<std::uint32_t>(word >> 29);
}
constexpr std::uint64_t moved_generation(std::uint64_t word) noexcept {
  return word & straggler_generation_mask;
}

/// One entry of a group's straggler table (shared groups).
struct Straggler {
  // {seq, lease word}. Free: {~0, generation 29}. Reserved: the deadline's bits hold {evictor entry
  // + 1 13, generation 9}. w: evictors, consumers, reclaim, by CAS; r: the same, who reuses chunks,
  // stat.
  Word16 lease;
  // The next two: w: the evictor between its reservation and the CAS on the window; then nobody
  // but, for the place, a compacting producer by CAS; r: who found the entry; o: the window's CAS.
  std::uint64_t place;       // {generation 24, ref 40 as in a slot; ~0: it is in the journal}
  std::uint64_t generation;  // of this use of the entry, 29 bits
  std::uint64_t deadline;    // what the lease word's deadline will be once it is no longer reserved
  std::uint64_t key_hash;    // key-shared groups; 0: no key
  std::uint64_t reserved[2];
};
static_assert(sizeof(Straggler) == 64);
inline constexpr std::uint64_t straggler_free_seq = ~std::uint64_t{0};
inline constexpr std::uint32_t stragglers_per_bucket = 8;

// --- Slots and records -------------------------------------------------------------------------

// A slot is a Word16 {stamp, ref}: the message with seq == stamp is at ref. Slot t % slots starts
// as {t - slots, 0}. w: publishers by CAS; r: all; o: CAS is the release, acquire load of the
// stamp. ref: {reserved 24: zero, record offset in the arena / 16: 40}.
inline constexpr unsigned ref_unit_shift = 4;
inline constexpr std::uint64_t record_alignment = 1ULL << ref_unit_shift;
inline constexpr std::uint64_t ref_mask = (1ULL << 40) - 1;
inline constexpr std::uint64_t ref_in_journal = ref_mask;  // beyond any arena; stragglers only

enum RecordFlags : std::uint16_t {
  record_has_publish_time = 1,  // u64 CLOCK_REALTIME ns
  record_has_key_hash = 2,      // u64 XXH3 of the key
  record_has_due_time = 4,      // u64 CLOCK_REALTIME ns: not before
  record_is_void = 8,           // u64 0: no message, only its seq; consumers settle it unseen
  record_known_flags = 15,
};

/// Then, in this order: the u64s that the flags name, the attributes, padding to 8, the payload.
/// w: the chunk's owner before the slot's CAS, nobody after; r: who found it through a slot.
struct Record {
  std::uint64_t seq;  // written before each CAS attempt
  std::uint32_t payload_bytes;
  std::uint16_t attribute_bytes;  // {u8 key bytes, u16 value bytes, key, value}...
  std::uint16_t flags;            // RecordFlags
};
static_assert(sizeof(Record) == 16);

// --- Chunks ------------------------------------------------------------------------------------

// Chunk table entry: Word16 {last seq, {state 3, owner 13, owner generation 48}}. free: never used
// or nothing published from it. open: low half 0. sealed: low half = greatest seq in it; reusable
// once head has passed it and neither a straggler nor a live pin names it. gathering: its owner
// moves stragglers there; sealed with the tail, so that no earlier judgement of what is free covers
// it. w: producers and reclaim by CAS; r: producers.
enum class ChunkState : std::uint8_t { free = 0, open = 1, sealed = 2, gathering = 3 };
inline constexpr std::uint64_t chunk_generation_mask = (1ULL << 48) - 1;
constexpr std::uint64_t chunk_word(ChunkState state, std::uint32_t owner,
                                   std::uint64_t generation) noexcept {
  return (static_cast<std::uint64_t>(state) << 61) |
         (static_cast<std::uint64_t>(owner & 0x1fff) << 48) | (generation & chunk_generation_mask);
}
constexpr ChunkState chunk_state(std::uint64_t word) noexcept {
  return static_cast<ChunkState>(word >> 61);
}
constexpr std::uint32_t chunk_owner(std::uint64_t word) noexcept {
  return static_cast<std::uint32_t>(word >> 48) & 0x1fff;
}
constexpr std::uint64_t chunk_generation(std::uint64_t word) noexcept {
  return word & chunk_generation_mask;
}

// --- Lock bytes of the companion object ----------------------------------------------------------

inline constexpr std::uint64_t lock_byte_administration = 0;  // groups come and go
inline constexpr std::uint64_t lock_byte_daemon = 1;          // held while the daemon serves
inline constexpr std::uint64_t lock_byte_participant_0 = 16;  // entry n: this + n

// --- The watermark object ------------------------------------------------------------------------

// Of a durable queue, in an object of its own: the daemon alone may write it, so no participant can
// forge what is on stable storage. Everybody else has it mapped read-only.

inline constexpr std::uint64_t mark_magic = 0x314b524d514d4853ULL;  // "SHMQMRK1"

inline constexpr std::size_t mark_path_words = 14;  // sockaddr_un takes 108 bytes
inline constexpr std::size_t mark_journal_words = 64;

enum class DaemonState : std::uint32_t {
  starting = 1,  // nothing was promised in this epoch yet
  serving = 2,
  degraded = 3,  // the disk fails: synced publishes fail at once
  stopped = 4,   // cleanly; a killed daemon leaves what it was
};

struct Mark {
  // As the segment's header: never changes once the object has its name; r: openers, from a private
  // copy.
  std::uint64_t magic;
  std::uint32_t abi_version;
  std::uint32_t mark_bytes;  // sizeof(Mark), and the length of the object
  std::uint64_t layout_hash;
  std::uint8_t queue_uuid[16];  // of the segment
  std::uint8_t boot_id[16];
  std::uint64_t checksum;  // XXH3-64 of all bytes above
  // From here on w: the daemon; r: all. One line: written together, once a barrier.
  // All seqs below are on stable storage; never falls. o: release after the barrier, acquire.
  alignas(128) std::uint64_t watermark;
  // No seq at or above may be given out. w: before the watermark that needs it. 0: none yet.
  std::uint64_t seq_ceiling;
  std::uint64_t epoch;  // of the journal's writer
  // Looks at the groups: begun so far, and the last one that all before are on stable storage with.
  // Who wants an ack synced reads acks_looked after it, and awaits acks_synced > that.
  std::uint64_t acks_looked;
  std::uint64_t acks_synced;
  std::uint32_t daemon_state;    // DaemonState
  std::uint32_t progress_event;  // a count that moves after each change above: sleep on it
  // The journal's files begin with this seq. Moves before older ones go. o: daemon: store, full
  // fence, a look at the groups' floors, and back if one is lower; who wants to begin at an old
  // seq: the group's floor, a full fence, then this.
  std::uint64_t first_retained;
  // The daemon's doorbell socket, NUL-terminated; words, so that a reader that meets the daemon's
  // start sees a mix of two paths at worst, which leads nowhere. w: daemon, at its start.
  alignas(128) std::uint64_t doorbell_path[mark_path_words];
  // The directory with the journal's files, in the same form. Empty: its path is too long.
  alignas(128) std::uint64_t journal_path[mark_journal_words];
};
static_assert(offsetof(Mark, watermark) == 128 && offsetof(Mark, journal_path) == 384);
static_assert(sizeof(Mark) == 896);

/// Of every size and offset above, so that a forgotten layout_revision is noticed.
constexpr std::uint64_t compute_layout_hash() noexcept {
  std::uint64_t hash = 0xcbf29ce484222325ULL;
  for (const std::uint64_t value : {std::uint64_t{layout_revision},
                                    sizeof(Header),
                                    offsetof(Header, limits),
                                    sizeof(Limits),
                                    offsetof(Header, parts),
                                    sizeof(Control),
                                    offsetof(Control, tail_hint),
                                    offsetof(Control, message_event),
                                    offsetof(Control, room_event),
                                    offsetof(Control, last_reap_ms),
                                    offsetof(Control, lock_inode),
                                    offsetof(Control, dropped_total),
                                    offsetof(Control, participants_used),
                                    sizeof(Participant),
                                    offsetof(Participant, messages_total),
                                    offsetof(Participant, pins),
                                    sizeof(Group),
                                    offsetof(Group, progress),
                                    offsetof(Group, next_hint),
                                    offsetof(Group, next_due_tick),
                                    offsetof(Group, dropped_total),
                                    sizeof(Straggler),
                                    sizeof(Record),
                                    sizeof(Word16),
                                    sizeof(Mark),
                                    offsetof(Mark, watermark),
                                    offsetof(Mark, journal_path),
                                    std::uint64_t{pins_per_participant}}) {
    hash = (hash ^ value) * 0x100000001b3ULL;
  }
  return hash;
}
inline constexpr std::uint64_t layout_hash = compute_layout_hash();

}  // namespace shmq::shm
