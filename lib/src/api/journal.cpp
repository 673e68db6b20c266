// SPDX-License-Identifier: Apache-2.0
//
// The journal for people: findings and plans as lines, files as lists of what they hold.
#include <algorithm>
#include <shmq/journal.hpp>

#include "journal/analysis.hpp"

namespace shmq {
namespace {

using namespace journal;

std::string range_text(std::uint64_t first, std::uint64_t end) {
  if (end <= first) return "no seqs";
  if (end == first + 1) return "seq " + std::to_string(first);
  return "seqs " + std::to_string(first) + " to " + std::to_string(end - 1);
}

std::vector<std::string> steps_of(const Plan& plan) {
  std::vector<std::string> steps;
  if (plan.is_refused) {
    for (const Finding& finding : plan.findings) {
      if (finding.action != Action::refuse) continue;
      const Case& known = all_cases()[static_cast<std::size_t>(finding.letter - 'A')];
      const std::string range = finding.end_seq == unknown_end
                                    ? "seqs from " + std::to_string(finding.first_seq) + " on"
                                    : range_text(finding.first_seq, finding.end_seq);
      steps.push_back("decide about " + finding.file + ", " + range + ": " +
                      std::string{known.proceed});
    }
    return steps;
  }
  if (plan.is_new) return {"begin a new queue"};
  const std::string file = file_name(plan.next_file_number);
  if (plan.tail) {
    steps.push_back("copy the last batch of " + file_name(plan.tail->file_number) + ", " +
                    range_text(plan.tail->first_seq, plan.tail->end_seq) + ", into " + file);
  }
  if (plan.writes_gap) {
    steps.push_back("write a gap record for " + range_text(plan.end_seq, plan.next_seq) +
                    ", unless the host is the same and memory goes on");
  }
  steps.push_back("close epoch " + std::to_string(plan.next_epoch) + " in " + file +
                  " and sync it");
  for (const std::string& name : plan.removable) steps.push_back("remove " + name);
  return steps;
}

JournalGroup group_of(const Uuid& uuid, const GroupState& state) {
  JournalGroup group{.uuid = text_of(uuid),
                     .incarnation = state.incarnation,
                     .floor = state.floor,
                     .settled_above = 0,
                     .handed_out = state.entries.size()};
  for (const auto& [first, end] : state.settled) group.settled_above += end - first;
  return group;
}

// --- Dump --------------------------------------------------------------------------------------

std::string field(std::string_view name, std::uint64_t value) {
  return std::string{name} + "=" + std::to_string(value) + " ";
}

std::string describe(const FileScan& scan) {
  constexpr std::string_view conditions[] = {"valid", "damaged", "truncated", "unsupported",
                                             "foreign"};
  const FileHeader& header = scan.header;
  std::string text = "header=" + std::string{conditions[static_cast<int>(scan.condition)]} + " ";
  const bool says_something = scan.header_is_sound || scan.condition == HeaderCondition::foreign ||
                              scan.condition == HeaderCondition::unsupported;
  if (!says_something) return text;
  const bool is_incarnation = header.purpose == static_cast<std::uint32_t>(Purpose::incarnation);
  const bool is_recycled = header.origin == static_cast<std::uint32_t>(Origin::recycled);
  text += field("version", header.version) + "queue_uuid=" + text_of(uuid_of(header.queue_uuid));
  text += " " + field("epoch", header.epoch) + field("file_number", header.file_number) +
          field("file_bytes", header.file_bytes);
  text += std::string{"purpose="} + (is_incarnation ? "incarnation" : "ordinary") +
          " origin=" + (is_recycled ? "recycled" : "fresh") + " ";
  // From bytes of others: up to the NUL, and no further than the field.
  const auto name = [](const char* bytes) {
    const auto* end = std::find(bytes, bytes + name_field_bytes, '\0');
    std::string safe;
    std::for_each(bytes, end, [&](char c) { safe += c > ' ' && c < '\x7f' ? c : '?'; });
    return safe;
  };
  return text + "namespace=" + name(header.name_space) + " queue=" + name(header.queue);
}

std::string describe(const BatchHeader& header) {
  std::string flags;
  const auto flag = [&](BatchFlags bit, const char* name) {
    if ((header.flags & bit) != 0) flags += (flags.empty() ? "" : ",") + std::string{name};
  };
  flag(batch_snapshot, "snapshot");
  flag(batch_closing, "closing");
  flag(batch_copy, "copy");
  flag(batch_marker, "marker");
  return field("batch_number", header.batch_number) + field("epoch", header.epoch) +
         "flags=" + (flags.empty() ? "none" : flags) + " " + field("first_seq", header.first_seq) +
         field("end_seq", header.end_seq) + field("messages", header.message_count) +
         field("records", header.record_count) + field("durable_upto", header.durable_upto) +
         field("seq_ceiling", header.seq_ceiling) + field("previous_file", header.previous_file) +
         field("previous_offset", header.previous_offset);
}

std::string describe(const HoleContent& hole) {
  std::string text = "holds=";
  if (!hole.noise && !hole.stale) return text + "zeros";
  if (hole.stale) text += "stale_blocks";
  if (hole.noise) text += hole.stale ? ",unknown_bytes" : "unknown_bytes";
  if (hole.broken_header) text += ",broken_batch_header";
  if (hole.unsupported) text += ",batch_of_another_version";
  return text;
}

std::string describe(const Record& record) {
  switch (record.type) {
    case RecordType::message: {
      const MessageView view = message_of(record);
      return "message " + field("seq", view.seq) + field("payload_bytes", view.payload.size()) +
             field("attribute_bytes", view.attributes.size());
    }
    case RecordType::gap: {
      const auto gap = load<GapRecord>(record.bytes);
      return "gap " + field("first_seq", gap.first_seq) + field("end_seq", gap.end_seq);
    }
    case RecordType::group_snapshot:
    case RecordType::group_delta: {
      const GroupView view = journal::group_of(record);
      const bool is_snapshot = record.type == RecordType::group_snapshot;
      return std::string{is_snapshot ? "group_snapshot " : "group_delta "} +
             "group=" + text_of(uuid_of(view.head.group_uuid)) + " " +
             field("incarnation", view.head.incarnation) + field("floor", view.head.floor) +
             field("ranges", view.head.range_count) + field("entries", view.head.entry_count);
    }
    case RecordType::group_removed: {
      const auto removed = load<GroupRemovedRecord>(record.bytes);
      return "group_removed group=" + text_of(uuid_of(removed.group_uuid)) + " " +
             field("incarnation", removed.incarnation);
    }
    case RecordType::settings: {
      const auto settings = load<SettingsRecord>(record.bytes);
      return "settings group=" + text_of(uuid_of(settings.group_uuid)) + " " +
             field("value_bytes", record.bytes.size() - sizeof(SettingsRecord));
    }
    case RecordType::copy_source: {
      const auto source = load<CopySourceRecord>(record.bytes);
      return "copy_source " + field("epoch", source.epoch) +
             field("file_number", source.file_number) + field("file_offset", source.file_offset) +
             field("first_seq", source.first_seq) + field("end_seq", source.end_seq);
    }
    case RecordType::escape:
      return "escape " + field("blocks", load<EscapeRecord>(record.bytes).count);
  }
  return "unknown";
}

JournalItem item_of(const Stretch& stretch) {
  JournalItem item;
  item.offset = stretch.offset;
  item.bytes = stretch.bytes;
  switch (stretch.kind) {
    case StretchKind::batch:
      item.kind = JournalItemKind::batch;
      item.description = describe(stretch.header);
      break;
    case StretchKind::damaged:
      item.kind = JournalItemKind::damaged;
      item.description = describe(stretch.header) + "damage=\"" + stretch.why + "\"";
      break;
    case StretchKind::hole:
      item.kind = JournalItemKind::hole;
      item.description = describe(stretch.hole);
      break;
  }
  return item;
}

bool dump_records(const BatchHeader& header, const std::vector<Record>& records,
                  const std::function<bool(const JournalItem&)>& take) {
  for (const Record& record : records) {
    JournalItem item{.kind = JournalItemKind::record,
                     .offset = header.file_offset,
                     .bytes = record.bytes.size(),
                     .description = describe(record)};
    if (record.type == RecordType::message) {
      const MessageView view = message_of(record);
      item.is_message = true;
      item.seq = view.seq;
      item.payload = view.payload;
    }
    if (!take(item)) return false;
  }
  return true;
}

}  // namespace

Result<JournalReport> verify_journal(const std::string& directory) {
  const auto source = open_directory(directory);
  const auto plan = analyse(*source, {});
  if (!plan) return tl::unexpected{plan.error()};
  JournalReport report{.is_refused = plan->is_refused,
                       .is_empty = plan->is_new,
                       .queue_uuid = text_of(plan->queue_uuid),
                       .first_seq = plan->chain.empty() ? 0 : plan->chain.front().first_seq,
                       .end_seq = plan->end_seq,
                       .next_seq = plan->next_seq,
                       .groups = {},
                       .findings = {},
                       .plan = steps_of(*plan)};
  for (const auto& [uuid, group] : plan->state.groups) {
    report.groups.push_back(group_of(uuid, group));
  }
  for (const Finding& finding : plan->findings) {
    report.findings.push_back({.letter = finding.letter,
                               .refuses = finding.action == Action::refuse,
                               .file = finding.file,
                               .offset = finding.offset,
                               .bytes = finding.bytes,
                               .first_seq = finding.first_seq,
                               .end_seq = finding.end_seq,
                               .text = finding.text()});
  }
  return report;
}

Result<void> dump_journal(const std::string& file,
                          const std::function<bool(const JournalItem&)>& take) {
  auto source = open_file(file);
  if (!source) return tl::unexpected{source.error()};
  const std::string name = file.substr(file.rfind('/') + 1);
  const auto header = read_file_header(**source);
  if (!header) return tl::unexpected{header.error()};
  // A copy under another name is still worth looking at: then the header says the number.
  const std::uint64_t number =
      header->magic == file_magic ? header->file_number : number_in_name(name).value_or(0);
  const auto scan = scan_file(**source, name, number, {});
  if (!scan) return tl::unexpected{scan.error()};
  bool goes_on = take({.kind = JournalItemKind::file,
                       .offset = 0,
                       .bytes = scan->size,
                       .description = describe(*scan)});
  // A second pass brings the records, which live only as long as their batch is in memory.
  auto stretch = scan->stretches.begin();
  const auto up_to = [&](std::uint64_t offset) {
    for (; goes_on && stretch != scan->stretches.end() && stretch->offset <= offset; ++stretch) {
      goes_on = take(item_of(*stretch));
    }
  };
  const auto visit = [&](const BatchHeader& batch, const std::vector<Record>& records) {
    up_to(batch.file_offset);
    if (goes_on) goes_on = dump_records(batch, records, take);
  };
  const auto again = scan_file(**source, name, number, {}, visit);
  if (!again) return tl::unexpected{again.error()};
  up_to(scan->size);
  return {};
}

}  // namespace shmq
