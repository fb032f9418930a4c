// SPDX-License-Identifier: MIT
// Drivers and files for the tests of config/: a format whose images are text, "COW!" and lines with
// the name and the format of the backing file.
#pragma once

#include "drivers/format/raw/raw.h"
#include "drivers/protocol/file/file.h"
#include "drivers/protocol/null/null.h"
#include "graph/model/graph.h"

#include <cstdlib>
#include <filesystem>
#include <fstream>

namespace bgfs::test {

inline constexpr std::string_view cow_modes[] = {"fast", "safe"};
inline constexpr option cow_option_list[] = {
    {.name = "l2-cache-size", .type = option_type::size, .help = "memory for tables"},
    {.name = "mode", .type = option_type::choice, .help = "how", .choices = cow_modes},
    {.name = "interval", .type = option_type::duration, .help = "how often"},
};
inline constexpr option_schema cow_options{"driver 'cow'", cow_option_list};
inline constexpr child_slot cow_slots[] = {{"file", role::image},
                                           {"backing", role::backing, false}};

class cow_driver final : public driver, public mappable {
public:
  cow_driver(edge& below, std::optional<image_reference> reference)
      : below_(below), reference_(std::move(reference)) {}
  [[nodiscard]] u64 length() const override { return below_.length(); }
  task<void> close() override { co_return; }
  [[nodiscard]] std::optional<image_reference> backing_reference() const override {
    return reference_;
  }
  task<extent> map(byte_range range) override { co_return *try_map(range); }
  [[nodiscard]] std::optional<extent> try_map(byte_range range) override {
    return extent{.length = range.length,
                  .kind = extent_kind::data,
                  .where = &below_,
                  .offset = range.offset};
  }

private:
  edge& below_;
  std::optional<image_reference> reference_;
};

inline int probe_cow(std::span<const std::byte> head, std::string_view) {
  return head.size() >= 4 && std::memcmp(head.data(), "COW!", 4) == 0 ? 100 : 0;
}

inline task<std::unique_ptr<driver>> open_cow(open_request request) {
  edge& below = *request.children[0];
  std::string text(below.length(), '\0');
  co_await below.read(0, std::as_writable_bytes(std::span(text)));
  if (!text.starts_with("COW!"))
    co_return fail(error_kind::invalid_image, "no magic");
  std::optional<image_reference> reference;
  if (text.size() > 5) {
    const auto end = text.find('\n', 5);
    reference = {text.substr(5, end - 5), text.substr(end + 1)};
  }
  co_return std::make_unique<cow_driver>(below, std::move(reference));
}

inline constexpr driver_type cow_driver_type{
    .name = "cow",
    .kind = driver_kind::format,
    .summary = "a format for tests",
    .children = cow_slots,
    .open_options = &cow_options,
    .supports_backing = true,
    .probe = probe_cow,
    .open = open_cow,
};

inline const registry& test_registry() {
  static const registry drivers(
      {&file_driver_type, &null_co_driver_type, &raw_driver_type, &cow_driver_type});
  return drivers;
}

// A directory that is gone at the end of the test.
class scratch {
public:
  scratch() {
    std::string name = (std::filesystem::temp_directory_path() / "bgfs-test-XXXXXX").string();
    path_ = ::mkdtemp(name.data());
  }
  ~scratch() {
    std::error_code ignored;
    std::filesystem::remove_all(path_, ignored);
  }
  scratch(const scratch&) = delete;
  scratch& operator=(const scratch&) = delete;

  // Writes a file, making directories as needed, and returns its path.
  std::string write(const std::string& name, std::string_view content) const {
    const std::filesystem::path file = std::filesystem::path(path_) / name;
    std::filesystem::create_directories(file.parent_path());
    std::ofstream(file, std::ios::binary) << content;
    return file.string();
  }
  [[nodiscard]] std::string at(const std::string& name) const { return path_ + "/" + name; }
  [[nodiscard]] const std::string& path() const { return path_; }

private:
  std::string path_;
};

inline std::string cow_image(std::string_view backing = {}, std::string_view format = {}) {
  if (backing.empty())
    return "COW!";
  return fmt::format("COW!\n{}\n{}", backing, format);
}

} // namespace bgfs::test
