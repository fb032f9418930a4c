// SPDX-License-Identifier: MIT
#include "config/commands/io_text.h"

#include <doctest/doctest.h>

using namespace bgfs;
using namespace std::chrono_literals;

TEST_CASE("sizes are written with units and without needless zeroes") {
  CHECK(io_size(0) == "0 bytes");
  CHECK(io_size(1) == "1 bytes");
  CHECK(io_size(1023) == "1023 bytes");
  CHECK(io_size(0.868826) == "0.868826 bytes");
  CHECK(io_size(1024) == "1 KiB");
  CHECK(io_size(3075) == "3.003 KiB");
  CHECK(io_size(65536) == "64 KiB");
  CHECK(io_size(512.0 * 1024 * 1024) == "512 MiB");
  CHECK(io_size(1.5 * 1024 * 1024 * 1024) == "1.500 GiB");
}

TEST_CASE("results are two lines for people and one for programs") {
  const io_outcome outcome{"wrote", 131072, 65536, 10ms};
  CHECK(report_io(outcome, false) == "wrote 65536/65536 bytes at offset 131072\n"
                                     "64 KiB, 1 ops; 00.01 sec (6.250 MiB/sec and 100.0000 "
                                     "ops/sec)\n");
  CHECK(report_io(outcome, true) == "65536,1,0:00:00.01,6553600.000,100.000\n");
  CHECK(report_io({"read", 0, 1024, 3723s + 450ms}, false) ==
        "read 1024/1024 bytes at offset 0\n"
        "1 KiB, 1 ops; 1:02:03.45 (0.275014 bytes/sec and 0.0003 ops/sec)\n");
}

TEST_CASE("bytes are dumped in hex and as characters") {
  std::vector<std::byte> bytes(18, std::byte{0xcd});
  bytes[1] = std::byte{'A'};
  CHECK(dump_bytes(512, bytes) ==
        "00000200:  cd 41 cd cd cd cd cd cd cd cd cd cd cd cd cd cd  .A..............\n"
        "00000210:  cd cd  ..\n");
}

TEST_CASE("lines are words, flags and operands") {
  CHECK(split_words("  read -P 1\t0  64k\r\n") ==
        std::vector<std::string>{"read", "-P", "1", "0", "64k"});
  CHECK(split_words("   ").empty());
  const std::vector<std::string> given = {"-qP", "0xab", "0", "-C", "64k", "--", "-1"};
  const auto words = parse_io_words(given, "qCP:");
  REQUIRE(words.has_value());
  CHECK(words->has('q'));
  CHECK(words->has('C'));
  CHECK(words->flags.at('P') == "0xab");
  CHECK(words->operands == std::vector<std::string>{"0", "64k", "-1"});
  const auto unknown = parse_io_words(std::vector<std::string>{"-x"}, "qP:");
  REQUIRE(!unknown.has_value());
  CHECK(unknown.error().message() == "invalid option -- 'x'");
  const auto colon = parse_io_words(std::vector<std::string>{"-:"}, "qP:");
  CHECK(!colon.has_value());
  const auto missing = parse_io_words(std::vector<std::string>{"-P"}, "qP:");
  REQUIRE(!missing.has_value());
  CHECK(missing.error().message() == "option requires an argument -- 'P'");
}

TEST_CASE("numbers and patterns are read or refused in known words") {
  CHECK(parse_io_number("64k") == u64{65536});
  CHECK(parse_io_number("0x10") == u64{16});
  CHECK(parse_io_number("x").error().message() ==
        "Parsing error: non-numeric argument, or extraneous/unrecognized suffix -- x");
  CHECK(parse_io_number("8E").error().message() == "Parsing error: argument too large -- 8E");
  CHECK(parse_pattern("255") == u8{255});
  CHECK(parse_pattern("0xab") == u8{0xab});
  for (const char* text : {"256", "", "0x", "-1", "1x"})
    CHECK(parse_pattern(text).error().message() ==
          fmt::format("{} is not a valid pattern byte", text));
}

TEST_CASE("errors have the operating system's words") {
  CHECK(os_words(error::from_errno(ENOSPC, "x")) == "No space left on device");
  CHECK(os_words({error_kind::out_of_range, "x"}) == "Input/output error");
  CHECK(os_words({error_kind::unsupported, "x"}) == "Operation not supported");
  CHECK(os_words({error_kind::permission, "x"}) == "Operation not permitted");
  CHECK(os_words({error_kind::invalid_argument, "x"}) == "Invalid argument");
}
