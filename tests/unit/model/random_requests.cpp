// SPDX-License-Identifier: MIT
// Thousands of requests side by side, of all kinds and lengths, over drivers with short limits and
// large blocks: whatever is read must be what one of the writers wrote that may have been the last.
//
// Each byte that write number n puts at an offset follows from n and the offset. A history keeps
// when each request began and ended. A byte that was read may come from a write that had begun when
// the reading ended, unless another one that surely covers the byte began after that one had ended
// and ended before the reading began. Zero writes and truncates write zeroes; a discard leaves what
// was there, or not; a request that failed may have done any of its part.
#include "drivers/filter/copy_on_read/copy_on_read.h"
#include "drivers/format/qcow2/qcow2.h"
#include "drivers/format/raw/raw.h"
#include "tests/unit/drivers/qcow2/qcow2_bench.h"
#include "tests/unit/lib/layer_driver.h"

#include <random>

using namespace bgfs;
using namespace bgfs::test;

namespace {

constexpr u64 never = ~u64{0};
constexpr u64 disk_length = 48 * KiB;

enum class act : u8 { write, zero, discard, truncate };

struct change {
  act kind;
  byte_range range;
  u64 id = 0;
  u64 began = 0;
  u64 ended = never;
  bool is_sure = false; // it succeeded

  [[nodiscard]] bool covers(u64 offset) const { return range.contains(offset); }
  // Leaves nothing of what was there before.
  [[nodiscard]] bool overwrites() const { return is_sure && kind != act::discard; }
};

std::byte stamp(u64 id, u64 offset) {
  u64 x = (id * 0x9e3779b97f4a7c15u) ^ (offset * 0xc2b2ae3d27d4eb4fu);
  x ^= x >> 29;
  x *= 0xbf58476d1ce4e5b9u;
  return static_cast<std::byte>(x >> 40);
}

class history {
public:
  explicit history(std::function<std::byte(u64)> initial) : initial_(std::move(initial)) {}

  u64 begin(act kind, byte_range range) {
    changes_.push_back({kind, range, changes_.size() + 1, ++clock_});
    return changes_.size() - 1;
  }
  void end(u64 index, bool is_sure) {
    changes_[index].is_sure = is_sure;
    changes_[index].ended = ++clock_;
  }
  u64 tick() { return ++clock_; }
  [[nodiscard]] u64 id_of(u64 index) const { return changes_[index].id; }

  // The first byte that nobody can have written; nullopt: all is well.
  std::optional<u64> find_wrong(u64 offset, std::span<const std::byte> seen, u64 began) const {
    const byte_range range{offset, seen.size()};
    std::vector<const change*> near; // latest first: the one that counts is found soon
    for (auto c = changes_.rbegin(); c != changes_.rend(); ++c)
      if (c->range.overlaps(range))
        near.push_back(&*c);
    for (u64 i = 0; i < seen.size(); i++)
      if (!may_be(offset + i, seen[i], near, began))
        return offset + i;
    return std::nullopt;
  }

private:
  bool may_be(u64 offset, std::byte seen, const std::vector<const change*>& near, u64 began) const {
    u64 latest = 0; // when the latest of those began that surely were there before the reading
    for (const change* c : near) {
      if (!c->covers(offset) || c->ended < latest)
        continue;
      if (c->kind == act::write ? seen == stamp(c->id, offset) : seen == std::byte{0})
        return true;
      if (c->kind == act::discard && (seen == std::byte{0xdd} || seen == initial_(offset)))
        return true;
      if (c->overwrites() && c->ended < began)
        latest = std::max(latest, c->began);
    }
    return latest == 0 && seen == initial_(offset);
  }

  std::function<std::byte(u64)> initial_;
  std::vector<change> changes_;
  u64 clock_ = 0;
};

struct run_options {
  u64 seed = 1;
  u64 unit = 512; // half of the requests are on multiples of it
  u64 truncate_unit = 1;
  bool truncates = false; // and grows by writing
  bool interrupts = false;
  bool may_fail = false;
  int clients = 12;
  int rounds = 60;
};

struct run_counts {
  u64 done = 0, failed = 0, reads_checked = 0, wrong = 0;
};

class client {
public:
  client(root& r, history& past, run_counts& counts, run_options how, u64 seed)
      : root_(r), past_(past), counts_(counts), how_(how), random_(seed) {}

