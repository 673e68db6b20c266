// SPDX-License-Identifier: Apache-2.0
#include "journal/analysis.hpp"

#include <algorithm>

#include "base/mutant.hpp"

namespace shmq::journal {
namespace {

// A file with what its stretches come to.
struct Examined {
  FileScan scan;
  FileEvidence evidence;
  std::size_t run = 0;         // whole, chained batches from the first block on
  bool later_genuine = false;  // a genuine header behind the run
  bool begun_behind = false;   // signs of a batch behind the run
  bool stale_behind = false;
  std::size_t used = 0;  // batches of the run that count
  bool is_chained = false;
  CheckpointState state;  // after the run; of those that may turn out to be the newest

  [[nodiscard]] const BatchHeader& batch(std::size_t i) const { return scan.stretches[i].header; }
};

bool continues(const BatchHeader& next, const BatchHeader& before) noexcept {
  return next.batch_number == before.batch_number + 1 && next.first_seq == before.end_seq &&
         next.previous_file == before.file_number && next.previous_offset == before.file_offset &&
         next.previous_checksum == before.header_checksum &&
         next.previous_first_seq == before.first_seq;
}

bool is_genuine(const Stretch& stretch) noexcept { return stretch.kind != StretchKind::hole; }

void measure(Examined& file) {
  const auto& stretches = file.scan.stretches;
  while (file.run < stretches.size() && stretches[file.run].kind == StretchKind::batch &&
         (file.run == 0 || continues(stretches[file.run].header, file.batch(file.run - 1)))) {
    ++file.run;
  }
  file.used = file.run;
  for (std::size_t i = file.run; i < stretches.size(); ++i) {
    const Stretch& stretch = stretches[i];
    // A damaged batch at the end of the run was begun; anything genuine behind it is later.
    if (is_genuine(stretch) && (i > file.run || stretch.kind == StretchKind::batch)) {
      file.later_genuine = true;
    }
    file.begun_behind |= is_genuine(stretch) || stretch.hole.noise;
    file.stale_behind |= stretch.hole.stale;
  }
}

StartEvidence start_of(const Examined& file) {
  if (file.scan.condition != HeaderCondition::valid ||
      file.scan.header.purpose != static_cast<std::uint32_t>(Purpose::incarnation)) {
    return StartEvidence::ordinary;
  }
  for (const Stretch& stretch : file.scan.stretches) {
    if (!is_genuine(stretch)) continue;
    const bool is_marker = (stretch.header.flags & batch_marker) != 0;
    if (is_marker && stretch.kind == StretchKind::batch) return StartEvidence::complete;
    // Any other batch is written after the marker is synced: the marker was damaged since.
    if (!is_marker && (stretch.header.flags & batch_copy) == 0) return StartEvidence::complete;
  }
  return StartEvidence::unfinished;
}

HeaderEvidence evidence_of(HeaderCondition condition) noexcept {
  switch (condition) {
    case HeaderCondition::valid: return HeaderEvidence::valid;
    case HeaderCondition::damaged: return HeaderEvidence::damaged;
    case HeaderCondition::truncated: return HeaderEvidence::truncated;
    case HeaderCondition::unsupported: return HeaderEvidence::unsupported;
    case HeaderCondition::foreign: return HeaderEvidence::foreign;
  }
  return HeaderEvidence::damaged;
}

// Adds up the checkpoints of a file's run while the file is scanned.
class StateAfterRun {
 public:
  explicit StateAfterRun(CheckpointState& state) : state_(state) {}

  void take(const BatchHeader& header, const std::vector<Record>& records) {
    const bool is_next = last_ ? continues(header, *last_) &&
                                     header.file_offset == last_->file_offset + last_->total_bytes
                               : header.file_offset == block_bytes;
    is_over_ |= !is_next;
    if (is_over_) return;
    last_ = header;
    state_.apply(header, records);
  }

 private:
  CheckpointState& state_;
  std::optional<BatchHeader> last_;
  bool is_over_ = false;
};

class Analysis {
 public:
  Analysis(DirectorySource& directory, const AnalysisOptions& options)
      : directory_(directory), options_(options) {}

