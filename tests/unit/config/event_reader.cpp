// SPDX-License-Identifier: MIT
#include "config/event_reader.h"

#include <doctest/doctest.h>

using namespace bgfs;

TEST_CASE("of lines that go on what is new is what follows those that were seen") {
  struct row {
    std::string_view before;
    std::string_view now;
    std::string_view fresh;
  };
  const row rows[] = {
      {"", "", ""},
      {"", "a\nb\n", "a\nb\n"},
      {"a\nb\n", "a\nb\n", ""},
      {"a\nb\n", "a\nb\nc\n", "c\n"},
      {"a\nb\n", "b\nc\nd\n", "c\nd\n"}, // the oldest was dropped
      {"a\nb\n", "c\nd\n", "c\nd\n"},    // so many came that none is left
      {"ab\n", "b\nc\n", "b\nc\n"},      // a part of a line is no line
  };
  for (const row& r : rows) {
    CAPTURE(r.before);
    CAPTURE(r.now);
    CHECK(new_lines(r.before, r.now) == r.fresh);
  }
}