  task<void> work() {
    for (int i = 0; i < how_.rounds; i++)
      co_await one();
  }

private:
  u64 below(u64 n) { return random_() % n; }
  byte_range pick(u64 end) {
    const bool is_aligned = below(2) == 0;
    u64 offset = below(end);
    u64 length = 1 + below(below(4) == 0 ? 12000 : 1500);
    if (is_aligned) {
      offset = align_down(offset, how_.unit);
      length = align_up(length, how_.unit);
    }
    return {offset, std::min(length, end - offset)};
  }

  task<void> one() {
    const u64 end = std::max<u64>(how_.truncates ? root_.length() : disk_length, 1);
    const byte_range range = pick(end);
    const u64 dice = below(how_.truncates ? 100 : 96);
    if (dice < 30) {
      co_await check_read(range);
    } else if (dice < 65) {
      const bool grows = how_.truncates && below(8) == 0;
      co_await write(grows ? byte_range{range.offset + below(4000), range.length} : range);
    } else if (dice < 80) {
      co_await change_by(act::zero, range);
    } else if (dice < 90) {
      co_await change_by(act::discard, range);
    } else if (dice < 96) {
      co_await note(root_.flush());
    } else {
      co_await change_by(act::truncate,
                         {align_down(below(disk_length), how_.truncate_unit), never / 4});
    }
  }

  task<void> note(task<void> t) {
    const result<> outcome = co_await as_result(bounded(std::move(t)));
    count(outcome);
  }
  // Some are interrupted on the way.
  task<void> bounded(task<void> t) {
    if (!how_.interrupts || below(6) != 0) {
      co_await std::move(t);
      co_return;
    }
    const task_context here = (co_await current_context{});
    task_group group(*here.home);
    group.spawn(std::move(t));
    for (u64 turns = below(6); turns > 0; turns--)
      co_await sleep_for(std::chrono::nanoseconds(0));
    group.request_stop();
    co_await group.join();
  }
  void count(const result<>& outcome) {
    counts_.done++;
    if (outcome)
      return;
    counts_.failed++;
    const error_kind kind = outcome.error().kind();
    const bool is_expected =
        (how_.truncates && kind == error_kind::out_of_range) ||
        (how_.interrupts && kind == error_kind::cancelled) ||
        (how_.may_fail && outcome.error().message().find("injected") != std::string::npos);
    CHECK_MESSAGE(is_expected, outcome.error().message());
  }

  task<void> check_read(byte_range range) {
    std::vector<std::byte> seen(range.length);
    const u64 began = past_.tick();
    const result<> outcome = co_await as_result(bounded(root_.read(range.offset, seen)));
    count(outcome);
    if (!outcome)
      co_return;
    counts_.reads_checked++;
    report(past_.find_wrong(range.offset, seen, began));
  }
  void report(std::optional<u64> wrong) {
    if (!wrong)
      return;
    counts_.wrong++;
    CHECK_MESSAGE(!wrong, fmt::format("seed {}: the byte at {} is nobody's", how_.seed, *wrong));
  }
  task<void> write(byte_range range) {
    const u64 index = past_.begin(act::write, range);
    std::vector<std::byte> bytes(range.length);
    for (u64 i = 0; i < range.length; i++)
      bytes[i] = stamp(past_.id_of(index), range.offset + i);
    const auto flags = static_cast<write_flags>((below(10) == 0 ? write_flag::durable : 0) |
                                                (below(10) == 0 ? write_flag::serialising : 0));
    const result<> outcome = co_await as_result(bounded(root_.write(range.offset, bytes, flags)));
    count(outcome);
    past_.end(index, outcome.has_value());
  }
  task<void> change_by(act kind, byte_range range) {
    const u64 index = past_.begin(kind, range);
    task<void> t = kind == act::zero
                       ? root_.write_zeroes(range, below(2) == 0 ? write_flag::may_unmap : 0)
                   : kind == act::discard ? root_.discard(range)
                                          : root_.truncate(range.offset);
    const result<> outcome = co_await as_result(bounded(std::move(t)));
    count(outcome);
    past_.end(index, outcome.has_value());
  }