  Result<Plan> run() {
    auto names = directory_.list();
    if (!names) return tl::unexpected{names.error()};
    if (auto done = examine(*names); !done) return tl::unexpected{done.error()};
    find_newest();
    if (newest_ != nullptr) {
      take_state();
      follow_chain();
    }
    for (Examined& file : files_) judge(file);
    number();
    std::stable_sort(
        plan_.findings.begin(), plan_.findings.end(),
        [](const Finding& left, const Finding& right) { return left.file < right.file; });
    return std::move(plan_);
  }

 private:
  Result<void> examine(const std::vector<std::string>& names) {
    std::map<std::uint64_t, std::string> numbered;
    for (const std::string& name : names) {
      if (const auto number = number_in_name(name)) {
        numbered.emplace(*number, name);
        continue;
      }
      const bool temporary = is_temporary_name(name);
      FileEvidence evidence;
      evidence.name = temporary ? NameKind::temporary : NameKind::other;
      report(decide(evidence), {.file = name});
      if (temporary) plan_.removable.push_back(name);
    }
    if (!numbered.empty()) plan_.next_file_number = numbered.rbegin()->first + 1;
    std::optional<Uuid> uuid = options_.queue_uuid;
    // Newest first: the newest whole file says which queue this is.
    for (auto entry = numbered.rbegin(); entry != numbered.rend(); ++entry) {
      auto file = examine_file(entry->second, entry->first, uuid);
      if (!file) return tl::unexpected{file.error()};
      if (!uuid && file->scan.header_is_sound) uuid = uuid_of(file->scan.header.queue_uuid);
      files_.push_back(std::move(*file));
    }
    if (uuid) plan_.queue_uuid = *uuid;
    for (const Examined& file : files_) {
      if (file.scan.header_is_sound) raise_epoch(file.scan.header.epoch);
      for (const Stretch& stretch : file.scan.stretches) {
        if (is_genuine(stretch)) raise_epoch(stretch.header.epoch);
      }
    }
    return {};
  }

  Result<Examined> examine_file(const std::string& name, std::uint64_t number,
                                const std::optional<Uuid>& uuid) {
    auto source = directory_.open(name);
    if (!source) return tl::unexpected{source.error()};
    const bool is_candidate = newest_is_unread();
    if (!options_.check_all_bodies && !is_candidate) {
      if (auto found = look_at_ends(**source, name, number, uuid)) return std::move(*found);
    }
    Examined file;
    BatchVisitor visit;
    if (is_candidate) {
      visit = [run = StateAfterRun{file.state}](const BatchHeader& header,
                                                const std::vector<Record>& records) mutable {
        run.take(header, records);
      };
    }
    auto scan = scan_file(
        *(*source), name, number,
        {.queue_uuid = uuid, .check_bodies = options_.check_all_bodies || is_candidate}, visit);
    if (!scan) return tl::unexpected{scan.error()};
    file.scan = std::move(*scan);
    measure(file);
    file.evidence.header = evidence_of(file.scan.condition);
    file.evidence.start = start_of(file);
    return file;
  }

  // Of a file that the chain leads to its two ends are enough for a quick start: the batch that its
  // successor names, and its first. Nothing if they are not what they should be: the scan will say
  // why. The first batch in front of `number` tells where the chain goes; files_ is newest first.
  std::optional<Examined> look_at_ends(ByteSource& source, const std::string& name,
                                       std::uint64_t number, const std::optional<Uuid>& uuid) {
    const BatchHeader* next = nullptr;
    for (const Examined& file : files_) {
      const bool is_link =
          next == nullptr ? may_be_newest(file) : file.scan.number == next->previous_file;
      if (!is_link) continue;
      if (file.run == 0) return std::nullopt;
      next = &file.batch(0);
    }
    if (next == nullptr || next->previous_file != number) return std::nullopt;
    auto ends = read_ends(source, name, number, uuid, *next);
    if (!ends || !continues(*next, ends->stretches.back().header)) return std::nullopt;
    Examined file;
    file.scan = std::move(*ends);
    file.run = file.used = file.scan.stretches.size();
    file.evidence.header = HeaderEvidence::valid;
    file.evidence.start = start_of(file);
    if (file.evidence.start == StartEvidence::unfinished) return std::nullopt;
    return file;
  }

