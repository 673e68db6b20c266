// SPDX-License-Identifier: Apache-2.0
//
// One process of tools/quickstart: quickstart-worker ROLE [ARGUMENT…].
#include <cstdlib>
#include <iostream>
#include <string>
#include <vector>

#include "roles.hpp"

int main(int argc, char** argv) {
  const std::vector<std::string> words(argv + 1, argv + argc);
  const std::string role = words.empty() ? "" : words[0];
  if (role == "create") return quickstart::create();
  if (role == "publish" && words.size() == 2) return quickstart::publish(words[1]);
  if (role == "archive" && words.size() >= 2) {
    return quickstart::archive(
        words[1], words.size() == 3 ? std::strtoull(words[2].c_str(), nullptr, 10) : ~0ULL);
  }
  if (role == "words") return quickstart::count_words();
  if (role == "index") return quickstart::index();
  if (role == "wait-for-active" && words.size() == 2) return quickstart::wait_for_active(words[1]);
  if (role == "report") return quickstart::report();
  if (role == "remove") return quickstart::remove();
  std::cerr << "quickstart-worker: unknown role (run tools/quickstart)\n";
  return 2;
}
