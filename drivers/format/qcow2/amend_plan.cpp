// SPDX-License-Identifier: MIT
#include "drivers/format/qcow2/amend_plan.h"

#include "drivers/format/common/luks1_keys.h"
#include "drivers/format/qcow2/create.h"
#include "drivers/format/qcow2/create_encryption.h"
#include "graph/base/limits.h"

#include <bit>

namespace bgfs::qcow2 {

namespace {

constexpr std::string_view compat_choices[] = {"0.10", "v2", "1.1", "v3"};
constexpr std::string_view state_choices[] = {"active", "inactive"};
constexpr std::string_view compression_choices[] = {"zlib", "zstd"};

constexpr option option_list[] = {
    {.name = "compat",
     .type = option_type::choice,
     .help = "the version: 1.1 (or v3), or 0.10 (or v2) for programs of before 2012",
     .choices = compat_choices},
    {.name = "lazy_refcounts",
     .type = option_type::boolean,
     .help = "write refcounts only when the image is closed"},
    {.name = "refcount_bits",
     .type = option_type::integer,
     .help = "width of a reference count: 1, 2, 4, 8, 16, 32 or 64"},
    {.name = "size", .type = option_type::size, .help = "the length of the disk"},
    {.name = "data_file",
     .help = "the name by which the header knows the external data file; the file itself is "
             "neither moved nor made; empty: none"},
    {.name = "data_file_raw",
     .type = option_type::boolean,
     .help = "off: the data file need not be a raw image of the disk any more"},
    {.name = "backing_file", .help = "cannot change here; the ctl file of a mount changes it"},
    {.name = "backing_fmt", .help = "cannot change here; the ctl file of a mount changes it"},
    {.name = "cluster_size", .type = option_type::size, .help = "cannot change; convert the image"},
    {.name = "extended_l2",
     .type = option_type::boolean,
     .help = "cannot change; convert the image"},
    {.name = "compression_type",
     .type = option_type::choice,
     .help = "cannot change; convert the image",
     .choices = compression_choices},
    {.name = "encrypt.state",
     .type = option_type::choice,
     .help = "active: put new-secret into a free key slot; inactive: erase key slots",
     .choices = state_choices},
    {.name = "encrypt.new-secret",
     .help = "with active: the id of the secret that opens the image from now on, too"},
    {.name = "encrypt.old-secret", .help = "with inactive: erase the slots that this secret opens"},
    {.name = "encrypt.keyslot",
     .type = option_type::integer,
     .help = "the slot to fill or to erase; absent: with active, the first that is free",
     .maximum = crypt::luks1_slots - 1},
    {.name = "encrypt.iter-time",
     .type = option_type::integer,
     .help = "with active: milliseconds of this processor that trying the new secret takes; "
             "absent: 2000",
     .minimum = 1,
     .maximum = iteration_time_max_ms},
};

std::unexpected<error> wrong_option(const options& given, std::string_view name,
                                    std::string_view why) {
  return fail(error_kind::invalid_argument, "{}'{}' {}", given.mark(name).prefix(), name, why);
}

result<> check_keys(const options& given, const header& h) {
  const bool is_active = given.text("encrypt.state") == "active";
  const auto is_set = [&](std::string_view name) { return given.is_set(name); };
  if (!is_set("encrypt.state"))
    return fail(error_kind::invalid_argument,
                "'encrypt.state' is not given: active adds a key, inactive erases");
  if (is_active && !is_set("encrypt.new-secret"))
    return wrong_option(given, "encrypt.state", "active needs 'encrypt.new-secret'");
  if (is_active && is_set("encrypt.old-secret"))
    return wrong_option(given, "encrypt.old-secret",
                        "is for erasing; to replace a key, add the new one and erase the old one");
  for (const std::string_view name : {"encrypt.new-secret", "encrypt.iter-time"})
    if (!is_active && is_set(name))
      return wrong_option(given, name, "is for 'encrypt.state' active; erasing sets no key");
  if (!is_active && !is_set("encrypt.keyslot") && !is_set("encrypt.old-secret"))
    return wrong_option(given, "encrypt.state",
                        "inactive needs to know what to erase: 'encrypt.keyslot' or "
                        "'encrypt.old-secret'");
  if (h.encryption != encryption_method::luks)
    return fail(error_kind::unsupported,
                "the image is not encrypted with LUKS: it has no key slots to change");
  return {};
}

// What stays for ever may be given as it is.
result<> check_unchanged(const options& given, const header& h) {
  const auto differs = [&](std::string_view name, const auto& now, std::string_view how) {
    return fail(error_kind::unsupported, "{}'{}' cannot change from '{}' once an image is made; {}",
                given.mark(name).prefix(), name, now, how);
  };
  constexpr std::string_view rebase =
      "a mount does that: 'echo \"backing NODE OTHER\" > ROOT.d/ctl'";
  constexpr std::string_view convert = "convert it into a new image";
  if (given.is_set("backing_file") && given.text("backing_file") != h.backing_file)
    return differs("backing_file", h.backing_file, rebase);
  if (given.is_set("backing_fmt") && given.text("backing_fmt") != h.backing_format())
    return differs("backing_fmt", h.backing_format(), rebase);
  if (given.is_set("cluster_size") && given.number("cluster_size") != h.g.cluster())
    return differs("cluster_size", h.g.cluster(), convert);
  if (given.is_set("extended_l2") && given.flag("extended_l2") != h.g.is_extended)
    return differs("extended_l2", h.g.is_extended ? "on" : "off", convert);
  if (given.is_set("compression_type") &&
      given.text("compression_type") != to_string(h.compression))
    return differs("compression_type", to_string(h.compression), convert);
  return {};
}

result<> plan_data_file(const options& given, const header& h, amend_plan& plan) {
  if (given.is_set("data_file") && !h.has_data_file())
    return fail(error_kind::invalid_argument,
                "{}'data_file' is given, but the image keeps its data itself; convert it to one "
                "with a data file",
                given.mark("data_file").prefix());
  if (given.is_set("data_file") && given.text("data_file").contains('\0'))
    return wrong_option(given, "data_file", "contains a zero byte, which a name cannot");
  if (given.is_set("data_file") && given.text("data_file") != h.data_file())
    plan.data_file = given.text("data_file");
  if (!given.is_set("data_file_raw") || given.flag("data_file_raw") == h.has_raw_data_file())
    return {};
  if (given.flag("data_file_raw"))
    return wrong_option(given, "data_file_raw",
                        "cannot be turned on: the file may lack what the image says is zero; "
                        "convert to an image that is made with it");
  plan.clears_raw = true;
  return {};
}

result<> plan_refcounts(const options& given, const header& h, amend_plan& plan) {
  unsigned order = h.g.refcount_order;
  if (given.is_set("refcount_bits")) {
    BGFS_TRY(order, read_refcount_order(given));
  }
  if (plan.version < 3 && order != 4)
    return fail(error_kind::invalid_argument,
                "version 2 (compat=0.10) has refcounts of 16 bits, not of {}; give "
                "'refcount_bits=16', or 'compat=1.1'",
                u64{1} << order);
  if (order != h.g.refcount_order)
    plan.refcount_order = order;
  return {};
}

result<> plan_lazy(const options& given, const header& h, amend_plan& plan) {
  if (!given.is_set("lazy_refcounts"))
    return {};
  const bool wanted = given.flag("lazy_refcounts");
  if (wanted && plan.version < 3)
    return wrong_option(given, "lazy_refcounts", "needs version 3; give 'compat=1.1'");
  if (wanted != h.has_lazy_refcounts())
    plan.has_lazy_refcounts = wanted;
  return {};
}

result<> plan_length(const options& given, const header& h, std::size_t snapshots,
                     amend_plan& plan) {
  if (!given.is_set("size") || given.number("size") == h.disk_length)
    return {};
  const u64 length = given.number("size");
  if (length % 512 != 0)
    return fail(error_kind::invalid_argument,
                "{}'size' is {}; the length of a qcow2 disk is a multiple of 512",
                given.mark("size").prefix(), length);
  BGFS_CHECK(context(check_length(h, length), "{}'size'", given.mark("size").prefix()));
  if (h.version < 3 && plan.version < 3 && snapshots != 0)
    return fail(error_kind::unsupported,
                "{}'size': a version 2 image with snapshots cannot change its length; delete its "
                "{} snapshots, or give 'compat=1.1' as well",
                given.mark("size").prefix(), snapshots);
  plan.length = length;
  return {};
}

// Reference 3.16. Lazy refcounts end with the version; zero clusters are made ordinary ones.
result<> check_downgrade(const header& h) {
  constexpr std::string_view ending = "which version 2 (compat=0.10) does not know; convert it";
  if (h.has_data_file())
    return fail(error_kind::unsupported, "the image has an external data file, {}", ending);
  if (h.g.is_extended)
    return fail(error_kind::unsupported, "the image has extended L2 entries, {}", ending);
  if (h.compression != compression_type::zlib)
    return fail(error_kind::unsupported, "the image compresses with {}, {}",
                to_string(h.compression), ending);
  BGFS_TRY(const std::optional<bitmap_directory> bitmaps, h.bitmaps());
  if (bitmaps)
    return fail(error_kind::unsupported,
                "the image has persistent bitmaps ({}), which version 2 (compat=0.10) does not "
                "know; remove them first",
                bitmaps->count);
  return {};
}

} // namespace

const option_schema amend_schema{"amending images of driver 'qcow2'", option_list};

result<amend_plan> plan_amendment(const options& given, const header& h, std::size_t snapshots) {
  bool is_anything_given = false;
  amend_plan plan{.version = h.version};
  for (const option& o : option_list) {
    is_anything_given = is_anything_given || given.is_set(o.name);
    plan.changes_keys =
        plan.changes_keys || (o.name.starts_with("encrypt.") && given.is_set(o.name));
  }
  if (!is_anything_given)
    return fail(error_kind::invalid_argument,
                "nothing to change is given; '-o help' lists what can be");
  if (plan.changes_keys)
    BGFS_CHECK(check_keys(given, h));
  BGFS_CHECK(check_unchanged(given, h));
  if (given.is_set("compat"))
    plan.version = read_version(given);
  if (plan.version < h.version)
    BGFS_CHECK(check_downgrade(h));
  BGFS_CHECK(plan_data_file(given, h, plan));
  BGFS_CHECK(plan_refcounts(given, h, plan));
  BGFS_CHECK(plan_lazy(given, h, plan));
  BGFS_CHECK(plan_length(given, h, snapshots, plan));
  return plan;
}

} // namespace bgfs::qcow2