  [[nodiscard]] bool newest_is_unread() const {
    return std::none_of(files_.begin(), files_.end(),
                        [](const Examined& file) { return may_be_newest(file); });
  }

  void raise_epoch(std::uint64_t epoch) {
    plan_.next_epoch = std::max(plan_.next_epoch, epoch + 1);
  }

  static bool may_be_newest(const Examined& file) {
    const bool is_readable = file.evidence.header != HeaderEvidence::foreign &&
                             file.evidence.header != HeaderEvidence::unsupported;
    return is_readable && file.evidence.start != StartEvidence::unfinished &&
           (file.run > 0 || file.later_genuine);
  }

  void find_newest() {
    for (Examined& file : files_) {  // newest first
      if (!may_be_newest(file)) continue;
      newest_ = &file;
      file.evidence.place = PlaceEvidence::newest;
      return;
    }
  }

  Examined* find(std::uint64_t number) {
    for (Examined& file : files_) {
      if (file.scan.number == number) return &file;
    }
    return nullptr;
  }

  // The newest file begins with a snapshot.
  void take_state() {
    if (newest_->run == 0) return;
    plan_.state = std::move(newest_->state);
    const BatchHeader& last = newest_->batch(newest_->run - 1);
    plan_.is_new = false;
    plan_.end_seq = last.end_seq;
    plan_.tail = last;
    plan_.before_tail = {last.previous_file, last.previous_offset, last.previous_checksum,
                         last.previous_first_seq};
    plan_.next_batch_number = last.batch_number;
    for (std::size_t i = 0; i < newest_->run; ++i) {
      plan_.seq_ceiling = std::max(plan_.seq_ceiling, newest_->batch(i).seq_ceiling);
    }
  }

  void add_to_chain(const Examined& file) {
    if (file.used == 0) return;
    const BatchHeader& last = file.batch(file.used - 1);
    plan_.chain.insert(plan_.chain.begin(), {.name = file.scan.name,
                                             .first_seq = file.batch(0).first_seq,
                                             .end_seq = last.end_seq,
                                             .end_offset = last.file_offset + last.total_bytes,
                                             .file_bytes = file.scan.size,
                                             .file_number = file.scan.number,
                                             .last_realtime_ns = last.realtime_ns});
  }

  void follow_chain() {
    Examined* file = newest_;
    add_to_chain(*file);
    const std::uint64_t floor = plan_.state.least_floor(plan_.end_seq);
    // Each step goes to a lower file number, so it ends.
    while (file->run > 0) {
      const BatchHeader& first = file->batch(0);
      Examined* before = nullptr;
      LinkEvidence link{.is_needed = floor < first.first_seq};
      if (first.previous_file != 0) {
        before = first.previous_file < file->scan.number ? find(first.previous_file) : nullptr;
        link.predecessor =
            before == nullptr ? PredecessorEvidence::absent : look_at_predecessor(*before, first);
      }
      Finding finding{.file = file->scan.name,
                      .first_seq = first.first_seq,
                      .end_seq = first.first_seq,
                      .detail = {}};
      const Case& verdict = decide(link);
      if (verdict.action == Action::refuse) {
        finding.first_seq = std::min(floor, first.first_seq);
        finding.detail = "expected " + file_name(first.previous_file) + " at offset " +
                         std::to_string(first.previous_offset);
      }
      report(verdict, finding);
      if (link.predecessor != PredecessorEvidence::present) return;
      before->is_chained = true;
      before->evidence.place = PlaceEvidence::chained;
      named_by_[before] = first;
      add_to_chain(*before);
      file = before;
    }
  }

  // Cuts `before` down to the batch that `next` continues.
  static PredecessorEvidence look_at_predecessor(Examined& before, const BatchHeader& next) {
    for (std::size_t i = 0; i < before.run; ++i) {
      const BatchHeader& batch = before.batch(i);
      if (batch.file_offset != next.previous_offset) continue;
      if (!continues(next, batch)) return PredecessorEvidence::mismatch;
      before.used = i + 1;
      return PredecessorEvidence::present;
    }
    // Not whole there: the file's own case says what it is, if the header can be believed.
    return before.scan.condition == HeaderCondition::valid ||
                   before.scan.condition == HeaderCondition::truncated
               ? PredecessorEvidence::present
               : PredecessorEvidence::mismatch;
  }

