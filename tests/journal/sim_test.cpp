// SPDX-License-Identifier: Apache-2.0
//
// SIM: the writer and the recovery over a simulated disk, cut wherever it can be cut.
//
// SHMQ_SEED=n plays that one story; SHMQ_LONG=1 goes on to two million cuts.
#include <gtest/gtest.h>

#include <cstdlib>

#include "journal/story.hpp"

namespace {

using namespace shmq::testing;

std::uint64_t number_from(const char* name, std::uint64_t otherwise) {
  const char* text = std::getenv(name);
  return text == nullptr ? otherwise : std::strtoull(text, nullptr, 10);
}

void report(const Tally& tally) {
  std::printf(
      "%llu cuts, %llu more in recovery, %llu checks, %zu end states, %llu confirmed messages, "
      "%llu damages, %llu files recycled, %llu disk errors, %llu degradations\n",
      static_cast<unsigned long long>(tally.cuts),
      static_cast<unsigned long long>(tally.recovery_cuts),
      static_cast<unsigned long long>(tally.checks), tally.end_states.size(),
      static_cast<unsigned long long>(tally.confirmed),
      static_cast<unsigned long long>(tally.damages),
      static_cast<unsigned long long>(tally.recycled),
      static_cast<unsigned long long>(tally.disk_errors),
      static_cast<unsigned long long>(tally.degradations));
  for (char letter = 'A'; letter <= 'Z'; ++letter) {
    const auto found = tally.letters.find(letter);
    std::printf("%c %llu  ", letter,
                static_cast<unsigned long long>(found == tally.letters.end() ? 0 : found->second));
  }
  std::printf("\n");
}

TEST(Sim, nothing_confirmed_is_lost_wherever_it_is_cut) {
  const bool is_long = number_from("SHMQ_LONG", 0) != 0;
  const std::uint64_t one_seed = number_from("SHMQ_SEED", 0);
  const std::uint64_t cuts_wanted = is_long ? 2'000'000 : 20'000;
  std::uint64_t seed = one_seed != 0 ? one_seed : 1;
  std::printf("seeds from %llu\n", static_cast<unsigned long long>(seed));
  Tally tally;
  do {
    Story{seed++, tally}.play();
  } while (one_seed == 0 && tally.cuts < cuts_wanted && tally.failures.size() < 3);
  std::printf("seeds to %llu\n", static_cast<unsigned long long>(seed - 1));
  report(tally);
  for (const std::string& failure : tally.failures) ADD_FAILURE() << failure;
  EXPECT_GT(tally.checks, 0U) << "nothing was checked";
  if (one_seed != 0 || HasFailure()) return;
  EXPECT_GT(tally.confirmed, 0U) << "nothing was confirmed";
  EXPECT_GT(tally.disk_errors, 100U);
  EXPECT_GT(tally.degradations, 20U);
  EXPECT_GT(tally.end_states.size(), tally.cuts / 4);
  EXPECT_GT(tally.recycled, 100U);
  for (char letter = 'A'; letter <= 'Z'; ++letter) {
    EXPECT_GE(tally.letters[letter], 100U) << "case " << letter;
  }
}

}  // namespace