  root& root_;
  history& past_;
  run_counts& counts_;
  run_options how_;
  std::mt19937_64 random_;
};

task<void> run_clients(std::vector<std::unique_ptr<client>>& clients) {
  std::vector<task<void>> tasks;
  for (auto& c : clients)
    tasks.push_back(c->work());
  co_await when_all(std::move(tasks));
}

// A graph to work on, what it reads as at first, and how to make its disks stop failing.
struct subject {
  graph_bench& bench;
  root& r;
  std::function<std::byte(u64)> initial;
  std::function<void()> calm = [] {};
};

run_counts run_random(const subject& on, run_options how) {
  history past(on.initial);
  run_counts counts;
  std::vector<std::unique_ptr<client>> clients;
  for (int i = 0; i < how.clients; i++)
    clients.push_back(
        std::make_unique<client>(on.r, past, counts, how, how.seed * 1000 + static_cast<u64>(i)));
  on.bench.must(run_clients(clients));
  on.calm();
  for (const auto& n : on.bench.graph().nodes()) {
    CHECK(n->requests().in_flight() == 0);
    CHECK_FALSE(n->requests().has_serialising());
  }
  std::vector<std::byte> all(on.r.length());
  const u64 began = past.tick();
  on.bench.must(on.r.read(0, all));
  const auto wrong = past.find_wrong(0, all, began);
  CHECK_MESSAGE(!wrong, fmt::format("seed {}: at the end the byte at {} is nobody's", how.seed,
                                    wrong.value_or(0)));
  CHECK(counts.reads_checked > 20);
  return counts;
}

std::byte no_bytes(u64) {
  return std::byte{0};
}

// One in so many operations of the disks fails while it is on.
struct faults {
  std::mt19937_64 random;
  bool is_on = true;
  void install(memory_disk& disk) {
    disk.fault = [this](std::string_view what, byte_range) -> std::optional<error> {
      if (!is_on || random() % 40 != 0)
        return std::nullopt;
      return error(error_kind::io, fmt::format("injected into a {}", what));
    };
  }
};

void limit(memory_disk& disk, u64 seed) {
  disk.request_alignment = seed % 2 == 0 ? 512 : 4096;
  disk.max_transfer = 8192;
  disk.can_zero = seed % 3 != 0;
  disk.zeroes_exclusively = seed % 4 == 0;
  disk.limits = [](block_limits& l) {
    l.max_write_zeroes = 5000;
    l.write_zeroes_alignment = 1024;
    l.max_discard = 4096;
    l.opt_transfer = 4096;
  };
}

spec_builder unmapping(std::string name, const driver_type& type) {
  return spec_builder(std::move(name), type).set("discard", "unmap").set("detect-zeroes", "unmap");
}

void run_on_disk(run_options how) {
  CAPTURE(how.seed);
  faults f{std::mt19937_64(how.seed)};
  graph_bench bench({&raw_driver_type}, {.shuffle_seed = how.seed});
  memory_disk& disk = bench.disk("d", disk_length);
  limit(disk, how.seed);
  how.unit = disk.request_alignment;
  node& top = bench.open(unmapping("top", raw_driver_type).child("file", disk_spec("d")));
  root& r = bench.attach(top, how.truncates ? may_resize : may_write);
  if (how.may_fail)
    f.install(disk);
  run_random({bench, r, no_bytes, [&] { f.is_on = false; }}, how);
  CHECK(top.length() == disk.bytes.size());
}

// Copies on read, over an overlay, over a backing disk.
void run_on_overlay(run_options how) {
  CAPTURE(how.seed);
  faults f{std::mt19937_64(how.seed)};
  graph_bench bench({&layer_driver_type, &copy_on_read_driver_type}, {.shuffle_seed = how.seed});
  test_layer layer(bench, "top", disk_length);
  memory_disk& base = bench.disk("base", disk_length);
  base.bytes = pattern(disk_length, how.seed);
  layer.state.cluster_size = 2048;
  layer.disk.max_transfer = 4096;
  const auto content = base.bytes;
  how.unit = 512;
  how.truncate_unit = 512;
  bench.open(layer.spec().child("backing", disk_spec("base")));
  root& r =
      bench.attach(bench.open(unmapping("front", copy_on_read_driver_type).child("file", "top")),
                   how.truncates ? may_resize : may_write);
  if (how.may_fail) {
    f.install(layer.disk);
    f.install(base);
  }
  run_random({bench, r, [&](u64 at) { return at < disk_length ? content[at] : std::byte{0}; },
              [&] { f.is_on = false; }},
             how);
  CHECK(base.bytes == content); // whatever went on above
}

void run_on_qcow2(run_options how) {
  CAPTURE(how.seed);
  graph_bench bench({&qcow2_driver_type, &copy_on_read_driver_type}, {.shuffle_seed = how.seed});
  memory_disk& disk = bench.disk("d");
  const option_list size = {std::pair<std::string, std::string>("cluster_size", "4096")};
  const option_schema* schemas[] = {qcow2_driver_type.create_options};
  const options given = *validate_options(schemas, to_value(size));
  node& file = bench.open(disk_spec("d"));
  root& way = bench.attach(file, may_resize);
  edge* const to = &way.as_edge();
  bench.must(make_image(bench.home(), {&to, 1}, given, disk_length));
  bench.detach(way);
  bench.must(bench.graph().close(file));
  memory_disk& base = bench.disk("base", disk_length - 3000); // shorter than what is above
  base.bytes = pattern(base.bytes.size(), how.seed);
  const auto content = base.bytes;
  how.unit = how.truncate_unit = 512;
  spec_builder image("image", qcow2_driver_type);
  image.set("discard", "unmap").child("file", disk_spec("d")).child("backing", disk_spec("base"));
  bench.open(image);
  root& r =
      bench.attach(bench.open(unmapping("front", copy_on_read_driver_type).child("file", "image")),
                   how.truncates ? may_resize : may_write);
  run_random({bench, r, [&](u64 at) { return at < content.size() ? content[at] : std::byte{0}; }},
             how);
  CHECK(base.bytes == content);
  CHECK(bench.close_all().has_value());
  require_sound(disk, how.interrupts);
}

} // namespace

