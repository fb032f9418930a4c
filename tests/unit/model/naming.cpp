// SPDX-License-Identifier: MIT
#include "graph/model/naming.h"

#include "config/node_definition.h"
#include "drivers/format/raw/raw.h"
#include "drivers/protocol/null/null.h"
#include "tests/unit/lib/image_file.h"
#include "tests/unit/lib/scratch_directory.h"

using namespace bgfs;
using namespace bgfs::test;

namespace {

std::vector<const driver_type*> drivers() {
  return {&qcow2_driver_type, &raw_driver_type, &file_driver_type, &null_co_driver_type};
}

spec_builder file_spec(const std::string& name) {
  return spec_builder("", file_driver_type).set("filename", name);
}
spec_builder raw_spec(const std::string& name) {
  return spec_builder("", raw_driver_type).child("file", file_spec(name));
}
spec_builder qcow2_spec(const std::string& name) {
  return spec_builder("", qcow2_driver_type).child("file", file_spec(name));
}

struct naming_bench {
  scratch_directory dir;
  graph_bench bench{drivers()};

  [[nodiscard]] std::string path(const std::string& name) const { return dir.path / name; }
  [[nodiscard]] std::string raw_file(const std::string& name) const {
    return dir.file(name, 64 * KiB);
  }
  // An image with this in its header.
  std::string image(const std::string& name, const std::string& backing = {},
                    const std::string& format = {}) {
    const std::string made = dir.file(name);
    value given = value::map();
    if (!backing.empty())
      given = value::map{{"backing_file", backing}, {"backing_fmt", format}};
    make_image_file(bench, made, given);
    return made;
  }
};

} // namespace

TEST_CASE("a format over a file has the file's name, unless options decide what is seen") {
  naming_bench b;
  const std::string name = b.raw_file("disk");
  CHECK(canonical_name(b.bench.open(file_spec(name))) == name);
  node& plain = b.bench.open(raw_spec(name).set("cache.direct", false).set("discard", "unmap"));
  CHECK(exact_filename(plain) == name);
  CHECK(canonical_name(plain) == name);
  CHECK(reference_to(plain).format == "raw");
  node& window = b.bench.open(raw_spec(name).set("offset", 512).set("size", "4K"));
  CHECK(exact_filename(window).empty());
  CHECK(canonical_name(window) ==
        fmt::format(R"(json:{{"driver": "raw", "offset": 512, "size": 4096, "file": )"
                    R"({{"driver": "file", "filename": "{}"}}}})",
                    name));
  // A format over a format has no plain name: opening the file would show less.
  node& nested = b.bench.open(
      spec_builder("", raw_driver_type).child("file", qcow2_spec(b.image("image.qcow2"))));
  CHECK(canonical_name(nested) ==
        fmt::format(R"(json:{{"driver": "raw", "file": {{"driver": "qcow2", "file": )"
                    R"({{"driver": "file", "filename": "{}"}}}}}})",
                    b.path("image.qcow2")));
}

TEST_CASE("a relative file name becomes absolute, quotes and all") {
  naming_bench b;
  const std::string odd = b.raw_file("a \"b\\c");
  const auto back = std::filesystem::current_path();
  std::filesystem::current_path(b.dir.path);
  node& n = b.bench.open(raw_spec("a \"b\\c").set("size", 512));
  std::filesystem::current_path(back);
  CHECK(canonical_name(*n.skip_filters()).ends_with(R"(/a \"b\\c"}})"));
  CHECK(definition_of(n).find("file")->find("filename")->as_text()->starts_with('/'));
  CHECK(exact_filename(n.child("file")->child()) == odd);
}

TEST_CASE("null-co has a name of its own kind, and no directory") {
  naming_bench b;
  node& plain = b.bench.open(spec_builder("p", null_co_driver_type).set("latency-ns", 1));
  CHECK(canonical_name(plain) == "null-co://");
  node& sized = b.bench.open(spec_builder("", null_co_driver_type).set("size", 4096));
  CHECK(canonical_name(sized) == R"(json:{"driver": "null-co", "size": 4096})");
  node& top = b.bench.open(spec_builder("t", raw_driver_type).child("file", "p"));
  CHECK(canonical_name(top) == "null-co://");
  const result<std::string> none = directory_name(
      b.bench.open(spec_builder("u", raw_driver_type)
                       .child("file", spec_builder("q", null_co_driver_type).set("size", 4096))));
  REQUIRE(!none);
  CHECK(none.error().message() ==
        "relative names in the header of node 'u' (raw) begin at the directory of node 'q' "
        "(null-co), which has no directory; use an absolute name");
}

TEST_CASE("relative names begin at the directory of the file, however deep it lies") {
  naming_bench b;
  std::filesystem::create_directories(b.dir.path / "a" / "b");
  node& n = b.bench.open(raw_spec(b.raw_file("a/b/disk")).set("offset", 512));
  CHECK(directory_name(n) == b.path("a/b/"));
}

