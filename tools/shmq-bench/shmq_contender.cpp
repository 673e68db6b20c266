// SPDX-License-Identifier: Apache-2.0
//
// libshmq itself: an exclusive group, four ways of use, over two queues, one to the parent and one
// to the child; and a shared group, one by one and in batches, over a third. Each has one consumer.
// Handles are opened lazily, each by the process that uses it: a handle does not survive a fork.
#include <unistd.h>

#include <cstring>
#include <optional>
#include <shmq/shmq.hpp>

#include "contender.hpp"

namespace shmq_bench {
namespace {

constexpr std::size_t receive_max = 256;
constexpr std::size_t publish_max = 64;
constexpr std::chrono::seconds give_up{20};

constexpr std::size_t small_batch = 32;

enum class Way { copy, batch, single, loan, shared_single, shared_batch, shared_batch_ack };

constexpr bool is_shared(Way way) noexcept { return way >= Way::shared_single; }
constexpr bool is_single(Way way) noexcept {
  return way == Way::single || way == Way::shared_single;
}

constexpr int to_parent = 0, to_child = 1, shared_to_parent = 2;
constexpr const char* queue_names[] = {"bench-to-parent", "bench-to-child", "bench-shared"};

// What is to be removed whatever happens: plain arrays, since a signal handler reads them.
constexpr std::size_t paths_max = 4096, path_max_bytes = 256;
char paths[paths_max][path_max_bytes];
std::size_t noted = 0;

template <typename T>
T& sure(shmq::Result<T>&& result, std::optional<T>& place) {
  if (!result) fail(result.error().message());
  place.emplace(std::move(*result));
  return *place;
}

/// The queues and this process's handles.
class Queues {
 public:
  explicit Queues(std::string name_space) : name_space_(std::move(name_space)) {
    for (const char* name : queue_names) {
      shmq::QueueOptions options;
      options.name_space = name_space_;
      if (name == queue_names[shared_to_parent]) {
        options.groups = {{.name = "default", .mode = shmq::GroupMode::shared}};
      }
      auto queue = shmq::Queue::create(name, options);
      if (!queue) fail(queue.error().message());
    }
  }
  Queues(const Queues&) = delete;
  Queues& operator=(const Queues&) = delete;
  ~Queues() {
    for (auto& producer : producer_) producer.reset();
    for (auto& consumer : consumer_) consumer.reset();
    remove_shmq_queues();
  }
  shmq::Producer& producer(int which) {
    if (producer_[which]) return *producer_[which];
    return sure(open(which).producer(), producer_[which]);
  }
  shmq::Consumer& consumer(int which) {
    if (consumer_[which]) return *consumer_[which];
    return sure(open(which).consumer("default"), consumer_[which]);
  }

 private:
  shmq::Queue open(int which) {
    shmq::OpenOptions options;
    options.name_space = name_space_;
    auto queue = shmq::Queue::open(queue_names[which], options);
    if (!queue) fail(queue.error().message());
    return std::move(*queue);
  }
  std::string name_space_;
  std::optional<shmq::Producer> producer_[3];
  std::optional<shmq::Consumer> consumer_[3];
};

class ShmqContender final : public Contender {
 public:
  ShmqContender(std::string name, Way way, std::shared_ptr<Queues> queues)
      : Contender(std::move(name)),
        way_(way),
        queues_(std::move(queues)),
        buffer_(std::make_unique<Buffer>()) {}

  [[nodiscard]] bool supports(Mode mode, std::size_t) const override {
    return mode == Mode::throughput || way_ == Way::single;
  }
  void send_all(std::uint64_t count, std::size_t bytes) override {
    shmq::Producer& producer = queues_->producer(stream());
    if (way_ == Way::loan) return send_loans(producer, count, bytes);
    if (way_ == Way::batch) return send_batches(producer, count, bytes);
    std::byte* payload = buffer_->bytes.data();
    for (std::uint64_t i = 0; i < count; ++i) {
      stamp(payload, bytes, i);
      if (const auto result = producer.publish({payload, bytes}); !result) {
        fail("publish: " + result.error().message());
      }
    }
  }
  void receive_all(std::uint64_t count, std::size_t bytes) override {
    shmq::Consumer& consumer = queues_->consumer(stream());
    if (is_single(way_)) {
      shmq::Delivery delivery;
      for (std::uint64_t i = 0; i < count; ++i) {
        receive_one(consumer, bytes, i, delivery);
        ack(delivery);
      }
      return;
    }
    std::byte* payload = buffer_->bytes.data();
    const std::span<shmq::Delivery> deliveries =
        std::span{deliveries_}.first(is_shared(way_) ? small_batch : receive_max);
    for (std::uint64_t i = 0; i < count;) {
      const auto got = consumer.receive_batch(deliveries, give_up);
      if (!got) fail("receive_batch: " + got.error().message());
      if (*got == 0) fail("receive_batch: nothing came in 20 s");
      for (std::size_t k = 0; k < *got; ++k, ++i) {
        const auto view = deliveries_[k].payload();
        if (view.size() != bytes) fail("wrong length");
        if (way_ == Way::loan) {
          check(view.data(), bytes, i);
        } else {
          copy_payload(payload, view.data(), bytes);
          check(payload, bytes, i);
        }
      }
      if (i > count) fail("more messages came than were sent");
      if (way_ == Way::shared_batch_ack) {
        for (std::size_t k = 0; k < *got; ++k) ack(deliveries_[k]);
      } else if (consumer.ack_through(deliveries_[*got - 1].seq()) != shmq::Settlement::settled) {
        fail("ack_through: lease lost");
      }
    }
    for (shmq::Delivery& delivery : deliveries_) delivery = shmq::Delivery{};
  }
  void ping(std::uint64_t count, std::size_t bytes) override {
    shmq::Producer& there = queues_->producer(to_child);
    shmq::Consumer& back = queues_->consumer(to_parent);
    shmq::Delivery answer;
    for (std::uint64_t i = 0; i < count; ++i) {
      stamp(buffer_->bytes.data(), bytes, i);
      publish_buffer(there, bytes);
      ack(answer);
      receive_one(back, bytes, i, answer);
    }
    ack(answer);
  }
  void pong(std::uint64_t count, std::size_t bytes) override {
    shmq::Consumer& there = queues_->consumer(to_child);
    shmq::Producer& back = queues_->producer(to_parent);
    // The answer first, then the ack: who dies between answers twice, and loses nothing.
    shmq::Delivery question;
    for (std::uint64_t i = 0; i < count; ++i) {
      receive_one(there, bytes, i, question);
      publish_buffer(back, bytes);
      ack(question);
    }
  }