TEST_CASE("random requests: a disk of large blocks and short limits") {
  for (u64 seed = 1; seed <= 12; seed++)
    run_on_disk({.seed = seed});
}

TEST_CASE("random requests: with failures and interruptions") {
  for (u64 seed = 101; seed <= 112; seed++)
    run_on_disk({.seed = seed, .interrupts = true, .may_fail = true});
}

TEST_CASE("random requests: while the length goes up and down") {
  for (u64 seed = 201; seed <= 212; seed++)
    run_on_disk({.seed = seed, .truncates = true});
  for (u64 seed = 221; seed <= 232; seed++)
    run_on_disk({.seed = seed, .truncates = true, .interrupts = true, .may_fail = true});
}

TEST_CASE("random requests: copying on read, over an overlay and its backing") {
  for (u64 seed = 301; seed <= 308; seed++)
    run_on_overlay({.seed = seed});
  for (u64 seed = 321; seed <= 328; seed++)
    run_on_overlay({.seed = seed, .truncates = true});
  for (u64 seed = 341; seed <= 348; seed++)
    run_on_overlay({.seed = seed, .interrupts = true, .may_fail = true});
}

TEST_CASE("random requests: copying on read, over qcow2 and its backing") {
  for (u64 seed = 401; seed <= 406; seed++)
    run_on_qcow2({.seed = seed});
  for (u64 seed = 421; seed <= 424; seed++)
    run_on_qcow2({.seed = seed, .truncates = true});
  for (u64 seed = 441; seed <= 444; seed++)
    run_on_qcow2({.seed = seed, .interrupts = true});
}
