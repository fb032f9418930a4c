// SPDX-License-Identifier: MIT
// An image with snapshots beside a model of all of them, that is amended.
#pragma once

#include "drivers/format/qcow2/header.h"
#include "tests/unit/drivers/qcow2/image_editor.h"
#include "tests/unit/drivers/qcow2/snapshot_bench.h"

#include <random>

namespace bgfs::test {

// "" if it works.
inline std::string amend_top(qcow2_bench& b, const option_list& list) {
  const option_schema* schemas[] = {qcow2_driver_type.amend_options};
  const result<options> given = validate_options(schemas, to_value(list));
  if (!given)
    return given.error().message();
  const result<> done =
      b.bench.run(b.bench.graph().amend(b.top(), {.given = *given, .secrets = b.secrets()}));
  return done ? std::string() : done.error().message();
}

inline qcow2::header header_of(std::span<const std::byte> image) {
  auto parsed = qcow2::parse_header(image);
  REQUIRE(parsed.has_value());
  return *std::move(parsed);
}

class amended_disk {
public:
  amended_disk(const option_list& create, bool has_backing) : create_(create) {
    disk_ = &b_.create("d", length, create);
    if (has_backing) {
      backing_ = pattern(length, 77);
      b_.place("base", backing_);
      qcow2::header h = header_of(disk_->bytes);
      h.backing_file = "base";
      h.extensions.insert(h.extensions.begin(), qcow2::make_backing_format("raw"));
      std::ranges::copy(*qcow2::serialise_header(h), disk_->bytes.begin());
    }
    model_ = backing_;
    model_.resize(length);
    open();
  }
  void open() { root_ = &b_.open("d", {}, backing_.empty() ? "" : "base"); }
  void close() { b_.close(); }
  result<> try_close() { return b_.try_close(); }
  [[nodiscard]] memory_disk& disk() { return *disk_; }
  [[nodiscard]] root& way() { return *root_; }
  void flush() { b_.bench.must(root_->flush()); }
  void grown(u64 to) { model_.resize(to); }

  // Data, zero clusters with and without a place, and discarded ones.
  void fill() {
    for (int i = 0; i < 12; i++) {
      const u64 offset = align_down(random_() % model_.size(), 512);
      const u64 most = std::min<u64>(6000, model_.size() - offset);
      const u64 part = align_up(1 + random_() % most, 512);
      switch (random_() % 4) {
      case 0:
      case 1: {
        const auto bytes = pattern(part, random_());
        b_.bench.must(root_->write(offset, bytes));
        std::ranges::copy(bytes, model_.begin() + static_cast<i64>(offset));
        break;
      }
      default:
        b_.bench.must(
            root_->write_zeroes({offset, part}, random_() % 2 == 0 ? write_flag::may_unmap : 0));
        std::fill_n(model_.begin() + static_cast<i64>(offset), part, std::byte{0});
      }
    }
  }
  void snapshot(const std::string& name) {
    snapshot_actions(b_.bench, b_.top()).create(name);
    kept_.push_back({name, model_});
  }
  std::string amend(const option_list& list) { return amend_top(b_, list); }
  void write(u64 offset, u64 bytes_count) {
    const auto bytes = pattern(bytes_count, random_());
    b_.bench.must(root_->write(offset, bytes));
    std::ranges::copy(bytes, model_.begin() + static_cast<i64>(offset));
  }
  // The live disk reads as zeroes there and keeps the cluster, which others may have, too: as the
  // peer does it.
  void zero_in_place(u64 guest) {
    close();
    image_editor editor(disk_->bytes);
    const u64 at = editor.entry_at(guest);
    editor.put(at, editor.number(at) | qcow2::entry_zero);
    std::fill_n(model_.begin() + static_cast<i64>(guest), editor.cluster(), std::byte{0});
    open();
  }
  std::string make_empty() {
    const result<> done = b_.bench.run(b_.bench.graph().make_empty(b_.top()));
    model_ = backing_;
    model_.resize(root_->length());
    return done ? std::string() : done.error().message();
  }
  [[nodiscard]] const std::vector<std::byte>& model() const { return model_; }

  // What the image holds, read a second way; it may leak.
  void require_content(const std::vector<std::byte>& image) const {
    const check_report report = check_image(image);
    REQUIRE_MESSAGE(report.errors.empty(), report.text());
    REQUIRE(is_same(read_disk(image, backing_), model_));
    require_snapshots(image);
  }
  void require_content_or(const std::vector<std::byte>& image,
                          const std::vector<std::byte>& former) const {
    const check_report report = check_image(image);
    REQUIRE_MESSAGE(report.errors.empty(), report.text());
    const auto disk = read_disk(image, backing_);
    const bool is_either = is_same(disk, model_) || is_same(disk, former);
    REQUIRE(is_either);
    require_snapshots(image);
  }
  void require_snapshots(const std::vector<std::byte>& image) const {
    const auto found = read_snapshots(image, backing_);
    REQUIRE(found.size() == kept_.size());
    for (std::size_t i = 0; i < found.size(); i++) {
      REQUIRE(found[i].name == kept_[i].name);
      REQUIRE(is_same(found[i].disk, kept_[i].disk));
    }
  }
  void require(unsigned version, u64 refcount_bits, bool allows_leaks = false) {
    require_sound(*disk_, allows_leaks);
    require_content(disk_->bytes);
    const qcow2::header h = header_of(disk_->bytes);
    REQUIRE(h.version == version);
    REQUIRE(h.g.refcount_bits() == refcount_bits);
    REQUIRE(h.backing_file == (backing_.empty() ? "" : "base"));
  }

private:
  struct kept {
    std::string name;
    std::vector<std::byte> disk;
  };
  static constexpr u64 length = 40960;
  option_list create_;
  qcow2_bench b_;
  std::mt19937_64 random_{11};
  memory_disk* disk_ = nullptr;
  root* root_ = nullptr;
  std::vector<std::byte> backing_;
  std::vector<std::byte> model_;
  std::vector<kept> kept_;
};

} // namespace bgfs::test
