// SPDX-License-Identifier: Apache-2.0
//
// The recovery tables over every combination of their inputs. What must come out is said here a
// second time, as properties, so that a slip in the table does not pass unseen.
#include <gtest/gtest.h>

#include <map>

#include "journal/recovery.hpp"

namespace {

using namespace shmq::journal;

constexpr NameKind names[] = {NameKind::journal, NameKind::temporary, NameKind::other};
constexpr HeaderEvidence headers[] = {HeaderEvidence::valid, HeaderEvidence::damaged,
                                      HeaderEvidence::truncated, HeaderEvidence::unsupported,
                                      HeaderEvidence::foreign};
constexpr BodyEvidence bodies[] = {BodyEvidence::none, BodyEvidence::first_torn,
                                   BodyEvidence::whole, BodyEvidence::holed};
constexpr TailEvidence tails[] = {TailEvidence::clean, TailEvidence::stale, TailEvidence::torn,
                                  TailEvidence::extra};
constexpr StartEvidence starts[] = {StartEvidence::ordinary, StartEvidence::complete,
                                    StartEvidence::unfinished};
constexpr PlaceEvidence places[] = {PlaceEvidence::newest, PlaceEvidence::chained,
                                    PlaceEvidence::apart};

template <typename Visit>
int for_each_file_evidence(Visit visit) {
  int count = 0;
  for (auto name : names)
    for (auto header : headers)
      for (auto body : bodies)
        for (auto tail : tails)
          for (auto start : starts)
            for (auto place : places) {
              visit(FileEvidence{name, header, body, tail, start, place});
              ++count;
            }
  return count;
}

bool has_batch(const FileEvidence& e) {
  return e.body == BodyEvidence::whole || e.body == BodyEvidence::holed;
}

// The action that the design asks for, not by table but by rule.
Action expected_action(const FileEvidence& e) {
  if (e.name == NameKind::temporary) return Action::ignore;
  if (e.name == NameKind::other) return Action::leave;
  if (e.header == HeaderEvidence::damaged) return has_batch(e) ? Action::refuse : Action::ignore;
  if (e.header != HeaderEvidence::valid) return Action::refuse;
  const bool is_in_chain = e.place != PlaceEvidence::apart;
  if (is_in_chain && e.body == BodyEvidence::holed) return Action::refuse;
  if (e.place == PlaceEvidence::chained) return has_batch(e) ? Action::use : Action::refuse;
  if (!is_in_chain && e.start == StartEvidence::unfinished) return Action::ignore;
  if (!has_batch(e)) {
    return e.body == BodyEvidence::first_torn ? Action::drop_torn : Action::ignore;
  }
  if (!is_in_chain) return Action::ignore;
  return e.tail == TailEvidence::clean || e.tail == TailEvidence::stale ? Action::copy_forward
                                                                        : Action::cut;
}

TEST(Cases, each_file_evidence_has_the_action_that_the_rules_ask_for) {
  std::map<char, int> hits;
  const int count = for_each_file_evidence([&](const FileEvidence& evidence) {
    const Case& found = decide(evidence);
    ++hits[found.letter];
    EXPECT_EQ(found.action, expected_action(evidence)) << found.letter;
    EXPECT_EQ(&found, &decide(evidence));
  });
  EXPECT_EQ(count, 3 * 5 * 4 * 4 * 3 * 3);
  for (char letter = 'A'; letter <= 'R'; ++letter) {
    std::printf("%c %d combinations\n", letter, hits[letter]);
    EXPECT_GT(hits[letter], 0) << letter << " cannot be reached";
  }
  EXPECT_EQ(hits.size(), 18U);
}

TEST(Cases, damage_that_the_chain_needs_is_never_ignored) {
  for_each_file_evidence([](const FileEvidence& e) {
    if (e.name != NameKind::journal || e.place == PlaceEvidence::apart) return;
    if (e.body != BodyEvidence::holed) return;
    EXPECT_EQ(decide(e).action, Action::refuse);
  });
}

TEST(Cases, nothing_of_another_name_version_or_queue_is_used_or_removed) {
  for_each_file_evidence([](const FileEvidence& e) {
    const Action action = decide(e).action;
    if (e.name == NameKind::other) {
      EXPECT_EQ(action, Action::leave);
    }
    if (e.name == NameKind::journal &&
        (e.header == HeaderEvidence::foreign || e.header == HeaderEvidence::unsupported)) {
      EXPECT_EQ(action, Action::refuse);
    }
  });
}

TEST(Cases, each_link_evidence) {
  const auto letter = [](PredecessorEvidence predecessor, bool is_needed) {
    return decide(LinkEvidence{predecessor, is_needed}).letter;
  };
  for (const bool is_needed : {false, true}) {
    EXPECT_EQ(letter(PredecessorEvidence::first, is_needed), 'S');
    EXPECT_EQ(letter(PredecessorEvidence::present, is_needed), 'T');
    EXPECT_EQ(letter(PredecessorEvidence::mismatch, is_needed), 'W');
  }
  EXPECT_EQ(letter(PredecessorEvidence::absent, false), 'U');
  EXPECT_EQ(letter(PredecessorEvidence::absent, true), 'V');
}

TEST(Cases, each_numbering_evidence) {
  const auto letter = [](bool memory_is_newer, bool seqs_given_out) {
    return decide(NumberingEvidence{memory_is_newer, seqs_given_out}).letter;
  };
  EXPECT_EQ(letter(true, false), 'X');
  EXPECT_EQ(letter(true, true), 'X');
  EXPECT_EQ(letter(false, false), 'Y');
  EXPECT_EQ(letter(false, true), 'Z');
}

TEST(Cases, each_case_says_what_it_is_and_how_to_proceed) {
  char letter = 'A';
  for (const Case& known : all_cases()) {
    EXPECT_EQ(known.letter, letter++);
    EXPECT_FALSE(known.finding.empty());
    EXPECT_FALSE(known.proceed.empty());
    if (known.action == Action::refuse) {
      EXPECT_NE(known.proceed.find("nothing was changed"), std::string_view::npos) << known.letter;
    }
  }
  EXPECT_EQ(letter, 'Z' + 1);
}

}  // namespace
