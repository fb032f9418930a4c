// SPDX-License-Identifier: MIT
#include "fuse/tree/shown_names.h"

#include <doctest/doctest.h>

#include <random>
#include <set>

using namespace bgfs;

namespace {

std::vector<std::string> shown(const std::vector<named_item>& items) {
  return shown_names(items).all();
}

} // namespace

TEST_CASE("what a file name or a terminal should not hold is shown as %XX") {
  struct row {
    std::string_view name;
    std::string_view wanted;
  };
  const row rows[] = {
      {"before", "before"},
      {"50% günther", "50% günther"},
      {"a/b", "a%2Fb"},
      {std::string_view("a\0b", 3), "a%00b"},
      {"tab\there\x7f", "tab%09here%7F"},
      {"\xff", "%FF"},
      {"\xc3", "%C3"},               // cut off
      {"\xc0\xaf", "%C0%AF"},        // longer than need be
      {"\xed\xa0\x80", "%ED%A0%80"}, // half of a pair
      {".", "%2E"},
      {"..", "%2E."},
      {"...", "..."},
      {"", ""},
  };
  for (const row& r : rows)
    CHECK(escape_name(r.name) == r.wanted);
}

TEST_CASE("the first of a name has it, later ones say their id") {
  CHECK(shown({{"x", "1"}, {"y", "2"}, {"x", "3"}, {"x", "10"}}) ==
        std::vector<std::string>{"x", "y", "x%id=3", "x%id=10"});
  CHECK(shown({{"", "7"}}) == std::vector<std::string>{"%id=7"});
}

TEST_CASE("a name that can be shown as it is stays its owner's, whoever else looks like it") {
  CHECK(shown({{"a/b", "1"}, {"a%2Fb", "2"}}) == std::vector<std::string>{"a%2Fb%id=1", "a%2Fb"});
  CHECK(shown({{"x", "1"}, {"x", "2"}, {"x%id=2", "3"}}) ==
        std::vector<std::string>{"x", "x%id=2%id=2", "x%id=2"});
}

TEST_CASE("every shown name finds its item, and NAME%id=ID also finds the first") {
  const std::vector<named_item> items = {{"x", "1"}, {"x", "2"}, {"a/b", "3"}};
  const shown_names names(items);
  for (std::size_t i = 0; i < items.size(); i++)
    CHECK(names.find(names.all()[i]) == static_cast<i64>(i));
  CHECK(names.find("x%id=1") == 0);
  CHECK(names.find("a%2Fb%id=3") == 2);
  CHECK(names.find("a/b") == -1);
  CHECK(names.find("x%id=4") == -1);
  CHECK(shown_names().find("x") == -1);
}

TEST_CASE("a long name is cut where neither a character nor an escape is, and says its id") {
  const std::string plain(300, 'a');
  const std::string umlauts = [] {
    std::string s = "a";
    for (int i = 0; i < 200; i++)
      s += "ü";
    return s;
  }();
  const std::string bytes(200, '\xff');
  for (const std::string& name : {plain, umlauts, bytes}) {
    const std::vector<std::string> found = shown({{name, "12345"}, {name, "6"}});
    for (const std::string& one : found) {
      CHECK(one.size() <= shown_names::length_max);
      CHECK(one.size() > shown_names::length_max - 4);
      CHECK(escape_name(one) == one); // whole characters
    }
    CHECK(found[0].ends_with("%id=12345"));
    CHECK(found[1].ends_with("%id=6"));
  }
  CHECK(shown({{bytes, "6"}})[0].ends_with("%FF%id=6"));
}

TEST_CASE("no two are shown by one name, whatever they are called") {
  std::mt19937 random(1);
  const std::string_view parts[] = {"x", "%id=", "1", "2", "/", "%2F", "\xff", "%FF", ".", ""};
  for (int round = 0; round < 2000; round++) {
    std::vector<std::string> texts;
    for (int i = 0; i < 12; i++)
      texts.push_back(std::string(parts[random() % 10]) + std::string(parts[random() % 10]) +
                      std::string(parts[random() % 10]));
    std::vector<std::string> ids;
    std::vector<named_item> items;
    for (int i = 0; i < 12; i++)
      ids.push_back(std::to_string(i + 1));
    for (std::size_t i = 0; i < 12; i++)
      items.push_back({texts[i], ids[i]});
    const shown_names names(items);
    std::set<std::string> seen;
    for (std::size_t i = 0; i < items.size(); i++) {
      if (names.all()[i].empty())
        continue; // it gets one when others are gone
      CHECK(seen.insert(names.all()[i]).second);
      CHECK(names.find(names.all()[i]) == static_cast<i64>(i));
    }
    CHECK(seen.size() == items.size());
  }
}
