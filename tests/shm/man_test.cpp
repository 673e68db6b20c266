// SPDX-License-Identifier: Apache-2.0
//
// The offset tables of shmq_segment(5) and layout.hpp say the same. The list here names each field
// once; that it leaves none out shows in its having no holes but those of the 128-byte alignment.
#include <gtest/gtest.h>

#include <string>
#include <vector>

#include "shm/layout.hpp"
#include "support/man_page.hpp"

namespace {

using namespace shmq::shm;

using shmq::testing::Field;
using shmq::testing::read_man_page;
using shmq::testing::Structure;

const std::vector<Structure>& structures() {
  static const std::vector<Structure> list{
      SHMQ_STRUCT(Part, SHMQ_FIELD(Part, offset), SHMQ_FIELD(Part, bytes)),
      SHMQ_STRUCT(Limits, SHMQ_FIELD(Limits, slots), SHMQ_FIELD(Limits, arena_bytes),
                  SHMQ_FIELD(Limits, max_message_bytes), SHMQ_FIELD(Limits, retain_age_ns),
                  SHMQ_FIELD(Limits, retain_bytes), SHMQ_FIELD(Limits, retain_messages),
                  SHMQ_FIELD(Limits, max_disk_bytes), SHMQ_FIELD(Limits, chunk_bytes),
                  SHMQ_FIELD(Limits, chunks), SHMQ_FIELD(Limits, max_groups),
                  SHMQ_FIELD(Limits, max_participants), SHMQ_FIELD(Limits, max_producers),
                  SHMQ_FIELD(Limits, window_entries), SHMQ_FIELD(Limits, straggler_entries),
                  SHMQ_FIELD(Limits, pins), SHMQ_FIELD(Limits, overflow),
                  SHMQ_FIELD(Limits, durable), SHMQ_FIELD(Limits, visible),
                  SHMQ_FIELD(Limits, reserved)),
      SHMQ_STRUCT(Header, SHMQ_FIELD(Header, magic), SHMQ_FIELD(Header, abi_version),
                  SHMQ_FIELD(Header, header_bytes), SHMQ_FIELD(Header, compatible_flags),
                  SHMQ_FIELD(Header, incompatible_flags), SHMQ_FIELD(Header, layout_hash),
                  SHMQ_FIELD(Header, byte_order), SHMQ_FIELD(Header, architecture),
                  SHMQ_FIELD(Header, page_bytes), SHMQ_FIELD(Header, reserved0),
                  SHMQ_FIELD(Header, uuid), SHMQ_FIELD(Header, boot_id),
                  SHMQ_FIELD(Header, created_realtime_ns), SHMQ_FIELD(Header, segment_bytes),
                  SHMQ_FIELD(Header, name_space), SHMQ_FIELD(Header, queue),
                  SHMQ_FIELD(Header, limits), SHMQ_FIELD(Header, parts),
                  SHMQ_FIELD(Header, checksum)),
      SHMQ_STRUCT(Control, SHMQ_FIELD(Control, head), SHMQ_FIELD(Control, tail_hint),
                  SHMQ_FIELD(Control, small_chunk_cursor), SHMQ_FIELD(Control, outer_chunk_cursor),
                  SHMQ_FIELD(Control, message_event), SHMQ_FIELD(Control, queue_state),
                  SHMQ_FIELD(Control, reserved4), SHMQ_FIELD(Control, reserved0),
                  SHMQ_FIELD(Control, room_event), SHMQ_FIELD(Control, reserved5),
                  SHMQ_FIELD(Control, ownership_event), SHMQ_FIELD(Control, last_reap_ms),
                  SHMQ_FIELD(Control, lock_inode), SHMQ_FIELD(Control, dropped_total),
                  SHMQ_FIELD(Control, pinned_chunks_hint), SHMQ_FIELD(Control, participants_used),
                  SHMQ_FIELD(Control, reserved3), SHMQ_FIELD(Control, daemon_asleep),
                  SHMQ_FIELD(Control, reserved1), SHMQ_FIELD(Control, daemon_generation),
                  SHMQ_FIELD(Control, run_hint), SHMQ_FIELD(Control, reserved2)),
      SHMQ_STRUCT(Participant, SHMQ_FIELD(Participant, word), SHMQ_FIELD(Participant, pid),
                  SHMQ_FIELD(Participant, uid), SHMQ_FIELD(Participant, start_time_ticks),
                  SHMQ_FIELD(Participant, pid_namespace_inode), SHMQ_FIELD(Participant, group_word),
                  SHMQ_FIELD(Participant, attached_realtime_ns), SHMQ_FIELD(Participant, name),
                  SHMQ_FIELD(Participant, visiting), SHMQ_FIELD(Participant, messages_total),
                  SHMQ_FIELD(Participant, bytes_total), SHMQ_FIELD(Participant, asleep_since_ms),
                  SHMQ_FIELD(Participant, reserved1), SHMQ_FIELD(Participant, pins)),
      SHMQ_STRUCT(
          Group, SHMQ_FIELD(Group, word), SHMQ_FIELD(Group, name), SHMQ_FIELD(Group, lease_ns),
          SHMQ_FIELD(Group, born_seq), SHMQ_FIELD(Group, created_realtime_ns),
          SHMQ_FIELD(Group, delivery_limit), SHMQ_FIELD(Group, dead_limit),
          SHMQ_FIELD(Group, expire_idle_ns), SHMQ_FIELD(Group, reserved0),
          SHMQ_FIELD(Group, progress), SHMQ_FIELD(Group, next_hint),
          SHMQ_FIELD(Group, returned_count), SHMQ_FIELD(Group, reserved1),
          SHMQ_FIELD(Group, next_due_tick), SHMQ_FIELD(Group, table_due_tick),
          SHMQ_FIELD(Group, deadline_reference), SHMQ_FIELD(Group, reserved3),
          SHMQ_FIELD(Group, dropped_total), SHMQ_FIELD(Group, redelivered_death_total),
          SHMQ_FIELD(Group, redelivered_lease_total), SHMQ_FIELD(Group, redelivered_nack_total),
          SHMQ_FIELD(Group, redelivered_release_total), SHMQ_FIELD(Group, dead_lettered_total),
          SHMQ_FIELD(Group, stragglers), SHMQ_FIELD(Group, dead_messages),
          SHMQ_FIELD(Group, discarded_total), SHMQ_FIELD(Group, dead_bytes),
          SHMQ_FIELD(Group, straggler_reach), SHMQ_FIELD(Group, reserved2)),
      SHMQ_STRUCT(Straggler, SHMQ_FIELD(Straggler, lease), SHMQ_FIELD(Straggler, place),
                  SHMQ_FIELD(Straggler, generation), SHMQ_FIELD(Straggler, deadline),
                  SHMQ_FIELD(Straggler, key_hash), SHMQ_FIELD(Straggler, reserved)),
      SHMQ_STRUCT(Record, SHMQ_FIELD(Record, seq), SHMQ_FIELD(Record, payload_bytes),
                  SHMQ_FIELD(Record, attribute_bytes), SHMQ_FIELD(Record, flags)),
      SHMQ_STRUCT(
          Mark, SHMQ_FIELD(Mark, magic), SHMQ_FIELD(Mark, abi_version),
          SHMQ_FIELD(Mark, mark_bytes), SHMQ_FIELD(Mark, layout_hash), SHMQ_FIELD(Mark, queue_uuid),
          SHMQ_FIELD(Mark, boot_id), SHMQ_FIELD(Mark, checksum), SHMQ_FIELD(Mark, watermark),
          SHMQ_FIELD(Mark, seq_ceiling), SHMQ_FIELD(Mark, epoch), SHMQ_FIELD(Mark, acks_looked),
          SHMQ_FIELD(Mark, acks_synced), SHMQ_FIELD(Mark, daemon_state),
          SHMQ_FIELD(Mark, progress_event), SHMQ_FIELD(Mark, first_retained),
          SHMQ_FIELD(Mark, doorbell_path), SHMQ_FIELD(Mark, journal_path)),
  };
  return list;
}

shmq::testing::ManPage read_page() { return read_man_page(SHMQ_SOURCE_DIR "/man/shmq_segment.5"); }

TEST(Man, the_offset_tables_are_those_of_the_layout) {
  const auto page = read_page();
  EXPECT_EQ(page.tables.size(), structures().size());
  std::size_t fields = 0;
  for (const Structure& structure : structures()) {
    const auto table = page.tables.find(structure.name);
    ASSERT_NE(table, page.tables.end()) << structure.name;
    EXPECT_EQ(page.bytes.at(structure.name), structure.bytes) << structure.name;
    ASSERT_EQ(table->second.size(), structure.fields.size()) << structure.name;
    for (std::size_t i = 0; i < structure.fields.size(); ++i, ++fields) {
      EXPECT_EQ(table->second[i], structure.fields[i])
          << structure.name << "." << structure.fields[i].name;
    }
  }
  EXPECT_GT(fields, 100U);
}

TEST(Man, the_list_of_fields_has_no_holes) {
  constexpr std::size_t apart = 128;  // words written independently of each other
  const auto aligned = [](std::size_t offset) { return (offset + apart - 1) / apart * apart; };
  for (const Structure& structure : structures()) {
    std::size_t offset = 0;
    for (const Field& field : structure.fields) {
      EXPECT_TRUE(field.offset == offset || field.offset == aligned(offset))
          << structure.name << "." << field.name;
      offset = field.offset + field.bytes;
    }
    EXPECT_TRUE(structure.bytes == offset || structure.bytes == aligned(offset)) << structure.name;
  }
}

TEST(Man, the_numbers_on_the_page_are_those_of_the_layout) {
  const std::string text = read_page().text;
  for (const std::string& said : {"ABI version " + std::to_string(abi_version),
                                  "layout revision " + std::to_string(layout_revision),
                                  std::string{"SHMQSEG1"}, std::string{"SHMQMRK1"}}) {
    EXPECT_NE(text.find(said), std::string::npos) << said;
  }
}

}  // namespace
