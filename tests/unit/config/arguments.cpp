// SPDX-License-Identifier: MIT
#include "config/arguments.h"

#include "config/mount_helper.h"

#include <doctest/doctest.h>

using namespace bgfs;

namespace {

struct parsed {
  bool is_quiet = false;
  bool is_progress = false;
  bool is_chain = false;
  std::string format;
  std::vector<std::string> forms;
  std::vector<std::string> options;
  std::vector<std::string> operands;
  bool asks_help = false;
};

result<parsed> parse(const std::vector<std::string>& given) {
  parsed p;
  arguments known("info", "[OPTION]... FILE", "Says what an image is.");
  known.flag('q', "quiet", "print nothing", p.is_quiet);
  known.flag('p', "", "show progress", p.is_progress);
  known.flag(0, "backing-chain", "all of it", p.is_chain);
  known.flag(0, "backing-format", "not this one", p.is_chain);
  known.text('O', "output", "FORMAT", "the format", p.format);
  known.texts('o', "", "OPTIONS", "a list", p.options);
  known.optional_value('s', "show", "FORM", "in some form", [&p](const std::string& v) -> result<> {
    p.forms.push_back(v);
    return {};
  });
  known.value('n', "number", "N", "one to three", [](const std::string& v) -> result<> {
    if (v == "4")
      return fail(error_kind::invalid_argument, "4 is too many");
    return {};
  });
  BGFS_TRY(p.operands, known.parse(given));
  p.asks_help = known.asks_help();
  return p;
}

} // namespace

TEST_CASE("options are read as getopt_long reads them") {
  const auto p = parse({"a", "-qp", "-Oraw", "--outp=json", "-o", "x=1", "b", "-oy=2",
                        "--backing-c", "-", "--", "-z", "[c,d]"});
  REQUIRE(p.has_value());
  CHECK(p->is_quiet);
  CHECK(p->is_progress);
  CHECK(p->is_chain);
  CHECK(p->format == "json");
  CHECK(p->options == std::vector<std::string>{"x=1", "y=2"});
  CHECK(p->operands == std::vector<std::string>{"a", "b", "-", "-z", "[c,d]"});
  CHECK(parse({"--output", "raw"})->format == "raw");
  CHECK(parse({"--help", "--nonsense"})->asks_help);
  // A value that may be left out stands behind '=' or nowhere.
  const auto shown = parse({"-s", "a", "--show", "b", "--show=x", "-sq", "--sho=", "c"});
  REQUIRE(shown.has_value());
  CHECK(shown->forms == std::vector<std::string>{"", "", "x", "", ""});
  CHECK(shown->operands == std::vector<std::string>{"a", "b", "c"});
  CHECK(shown->is_quiet);
}

TEST_CASE("options that are wrong are named") {
  struct row {
    std::vector<std::string> given;
    std::string_view expected;
  };
  for (const row& r : std::initializer_list<row>{
           {{"-x"}, "option '-x' is not known; see 'bgfs info --help'"},
           {{"-qx"}, "option '-x' is not known; see 'bgfs info --help'"},
           {{"--quite"}, "option '--quite' is not known; did you mean '--quiet'?"},
           {{"--zzzzzz"}, "option '--zzzzzz' is not known; see 'bgfs info --help'"},
           {{"--backing"}, "option '--backing' may mean more than one; see 'bgfs info --help'"},
           {{"--quiet=1"}, "option '--quiet' takes no value"},
           {{"-O"}, "option '-O' needs a value"},
           {{"--output"}, "option '--output' needs a value"},
           {{"-n", "4"}, "option '-n': 4 is too many"},
           {{"--number=4"}, "option '--number': 4 is too many"},
       }) {
    const auto p = parse(r.given);
    REQUIRE(!p.has_value());
    CHECK(p.error().message() == r.expected);
  }
}

TEST_CASE("mount(8) and umount(8) are understood") {
  const auto words = [](const std::string& program, const std::vector<std::string>& given) {
    const auto translated = translate_helper_call(program, given);
    REQUIRE(translated.has_value());
    std::string text;
    if (!*translated)
      return "error: " + translated->error().message();
    for (const std::string& w : **translated)
      text += (text.empty() ? "" : " ") + w;
    return text;
  };
  CHECK(words("/sbin/mount.bgfs", {"g.yaml", "/mnt", "-n", "-v", "-o", "rw,nofail", "-t",
                                   "fuse.bgfs"}) == "mount -o rw,nofail -- g.yaml /mnt");
  CHECK(words("mount.fuse.bgfs", {"g.yaml", "/mnt", "-sv", "-oro"}) ==
        "mount -o ro -- g.yaml /mnt");
  CHECK(words("umount.fuse.bgfs", {"/mnt", "-r"}) == "umount -- /mnt");
  CHECK(words("umount.bgfs", {"-l", "/mnt"}) ==
        "error: '-l' would leave images open behind the caller's back; unmount without it, or call "
        "'umount -i'");
  CHECK(words("umount.bgfs", {"-f", "/mnt"}).find("error: '-f' would leave") == 0);
  CHECK(words("umount.bgfs", {}) == "error: one directory is expected");
  CHECK(words("mount.bgfs", {"a"}) ==
        "error: a graph file or an image, and a directory are expected");
  CHECK(words("mount.bgfs", {"a", "b", "-f"}) == "mount --fake -- a b");
  CHECK(words("mount.bgfs", {"a", "b", "-z"}) == "error: option '-z' is not known");
  CHECK(words("mount.bgfs", {"a", "b", "-o"}) == "error: option '-o' needs a value");
  CHECK(!translate_helper_call("/usr/bin/bgfs", {}).has_value());
}
