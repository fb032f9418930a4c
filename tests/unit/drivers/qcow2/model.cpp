// SPDX-License-Identifier: MIT
// Random requests against a plain byte array, over the shapes an image can have.
#include "graph/base/text.h"
#include "tests/unit/drivers/qcow2/encrypted_image.h"
#include "tests/unit/drivers/qcow2/qcow2_bench.h"

#include <random>

using namespace bgfs;
using namespace bgfs::test;

namespace {

struct shape {
  const char* name;
  option_list create;
  option_list open = {};
  u64 length = 1 << 20;
  u64 backing = 0;             // its length; 0: none
  const char* encryption = ""; // its format
};

u64 option_size(const shape& s, const char* name, u64 otherwise) {
  for (const auto& [key, text] : s.create)
    if (key == name)
      return *parse_size(text);
  return otherwise;
}

class model_run {
public:
  model_run(const shape& s, u64 seed) : shape_(s), random_(seed) {
    if (*s.encryption != 0)
      b_.add_secret("sec0", test_passphrase);
    disk_ = &b_.create("d", s.length, create_options(s.encryption, s.create));
    shape_.open = open_options(s.encryption, s.open);
    if (s.encryption == std::string("aes"))
      make_legacy(*disk_);
    decrypt_ = decryption_of(b_.bench, s.encryption, *disk_);
    cluster_ = option_size(s, "cluster_size", 65536);
    if (s.backing != 0) {
      backing_ = pattern(s.backing, seed + 100);
      b_.place("base", backing_);
      for (const auto& [key, text] : s.create)
        is_v2_ = is_v2_ || (key == "compat" && text == "0.10");
    }
    model_ = backing_;
    model_.resize(s.length);
    open();
  }
  void open() { root_ = &b_.open("d", shape_.open, backing_.empty() ? "" : "base"); }

  void step() {
    const u64 kind = random_() % 100;
    if (kind < 45) {
      write();
    } else if (kind < 60) {
      zero();
    } else if (kind < 75) {
      discard();
    } else if (kind < 80) {
      resize();
    } else if (kind < 85) {
      b_.bench.must(root_->flush());
    } else if (kind < 88) {
      b_.close();
      require_sound(*disk_);
      open();
    } else {
      compare(range());
    }
  }
  void finish() {
    compare({0, model_.size()});
    b_.close();
    require_sound(*disk_);
    const std::vector<std::byte> data = data_file();
    CHECK(read_disk(disk_->bytes, backing_, decrypt_, data) == model_);
    if (option_of(shape_.create, "data_file_raw") == "on")
      CHECK(data == model_);
  }

private:
  static std::string option_of(const option_list& list, std::string_view name) {
    for (const auto& [key, text] : list)
      if (key == name)
        return text;
    return {};
  }
  [[nodiscard]] std::vector<std::byte> data_file() const {
    const std::string name = option_of(shape_.create, "data_file");
    return name.empty() ? std::vector<std::byte>() : memory_disks()[name]->bytes;
  }
  byte_range range() {
    const u64 unit = random_() % 3 == 0 ? cluster_ : random_() % 2 == 0 ? 512 : 1;
    const u64 most = random_() % 4 == 0 ? 6 * cluster_ : cluster_ / 2 + 1;
    u64 offset = align_down(random_() % model_.size(), unit);
    u64 length = std::max<u64>(align_down(random_() % most, unit), unit);
    length = std::min<u64>(length, model_.size() - offset);
    return {offset, length};
  }
  void write() {
    const byte_range r = range();
    const auto bytes = pattern(r.length, random_());
    b_.bench.must(root_->write(r.offset, bytes));
    std::ranges::copy(bytes, model_.begin() + static_cast<i64>(r.offset));
  }
  void zero() {
    const byte_range r = range();
    b_.bench.must(root_->write_zeroes(r, random_() % 2 == 0 ? write_flag::may_unmap : 0));
    std::fill_n(model_.begin() + static_cast<i64>(r.offset), r.length, std::byte{0});
  }
  // Whole clusters read as zeroes afterwards, the rest is as it was; version 2 over a backing file
  // cannot discard.
  void discard() {
    const byte_range r = range();
    b_.bench.must(root_->discard(r));
    if (is_v2_ && !backing_.empty())
      return;
    const u64 begin = align_up(r.offset, cluster_);
    const u64 end = r.end() == model_.size() ? r.end() : align_down(r.end(), cluster_);
    if (begin < end)
      std::fill_n(model_.begin() + static_cast<i64>(begin), end - begin, std::byte{0});
  }
  void resize() {
    const u64 length = align_up(shape_.length / 2 + random_() % (shape_.length * 2), 512);
    b_.bench.must(root_->truncate(length));
    CHECK(root_->length() == length);
    model_.resize(length);
  }
  void compare(byte_range r) {
    std::vector<std::byte> bytes(r.length);
    b_.bench.must(root_->read(r.offset, bytes));
    const auto expected = std::span(model_).subspan(r.offset, r.length);
    const auto differs = std::ranges::mismatch(bytes, expected);
    REQUIRE_MESSAGE(differs.in1 == bytes.end(),
                    "at " << r.offset + static_cast<u64>(differs.in1 - bytes.begin()));
  }

