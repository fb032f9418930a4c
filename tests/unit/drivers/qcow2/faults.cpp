// SPDX-License-Identifier: MIT
// Every operation on the file fails once, in turn; and the medium is full for a while.
#include "tests/unit/drivers/qcow2/check_bench.h"
#include "tests/unit/drivers/qcow2/encrypted_image.h"

#include <random>

using namespace bgfs;
using namespace bgfs::test;

namespace {

struct scenario {
  option_list create;
  option_list open;
  u64 cluster;
  u64 backing = 0;
  const char* encryption = "";
  bool compresses = false;
};

// Fails operation number `nth` (from 1) with `os_error`, and no other.
struct one_fault {
  u64 nth;
  int os_error;
  u64 seen = 0;
  std::optional<error> operator()() {
    if (++seen != nth)
      return std::nullopt;
    return error::from_errno(os_error, "the test says so");
  }
};

// The empty image of a scenario: making an encrypted one takes a while.
std::vector<std::byte> new_image_of(const scenario& s) {
  qcow2_bench b;
  b.add_secret("sec0", test_passphrase);
  return b.create("d", 40 * s.cluster, create_options(s.encryption, s.create)).bytes;
}

class fault_run {
public:
  fault_run(const scenario& s, const std::vector<std::byte>& image, u64 nth, int os_error)
      : s_(s), fault_{nth, os_error} {
    if (*s.encryption != 0)
      b_.add_secret("sec0", test_passphrase);
    disk_ = &b_.place("d", image);
    decrypt_ = decryption_of(b_.bench, s.encryption, *disk_);
    backing_ = pattern(s.backing, 1);
    if (s.backing != 0)
      b_.place("base", backing_);
    root_ = &b_.open("d", open_options(s.encryption, s.open), s.backing != 0 ? "base" : "");
    model_ = backing_;
    model_.resize(40 * s.cluster);
    disk_->fault = [this](std::string_view, byte_range) { return fault_(); };
  }
  // True if the fault came, in the script or in closing.
  bool run() {
    std::mt19937_64 random(7);
    for (int i = 0; i < 24 && !is_stopped_; i++)
      step(random);
    finish();
    return fault_.seen >= fault_.nth;
  }

private:
  // An operation that failed is tried again, as a guest would, and must work then.
  template<class Make>
  void attempt(Make make) {
    result<> first = b_.bench.run(make());
    if (first)
      return;
    result<> second = b_.bench.run(make());
    // Only a failed switch to another table stops the image, and it says so.
    is_stopped_ = !second && second.error().message().contains("takes no more writes");
    if (!is_stopped_)
      REQUIRE_MESSAGE(second.has_value(), second.error().message()
                                              << " after " << first.error().message());
  }
  void step(std::mt19937_64& random) {
    const u64 kind = random() % 10;
    const u64 offset = random() % model_.size();
    const u64 length = std::min<u64>(1 + random() % (3 * s_.cluster), model_.size() - offset);
    const byte_range whole{align_down(offset, s_.cluster), s_.cluster};
    if (kind < 3 && s_.compresses) {
      const u64 whole_length = std::min(align_up(length, s_.cluster), model_.size() - whole.offset);
      const auto bytes = compressible_pattern(whole_length, s_.cluster, random());
      attempt([&] { return root_->write(whole.offset, bytes, write_flag::compressed); });
      std::ranges::copy(bytes, model_.begin() + static_cast<i64>(whole.offset));
    } else if (kind < 5) {
      const auto bytes = pattern(length, random());
      attempt([&] { return root_->write(offset, bytes); });
      std::ranges::copy(bytes, model_.begin() + static_cast<i64>(offset));
    } else if (kind < 7 && whole.end() <= model_.size()) {
      if (kind == 5) {
        attempt([&] { return root_->write_zeroes(whole, write_flag::may_unmap); });
      } else {
        attempt([&] { return root_->discard(whole); });
      }
      std::fill_n(model_.begin() + static_cast<i64>(whole.offset), whole.length, std::byte{0});
    } else if (kind == 8) {
      const u64 to = align_up((20 + random() % 60) * s_.cluster, 512);
      attempt([&] { return root_->truncate(to); });
      if (!is_stopped_)
        model_.resize(to);
    } else {
      attempt([&] { return root_->flush(); });
    }
  }
  void finish() {
    if (is_stopped_) {
      (void)b_.try_close();
      require_sound(*disk_, true);
      return;
    }
    const auto faults = std::exchange(disk_->fault, nullptr);
    REQUIRE(read_all(b_.bench, *root_) == model_);
    disk_->fault = faults;
    const result<> closed = b_.try_close();
    disk_->fault = nullptr;
    require_sound(*disk_, true);
    if (closed)
      REQUIRE(read_disk(disk_->bytes, backing_, decrypt_) == model_);
  }

