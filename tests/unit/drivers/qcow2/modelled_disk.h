// SPDX-License-Identifier: MIT
// An open image of some shape beside a plain byte array of its disk, and random requests to both.
#pragma once

#include "graph/base/text.h"
#include "tests/unit/drivers/qcow2/encrypted_image.h"

#include <random>

namespace bgfs::test {

struct image_shape {
  const char* name;
  option_list create;
  option_list open = {};
  u64 length = 1 << 20;
  u64 backing = 0;             // its length; 0: none
  const char* encryption = ""; // its format

  [[nodiscard]] std::string created_with(std::string_view option) const {
    for (const auto& [key, text] : create)
      if (key == option)
        return text;
    return {};
  }
};

class modelled_disk {
public:
  modelled_disk(const image_shape& s, u64 seed, std::vector<const driver_type*> drivers = {})
      : shape_(s), b_(std::move(drivers)), random_(seed) {
    if (*s.encryption != 0)
      b_.add_secret("sec0", test_passphrase);
    disk_ = &b_.create("d", s.length, create_options(s.encryption, s.create));
    shape_.open = open_options(s.encryption, s.open);
    if (s.encryption == std::string("aes"))
      make_legacy(*disk_);
    decrypt_ = decryption_of(b_.bench, s.encryption, *disk_);
    if (const std::string size = s.created_with("cluster_size"); !size.empty())
      cluster_ = *parse_size(size);
    if (s.backing != 0) {
      backing_ = pattern(s.backing, seed + 100);
      b_.place("base", backing_);
    }
    model_ = backing_;
    model_.resize(s.length);
  }

protected:
  void open() { root_ = &b_.open("d", shape_.open, backing_.empty() ? "" : "base"); }
  // The image is closed: its content, read another way.
  void require_content() const {
    const std::vector<std::byte> data = data_file();
    REQUIRE(is_same(read_disk(disk_->bytes, backing_, decrypt_, data), model_));
    if (shape_.created_with("data_file_raw") == "on")
      REQUIRE(is_same(data, model_));
  }
  [[nodiscard]] bool is_v2() const { return shape_.created_with("compat") == "0.10"; }

  byte_range range() {
    const u64 unit = random_() % 3 == 0 ? cluster_ : random_() % 2 == 0 ? 512 : 1;
    const u64 most = random_() % 4 == 0 ? 6 * cluster_ : cluster_ / 2 + 1;
    const u64 offset = align_down(random_() % model_.size(), unit);
    const u64 length = std::max<u64>(align_down(random_() % most, unit), unit);
    return {offset, std::min<u64>(length, model_.size() - offset)};
  }
  byte_range touch(byte_range r) {
    touched_ = r;
    return r;
  }
  void write() {
    if (may_compress() && random_() % 4 == 0) {
      write_compressed();
      return;
    }
    const byte_range r = touch(range());
    if (r.length <= copied_max && random_() % 4 == 0 && copy_here(r))
      return;
    const auto bytes = pattern(r.length, random_());
    b_.bench.must(root_->write(r.offset, bytes));
    std::ranges::copy(bytes, model_.begin() + static_cast<i64>(r.offset));
  }
  // Copies from another disk; false: that is not possible, and a part of the range is undefined.
  static constexpr u64 copied_max = 200000; // at once
  bool copy_here(byte_range r) {
    if (other_ == nullptr) {
      b_.place("other", pattern(300000, 5));
      other_ = &b_.bench.attach(b_.bench.open(disk_spec("other")), may_resize);
    }
    const u64 from = random_() % 100000;
    const result<> copied = b_.bench.run(other_->copy_to({from, r.length}, *root_, r.offset));
    if (!copied) {
      const bool is_known = copied.error().kind() == error_kind::unsupported;
      REQUIRE_MESSAGE(is_known, copied.error().message());
      return false;
    }
    copied_++;
    const auto begin = memory_disks()["other"]->bytes.begin() + static_cast<i64>(from);
    std::copy_n(begin, r.length, model_.begin() + static_cast<i64>(r.offset));
    return true;
  }
  // What other_ has in the same place afterwards is what the disk has there.
  void compare_copy(byte_range r) {
    r.length = std::min(r.length, copied_max);
    const u64 to = random_() % 100000;
    const result<> copied = b_.bench.run(root_->copy_to(r, *other_, to));
    if (!copied) {
      const bool is_known = copied.error().kind() == error_kind::unsupported;
      REQUIRE_MESSAGE(is_known, copied.error().message());
      return;
    }
    copied_++;
    const auto expected = std::span(model_).subspan(r.offset, r.length);
    REQUIRE(is_same(std::span(memory_disks()["other"]->bytes).subspan(to, r.length), expected));
  }
  [[nodiscard]] bool may_compress() const {
    return compresses_ && *shape_.encryption == 0 && shape_.created_with("data_file").empty();
  }
  void write_compressed() {
    const u64 offset = align_down(random_() % model_.size(), cluster_);
    const u64 length = std::min((1 + random_() % 6) * cluster_, model_.size() - offset);
    const auto bytes = compressible_pattern(length, cluster_, random_());
    touch({offset, length});
    b_.bench.must(root_->write(offset, bytes, write_flag::compressed));
    std::ranges::copy(bytes, model_.begin() + static_cast<i64>(offset));
  }
  void zero() {
    const byte_range r = touch(range());
    b_.bench.must(root_->write_zeroes(r, random_() % 2 == 0 ? write_flag::may_unmap : 0));
    clear(r);
  }
  // Whole clusters read as zeroes afterwards, the rest is as it was; version 2 over a backing file
  // cannot discard.
  void discard() {
    const byte_range r = touch(range());
    b_.bench.must(root_->discard(r));
    const u64 begin = align_up(r.offset, cluster_);
    const u64 end = r.end() == model_.size() ? r.end() : align_down(r.end(), cluster_);
    if (begin < end && !(is_v2() && !backing_.empty()))
      clear(byte_range::between(begin, end));
  }
  void resize() {
    const u64 length = align_up(shape_.length / 2 + random_() % (shape_.length * 2), 512);
    b_.bench.must(root_->truncate(length));
    REQUIRE(root_->length() == length);
    model_.resize(length);
  }
  void compare(byte_range r) {
    std::vector<std::byte> bytes(r.length);
    b_.bench.must(root_->read(r.offset, bytes));
    const auto expected = std::span(model_).subspan(r.offset, r.length);
    const auto differs = std::ranges::mismatch(bytes, expected);
    REQUIRE_MESSAGE(differs.in1 == bytes.end(),
                    "at " << r.offset + static_cast<u64>(differs.in1 - bytes.begin()));
    if (other_ != nullptr)
      compare_copy(r);
  }

  image_shape shape_;
  qcow2_bench b_;
  std::mt19937_64 random_;
  memory_disk* disk_ = nullptr;
  root* root_ = nullptr;
  root* other_ = nullptr; // of a plain disk that is copied from and to, once there is one
  u64 copied_ = 0;        // copies that were made
  u64 cluster_ = 65536;
  byte_range touched_;     // by the last request
  bool compresses_ = true; // a part of the writes, where the format allows it
  decryption decrypt_;
  std::vector<std::byte> backing_;
  std::vector<std::byte> model_;

private:
  [[nodiscard]] std::vector<std::byte> data_file() const {
    const std::string name = shape_.created_with("data_file");
    return name.empty() ? std::vector<std::byte>() : memory_disks()[name]->bytes;
  }
  void clear(byte_range r) {
    std::fill_n(model_.begin() + static_cast<i64>(r.offset), r.length, std::byte{0});
  }
};

} // namespace bgfs::test
