// SPDX-License-Identifier: Apache-2.0
// What a user of the installed library writes.
#include <iostream>
#include <shmq/shmq.hpp>

using namespace shmq::literals;

int main() {
  {
    auto queue = shmq::Queue::open_or_create(
        "outside", {.slots = 1024, .arena_bytes = 1_MiB, .chunk_bytes = 64_KiB});
    if (!queue) {
      std::cerr << queue.error().message() << '\n';
      return 1;
    }
    auto producer = queue->producer();
    auto consumer = queue->consumer("default");
    if (!producer || !consumer || !producer->publish("hello from outside")) return 1;
    auto delivery = consumer->receive(std::chrono::seconds{5});
    if (!delivery || delivery->empty()) return 1;
    std::cout << delivery->text() << '\n';
    if (delivery->ack() != shmq::Settlement::settled) return 1;
  }
  return shmq::Queue::remove("outside") ? 0 : 1;
}
