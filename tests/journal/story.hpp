// SPDX-License-Identifier: Apache-2.0
//
// One story of the simulation: the real writer and the real recovery over a SimDisk, through
// several lives that each end in a cut, until the seed's story is over.
#pragma once

#include <memory>

#include "daemon/journal/writer.hpp"
#include "journal/world.hpp"
#include "journal/standstill_clock.hpp"
#include "support/sim_disk.hpp"

namespace shmq::testing {

/// What a recovery came to, in a form that can be compared.
struct Outcome {
  journal::Plan plan;
  std::map<std::uint64_t, std::string> messages;
  std::vector<journal::SettledRange> gaps;
  /// The same for the same queue, whatever the files are called by now.
  [[nodiscard]] std::uint64_t fingerprint() const;
};

/// Reads and analyses, changes nothing.
Outcome look(SimDisk& disk, const journal::Uuid& queue_uuid, bool memory_is_newer);

/// Figures of a whole campaign.
struct Tally {
  std::uint64_t cuts = 0;
  std::uint64_t recovery_cuts = 0;
  std::uint64_t checks = 0;
  std::uint64_t confirmed = 0;
  std::uint64_t recycled = 0;
  std::uint64_t damages = 0;
  std::uint64_t disk_errors = 0;  ///< that the writer met
  std::uint64_t degradations = 0;
  std::map<char, std::uint64_t> letters;
  std::set<std::uint64_t> end_states;
  std::vector<std::string> failures;
};

class Story {
 public:
  Story(std::uint64_t seed, Tally& tally);
  /// Stops at the first failure.
  void play();

 private:
  enum class Ending { power, kill };

  std::uint64_t random(std::uint64_t below) { return random_() % below; }
  [[nodiscard]] journal::RecoverOptions recover_options(bool memory_is_newer) const;
  [[nodiscard]] journal::WriterOptions writer_options() const;
  void add_faults();
  void add_decoy();
  void live(journal::Start start);
  void step(journal::Writer& writer);
  bool judge(bool memory_is_newer, const char* when);
  bool check_fixpoint();
  void check_damage();
  std::optional<journal::Start> recover_with_cuts(bool& memory_is_newer);
  bool fail(const std::string& why);
  void count(const journal::Plan& plan);

  std::uint64_t seed_;
  Tally& tally_;
  std::mt19937_64 random_;
  SimDisk disk_;
  World world_;
  journal::Identity identity_;
  std::vector<std::byte> decoy_;
  std::uint64_t errors_seen_ = 0;  // of the living writer
  bool was_degraded_ = false;
  bool failed_ = false;
};

}  // namespace shmq::testing
