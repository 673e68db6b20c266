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

constexpr std::uint64_t never = ~std::uint64_t{0};

struct Delivered {
  std::uint64_t token = 0;
  std::uint32_t hand_outs = 0;
  std::size_t history = 0;
  std::uint64_t begin_ns = 0;  // the receive
  std::uint64_t end_ns = 0;
  std::uint64_t given_back_ns = never;  // when its holder began to give it back
};

// A settlement that was refused, or one that settled.
struct Settled {
  std::uint64_t token = 0;
  std::uint64_t end_ns = 0;
};

struct SeqInGroup {
  std::vector<Delivered> deliveries;
  bool acked = false;        // an ack returned settled
  bool maybe_acked = false;  // its process died in the ack
  std::uint64_t ack_token = 0;
  std::vector<Settled> acks;  // that returned settled
  std::vector<Settled> refusals;
};

class Checker {
 public:
  Checker(const std::vector<GroupRule>& groups, std::uint64_t tail) : groups_(groups), tail_(tail) {
    seqs_.resize(groups.size());
    for (auto& group : seqs_) group.resize(tail);
  }

  Verdict check(const std::vector<History>& histories) {
    for (std::size_t i = 0; i < histories.size(); ++i) {
      killed_ns_.push_back(histories[i].killed_ns);
      read(histories[i], i);
    }
    check_messages();
    for (std::size_t group = 0; group < groups_.size(); ++group) {
      if (groups_[group].shared) {
        check_shared(group);
      } else {
        check_exclusive(group);
      }
    }
    return std::move(verdict_);
  }

 private:
  void broken(std::string text) {
    if (verdict_.broken.size() < 20) verdict_.broken.push_back(std::move(text));
  }
  // `text` makes the words, which are needed only if it does not hold.
  template <typename Text>
  void expect(bool holds, Text text) {
    ++verdict_.checks;
    if (!holds) broken(text());
  }

  // Two payloads for a seq, or two seqs for a message?
  void meet(MessageId id, std::uint64_t seq) {
    const auto [at, is_new] = message_of_.try_emplace(seq, id);
    expect(is_new || at->second == id,
           [&] { return "seq " + std::to_string(seq) + " shows two messages"; });
    const auto [back, first] = seq_of_.try_emplace(id, seq);
    expect(first || back->second == seq, [&] {
      return "message " + std::to_string(id.number) + " of producer " +
             std::to_string(id.producer) + " has two seqs";
    });
  }