  void judge(Examined& file) {
    FileEvidence& evidence = file.evidence;
    const auto named = named_by_.find(&file);
    const bool reaches_named = named != named_by_.end() && file.used > 0 &&
                               continues(named->second, file.batch(file.used - 1));
    if (reaches_named) {
      evidence.body = BodyEvidence::whole;
      evidence.tail = file.used < file.run ? TailEvidence::extra : tail_of(file);
    } else {
      // The batch that the next file names was on stable storage: if it is not whole, it is damage.
      const bool is_holed = file.later_genuine || (named != named_by_.end() && file.run > 0);
      evidence.body = is_holed            ? BodyEvidence::holed
                      : file.run > 0      ? BodyEvidence::whole
                      : file.begun_behind ? BodyEvidence::first_torn
                                          : BodyEvidence::none;
      evidence.tail = tail_of(file);
    }
    if (base::mutant(44) && evidence.body == BodyEvidence::holed && file.run > 0) {
      evidence.body = BodyEvidence::whole;  // first bad batch is taken for the end
      evidence.tail = TailEvidence::torn;
    }
    const Case& verdict = decide(evidence);
    if (verdict.action == Action::refuse) {
      report_damage(verdict, file);
    } else {
      report_file(verdict, file);
    }
    if (verdict.action == Action::ignore || verdict.action == Action::drop_torn) {
      plan_.removable.push_back(file.scan.name);
    }
  }

  static TailEvidence tail_of(const Examined& file) {
    if (file.begun_behind) return TailEvidence::torn;
    return file.stale_behind ? TailEvidence::stale : TailEvidence::clean;
  }

  void report_file(const Case& verdict, const Examined& file) {
    Finding finding{.file = file.scan.name, .detail = {}};
    if (file.used > 0) {
      finding.first_seq = file.batch(0).first_seq;
      finding.end_seq = file.batch(file.used - 1).end_seq;
    }
    if (verdict.action == Action::cut || verdict.action == Action::drop_torn) {
      const auto& stretches = file.scan.stretches;
      const Stretch& torn = stretches[file.run];
      finding.offset = torn.offset;
      finding.bytes = file.scan.size - torn.offset;
      finding.first_seq = file.run > 0 ? file.batch(file.run - 1).end_seq : 0;
      finding.end_seq = unknown_end;
      if (is_genuine(torn)) {
        finding.first_seq = torn.header.first_seq;
        finding.end_seq = torn.header.end_seq;
        finding.bytes = torn.bytes;
        finding.detail = torn.why;
      }
    }
    report(verdict, finding);
  }

  // Every stretch between whole batches, each with its exact range.
  void report_damage(const Case& verdict, const Examined& file) {
    const auto& stretches = file.scan.stretches;
    const std::size_t findings_before = plan_.findings.size();
    const auto named = named_by_.find(&file);
    if (verdict.letter == 'F') report_header(verdict, file);
    for (std::size_t i = 0; i < stretches.size(); ++i) {
      const Stretch& stretch = stretches[i];
      if (stretch.kind == StretchKind::batch && !is_unchained(file, i)) continue;
      std::uint64_t end = unknown_end;
      const auto next = std::find_if(stretches.begin() + static_cast<std::ptrdiff_t>(i) + 1,
                                     stretches.end(), is_genuine);
      if (next != stretches.end()) {
        end = next->header.first_seq;
      } else if (named != named_by_.end()) {
        end = named->second.first_seq;
      } else if (stretch.kind == StretchKind::hole && verdict.letter != 'E') {
        continue;  // behind the last genuine batch: the tail, not damage
      }
      Finding finding{.file = file.scan.name, .offset = stretch.offset, .bytes = stretch.bytes};
      finding.first_seq = std::min(start_of_damage(file, i, next), end);
      finding.end_seq = end;
      finding.detail = stretch.why;
      if (stretch.kind == StretchKind::damaged) {
        finding.first_seq = stretch.header.first_seq;
        finding.end_seq = stretch.header.end_seq;
      }
      report(verdict, finding);
    }
    if (plan_.findings.size() == findings_before) {
      report(verdict, {.file = file.scan.name,
                       .first_seq = end_before(file, stretches.size()),
                       .end_seq = verdict.letter == 'E' ? unknown_end : 0});
    }
  }