TEST_CASE("a backing child is named only if the header would not lead to it") {
  naming_bench b;
  struct row {
    std::string header;
    std::string format;
    bool is_overridden;
  };
  std::filesystem::create_directories(b.dir.path / "base");
  const std::string base = b.image("base/image.qcow2");
  const row rows[] = {
      {base, "qcow2", false},
      {"base/image.qcow2", "qcow2", false},
      {"./base/../base/image.qcow2", "qcow2", false},
      {"file:" + base, "qcow2", false},
      {"base/other.qcow2", "qcow2", true},
      {base, "raw", true},
      {R"(json:{"driver": "qcow2"})", "qcow2", true},
      {"", "", true},
  };
  int number = 0;
  for (const row& r : rows) {
    CAPTURE(r.header);
    const std::string name = b.image(fmt::format("top{}.qcow2", number++), r.header, r.format);
    node& top = b.bench.open(qcow2_spec(name).child("backing", qcow2_spec(base)));
    CHECK(is_backing_overridden(top) == r.is_overridden);
    const std::string whole =
        fmt::format(R"(json:{{"driver": "qcow2", "file": {{"driver": "file", "filename": "{}"}}, )"
                    R"("backing": {{"driver": "qcow2", "file": {{"driver": "file", "filename": )"
                    R"("{}"}}}}}})",
                    name, base);
    CHECK(canonical_name(top) == (r.is_overridden ? whole : name));
    CHECK((definition_of(top).find("backing") != nullptr) == r.is_overridden);
    b.bench.must(b.bench.graph().close(top));
  }
}

TEST_CASE("a backing file that is left away is recorded") {
  naming_bench b;
  const std::string name = b.image("top.qcow2", "base", "raw");
  spec_builder spec = qcow2_spec(name);
  spec.no_backing = true;
  node& top = b.bench.open(spec);
  CHECK(canonical_name(top) ==
        fmt::format(R"(json:{{"driver": "qcow2", "file": {{"driver": "file", "filename": "{}"}}, )"
                    R"("backing": null}})",
                    name));
  const value d = definition_of(top);
  REQUIRE(d.find("backing") != nullptr);
  CHECK(d.find("backing")->is_null());
  spec_builder without = qcow2_spec(b.image("alone.qcow2"));
  without.no_backing = true;
  CHECK(definition_of(b.bench.open(without)).find("backing") == nullptr);
}

TEST_CASE("a window as backing file is called what its header says, and found by that") {
  naming_bench b;
  const std::string bytes = b.raw_file("bytes");
  const std::string window_name = canonical_name(b.bench.open(raw_spec(bytes).set("offset", 4096)));
  CHECK(window_name.starts_with("json:"));
  node& top = b.bench.open(qcow2_spec(b.image("top.qcow2", window_name, "raw"))
                               .child("backing", raw_spec(bytes).set("offset", 4096)));
  CHECK_FALSE(is_backing_overridden(top));
  node& other = b.bench.open(qcow2_spec(b.image("other.qcow2", window_name, "raw"))
                                 .child("backing", raw_spec(bytes).set("offset", 512)));
  CHECK(is_backing_overridden(other));
}

TEST_CASE("a header without a format leads to what its content says, so not to a raw file") {
  naming_bench b;
  class no_format {
  public:
    static void strip(const std::string& name) {
      std::fstream image(name, std::ios::in | std::ios::out | std::ios::binary);
      std::string head(4096, '\0');
      image.read(head.data(), 4096);
      const auto at = head.find("\xe2\x79\x2a\xca");
      REQUIRE(at != std::string::npos);
      image.seekp(static_cast<std::streamoff>(at));
      image.write("\x01\x02\x03\x04", 4); // an extension nobody knows
    }
  };
  const std::string raw = b.raw_file("raw");
  const std::string over_raw = b.image("over-raw.qcow2", "raw", "raw");
  no_format::strip(over_raw);
  CHECK(is_backing_overridden(b.bench.open(qcow2_spec(over_raw).child("backing", raw_spec(raw)))));
  const std::string base = b.image("base.qcow2");
  const std::string over_image = b.image("over-image.qcow2", "base.qcow2", "qcow2");
  no_format::strip(over_image);
  CHECK_FALSE(is_backing_overridden(
      b.bench.open(qcow2_spec(over_image).child("backing", qcow2_spec(base)))));
}

TEST_CASE("a definition can be loaded again") {
  naming_bench b;
  const std::string base = b.image("base.qcow2");
  b.bench.open(spec_builder("base", qcow2_driver_type)
                   .set("read-only", true)
                   .child("file", file_spec(base)));
  spec_builder file = file_spec(b.image("top.qcow2")).set("aio", "threads");
  file.name = "top-file";
  node& top = b.bench.open(spec_builder("top", qcow2_driver_type)
                               .set("l2-cache-size", "1M")
                               .set("overlap-check.template", "all")
                               .set("cache.no-flush", true)
                               .child("file", file)
                               .child("backing", "base"));
  CHECK(to_json(definition_of(top)) ==
        fmt::format(R"({{"node-name": "top", "driver": "qcow2", "cache": {{"no-flush": true}}, )"
                    R"("l2-cache-size": 1048576, "overlap-check": {{"template": "all"}}, )"
                    R"("read-only": false, "file": {{"node-name": "top-file", "driver": "file", )"
                    R"("aio": "threads", "filename": "{}", "read-only": false}}, )"
                    R"("backing": "base"}})",
                    b.path("top.qcow2")));
  const definition_rules rules{.drivers = b.bench.graph().drivers()};
  for (const auto& n : b.bench.graph().nodes()) {
    const auto defined = define_node(definition_of(*n), rules);
    CHECK_MESSAGE(defined.has_value(), (defined ? std::string() : defined.error().message()));
  }
}
