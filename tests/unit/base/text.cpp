// SPDX-License-Identifier: MIT
#include "graph/base/text.h"

#include <doctest/doctest.h>

#include <array>

using namespace bgfs;

TEST_CASE("sizes are whole numbers, or numbers with a suffix") {
  struct row {
    std::string_view text;
    u64 bytes;
  };
  for (const row& r : std::initializer_list<row>{
           {"0", 0},
           {"4096", 4096},
           {"0x200", 512},
           {"7b", 7},
           {"64K", 65536},
           {"64k", 65536},
           {"1.5G", GiB + GiB / 2},
           {"1.1K", 1126},
           {"0.5K", 512},
           {"20T", 20 * TiB},
           {"1P", 1024 * TiB},
           {"7E", 7 * 1024 * 1024 * TiB},
           {"18446744073709551615", ~u64{0}},
       }) {
    CAPTURE(r.text);
    const auto parsed = parse_size(r.text);
    REQUIRE(parsed.has_value());
    CHECK(*parsed == r.bytes);
  }
}

TEST_CASE("what is no size is named, with what is allowed") {
  for (const std::string_view text : {"", "K", "-1", "+1", "1.5", "1.5b", "1.", ".5K", "64KB",
                                      "64 K", "0x", "0x1K", "1e3", "12Q"}) {
    CAPTURE(text);
    const auto parsed = parse_size(text);
    REQUIRE(!parsed.has_value());
    CHECK(parsed.error().message() ==
          fmt::format("'{}' is not a size; a size is a whole number, or a number with one of the "
                      "suffixes b, K, M, G, T, P, E (powers of 1024), such as 4096, 64K or 1.5G",
                      text));
  }
  for (const std::string_view text : {"16E", "17179869184G"}) {
    CAPTURE(text);
    const auto parsed = parse_size(text);
    REQUIRE(!parsed.has_value());
    CHECK(parsed.error().message() ==
          fmt::format("'{}' is too large: a size is below 16E (2^64 bytes)", text));
  }
  CHECK(!parse_size("18446744073709551616").has_value());
}

TEST_CASE("sizes are printed with three digits and a binary prefix") {
  struct row {
    u64 bytes;
    std::string_view text;
  };
  for (const row& r : std::initializer_list<row>{
           {0, "0 B"},
           {512, "512 B"},
           {999, "999 B"},
           {1000, "0.977 KiB"},
           {1024, "1 KiB"},
           {65536, "64 KiB"},
           {196616, "192 KiB"},
           {GiB + GiB / 2, "1.5 GiB"},
           {1000 * MiB, "0.977 GiB"},
           {64 * TiB, "64 TiB"},
           {~u64{0}, "16 EiB"},
       }) {
    CHECK(format_size(r.bytes) == r.text);
  }
}

TEST_CASE("durations are seconds unless a suffix says otherwise") {
  CHECK(parse_duration("0") == u64{0});
  CHECK(parse_duration("5") == u64{5000});
  CHECK(parse_duration("5s") == u64{5000});
  CHECK(parse_duration("1.5s") == u64{1500});
  CHECK(parse_duration("10ms") == u64{10});
  CHECK(parse_duration("2m") == u64{120'000});
  CHECK(parse_duration("1h") == u64{3'600'000});
  for (const std::string_view text : {"", "s", "-1s", "5 s", "5d", "5S"}) {
    const auto parsed = parse_duration(text);
    REQUIRE(!parsed.has_value());
    CHECK(parsed.error().message() ==
          fmt::format("'{}' is not a duration; a duration is a number of seconds, or a number with "
                      "one of the suffixes ms, s, m, h, such as 500ms or 5s",
                      text));
  }
  const auto too_long = parse_duration("18446744073709551h");
  REQUIRE(!too_long.has_value());
  CHECK(too_long.error().message() == "'18446744073709551h' is too long for a duration");
}

TEST_CASE("a near miss is suggested, anything else is not") {
  constexpr std::array<std::string_view, 4> names = {"l2-cache-size", "cache-size", "file",
                                                     "qcow2"};
  CHECK(nearest("l2-cache-sise", names) == "l2-cache-size");
  CHECK(nearest("l2_cache_size", names) == "l2-cache-size");
  CHECK(nearest("cahce-size", names) == "cache-size");
  CHECK(nearest("FILE", names) == "file");
  CHECK(nearest("qcow", names) == "qcow2");
  CHECK(nearest("cache", names) == "cache-size"); // farther than any misspelling may be
  CHECK(nearest("cach", names).empty());
  CHECK(nearest("", names).empty());
  CHECK(nearest("x", names).empty());
  CHECK(nearest("throttle", names).empty());
  CHECK(nearest(std::string(100000, 'a'), names).empty());
  CHECK(did_you_mean("qcwo2", names) == "; did you mean 'qcow2'?");
  CHECK(did_you_mean("nothing", names).empty());
}
