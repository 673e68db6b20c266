// SPDX-License-Identifier: Apache-2.0
// What a program writes that brings its own daemon.
#include <iostream>
#include <shmq/embedded_daemon.hpp>
#include <shmq/shmq.hpp>

using namespace shmq::literals;

int main(int, char** argv) {
  const std::string place = argv[1];
  const shmq::EmbeddedDaemonOptions options{.data_dir = place + "/data",
                                            .runtime_dir = place + "/run"};
  auto daemon = shmq::EmbeddedDaemon::start(options);
  if (!daemon) {
    std::cerr << daemon.error().message() << '\n';
    return 1;
  }
  // The daemon's errors are of the library's category, though it is another library.
  const auto second = shmq::EmbeddedDaemon::start(options);
  if (second || !(second.error() == shmq::Errc::busy)) return 2;
  {
    auto queue =
        shmq::Queue::open_or_create("outside-daemon", {.slots = 1024,
                                                       .arena_bytes = 1_MiB,
                                                       .chunk_bytes = 64_KiB,
                                                       .durable = true,
                                                       .runtime_dir = options.runtime_dir});
    if (!queue) {
      std::cerr << queue.error().message() << '\n';
      return 3;
    }
    auto producer = queue->producer();
    auto consumer = queue->consumer("default");
    if (!producer || !consumer) return 4;
    if (!producer->publish("durable from outside", {.durability = shmq::Durability::synced}))
      return 5;
    auto delivery = consumer->receive(std::chrono::seconds{5});
    if (!delivery || delivery->empty()) return 6;
    std::cout << delivery->text() << '\n';
    if (delivery->ack() != shmq::Settlement::settled) return 7;
  }
  if (!shmq::Queue::remove("outside-daemon", {.runtime_dir = options.runtime_dir})) return 8;
  return daemon->drain() ? 0 : 9;
}
