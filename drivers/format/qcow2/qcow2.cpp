// SPDX-License-Identifier: MIT
#include "drivers/format/qcow2/qcow2.h"

#include "drivers/format/qcow2/amend_plan.h"
#include "drivers/format/qcow2/check/checked_image.h"
#include "drivers/format/qcow2/create.h"
#include "drivers/format/qcow2/image.h"
#include "graph/model/join_options.h"

namespace bgfs {
namespace {

constexpr child_slot slots[] = {
    {"file", role::image}, {"backing", role::backing, false}, {"data-file", role::data, false}};

int probe(std::span<const std::byte> head, std::string_view) {
  if (head.size() < 8 || load<be32>(head) != qcow2::magic)
    return 0;
  const u32 version = load<be32>(head, 4);
  return version == 2 || version == 3 ? 100 : 0; // version 1 is another format, qcow
}

std::optional<u64> length_of(std::span<const std::byte> head, u64, const options&) {
  constexpr std::size_t length_at = 24;
  if (probe(head, {}) == 0 || head.size() < length_at + sizeof(be64))
    return std::nullopt;
  const u64 length = load<be64>(head, length_at);
  return length <= device_length_max ? std::optional(length) : std::nullopt;
}

task<std::unique_ptr<driver>> open(open_request request) {
  if (request.self.generic().is_for_check) {
    std::unique_ptr<driver> checked = co_await qcow2::checked_image::open(*request.children[0]);
    co_return checked;
  }
  std::unique_ptr<qcow2::image> opened =
      co_await qcow2::image::open({.home = request.home,
                                   .file = request.children[0],
                                   .data_file = request.children[2],
                                   .self = &request.self,
                                   .is_read_only = request.is_read_only,
                                   .given = &request.given,
                                   .secrets = request.secrets,
                                   .is_info_only = request.is_info_only});
  co_return std::unique_ptr<driver>(std::move(opened));
}

task<std::vector<named_child>> named_children(edge& file) {
  const qcow2::header h = co_await qcow2::read_header(file);
  std::vector<named_child> named;
  if (h.has_data_file() && !h.data_file().empty())
    named.push_back({"data-file", {h.data_file(), {}}});
  co_return named;
}

// Options that mean the same under several names, or of which a new whole makes old parts void.
void drop_replaced(flat_options& before, const flat_options& next) {
  const auto drop = [&](std::string_view name) {
    std::erase_if(before, [&](const auto& o) { return o.first == name; });
  };
  if (has_option(next, "overlap-check") || has_option(next, "overlap-check.template"))
    std::erase_if(before, [](const auto& o) { return o.first.starts_with("overlap-check"); });
  if (has_option(next, "cache-size")) {
    drop("l2-cache-size");
    drop("refcount-cache-size");
    return;
  }
  // Two parts that are known, one of them new, leave nothing to say to an old total.
  const auto is_known = [&](std::string_view name) {
    return has_option(next, name) || has_option(before, name);
  };
  const bool has_new_part =
      has_option(next, "l2-cache-size") || has_option(next, "refcount-cache-size");
  if (has_new_part && is_known("l2-cache-size") && is_known("refcount-cache-size"))
    drop("cache-size");
}

} // namespace

const driver_type qcow2_driver_type{
    .name = "qcow2",
    .kind = driver_kind::format,
    .summary = "disk images that grow, with backing files, compression and subclusters",
    .children = slots,
    .open_options = &qcow2::open_schema,
    .create_options = &qcow2::create_schema,
    .amend_options = &qcow2::amend_schema,
    .supports_backing = true,
    .probe = probe,
    .open = open,
    .named_children = named_children,
    .create = qcow2::create_image,
    .measure = qcow2::measure_image,
    .created_parts = qcow2::created_parts,
    .takes_compressed = qcow2::takes_compressed,
    .takes_bitmaps = qcow2::takes_bitmaps,
    .drop_replaced = drop_replaced,
    .length_of = length_of,
};

} // namespace bgfs
