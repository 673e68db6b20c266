// SPDX-License-Identifier: Apache-2.0
//
// A queue: created, opened, removed, looked at. Producers and consumers are made from it.
//
// Names: [a-z0-9][a-z0-9._-]{0,63}. A Queue may be used from several threads at once, but for
// close and move. Handles made from it keep the segment mapped by themselves and may outlive it.
#pragma once

#include <memory>
#include <shmq/alarm.hpp>
#include <shmq/consumer.hpp>
#include <shmq/error.hpp>
#include <shmq/info.hpp>
#include <shmq/options.hpp>
#include <shmq/producer.hpp>
#include <stop_token>
#include <string_view>
#include <vector>

namespace shmq {

namespace detail {
class QueueCore;
}

class SHMQ_API Queue {
 public:
  /// Creates a queue; already_exists if there is one. A creator killed at any instruction leaves a
  /// whole queue or none. A durable queue is made by the daemon of the namespace, whose word is
  /// waited for (30 s): daemon_away, with the places where it was looked for, if there is none.
  static Result<Queue> create(std::string_view name, const QueueOptions& options = {});
  static Result<Queue> open(std::string_view name, const OpenOptions& options = {});
  /// Opens it, or creates it. exists_with_other_limits if it exists and differs in a limit, the
  /// overflow policy or durability. Groups named in the options that do not exist are created.
  static Result<Queue> open_or_create(std::string_view name, const QueueOptions& options = {});
  /// Removes the queue and its messages. Attached handles get Errc::removed. A durable one is
  /// removed by the daemon, with its journal; daemon_away if it does not run.
  static Result<void> remove(std::string_view name, const OpenOptions& options = {});
  /// The names of the queues of a namespace, sorted. Needs no permission on them.
  static Result<std::vector<std::string>> list(std::string_view name_space = {});

  Queue(Queue&&) noexcept;
  Queue& operator=(Queue&&) noexcept;
  ~Queue();

  Result<Producer> producer(const ProducerOptions& options = {});
  Result<Consumer> consumer(std::string_view group, const ConsumerOptions& options = {});

  /// Groups come and go while producers run. Consumers of a removed group get Errc::removed. On a
  /// durable queue both wait until the change is on stable storage, at most 30 s; daemon_away and
  /// degraded say whether it was made.
  Result<void> create_group(const GroupOptions& options);
  Result<void> remove_group(std::string_view name);
  /// The group goes on at another place: what it had settled from there on is handed out again,
  /// what lies before counts as settled. It gets a new incarnation, with counters from zero:
  /// consumers get Errc::removed and attach again, acks of deliveries from before change nothing.
  /// Gives the seq. Errors as create_group; not_retained: the place is no longer held. Needs a free
  /// group entry (max_groups).
  Result<Seq> seek_group(std::string_view name, const StartAt& from);
  /// The seq that a group would begin at. Looks only; of a time in a durable queue, the daemon is
  /// asked where the journal is. not_retained: it is older than what is held.
  [[nodiscard]] Result<Seq> find(const StartAt& from) const;

  /// Waits until all that is published and settled in this queue by now is on stable storage.
  /// Errors as Producer::wait_synced.
  Result<void> sync(std::chrono::nanoseconds timeout = forever, std::stop_token stop = {});

  /// Settles everything published so far in every group; gives the number of messages that some
  /// group lost by it.
  Result<std::uint64_t> purge();
  /// Copies of up to `max_messages` messages from `from` on (from the oldest if that is gone).
  /// Takes no lease.
  Result<std::vector<PeekedMessage>> peek(Seq from, std::size_t max_messages) const;
  /// A descriptor that is readable while the group has a backlog of `threshold` messages or more.
  /// An observer may ask for it. no_such_group; or no more descriptors.
  Result<BacklogAlarm> backlog_alarm(std::string_view group, std::uint64_t threshold) const;
  /// Reclaims what dead participants left; gives their number. Others do this in passing, too.
  Result<std::size_t> reclaim();

  [[nodiscard]] QueueInfo info() const;
  [[nodiscard]] QueueStats stats() const;
  [[nodiscard]] std::vector<GroupInfo> groups() const;
  [[nodiscard]] std::vector<ParticipantInfo> participants() const;
  /// Who had each entry that nobody has now, last, and whether it died or left; what it held and
  /// its group are not known any more. With two looks and the generations, who came and went.
  [[nodiscard]] std::vector<ParticipantInfo> former_participants() const;

 private:
  explicit Queue(std::shared_ptr<detail::QueueCore> core) noexcept;
  std::shared_ptr<detail::QueueCore> core_;
};

}  // namespace shmq
