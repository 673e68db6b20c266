// SPDX-License-Identifier: Apache-2.0
#include "control/protocol.hpp"

#include <cstdlib>
#include <nlohmann/json.hpp>

namespace shmq::control {

using nlohmann::json;

std::vector<std::string> runtime_directories(const std::string& name_space) {
  const auto variable = [](const char* name) {
    const char* value = std::getenv(name);
    return std::string{value != nullptr ? value : ""};
  };
  if (const std::string own = variable("SHMQ_RUNTIME_DIR"); !own.empty()) {
    return {own + "/" + name_space};
  }
  std::vector<std::string> directories;
  if (const std::string user = variable("XDG_RUNTIME_DIR"); !user.empty()) {
    directories.push_back(user + "/shmq/" + name_space);
  }
  directories.push_back("/run/shmq/" + name_space);
  return directories;
}

std::string error_response(const Error& error) {
  const json object{{"ok", false},
                    {"code", error.code().value()},
                    {"category", error.code().category() == error_category() ? "shmq" : "system"},
                    {"what", error.what()},
                    {"why", error.why()},
                    {"remedy", error.remedy()}};
  // A name that is not UTF-8 must not throw.
  return object.dump(-1, ' ', false, json::error_handler_t::replace);
}

Error error_from(const std::string& response, const std::string& what) {
  try {
    const json object = json::parse(response);
    const int code = object.at("code").get<int>();
    const bool ours = object.at("category").get<std::string>() == "shmq";
    return Error{ours ? make_error_code(static_cast<Errc>(code))
                      : std::error_code{code, std::generic_category()},
                 object.value("what", what), object.value("why", ""), object.value("remedy", "")};
  } catch (const json::exception&) {
    return Error{make_error_code(Errc::version_mismatch), what,
                 "the daemon's answer cannot be read",
                 "see that the daemon and this library are of one version"};
  }
}

}  // namespace shmq::control
