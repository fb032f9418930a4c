// SPDX-License-Identifier: MIT
#include "drivers/format/qcow2/settings.h"

namespace bgfs::qcow2 {

namespace {

constexpr u64 l2_cache_bytes_default = 32 * MiB;
constexpr u64 l2_page_bytes_partial = 4096; // when the cache does not cover the disk
constexpr u64 l2_pages_min = 2;
constexpr u64 refcount_pages_min = 4;
constexpr u64 cache_bytes_max = 64 * GiB;

constexpr std::string_view encryption_formats[] = {"aes", "luks"};
constexpr std::string_view overlap_templates[] = {"none", "constant", "cached", "all"};

constexpr option option_list[] = {
    {.name = "lazy-refcounts",
     .type = option_type::boolean,
     .help = "write refcounts only when the image is closed, and mark it dirty until then; needs "
             "version 3; absent: as the image says",
     .is_mutable = true},
    {.name = "pass-discard-request",
     .type = option_type::boolean,
     .help = "give the space of discarded clusters back to the host; absent: if 'discard' is "
             "'unmap'",
     .is_mutable = true},
    {.name = "pass-discard-snapshot",
     .type = option_type::boolean,
     .help = "give the space of deleted snapshots back to the host",
     .default_text = "on",
     .is_mutable = true},
    {.name = "pass-discard-other",
     .type = option_type::boolean,
     .help = "give the space of clusters freed for other reasons back to the host",
     .default_text = "off",
     .is_mutable = true},
    {.name = "discard-no-unref",
     .type = option_type::boolean,
     .help = "keep discarded clusters for the same place of the disk, so that it does not "
             "fragment; needs version 3",
     .default_text = "off",
     .is_mutable = true},
    {.name = "overlap-check",
     .type = option_type::choice,
     .help = "which metadata writes are checked not to go over: constant (header, active L1, "
             "refcount table, snapshot table, bitmap directory), cached (and active L2, refcount "
             "blocks, L1 of snapshots; the default), all (and L2 of snapshots), none",
     .choices = overlap_templates,
     .is_mutable = true},
    {.name = "overlap-check.template",
     .type = option_type::choice,
     .help = "what the following start from",
     .choices = overlap_templates,
     .is_mutable = true},
    {.name = "overlap-check.main-header",
     .type = option_type::boolean,
     .help = "check the header",
     .is_mutable = true},
    {.name = "overlap-check.active-l1",
     .type = option_type::boolean,
     .help = "check the active L1 table",
     .is_mutable = true},
    {.name = "overlap-check.active-l2",
     .type = option_type::boolean,
     .help = "check the active L2 tables",
     .is_mutable = true},
    {.name = "overlap-check.refcount-table",
     .type = option_type::boolean,
     .help = "check the refcount table",
     .is_mutable = true},
    {.name = "overlap-check.refcount-block",
     .type = option_type::boolean,
     .help = "check the refcount blocks",
     .is_mutable = true},
    {.name = "overlap-check.snapshot-table",
     .type = option_type::boolean,
     .help = "check the snapshot table",
     .is_mutable = true},
    {.name = "overlap-check.inactive-l1",
     .type = option_type::boolean,
     .help = "check the L1 tables of snapshots",
     .is_mutable = true},
    {.name = "overlap-check.inactive-l2",
     .type = option_type::boolean,
     .help = "check the L2 tables of snapshots",
     .is_mutable = true},
    {.name = "overlap-check.bitmap-directory",
     .type = option_type::boolean,
     .help = "check the bitmap directory",
     .is_mutable = true},
    {.name = "cache-size",
     .type = option_type::size,
     .help = "memory for both metadata caches together",
     .is_mutable = true,
     .minimum = 1,
     .maximum = cache_bytes_max},
    {.name = "l2-cache-size",
     .type = option_type::size,
     .help = "memory for L2 tables; absent: enough for the disk, at most 32M",
     .is_mutable = true,
     .minimum = 1,
     .maximum = cache_bytes_max},
    {.name = "l2-cache-entry-size",
     .type = option_type::size,
     .help = "how much of an L2 table is read at once, a power of two from 512 to the cluster "
             "size; absent: the cluster size, or 4K if the cache does not cover the disk",
     .is_mutable = true},
    {.name = "refcount-cache-size",
     .type = option_type::size,
     .help = "memory for refcount blocks; absent: 4 clusters",
     .is_mutable = true,
     .minimum = 1,
     .maximum = cache_bytes_max},
    {.name = "cache-clean-interval",
     .type = option_type::duration,
     .help = "drop cached metadata that was not used for so long; 0: never",
     .default_text = "600",
     .is_mutable = true},
    {.name = "encrypt.format",
     .type = option_type::choice,
     .help = "how the image is encrypted, which its header says, too",
     .choices = encryption_formats},
    {.name = "encrypt.key-secret",
     .type = option_type::text,
     .help = "the id of the secret that decrypts it: a passphrase of LUKS, the key of aes",
     .is_strong = true},
};

struct overlap_flag {
  std::string_view option;
  metadata_kinds kind;
};
constexpr overlap_flag overlap_flags[] = {
    {"overlap-check.main-header", metadata_kind::main_header},
    {"overlap-check.active-l1", metadata_kind::active_l1},
    {"overlap-check.active-l2", metadata_kind::active_l2},
    {"overlap-check.refcount-table", metadata_kind::refcount_table},
    {"overlap-check.refcount-block", metadata_kind::refcount_block},
    {"overlap-check.snapshot-table", metadata_kind::snapshot_table},
    {"overlap-check.inactive-l1", metadata_kind::inactive_l1},
    {"overlap-check.inactive-l2", metadata_kind::inactive_l2},
    {"overlap-check.bitmap-directory", metadata_kind::bitmap_directory},
};

result<metadata_kinds> read_overlaps(const options& given) {
  const std::string& whole = given.text("overlap-check");
  const std::string& base = given.text("overlap-check.template");
  if (!whole.empty() && !base.empty() && whole != base)
    return fail(error_kind::invalid_argument,
                "{}'overlap-check' is '{}' and 'overlap-check.template' is '{}'; give one of them",
                given.mark("overlap-check").prefix(), whole, base);
  const std::string& chosen = whole.empty() ? base : whole;
  metadata_kinds kinds = metadata_kind::cached;
  if (chosen == "none")
    kinds = metadata_kind::none;
  if (chosen == "constant")
    kinds = metadata_kind::constant;
  if (chosen == "all")
    kinds = metadata_kind::all;
  for (const overlap_flag& f : overlap_flags) {
    if (!given.is_set(f.option))
      continue;
    kinds = given.flag(f.option) ? static_cast<metadata_kinds>(kinds | f.kind)
                                 : static_cast<metadata_kinds>(kinds & ~f.kind);
  }
  return kinds;
}

struct cache_bytes {
  u64 l2 = 0;
  u64 refcounts = 0;
};

result<cache_bytes> split_caches(const options& given, u64 l2_needed, u64 refcounts_least) {
  const auto both = given.maybe_number("cache-size");
  const auto l2 = given.maybe_number("l2-cache-size");
  const auto refcounts = given.maybe_number("refcount-cache-size");
  if (!both)
    return cache_bytes{l2.value_or(std::min(l2_cache_bytes_default, l2_needed)),
                       refcounts.value_or(refcounts_least)};
  const std::string where = given.mark("cache-size").prefix();
  if (l2 && refcounts)
    return fail(error_kind::invalid_argument,
                "{}'cache-size', 'l2-cache-size' and 'refcount-cache-size' are given; give at most "
                "two of them",
                where);
  if (l2.value_or(0) > *both)
    return fail(error_kind::invalid_argument,
                "{}'l2-cache-size' {} is larger than 'cache-size' {}, which contains it", where,
                *l2, *both);
  if (refcounts.value_or(0) > *both)
    return fail(error_kind::invalid_argument,
                "{}'refcount-cache-size' {} is larger than 'cache-size' {}, which contains it",
                where, *refcounts, *both);
  if (l2)
    return cache_bytes{*l2, *both - *l2};
  if (refcounts)
    return cache_bytes{*both - *refcounts, *refcounts};
  // The L2 cache matters more: it gets what it can use first.
  if (*both >= l2_needed + refcounts_least)
    return cache_bytes{l2_needed, *both - l2_needed};
  const u64 least = std::min(*both, refcounts_least);
  return cache_bytes{*both - least, least};
}

result<cache_settings> read_caches(const options& given, const header& h) {
  const geometry& g = h.g;
  const u64 l2_needed =
      align_up(divide_up(h.disk_length, g.cluster()) * g.l2_entry_bytes(), g.cluster());
  BGFS_TRY(const cache_bytes bytes,
           split_caches(given, l2_needed, refcount_pages_min * g.cluster()));
  const bool covers_disk = bytes.l2 >= l2_needed;
  const u64 page =
      given.maybe_number("l2-cache-entry-size")
          .value_or(covers_disk ? g.cluster() : std::min(g.cluster(), l2_page_bytes_partial));
  if (page < 512 || page > g.cluster() || !is_power_of_two(page))
    return fail(error_kind::invalid_argument,
                "{}'l2-cache-entry-size' is {}; it must be a power of two from 512 to the cluster "
                "size {}",
                given.mark("l2-cache-entry-size").prefix(), page, g.cluster());
  cache_settings caches;
  caches.l2 = {page, std::max(bytes.l2 / page, l2_pages_min)};
  caches.refcounts = {g.cluster(), std::max(bytes.refcounts / g.cluster(), refcount_pages_min)};
  caches.clean_interval_ms = given.number("cache-clean-interval");
  return caches;
}

} // namespace

const option_schema open_schema{"driver 'qcow2'", option_list};

result<settings> read_settings(const options& given, const header& h, bool discards_unmap) {
  settings s;
  s.has_lazy_refcounts =
      given.is_set("lazy-refcounts") ? given.flag("lazy-refcounts") : h.has_lazy_refcounts();
  if (s.has_lazy_refcounts && h.version < 3)
    return fail(error_kind::invalid_argument,
                "{}'lazy-refcounts' needs an image of version 3 (compat=1.1); this one is version "
                "{}",
                given.mark("lazy-refcounts").prefix(), h.version);
  s.keeps_reference = given.flag("discard-no-unref");
  if (s.keeps_reference && h.version < 3)
    return fail(error_kind::invalid_argument,
                "{}'discard-no-unref' needs an image of version 3 (compat=1.1); this one is "
                "version {}",
                given.mark("discard-no-unref").prefix(), h.version);
  s.discards.request =
      given.is_set("pass-discard-request") ? given.flag("pass-discard-request") : discards_unmap;
  s.discards.snapshot = given.flag("pass-discard-snapshot");
  s.discards.other = given.flag("pass-discard-other");
  BGFS_TRY(s.overlap_checks, read_overlaps(given));
  BGFS_TRY(s.caches, read_caches(given, h));
  return s;
}

} // namespace bgfs::qcow2
