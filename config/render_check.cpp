// SPDX-License-Identifier: MIT
#include "config/render_check.h"

#include <fmt/format.h>

namespace bgfs {

namespace {

constexpr unsigned indentation = 4;

double percent(u64 part, u64 whole) {
  return static_cast<double>(part) * 100 / static_cast<double>(whole);
}

} // namespace

std::string render_check(const check_result& found) {
  std::string text;
  if (found.is_sound() && found.leaks == 0)
    text = "No errors were found on the image.\n";
  if (found.corruptions != 0)
    text += fmt::format("\n{} errors were found on the image.\n"
                        "Data may be corrupted, or further writes to the image may corrupt it.\n",
                        found.corruptions);
  if (found.leaks != 0)
    text += fmt::format("\n{} leaked clusters were found on the image.\n"
                        "This means waste of disk space, but no harm to data.\n",
                        found.leaks);
  if (found.check_errors != 0)
    text +=
        fmt::format("\n{} internal errors have occurred during the check.\n", found.check_errors);
  if (found.total_clusters != 0 && found.allocated_clusters != 0)
    text +=
        fmt::format("{}/{} = {:.2f}% allocated, {:.2f}% fragmented, {:.2f}% compressed clusters\n",
                    found.allocated_clusters, found.total_clusters,
                    percent(found.allocated_clusters, found.total_clusters),
                    percent(found.fragmented_clusters, found.allocated_clusters),
                    percent(found.compressed_clusters, found.allocated_clusters));
  if (found.image_end_offset != 0)
    text += fmt::format("Image end offset: {}\n", found.image_end_offset);
  return text;
}

std::string render_repair(const check_result& done) {
  return fmt::format("The following inconsistencies were found and repaired:\n\n"
                     "    {} leaked clusters\n    {} corruptions\n\n"
                     "Double checking the fixed image now...\n",
                     done.leaks_fixed, done.corruptions_fixed);
}

value check_value(const check_result& found, const std::string& filename, std::string_view format) {
  value all = value::map();
  const auto add = [&](const char* key, u64 number) {
    if (number != 0)
      all.set(key, number);
  };
  add("image-end-offset", found.image_end_offset);
  add("total-clusters", found.total_clusters);
  add("corruptions", found.corruptions);
  add("corruptions-fixed", found.corruptions_fixed);
  add("leaks", found.leaks);
  add("leaks-fixed", found.leaks_fixed);
  all.set("check-errors", found.check_errors);
  add("allocated-clusters", found.allocated_clusters);
  all.set("filename", filename);
  all.set("format", format);
  add("fragmented-clusters", found.fragmented_clusters);
  add("compressed-clusters", found.compressed_clusters);
  return all;
}

std::string render_check_json(const check_result& found, const std::string& filename,
                              std::string_view format) {
  return to_json(check_value(found, filename, format), indentation) + "\n";
}

check_result parse_check(const value& json) {
  const auto number = [&json](std::string_view key) -> u64 {
    const value* const v = json.find(key);
    const i64* const found = v == nullptr ? nullptr : v->as_integer();
    return found == nullptr || *found < 0 ? 0 : static_cast<u64>(*found);
  };
  return {.corruptions = number("corruptions"),
          .leaks = number("leaks"),
          .check_errors = number("check-errors"),
          .corruptions_fixed = number("corruptions-fixed"),
          .leaks_fixed = number("leaks-fixed"),
          .total_clusters = number("total-clusters"),
          .allocated_clusters = number("allocated-clusters"),
          .fragmented_clusters = number("fragmented-clusters"),
          .compressed_clusters = number("compressed-clusters"),
          .image_end_offset = number("image-end-offset")};
}

} // namespace bgfs
