// SPDX-License-Identifier: MIT
// Images on memory disks for the qcow2 tests: made, opened, checked.
#pragma once

#include "drivers/format/qcow2/qcow2.h"
#include "tests/unit/drivers/qcow2/image_checker.h"
#include "tests/unit/lib/graph_bench.h"

#include <cstring>

namespace bgfs::test {

using option_list = std::vector<std::pair<std::string, std::string>>;

inline value to_value(const option_list& list) {
  value v = value::map();
  for (const auto& [name, text] : list) {
    const auto dot = name.find('.');
    if (dot == std::string::npos) {
      v.set(name, text);
      continue;
    }
    value inner = value::map();
    if (const value* known = v.find(name.substr(0, dot)))
      inner = *known;
    inner.set(name.substr(dot + 1), text);
    v.set(name.substr(0, dot), std::move(inner));
  }
  return v;
}

// Clusters of which most become smaller, some of them much.
inline std::vector<std::byte> compressible_pattern(u64 length, u64 cluster, u64 seed) {
  std::vector<std::byte> bytes = pattern(length, seed);
  for (u64 at = 0; at < length; at += cluster) {
    const u64 kept = cluster >> (seed + at / cluster) % 8; // all of it: it does not become smaller
    const auto whole = std::span(bytes).subspan(at, std::min(cluster, length - at));
    if (kept < whole.size())
      std::ranges::fill(whole.subspan(kept), std::byte{7});
  }
  return bytes;
}

// As ==, which goes byte by byte where nothing is optimised.
inline bool is_same(std::span<const std::byte> a, std::span<const std::byte> b) {
  return a.size() == b.size() && (a.empty() || std::memcmp(a.data(), b.data(), a.size()) == 0);
}

inline task<void> make_image(loop& home, std::span<edge* const> files, const options& given,
                             u64 length, const secret_store* secrets = nullptr) {
  co_await qcow2_driver_type.create({.home = home,
                                     .given = given,
                                     .filename = {},
                                     .file = files.front(),
                                     .parts = files.subspan(1),
                                     .length = length,
                                     .secrets = secrets});
}

// One disk with an image on it, and its node while it is open.
class qcow2_bench {
public:
  explicit qcow2_bench(loop_options how = {}) : bench({&qcow2_driver_type}, how) {}
  // With more drivers.
  explicit qcow2_bench(std::vector<const driver_type*> types, loop_options how = {})
      : bench(with_qcow2(std::move(types)), how) {}

  // What options of images made and opened from now on may name.
  void add_secret(const std::string& id, std::string_view text) {
    REQUIRE(secrets_->add(id, secret_bytes(std::as_bytes(std::span(text)))).has_value());
    bench.graph().set_secrets(secrets_);
  }
  [[nodiscard]] const secret_store* secrets() const { return secrets_.get(); }
  result<> try_create(const std::string& name, u64 length, const option_list& list = {}) {
    memory_disk& d = bench.disk(name);
    (void)d;
    const option_schema* schemas[] = {qcow2_driver_type.create_options};
    result<options> given = validate_options(schemas, to_value(list));
    if (!given)
      return std::unexpected(std::move(given).error());
    std::vector<std::string> names = {name};
    for (const new_part& part : *qcow2_driver_type.created_parts(*given)) {
      if (!part.is_kept)
        bench.disk(part.filename).bytes.clear();
      names.push_back(part.filename);
    }
    std::vector<node*> files;
    std::vector<root*> ways;
    std::vector<edge*> edges;
    for (const std::string& file : names) {
      files.push_back(&bench.open(disk_spec(file)));
      ways.push_back(&bench.attach(*files.back(), may_resize));
      edges.push_back(&ways.back()->as_edge());
    }
    result<> made = bench.run(make_image(bench.home(), edges, *given, length, secrets_.get()));
    for (root* way : ways)
      bench.detach(*way);
    for (node* file : files)
      bench.must(bench.graph().close(*file));
    return made;
  }
  memory_disk& create(const std::string& name, u64 length, const option_list& list = {}) {
    const result<> made = try_create(name, length, list);
    REQUIRE_MESSAGE(made.has_value(), (made ? std::string() : made.error().message()));
    return *memory_disks()[name];
  }
  // A disk with these bytes.
  memory_disk& place(const std::string& name, std::vector<std::byte> bytes) {
    memory_disk& d = bench.disk(name);
    d.bytes = std::move(bytes);
    return d;
  }
  // "data-file" among the options names a memory disk.
  static spec_builder image_spec(const std::string& disk, const option_list& list = {}) {
    spec_builder s("img-" + disk, qcow2_driver_type);
    s.set("discard", "unmap");
    const value all = to_value(list);
    s.child("file", disk_spec(disk));
    for (const auto& [key, v] : *all.as_map()) {
      if (key == "data-file") {
        s.child(key, disk_spec(*v.as_text()));
      } else {
        s.set(key, v);
      }
    }
    s.no_backing = true;
    return s;
  }
  // Opens with `backing` (a memory disk) below, if it is named.
  root& open(const std::string& disk, const option_list& list = {}, const std::string& backing = {},
             permissions wanted = may_resize) {
    spec_builder s = image_spec(disk, list);
    if (!backing.empty())
      s.child("backing", disk_spec(backing));
    node_ = &bench.open(s);
    root_ = &bench.attach(*node_, wanted);
    return *root_;
  }
  // After the root was detached and the node stayed.
  root& attach_again(permissions wanted) {
    root_ = &bench.attach(*node_, wanted);
    return *root_;
  }
  void close() {
    bench.detach(*root_);
    bench.must(bench.graph().close(*node_));
    root_ = nullptr;
    node_ = nullptr;
  }
  // The first error of closing.
  result<> try_close() {
    bench.detach(*root_);
    result<> closed = bench.run(bench.graph().close(*node_));
    root_ = nullptr;
    node_ = nullptr;
    return closed;
  }
  [[nodiscard]] node& top() { return *node_; }
  [[nodiscard]] root& way() { return *root_; }
  // What opening says; "" if it works.
  std::string open_error(const std::string& disk, const option_list& list = {}) {
    result<node*> opened = bench.try_open(image_spec(disk, list));
    if (!opened)
      return opened.error().message();
    bench.must(bench.graph().close(**opened));
    return {};
  }

  graph_bench bench;

private:
  static std::vector<const driver_type*> with_qcow2(std::vector<const driver_type*> types) {
    types.push_back(&qcow2_driver_type);
    return types;
  }
  std::shared_ptr<secret_store> secrets_ = std::make_shared<secret_store>();
  node* node_ = nullptr;
  root* root_ = nullptr;
};

inline void require_sound(const memory_disk& disk, bool allows_leaks = false) {
  const check_report report = check_image(disk.bytes);
  REQUIRE_MESSAGE(report.errors.empty(), report.text());
  if (!allows_leaks)
    REQUIRE_MESSAGE(report.leaks == 0, report.text());
}

} // namespace bgfs::test
