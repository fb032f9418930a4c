// SPDX-License-Identifier: MIT
// A loop and a graph for a test, with specs written in a line:
//   graph_bench bench({&raw_driver_type, &memory_driver_type});
//   node& n = bench.open(spec("top", raw_driver_type).child("file", disk_spec("d")));
#pragma once

#include "graph/io/with.h"
#include "tests/unit/lib/memory_driver.h"

#include <doctest/doctest.h>

#include <filesystem>

namespace bgfs::test {

// Builds a node_spec; `given` holds the options, the generic ones among them.
struct spec_builder {
  std::string name;
  const driver_type* type;
  value given = value(value::map{});
  std::vector<std::pair<std::string, std::variant<std::string, std::shared_ptr<spec_builder>>>>
      children;
  bool no_backing = false;

  spec_builder(std::string n, const driver_type& t) : name(std::move(n)), type(&t) {}
  spec_builder& set(std::string key, value v) {
    given.set(std::move(key), std::move(v));
    return *this;
  }
  spec_builder& child(std::string slot, spec_builder below) {
    children.emplace_back(std::move(slot), std::make_shared<spec_builder>(std::move(below)));
    return *this;
  }
  spec_builder& child(std::string slot, const char* node_name) {
    children.emplace_back(std::move(slot), std::string(node_name));
    return *this;
  }
  [[nodiscard]] node_spec build(const node_options* inherited = nullptr,
                                child_role roles = 0) const {
    const option_schema* schemas[] = {type->open_options, &generic_node_schema};
    result<options> all = validate_options(schemas, given);
    REQUIRE_MESSAGE(all.has_value(), (all ? std::string() : all.error().message()));
    node_spec spec;
    spec.node_name = name;
    spec.type = type;
    spec.generic = parse_generic_options(*all, inherited, roles);
    spec.given = *std::move(all);
    spec.has_no_backing = no_backing;
    for (const auto& [slot, target] : children) {
      child_spec c;
      c.slot = slot;
      if (const auto* reference = std::get_if<std::string>(&target)) {
        c.target = *reference;
      } else {
        child_role r = 0;
        for (const child_slot& s : type->children)
          if (s.name == slot)
            r = s.roles;
        c.target = std::make_unique<node_spec>(
            std::get<std::shared_ptr<spec_builder>>(target)->build(&spec.generic, r));
      }
      spec.children.push_back(std::move(c));
    }
    return spec;
  }
};

inline spec_builder disk_spec(std::string disk) {
  return spec_builder("", memory_driver_type).set("filename", std::move(disk));
}

inline constexpr permissions may_read{permission::consistent_read, permission::all};
inline constexpr permissions may_write{permission::consistent_read | permission::write,
                                       permission::all};
inline constexpr permissions may_resize{
    permission::consistent_read | permission::write | permission::resize, permission::all};

// Opens and closes for a test. Everything left open at the end is closed, roots first, and frames
// and descriptors that were left behind fail it.
class graph_bench {
public:
  explicit graph_bench(std::vector<const driver_type*> types, loop_options how = {})
      : frames_before_(live_frame_count()), descriptors_before_(open_descriptor_count()) {
    types.push_back(&memory_driver_type);
    drivers_.emplace(std::move(types));
    auto made = loop::create(how);
    REQUIRE(made.has_value());
    loop_ = *std::move(made);
    graph_ = std::make_unique<class graph>(*loop_, *drivers_, nullptr);
  }
  ~graph_bench() {
    for (memory_disk& d : disks_)
      d.fault = nullptr; // it may refer to what the test has left
    for (auto& r : roots_) {
      result<> released = run(r->release());
      CHECK_MESSAGE(released.has_value(), (released ? std::string() : released.error().message()));
    }
    roots_.clear();
    if (!is_closed_) {
      result<> closed = close_all();
      CHECK_MESSAGE(closed.has_value(), (closed ? std::string() : closed.error().message()));
    }
    graph_.reset();
    loop_.reset();
    CHECK(live_frame_count() == frames_before_);
    CHECK(open_descriptor_count() == descriptors_before_);
    for (const std::string& name : disk_names_)
      memory_disks().erase(name);
  }
  graph_bench(const graph_bench&) = delete;
  graph_bench& operator=(const graph_bench&) = delete;

  memory_disk& disk(const std::string& name, u64 length = 0) {
    memory_disk& made = disks_.emplace_back(length);
    memory_disks()[name] = &made;
    disk_names_.push_back(name);
    return made;
  }
  template<class T>
  result<T> run(task<T> t) {
    return run_to_end(*loop_, std::move(t));
  }
  template<class T>
  T must(task<T> t) {
    result<T> r = run(std::move(t));
    REQUIRE_MESSAGE(r.has_value(), (r ? std::string() : r.error().message()));
    if constexpr (!std::is_void_v<T>)
      return *std::move(r);
  }
  result<node*> try_open(const spec_builder& s) { return run(graph_->open(s.build())); }
  node& open(const spec_builder& s) { return *must(graph_->open(s.build())); }
  root& attach(node& top, permissions wanted = may_write) {
    roots_.push_back(must(graph_->attach("test", top, wanted)));
    return *roots_.back();
  }
  void detach(root& r) {
    must(r.release());
    std::erase_if(roots_, [&](const auto& other) { return other.get() == &r; });
  }
  // Releases roots and closes every node; the first error of a close.
  result<> close_all() {
    for (auto& r : roots_)
      must(r->release());
    roots_.clear();
    is_closed_ = true;
    return run(graph_->close_all());
  }
  void reopen_for_more() { is_closed_ = false; }
  [[nodiscard]] class graph& graph() { return *graph_; }
  [[nodiscard]] loop& home() { return *loop_; }

private:
  static i64 open_descriptor_count() {
    const std::filesystem::directory_iterator all("/proc/self/fd");
    return std::distance(begin(all), end(all));
  }
  i64 frames_before_;
  i64 descriptors_before_;
  std::optional<registry> drivers_;
  std::unique_ptr<loop> loop_;
  std::unique_ptr<class graph> graph_;
  std::vector<std::unique_ptr<root>> roots_;
  std::deque<memory_disk> disks_;
  std::vector<std::string> disk_names_;
  bool is_closed_ = false;
};

// Bytes that differ from place to place and from seed to seed.
inline std::vector<std::byte> pattern(std::size_t length, u64 seed) {
  std::vector<std::byte> bytes(length);
  u64 state = seed * 0x9e3779b97f4a7c15u + 1;
  for (std::byte& b : bytes) {
    state ^= state << 13;
    state ^= state >> 7;
    state ^= state << 17;
    b = static_cast<std::byte>(state >> 32);
  }
  return bytes;
}

inline std::vector<std::byte> read_all(graph_bench& bench, root& r) {
  std::vector<std::byte> bytes(r.length());
  bench.must(r.read(0, bytes));
  return bytes;
}

} // namespace bgfs::test