  void report_header(const Case& verdict, const Examined& file) {
    Finding finding{.file = file.scan.name, .offset = 0, .bytes = block_bytes};
    finding.first_seq = unknown_end;
    for (const Stretch& stretch : file.scan.stretches) {
      if (!is_genuine(stretch)) continue;
      finding.first_seq = std::min(finding.first_seq, stretch.header.first_seq);
      finding.end_seq = std::max(finding.end_seq, stretch.header.end_seq);
    }
    report(verdict, finding);
  }

  // The batch behind the damage tells where the one before it began, if that is the whole of it.
  std::uint64_t start_of_damage(const Examined& file, std::size_t i,
                                std::vector<Stretch>::const_iterator next) const {
    const auto& stretches = file.scan.stretches;
    const auto named = named_by_.find(&file);
    const BatchHeader* behind = nullptr;
    if (next != stretches.end()) {
      behind = &next->header;
    } else if (named != named_by_.end()) {
      behind = &named->second;
    }
    const bool is_one_batch = behind != nullptr && behind->previous_file == file.scan.number &&
                              behind->previous_offset == stretches[i].offset;
    return is_one_batch ? behind->previous_first_seq : end_before(file, i);
  }

  static bool is_unchained(const Examined& file, std::size_t i) {
    const auto& stretches = file.scan.stretches;
    return i > 0 && stretches[i - 1].kind == StretchKind::batch &&
           !continues(stretches[i].header, stretches[i - 1].header);
  }

  // Behind the last seq that is known to lie before stretch i of the file.
  std::uint64_t end_before(const Examined& file, std::size_t i) const {
    const auto& stretches = file.scan.stretches;
    for (std::size_t k = i; k-- > 0;) {
      if (is_genuine(stretches[k])) return stretches[k].header.end_seq;
    }
    // The first of its file: the chain before it ends where the newest older batch ends that is
    // older than the next genuine one.
    std::uint64_t number = std::numeric_limits<std::uint64_t>::max();
    for (std::size_t k = i; k < stretches.size(); ++k) {
      if (is_genuine(stretches[k])) {
        number = stretches[k].header.batch_number;
        break;
      }
    }
    std::uint64_t end = 0;
    for (const Examined& other : files_) {
      if (other.scan.number >= file.scan.number) continue;
      for (const Stretch& stretch : other.scan.stretches) {
        if (stretch.kind == StretchKind::batch && stretch.header.batch_number < number) {
          end = std::max(end, stretch.header.end_seq);
        }
      }
    }
    return end;
  }

  void number() {
    plan_.next_seq = plan_.end_seq;
    plan_.seq_ceiling = std::max(plan_.seq_ceiling, plan_.end_seq);
    const Case& verdict = decide(NumberingEvidence{
        .memory_is_newer = options_.memory_is_newer,
        .seqs_given_out = plan_.seq_ceiling > plan_.end_seq,
    });
    plan_.writes_gap = verdict.action == Action::write_gap && !base::mutant(46);
    if (plan_.writes_gap) plan_.next_seq = plan_.seq_ceiling;
    report(verdict,
           {.file = {}, .first_seq = plan_.end_seq, .end_seq = plan_.next_seq, .detail = {}});
  }

  void report(const Case& verdict, Finding finding) {
    finding.letter = verdict.letter;
    finding.action = verdict.action;
    plan_.is_refused |= verdict.action == Action::refuse;
    plan_.findings.push_back(std::move(finding));
  }