  scenario s_;
  qcow2_bench b_;
  one_fault fault_;
  memory_disk* disk_ = nullptr;
  root* root_ = nullptr;
  std::vector<std::byte> model_, backing_;
  bool is_stopped_ = false;
  decryption decrypt_;
};

const scenario scenarios[] = {
    {{{"cluster_size", "512"}, {"refcount_bits", "64"}}, {}, 512},
    {{{"cluster_size", "512"}}, {{"l2-cache-size", "1"}, {"refcount-cache-size", "1"}}, 512, 9000},
    {{{"cluster_size", "1K"}, {"lazy_refcounts", "on"}}, {}, 1024},
    {{{"cluster_size", "16K"}, {"extended_l2", "on"}}, {}, 16384, 100000},
    {small_luks({{"cluster_size", "2K"}}), {}, 2048, 30001, "luks"},
    {{{"cluster_size", "1K"}}, {{"l2-cache-size", "1"}}, 1024, 9000, "", true},
};

} // namespace

TEST_CASE("qcow2: any single failure of the file leaves a sound image, and the next try works") {
  for (const scenario& s : scenarios) {
    const std::vector<std::byte> image = new_image_of(s);
    for (const int os_error : {EIO, ENOSPC}) {
      u64 nth = 1;
      for (bool came = true; came; nth++) {
        CAPTURE(s.cluster);
        CAPTURE(nth);
        came = fault_run(s, image, nth, os_error).run();
      }
      CHECK(nth > 50); // the script does reach the disk
    }
  }
}

TEST_CASE("qcow2: a full medium fails writes and nothing else; when space is back they work") {
  for (const u64 slack : {0u, 300u, 512u, 4096u, 20000u}) {
    CAPTURE(slack);
    qcow2_bench b;
    memory_disk& disk = b.create("d", 1 << 20, {{"cluster_size", "4K"}});
    root& way = b.open("d");
    std::vector<std::byte> model(1 << 20);
    disk.length_max = disk.bytes.size() + slack;
    const auto bytes = pattern(10000, 3);
    std::vector<u64> failed;
    for (u64 at = 100; at + bytes.size() < model.size(); at += 50000) {
      const result<> written = b.bench.run(way.write(at, bytes));
      if (!written) {
        CHECK(written.error().kind() == error_kind::no_space);
        CHECK(written.error().os_error() == ENOSPC);
        failed.push_back(at);
      } else {
        std::ranges::copy(bytes, model.begin() + static_cast<i64>(at));
      }
    }
    CHECK(!failed.empty());
    b.bench.must(way.flush());
    require_sound(disk, true);
    disk.length_max.reset();
    for (const u64 at : failed) {
      b.bench.must(way.write(at, bytes));
      std::ranges::copy(bytes, model.begin() + static_cast<i64>(at));
    }
    CHECK(read_all(b.bench, way) == model);
    b.close();
    require_sound(disk);
    CHECK(read_disk(disk.bytes) == model);
  }
}

// Fresh clusters are linked before their data is there; other programs take an entry that leads
// behind the end of the file for damage.
TEST_CASE("qcow2: writes that find the medium full leave no entry behind the end of the file") {
  qcow2_bench b;
  memory_disk& disk = b.create("d", 1 << 20, {{"cluster_size", "4K"}});
  root& way = b.open("d");
  b.bench.must(way.write(0, pattern(4096, 1))); // there is an L2 table
  const u64 full = disk.bytes.size();
  disk.fault = [full](std::string_view what, byte_range r) -> std::optional<error> {
    if (what != "write" || r.end() <= full)
      return std::nullopt;
    return error::from_errno(ENOSPC, "the test disk is full"); // but it can have holes
  };
  for (u64 at = 8192; at < 400 << 10; at += 60000)
    CHECK(!b.bench.run(way.write(at, pattern(30000, at))).has_value());
  b.bench.must(way.flush());
  const auto flushed = disk.bytes;
  disk.fault = nullptr;
  b.close();
  for (const auto* bytes : {&flushed, static_cast<const std::vector<std::byte>*>(&disk.bytes)}) {
    check_bench look(*bytes, "copy");
    const check_result found = look.check();
    CHECK_MESSAGE(found.is_sound(), look.findings.text());
  }
}

TEST_CASE("qcow2: a file that cannot grow says how long it would have to be") {
  qcow2_bench b;
  memory_disk& disk = b.create("d", 1 << 20, {{"cluster_size", "4K"}});
  disk.can_resize = false;
  root& way = b.open("d");
  const result<> written = b.bench.run(way.write(0, pattern(4096, 1)));
  REQUIRE(!written);
  CHECK(written.error().kind() == error_kind::no_space);
  CHECK(written.error().message().contains("and cannot grow"));
  b.close();
  require_sound(disk, true);
}
