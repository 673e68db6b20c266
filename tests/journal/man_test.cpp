// SPDX-License-Identifier: Apache-2.0
//
// The offset tables of shmq_journal(5) and format.hpp say the same. The list here names each field
// once; that it leaves none out shows in its having no holes.
#include <gtest/gtest.h>

#include <string>
#include <vector>

#include "journal/format.hpp"
#include "journal/recovery.hpp"
#include "support/man_page.hpp"

namespace {

using namespace shmq::journal;

using shmq::testing::Field;
using shmq::testing::read_man_page;
using shmq::testing::Structure;

const std::vector<Structure>& structures() {
  static const std::vector<Structure> list{
      SHMQ_STRUCT(FileHeader, SHMQ_FIELD(FileHeader, magic), SHMQ_FIELD(FileHeader, version),
                  SHMQ_FIELD(FileHeader, header_bytes), SHMQ_FIELD(FileHeader, compatible_flags),
                  SHMQ_FIELD(FileHeader, incompatible_flags), SHMQ_FIELD(FileHeader, queue_uuid),
                  SHMQ_FIELD(FileHeader, epoch), SHMQ_FIELD(FileHeader, file_number),
                  SHMQ_FIELD(FileHeader, file_bytes), SHMQ_FIELD(FileHeader, purpose),
                  SHMQ_FIELD(FileHeader, origin), SHMQ_FIELD(FileHeader, boot_id),
                  SHMQ_FIELD(FileHeader, created_realtime_ns), SHMQ_FIELD(FileHeader, name_space),
                  SHMQ_FIELD(FileHeader, queue), SHMQ_FIELD(FileHeader, reserved),
                  SHMQ_FIELD(FileHeader, checksum)),
      SHMQ_STRUCT(BatchHeader, SHMQ_FIELD(BatchHeader, magic), SHMQ_FIELD(BatchHeader, version),
                  SHMQ_FIELD(BatchHeader, header_bytes), SHMQ_FIELD(BatchHeader, flags),
                  SHMQ_FIELD(BatchHeader, record_count), SHMQ_FIELD(BatchHeader, queue_uuid),
                  SHMQ_FIELD(BatchHeader, epoch), SHMQ_FIELD(BatchHeader, file_number),
                  SHMQ_FIELD(BatchHeader, file_offset), SHMQ_FIELD(BatchHeader, batch_number),
                  SHMQ_FIELD(BatchHeader, first_seq), SHMQ_FIELD(BatchHeader, message_count),
                  SHMQ_FIELD(BatchHeader, end_seq), SHMQ_FIELD(BatchHeader, durable_upto),
                  SHMQ_FIELD(BatchHeader, seq_ceiling), SHMQ_FIELD(BatchHeader, body_bytes),
                  SHMQ_FIELD(BatchHeader, total_bytes), SHMQ_FIELD(BatchHeader, previous_file),
                  SHMQ_FIELD(BatchHeader, previous_offset),
                  SHMQ_FIELD(BatchHeader, previous_checksum),
                  SHMQ_FIELD(BatchHeader, previous_first_seq), SHMQ_FIELD(BatchHeader, realtime_ns),
                  SHMQ_FIELD(BatchHeader, escape_count), SHMQ_FIELD(BatchHeader, reserved),
                  SHMQ_FIELD(BatchHeader, body_checksum), SHMQ_FIELD(BatchHeader, header_checksum)),
      SHMQ_STRUCT(RecordHeader, SHMQ_FIELD(RecordHeader, bytes), SHMQ_FIELD(RecordHeader, type),
                  SHMQ_FIELD(RecordHeader, flags)),
      SHMQ_STRUCT(MessageRecord, SHMQ_FIELD(MessageRecord, header),
                  SHMQ_FIELD(MessageRecord, attribute_bytes), SHMQ_FIELD(MessageRecord, reserved),
                  SHMQ_FIELD(MessageRecord, seq), SHMQ_FIELD(MessageRecord, publish_realtime_ns)),
      SHMQ_STRUCT(GapRecord, SHMQ_FIELD(GapRecord, header), SHMQ_FIELD(GapRecord, reserved),
                  SHMQ_FIELD(GapRecord, first_seq), SHMQ_FIELD(GapRecord, end_seq)),
      SHMQ_STRUCT(GroupRecord, SHMQ_FIELD(GroupRecord, header),
                  SHMQ_FIELD(GroupRecord, range_count), SHMQ_FIELD(GroupRecord, entry_count),
                  SHMQ_FIELD(GroupRecord, group_uuid), SHMQ_FIELD(GroupRecord, incarnation),
                  SHMQ_FIELD(GroupRecord, floor)),
      SHMQ_STRUCT(SettledRange, SHMQ_FIELD(SettledRange, first_seq),
                  SHMQ_FIELD(SettledRange, end_seq)),
      SHMQ_STRUCT(EntryState, SHMQ_FIELD(EntryState, seq), SHMQ_FIELD(EntryState, due_realtime_ns),
                  SHMQ_FIELD(EntryState, hand_outs), SHMQ_FIELD(EntryState, failures),
                  SHMQ_FIELD(EntryState, deaths), SHMQ_FIELD(EntryState, condition)),
      SHMQ_STRUCT(GroupRemovedRecord, SHMQ_FIELD(GroupRemovedRecord, header),
                  SHMQ_FIELD(GroupRemovedRecord, reserved),
                  SHMQ_FIELD(GroupRemovedRecord, group_uuid),
                  SHMQ_FIELD(GroupRemovedRecord, incarnation)),
      SHMQ_STRUCT(SettingsRecord, SHMQ_FIELD(SettingsRecord, header),
                  SHMQ_FIELD(SettingsRecord, reserved), SHMQ_FIELD(SettingsRecord, group_uuid)),
      SHMQ_STRUCT(CopySourceRecord, SHMQ_FIELD(CopySourceRecord, header),
                  SHMQ_FIELD(CopySourceRecord, epoch), SHMQ_FIELD(CopySourceRecord, file_number),
                  SHMQ_FIELD(CopySourceRecord, file_offset), SHMQ_FIELD(CopySourceRecord, bytes),
                  SHMQ_FIELD(CopySourceRecord, header_checksum),
                  SHMQ_FIELD(CopySourceRecord, first_seq), SHMQ_FIELD(CopySourceRecord, end_seq)),
      SHMQ_STRUCT(EscapeRecord, SHMQ_FIELD(EscapeRecord, header), SHMQ_FIELD(EscapeRecord, count),
                  SHMQ_FIELD(EscapeRecord, reserved)),
  };
  return list;
}

const shmq::testing::ManPage& page() {
  static const auto read = read_man_page(SHMQ_SOURCE_DIR "/man/shmq_journal.5");
  return read;
}

TEST(Man, the_offset_tables_are_those_of_the_format) {
  const auto& tables = page().tables;
  EXPECT_EQ(tables.size(), structures().size());
  std::size_t fields = 0;
  for (const Structure& structure : structures()) {
    const auto table = tables.find(structure.name);
    ASSERT_NE(table, tables.end()) << structure.name;
    ASSERT_EQ(table->second.size(), structure.fields.size()) << structure.name;
    for (std::size_t i = 0; i < structure.fields.size(); ++i, ++fields) {
      EXPECT_EQ(table->second[i], structure.fields[i])
          << structure.name << "." << structure.fields[i].name;
    }
  }
  EXPECT_GT(fields, 50U);
}

TEST(Man, the_list_of_fields_has_no_holes) {
  for (const Structure& structure : structures()) {
    std::size_t offset = 0;
    for (const Field& field : structure.fields) {
      EXPECT_EQ(field.offset, offset) << structure.name << "." << field.name;
      offset += field.bytes;
    }
    EXPECT_EQ(offset, structure.bytes) << structure.name;
  }
}

TEST(Man, each_lettered_case_is_on_the_page) {
  const std::string& text = page().text;
  for (const Case& known : all_cases()) {
    EXPECT_NE(text.find(std::string{"\n.It "} + known.letter + "\n"), std::string::npos)
        << known.letter;
    const std::string finding{known.finding.substr(1)};
    EXPECT_NE(text.find(finding), std::string::npos) << finding;
  }
}

}  // namespace