  shape shape_;
  qcow2_bench b_;
  std::mt19937_64 random_;
  memory_disk* disk_ = nullptr;
  root* root_ = nullptr;
  u64 cluster_ = 0;
  bool is_v2_ = false;
  decryption decrypt_;
  std::vector<std::byte> backing_;
  std::vector<std::byte> model_;
};

const shape shapes[] = {
    {"defaults", {}, {}, 4 << 20},
    {"512-byte clusters", {{"cluster_size", "512"}}, {}, 256 << 10},
    {"512-byte clusters, 64-bit refcounts",
     {{"cluster_size", "512"}, {"refcount_bits", "64"}},
     {{"overlap-check", "all"}},
     512 << 10},
    {"1-bit refcounts", {{"cluster_size", "1K"}, {"refcount_bits", "1"}}},
    {"2-bit refcounts", {{"cluster_size", "1K"}, {"refcount_bits", "2"}}},
    {"4-bit refcounts", {{"cluster_size", "2K"}, {"refcount_bits", "4"}}},
    {"8-bit refcounts", {{"cluster_size", "4K"}, {"refcount_bits", "8"}}},
    {"32-bit refcounts", {{"cluster_size", "4K"}, {"refcount_bits", "32"}}},
    {"2 MiB clusters", {{"cluster_size", "2M"}}, {}, 9 << 20},
    {"version 2", {{"compat", "0.10"}, {"cluster_size", "4K"}}},
    {"version 2 over a backing file",
     {{"compat", "0.10"}, {"cluster_size", "4K"}},
     {},
     1 << 20,
     700 << 10},
    {"shorter than its backing file", {{"cluster_size", "4K"}}, {}, 1 << 20, 2 << 20},
    {"longer than its backing file", {{"cluster_size", "8K"}}, {}, 1 << 20, 300001},
    {"extended L2", {{"cluster_size", "16K"}, {"extended_l2", "on"}}},
    {"extended L2 over a backing file",
     {{"cluster_size", "32K"}, {"extended_l2", "on"}},
     {},
     1 << 20,
     600000},
    {"lazy refcounts", {{"cluster_size", "4K"}, {"lazy_refcounts", "on"}}},
    {"kept references",
     {{"cluster_size", "4K"}},
     {{"discard-no-unref", "on"}, {"pass-discard-request", "on"}}},
    {"external data file",
     {{"cluster_size", "4K"}, {"data_file", "data"}},
     {{"data-file", "data"}}},
    {"external data file over a backing file",
     {{"cluster_size", "4K"}, {"data_file", "data"}},
     {{"data-file", "data"}, {"discard-no-unref", "on"}},
     1 << 20,
     700001},
    {"external data file, extended L2 over a backing file",
     {{"cluster_size", "16K"}, {"extended_l2", "on"}, {"data_file", "data"}},
     {{"data-file", "data"}},
     1 << 20,
     600000},
    {"raw external data file",
     {{"cluster_size", "4K"}, {"data_file", "data"}, {"data_file_raw", "on"}},
     {{"data-file", "data"}}},
    {"LUKS", small_luks({{"cluster_size", "4K"}}), {}, 1 << 20, 0, "luks"},
    {"LUKS over a backing file", small_luks({}), {}, 1 << 20, 300001, "luks"},
    {"LUKS with AES-256-XTS and 512-byte clusters",
     {{"cluster_size", "512"}, {"encrypt.iter-time", "1"}},
     {{"overlap-check", "all"}},
     256 << 10,
     0,
     "luks"},
    {"LUKS with extended L2 over a backing file",
     small_luks({{"cluster_size", "16K"}, {"extended_l2", "on"}}),
     {},
     1 << 20,
     600064,
     "luks"},
    {"LUKS in version 2",
     small_luks({{"compat", "0.10"}, {"cluster_size", "4K"}}),
     {},
     1 << 20,
     700 << 10,
     "luks"},
    {"LUKS with preallocation",
     small_luks({{"cluster_size", "4K"}, {"preallocation", "metadata"}}),
     {},
     1 << 20,
     0,
     "luks"},
    {"AES of before LUKS", {{"cluster_size", "4K"}}, {}, 1 << 20, 400 << 10, "aes"},
    {"the smallest caches",
     {{"cluster_size", "512"}},
     {{"l2-cache-size", "1"}, {"refcount-cache-size", "1"}},
     1 << 20},
};

} // namespace

TEST_CASE("qcow2: random requests agree with a byte array") {
  for (const shape& s : shapes) {
    for (u64 seed = 1; seed <= 4; seed++) {
      CAPTURE(s.name);
      CAPTURE(seed);
      model_run run(s, seed);
      for (int i = 0; i < 150; i++)
        run.step();
      run.finish();
    }
  }
}
