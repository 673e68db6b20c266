// SPDX-License-Identifier: Apache-2.0
//
// Makes a journal in a directory, for tests of the tools: journal_maker DIR MESSAGES
// [clean|killed]. Message n is "message n"; ten of them share a batch. One group has settled the
// first five.
#include <cstdio>
#include <cstdlib>
#include <string>

#include "daemon/io/backend.hpp"
#include "daemon/journal/writer.hpp"

namespace {

using namespace shmq;

class Source final : public journal::MessageSource {
 public:
  std::uint64_t published = 0;
  journal::Progress progress;

  bool message(std::uint64_t seq, journal::MessageView& view) override {
    if (seq >= published) return false;
    text_ = "message " + std::to_string(seq);
    view = {.seq = seq,
            .publish_realtime_ns = 0,
            .flags = 0,
            .attributes = {},
            .payload = std::as_bytes(std::span{text_})};
    return true;
  }
  bool next_change(std::uint64_t end_seq, journal::Change& change) override {
    if (settled_ || end_seq < 5) return false;
    settled_ = true;
    change.group = {.group = {1}, .incarnation = 1, .floor = 5, .settled = {{7, 8}}, .entries = {}};
    return true;
  }
  void on_progress(const journal::Progress& now) override { progress = now; }

 private:
  std::string text_;
  bool settled_ = false;
};

int make(const std::string& path, std::uint64_t messages, bool is_clean) {
  auto backend = io::Backend::create(io::BackendChoice::plain, [](const std::string&) {});
  auto disk = backend->open(path);
  if (!disk) return 1;
  journal::RecoverOptions options{
      .identity = {.name_space = "test", .queue = "q"}, .first_file_bytes = 65536, .initial = {}};
  options.initial.groups[journal::Uuid{1}].incarnation = 1;
  auto recovered = journal::recover(**disk, options);
  if (!recovered || !recovered->start) return 1;
  Source source;
  journal::Writer writer{**disk, source, {}, std::move(*recovered->start)};
  for (; source.published < messages;) {
    source.published += 10;
    writer.pump();
    while (source.progress.watermark < source.published) (*disk)->poll(true);
  }
  if (!is_clean) return 0;
  writer.stop();
  while (!writer.is_stopped()) (*disk)->poll(true);
  return 0;
}

}  // namespace

int main(int argc, char** argv) {
  if (argc < 3) return 2;
  return make(argv[1], std::strtoull(argv[2], nullptr, 10),
              argc < 4 || std::string{argv[3]} == "clean");
}
