// SPDX-License-Identifier: Apache-2.0
#include "kill/checker.hpp"

#include <algorithm>
#include <map>
#include <set>

namespace shmq::testing {
namespace {

struct MessageId {
  std::uint16_t producer = 0;
  std::uint64_t number = 0;
  auto operator<=>(const MessageId&) const = default;
};

struct Delivered {
  std::uint64_t token = 0;
  std::uint32_t hand_outs = 0;
};

struct SeqInGroup {
  std::vector<Delivered> deliveries;
  bool acked = false;        // an ack returned settled
  bool maybe_acked = false;  // its process died in the ack
  std::uint64_t ack_token = 0;
};

class Checker {
 public:
  Checker(std::uint32_t groups, std::uint64_t tail) : groups_(groups), tail_(tail) {
    seqs_.resize(groups);
    for (auto& group : seqs_) group.resize(tail);
  }

  Verdict check(const std::vector<History>& histories) {
    for (const History& history : histories) read(history);
    check_messages();
    for (std::uint32_t group = 0; group < groups_; ++group) check_group(group);
    return std::move(verdict_);
  }

 private:
  void broken(std::string text) {
    if (verdict_.broken.size() < 20) verdict_.broken.push_back(std::move(text));
  }
  void expect(bool holds, const std::string& text) {
    ++verdict_.checks;
    if (!holds) broken(text);
  }

  // Two payloads for a seq, or two seqs for a message?
  void meet(MessageId id, std::uint64_t seq) {
    const std::string name = "seq " + std::to_string(seq);
    const auto [at, is_new] = message_of_.try_emplace(seq, id);
    expect(is_new || at->second == id, name + " shows two messages");
    const auto [back, first] = seq_of_.try_emplace(id, seq);
    expect(first || back->second == seq, "message " + std::to_string(id.number) + " of producer " +
                                             std::to_string(id.producer) + " has two seqs");
  }

  void read(const History& history) {
    std::map<std::pair<std::uint8_t, std::uint64_t>, std::uint64_t> last_of_token;
    for (const Event& event : history.events) {
      const MessageId id{event.producer, event.message};
      switch (event.what) {
        case What::publish_begin: begun_.insert(id); break;
        case What::publish_end:
          meet(id, event.seq);
          confirmed_.insert(id);
          ++verdict_.published;
          break;
        case What::receive: {
          ++verdict_.deliveries;
          expect(event.damaged == 0, "seq " + std::to_string(event.seq) + " is damaged");
          if (event.group >= groups_ || event.seq >= tail_) {
            broken("seq " + std::to_string(event.seq) + " lies beyond the tail");
            break;
          }
          meet(id, event.seq);
          seqs_[event.group][event.seq].deliveries.push_back({event.token, event.hand_outs});
          // Within one ownership first hand-outs come in seq order; nothing is given back here.
          auto& last = last_of_token[{event.group, event.token}];
          expect(event.seq >= last, "group " + std::to_string(event.group) + ": seq " +
                                        std::to_string(event.seq) + " came after " +
                                        std::to_string(last));
          last = event.seq + 1;
          break;
        }
        case What::ack_begin:
        case What::ack_end:
          if (event.group < groups_ && event.seq < tail_) {
            SeqInGroup& at = seqs_[event.group][event.seq];
            (event.what == What::ack_end ? at.acked : at.maybe_acked) = true;
            at.ack_token = std::max(at.ack_token, event.token);
          }
          break;
      }
    }
  }

  void check_messages() {
    for (const MessageId& id : confirmed_) {
      expect(begun_.contains(id), "a message was confirmed that nobody published");
    }
    for (std::uint64_t seq = 0; seq < tail_; ++seq) {
      const auto at = message_of_.find(seq);
      expect(at != message_of_.end(), "seq " + std::to_string(seq) + " was never seen: a gap");
      if (at != message_of_.end()) {
        expect(begun_.contains(at->second), "seq " + std::to_string(seq) + " was never published");
      }
    }
    // One producer's messages have growing seqs.
    std::map<std::uint16_t, std::uint64_t> last;
    for (const auto& [id, seq] : seq_of_) {
      const auto before = last.find(id.producer);
      expect(before == last.end() || before->second < seq,
             "producer " + std::to_string(id.producer) + ": order");
      last[id.producer] = seq;
    }
  }

  void check_group(std::uint32_t group) {
    const std::string in = "group " + std::to_string(group) + ": seq ";
    for (std::uint64_t seq = 0; seq < tail_; ++seq) {
      SeqInGroup& at = seqs_[group][seq];
      const std::string name = in + std::to_string(seq);
      expect(!at.deliveries.empty(), name + " was never delivered: lost");
      expect(at.acked || at.maybe_acked, name + " was never acked");
      std::sort(at.deliveries.begin(), at.deliveries.end(),
                [](const Delivered& a, const Delivered& b) { return a.token < b.token; });
      for (std::size_t i = 0; i < at.deliveries.size(); ++i) {
        const Delivered& delivered = at.deliveries[i];
        if (i > 0) {
          ++verdict_.redeliveries;
          expect(delivered.token > at.deliveries[i - 1].token,
                 name + " was handed out twice in one ownership");
          expect(delivered.hand_outs > at.deliveries[i - 1].hand_outs,
                 name + ": the hand-outs do not grow");
        }
        // An ack that returned settled ends it: no later ownership may see it.
        expect(!at.acked || delivered.token <= at.ack_token, name + " came again after its ack");
      }
    }
  }

  std::uint32_t groups_;
  std::uint64_t tail_;
  Verdict verdict_;
  std::vector<std::vector<SeqInGroup>> seqs_;
  std::map<std::uint64_t, MessageId> message_of_;
  std::map<MessageId, std::uint64_t> seq_of_;
  std::set<MessageId> begun_;
  std::set<MessageId> confirmed_;
};

}  // namespace

Verdict check_histories(const std::vector<History>& histories, std::uint32_t groups,
                        std::uint64_t tail) {
  return Checker{groups, tail}.check(histories);
}

}  // namespace shmq::testing