 private:
  [[nodiscard]] int stream() const noexcept {
    return is_shared(way_) ? shared_to_parent : to_parent;
  }
  void publish_buffer(shmq::Producer& producer, std::size_t bytes) {
    if (const auto result = producer.publish({buffer_->bytes.data(), bytes}); !result) {
      fail("publish: " + result.error().message());
    }
  }
  void receive_one(shmq::Consumer& consumer, std::size_t bytes, std::uint64_t index,
                   shmq::Delivery& delivery) {
    const auto got = consumer.receive_batch({&delivery, 1}, give_up);
    if (!got) fail("receive: " + got.error().message());
    if (*got == 0) fail("receive: nothing came in 20 s");
    const auto view = delivery.payload();
    if (view.size() != bytes) fail("wrong length");
    copy_payload(buffer_->bytes.data(), view.data(), bytes);
    check(buffer_->bytes.data(), bytes, index);
  }
  static void ack(shmq::Delivery& delivery) {
    if (!delivery.empty() && delivery.ack() != shmq::Settlement::settled) fail("ack: lease lost");
  }
  void send_loans(shmq::Producer& producer, std::uint64_t count, std::size_t bytes) {
    for (std::uint64_t i = 0; i < count; ++i) {
      auto loan = producer.loan(bytes);
      if (!loan) fail("loan: " + loan.error().message());
      stamp(loan->bytes().data(), bytes, i);
      if (const auto result = loan->commit(); !result) fail("commit: " + result.error().message());
    }
  }
  void send_batches(shmq::Producer& producer, std::uint64_t count, std::size_t bytes) {
    // As many payloads as fit in the buffer, so that they lie apart from each other.
    const std::size_t fit = std::min(publish_max, payload_max_bytes / bytes);
    std::array<std::span<const std::byte>, publish_max> payloads;
    for (std::uint64_t i = 0; i < count;) {
      const std::size_t now = static_cast<std::size_t>(std::min<std::uint64_t>(fit, count - i));
      for (std::size_t k = 0; k < now; ++k) {
        std::byte* place = buffer_->bytes.data() + k * bytes;
        stamp(place, bytes, i + k);
        payloads[k] = {place, bytes};
      }
      const auto result = producer.publish_batch({payloads.data(), now});
      if (result.published != now) fail("publish_batch: " + shmq::Error{result.code}.message());
      i += now;
    }
  }

  Way way_;
  std::shared_ptr<Queues> queues_;
  std::unique_ptr<Buffer> buffer_;
  std::array<shmq::Delivery, receive_max> deliveries_;
};

}  // namespace

void add_shmq(Contenders& contenders, const std::string& name_space) {
  for (const char* name : queue_names) note_shmq_queue(name_space, name);
  auto queues = std::make_shared<Queues>(name_space);
  contenders.push_back(std::make_unique<ShmqContender>("shmq", Way::copy, queues));
  contenders.push_back(std::make_unique<ShmqContender>("shmq-batch", Way::batch, queues));
  contenders.push_back(std::make_unique<ShmqContender>("shmq-single", Way::single, queues));
  contenders.push_back(std::make_unique<ShmqContender>("shmq-loan", Way::loan, queues));
  contenders.push_back(std::make_unique<ShmqContender>("shmq-shared", Way::shared_single, queues));
  contenders.push_back(
      std::make_unique<ShmqContender>("shmq-shared-32", Way::shared_batch, queues));
  contenders.push_back(
      std::make_unique<ShmqContender>("shmq-shared-32a", Way::shared_batch_ack, queues));
}

void note_shmq_queue(const std::string& name_space, const std::string& name) {
  const std::string path = "/dev/shm/shmq." + name_space + "." + name;
  for (const char* suffix : {"", ".lock"}) {
    if (noted == paths_max) fail("too many queues");
    if ((path + suffix).size() >= path_max_bytes) fail("the namespace is too long");
    std::strcpy(paths[noted++], (path + suffix).c_str());
  }
}

void remove_shmq_queues() noexcept {
  for (std::size_t i = 0; i < noted; ++i) unlink(paths[i]);
}

}  // namespace shmq_bench
