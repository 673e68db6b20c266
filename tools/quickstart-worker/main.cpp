// SPDX-License-Identifier: Apache-2.0
//
// One process of tools/quickstart: quickstart-worker ROLE [ARGUMENT…].
#include <cstdlib>
#include <iostream>
#include <string>
#include <vector>

#include "roles.hpp"

namespace {
unsigned long long number(const std::string& text) {
  return std::strtoull(text.c_str(), nullptr, 10);
}
}  // namespace

int main(int argc, char** argv) {
  const std::vector<std::string> words(argv + 1, argv + argc);
  const std::string role = words.empty() ? "" : words[0];
  if (role == "create" && words.size() == 3) {
    return quickstart::create(number(words[1]), number(words[2]));
  }
  if (role == "publish" && words.size() == 4) {
    return quickstart::publish(words[1], number(words[2]), words[3]);
  }
  if (role == "archive" && words.size() >= 3) {
    return quickstart::archive(words[1], words[2], words.size() == 4 ? number(words[3]) : ~0ULL);
  }
  if (role == "wait-until-open") return quickstart::wait_until_open();
  if (role == "words" && (words.size() == 2 || words.size() == 4)) {
    return quickstart::work_on_words(words[1], words.size() == 4 ? words[2] : "",
                                     words.size() == 4 ? number(words[3]) : 0);
  }
  if (role == "sum-of-words") return quickstart::sum_of_words({words.begin() + 1, words.end()});
  if (role == "index") return quickstart::index();
  if (role == "wait-for-active" && words.size() == 2) return quickstart::wait_for_active(words[1]);
  if (role == "wait-until-passed-on" && words.size() == 2) {
    return quickstart::wait_until_passed_on(static_cast<std::uint32_t>(number(words[1])));
  }
  if (role == "wait-until-drained" && words.size() == 2) {
    return quickstart::wait_until_drained(words[1]);
  }
  if (role == "report") return quickstart::report();
  if (role == "remove") return quickstart::remove();
  std::cerr << "quickstart-worker: unknown role (run tools/quickstart)\n";
  return 2;
}
