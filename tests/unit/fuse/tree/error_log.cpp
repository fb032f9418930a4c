// SPDX-License-Identifier: MIT
#include "fuse/tree/error_log.h"

#include <doctest/doctest.h>

#include <algorithm>

using namespace bgfs;

TEST_CASE("a line says when, who, what, the errno and the sentence") {
  error_log log;
  CHECK(log.text().empty());
  log.add(77, "ctl:retry", error(error_kind::busy, "it is open"));
  const std::string text = log.text();
  CHECK(text.ends_with(" 77 ctl:retry EBUSY it is open\n"));
  CHECK(text.substr(10, 1) == "T");
  CHECK(format_time({0, 0}) == "1970-01-01T00:00:00Z");
}

TEST_CASE("the last sixteen are kept, and the same again is counted") {
  error_log log;
  for (int i = 0; i < 40; i++)
    log.add(1, "write", error(error_kind::io, "number " + std::to_string(i)));
  CHECK(std::ranges::count(log.text(), '\n') == 16);
  CHECK_FALSE(log.text().contains("number 23"));
  for (int i = 0; i < 5; i++)
    log.add(1, "write", error(error_kind::io, "number 39"));
  CHECK(std::ranges::count(log.text(), '\n') == 16);
  CHECK(log.text().ends_with("number 39 (6 times)\n"));
}

TEST_CASE("a sentence stays on its line") {
  error_log log;
  log.add(1, "open", error(error_kind::io, "name with\nnewline\x7f"));
  CHECK(log.text().ends_with("name with\\x0anewline\\x7f\n"));
}
