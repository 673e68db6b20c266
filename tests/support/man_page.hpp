// SPDX-License-Identifier: Apache-2.0
//
// The offset tables of a page of section 5, and how a test names the fields that they have to show.
#pragma once

#include <cstddef>
#include <fstream>
#include <map>
#include <sstream>
#include <string>
#include <vector>

namespace shmq::testing {

struct Field {
  std::string name;
  std::size_t offset;
  std::size_t bytes;
  bool operator==(const Field&) const = default;
};

struct Structure {
  std::string name;
  std::size_t bytes;
  std::vector<Field> fields;
};

#define SHMQ_FIELD(type, field) \
  Field { #field, offsetof(type, field), sizeof(type::field) }
#define SHMQ_STRUCT(type, ...)           \
  Structure {                            \
#type, sizeof(type), { __VA_ARGS__ } \
  }

/// Of the section LAYOUT: the rows of the literal block under each subsection, and the bytes of its
/// title ("Header, 560 bytes"; 0: it names none).
struct ManPage {
  std::map<std::string, std::vector<Field>> tables;
  std::map<std::string, std::size_t> bytes;
  std::string text;
};

inline ManPage read_man_page(const std::string& path) {
  std::ifstream file{path};
  ManPage page;
  std::string section;
  bool is_in_layout = false;
  for (std::string line; std::getline(file, line);) {
    page.text += line + "\n";
    if (line.starts_with(".Sh ")) is_in_layout = line == ".Sh LAYOUT";
    if (line.starts_with(".Ss ") && is_in_layout) {
      std::istringstream title{line.substr(4)};
      title >> section;
      section.erase(section.find_last_not_of(',') + 1);
      title >> page.bytes[section];
    }
    if (!is_in_layout || line.empty() || line[0] != ' ') continue;
    std::istringstream row{line};
    Field field;
    if (row >> field.offset >> field.bytes >> field.name) page.tables[section].push_back(field);
  }
  return page;
}

}  // namespace shmq::testing