  DirectorySource& directory_;
  const AnalysisOptions& options_;
  Plan plan_;
  std::vector<Examined> files_;  // newest first
  Examined* newest_ = nullptr;
  std::map<const Examined*, BatchHeader> named_by_;
};

}  // namespace

std::string Finding::text() const {
  const Case& known = all_cases()[static_cast<std::size_t>(letter - 'A')];
  std::string line = file.empty() ? std::string{} : file + ": ";
  line += known.finding;
  if (end_seq == unknown_end) {
    line += ": seqs from " + std::to_string(first_seq) + " on";
  } else if (end_seq > first_seq) {
    line += ": seqs " + std::to_string(first_seq) + " to " + std::to_string(end_seq - 1);
  } else if (action == Action::refuse) {
    line += ": no message, but checkpoints, before seq " + std::to_string(first_seq);
  }
  if (bytes != 0) {
    line += " (offset " + std::to_string(offset) + ", " + std::to_string(bytes) + " bytes)";
  }
  if (!detail.empty()) line += ": " + detail;
  line += "; " + std::string{known.proceed};
  for (char& c : line) {
    // A name in the directory may hold anything; the promise is one line, without escapes.
    if (static_cast<unsigned char>(c) < 0x20 || c == 0x7f) c = '?';
  }
  return line;
}

Result<Plan> analyse(DirectorySource& directory, const AnalysisOptions& options) {
  return Analysis{directory, options}.run();
}

Result<void> read_batches(DirectorySource& directory, const Plan& plan, std::uint64_t from,
                          const BatchTaker& take) {
  for (const ChainFile& file : plan.chain) {
    if (file.end_seq <= from) continue;
    auto source = directory.open(file.name);
    if (!source) return tl::unexpected{source.error()};
    std::uint64_t reached = file.first_seq;
    bool is_enough = false;
    const BatchTaker take_in_place = [&](CheckedBatch& batch) {
      const BatchHeader& header = batch.header;
      if (header.first_seq != reached || header.file_offset >= file.end_offset) return true;
      reached = header.end_seq;
      if (header.end_seq > from) is_enough = !take(batch);
      return !is_enough;
    };
    const auto scan =
        scan_file(**source, file.name, file.file_number,
                  {.queue_uuid = plan.queue_uuid, .check_bodies = true}, take_in_place);
    if (is_enough) return {};
    if (!scan) return tl::unexpected{scan.error()};
    if (reached != file.end_seq) {
      return tl::unexpected{Error{
          make_error_code(Errc::corrupt), "read journal file '" + file.name + "'",
          "it is damaged from seq " + std::to_string(reached) + " on", "run 'shmqctl verify'"}};
    }
  }
  return {};
}

Result<std::vector<SettledRange>> read_gaps(DirectorySource& directory, const Plan& plan,
                                            std::uint64_t from) {
  std::vector<SettledRange> gaps;
  for (const ChainFile& file : plan.chain) {
    if (file.end_seq <= from) continue;
    auto source = directory.open(file.name);
    if (!source) return tl::unexpected{source.error()};
    auto header = read_file_header(**source);
    if (!header) return tl::unexpected{header.error()};
    if (header->purpose != static_cast<std::uint32_t>(Purpose::incarnation)) continue;
    const BatchTaker take = [&](CheckedBatch& batch) {
      const bool may_hold = (batch.header.flags & (batch_copy | batch_marker)) != 0;
      if (!may_hold || batch.header.file_offset >= file.end_offset) return false;
      for (const Record& record : batch.records) {
        if (record.type != RecordType::gap) continue;
        const auto gap = load<GapRecord>(record.bytes);
        if (gap.end_seq > from) gaps.push_back({gap.first_seq, gap.end_seq});
      }
      return (batch.header.flags & batch_marker) == 0;
    };
    const auto scan =
        scan_file(**source, file.name, file.file_number, {.queue_uuid = plan.queue_uuid}, take);
    if (!scan && scan.error().code() != std::errc::operation_canceled) {
      return tl::unexpected{scan.error()};
    }
  }
  return gaps;
}

Result<void> read_messages(DirectorySource& directory, const Plan& plan, std::uint64_t from,
                           const std::function<void(const Record&)>& take) {
  return read_batches(directory, plan, from, [&](CheckedBatch& batch) {
    for (const Record& record : batch.records) {
      if (record.type == RecordType::message) {
        if (load<MessageRecord>(record.bytes).seq >= from) take(record);
      } else if (record.type == RecordType::gap) {
        if (load<GapRecord>(record.bytes).end_seq > from) take(record);
      }
    }
    return true;
  });
}

}  // namespace shmq::journal