  void read(const History& history, std::size_t number) {
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
          expect(event.damaged == 0,
                 [&] { return "seq " + std::to_string(event.seq) + " is damaged"; });
          if (event.group >= groups_.size() || event.seq >= tail_) {
            broken("seq " + std::to_string(event.seq) + " lies beyond the tail");
            break;
          }
          meet(id, event.seq);
          seqs_[event.group][event.seq].deliveries.push_back(
              {event.token, event.hand_outs, number, event.begin_ns, event.end_ns});
          // Within one ownership first hand-outs come in seq order; nothing is given back there. In
          // a shared group this holds for what one consumer gets for the first time.
          if (groups_[event.group].shared && event.token != 1) break;
          auto& last = last_of_token[{event.group, event.token}];
          expect(event.seq >= last, [&] {
            return "group " + std::to_string(event.group) + ": seq " + std::to_string(event.seq) +
                   " came after " + std::to_string(last);
          });
          last = event.seq + 1;
          break;
        }
        case What::ack_begin:
        case What::ack_end:
          if (event.group < groups_.size() && event.seq < tail_) {
            SeqInGroup& at = seqs_[event.group][event.seq];
            (event.what == What::ack_end ? at.acked : at.maybe_acked) = true;
            at.ack_token = std::max(at.ack_token, event.token);
            if (event.what == What::ack_end) at.acks.push_back({event.token, event.end_ns});
          }
          break;
        case What::give_back_begin:
          if (event.group < groups_.size() && event.seq < tail_) {
            for (Delivered& each : seqs_[event.group][event.seq].deliveries) {
              if (each.history == number && each.token == event.token) {
                each.given_back_ns = event.begin_ns;
              }
            }
          }
          break;
        case What::give_back_end: break;
        case What::refused:
          ++verdict_.refused;
          if (event.group < groups_.size() && event.seq < tail_) {
            seqs_[event.group][event.seq].refusals.push_back({event.token, event.end_ns});
          }
          break;
      }
    }
  }

  void check_messages() {
    for (const MessageId& id : confirmed_) {
      expect(begun_.contains(id),
             [&] { return std::string{"a message was confirmed that nobody published"}; });
    }
    for (std::uint64_t seq = 0; seq < tail_; ++seq) {
      const auto at = message_of_.find(seq);
      expect(at != message_of_.end(),
             [&] { return "seq " + std::to_string(seq) + " was never seen: a gap"; });
      if (at != message_of_.end()) {
        expect(begun_.contains(at->second),
               [&] { return "seq " + std::to_string(seq) + " was never published"; });
      }
    }
    // One producer's messages have growing seqs.
    std::map<std::uint16_t, std::uint64_t> last;
    for (const auto& [id, seq] : seq_of_) {
      const auto before = last.find(id.producer);
      expect(before == last.end() || before->second < seq,
             [&] { return "producer " + std::to_string(id.producer) + ": order"; });
      last[id.producer] = seq;
    }
  }

  void check_exclusive(std::size_t group) {
    const std::string in = "group " + std::to_string(group) + ": seq ";
    for (std::uint64_t seq = 0; seq < tail_; ++seq) {
      SeqInGroup& at = seqs_[group][seq];
      const auto name = [&] { return in + std::to_string(seq); };
      expect(!at.deliveries.empty(), [&] { return name() + " was never delivered: lost"; });
      expect(at.acked || at.maybe_acked, [&] { return name() + " was never acked"; });
      std::sort(at.deliveries.begin(), at.deliveries.end(),
                [](const Delivered& a, const Delivered& b) { return a.token < b.token; });
      for (std::size_t i = 0; i < at.deliveries.size(); ++i) {
        const Delivered& delivered = at.deliveries[i];
        if (i > 0) {
          ++verdict_.redeliveries;
          expect(delivered.token > at.deliveries[i - 1].token,
                 [&] { return name() + " was handed out twice in one ownership"; });
          expect(delivered.hand_outs > at.deliveries[i - 1].hand_outs,
                 [&] { return name() + ": the hand-outs do not grow"; });
        }
        // An ack that returned settled ends it: no later ownership may see it.
        expect(!at.acked || delivered.token <= at.ack_token,
               [&] { return name() + " came again after its ack"; });
      }
    }
  }

  // May the lease have ended when another was seen to have the message? Dead, given back, expired.
  [[nodiscard]] bool had_ended(const Delivered& lease, std::uint64_t seen_ns,
                               std::uint64_t lease_ns) const {
    const std::uint64_t killed_ns = killed_ns_[lease.history];
    return (killed_ns != 0 && killed_ns <= seen_ns) || lease.given_back_ns <= seen_ns ||
           lease.begin_ns + lease_ns <= seen_ns;
  }

  // The token is the hand-out number.
  void check_shared(std::size_t group) {
    const GroupRule& rule = groups_[group];
    const std::string in = "group " + std::to_string(group) + ": seq ";
    std::uint64_t unseen = 0;
    for (std::uint64_t seq = 0; seq < tail_; ++seq) {
      SeqInGroup& at = seqs_[group][seq];
      const auto name = [&] { return in + std::to_string(seq); };
      expect(!at.deliveries.empty(), [&] { return name() + " was never delivered: lost"; });
      expect(at.acked || at.maybe_acked, [&] { return name() + " was never acked"; });
      expect(at.acks.size() <= 1, [&] { return name() + " was acked twice"; });
      std::sort(at.deliveries.begin(), at.deliveries.end(),
                [](const Delivered& a, const Delivered& b) { return a.token < b.token; });
      std::uint64_t last = 0;
      for (std::size_t i = 0; i < at.deliveries.size(); ++i) {
        const Delivered& delivered = at.deliveries[i];
        expect(delivered.token == delivered.hand_outs,
               [&] { return name() + ": the token is not the hand-out"; });
        expect(delivered.token > last,
               [&] { return name() + " was handed out twice under one token"; });
        unseen += delivered.token > last ? delivered.token - last - 1 : 0;
        last = delivered.token;
        if (i > 0) {
          ++verdict_.redeliveries;
          expect(had_ended(at.deliveries[i - 1], delivered.end_ns, rule.lease_ns),
                 [&] { return name() + " was leased to two at a time"; });
        }
        for (const Settled& ack : at.acks) {
          expect(delivered.token <= ack.token,
                 [&] { return name() + " came again after its ack"; });
        }
      }
      for (const Settled& ack : at.acks) {
        expect(std::any_of(at.deliveries.begin(), at.deliveries.end(),
                           [&](const Delivered& each) { return each.token == ack.token; }),
               [&] { return name() + " was acked under a token that nobody had"; });
      }
      for (const Settled& refusal : at.refusals)
        check_refusal(at, refusal, rule, in + std::to_string(seq));
    }
    verdict_.unseen += unseen;
    const auto killed = static_cast<std::uint64_t>(
        std::count_if(killed_ns_.begin(), killed_ns_.end(), [](auto ns) { return ns != 0; }));
    expect(unseen <= killed * rule.batch_max,
           [&] { return in + std::to_string(unseen) + " hand-outs were seen by nobody"; });
  }

  void check_refusal(const SeqInGroup& at, const Settled& refusal, const GroupRule& rule,
                     const std::string& name) {
    const auto lease =
        std::find_if(at.deliveries.begin(), at.deliveries.end(),
                     [&](const Delivered& each) { return each.token == refusal.token; });
    if (lease == at.deliveries.end()) {
      broken(name + " was refused under a token that nobody had");
      return;
    }
    expect(lease->begin_ns + rule.lease_ns <= refusal.end_ns,
           [&] { return name + ": a lease was lost before its time"; });
    expect(at.deliveries.back().token > refusal.token,
           [&] { return name + " was refused, but nobody else got it"; });
  }

  const std::vector<GroupRule> groups_;
  std::uint64_t tail_;
  std::vector<std::uint64_t> killed_ns_;  // by history
  Verdict verdict_;
  std::vector<std::vector<SeqInGroup>> seqs_;
  std::map<std::uint64_t, MessageId> message_of_;
  std::map<MessageId, std::uint64_t> seq_of_;
  std::set<MessageId> begun_;
  std::set<MessageId> confirmed_;
};

}  // namespace

Verdict check_histories(const std::vector<History>& histories, const std::vector<GroupRule>& groups,
                        std::uint64_t tail) {
  return Checker{groups, tail}.check(histories);
}

}  // namespace shmq::testing
