// SPDX-License-Identifier: MIT
#include "tests/unit/drivers/qcow2/image_checker.h"

#include <fmt/format.h>

#include <algorithm>
#include <cstring>
#include <map>

#include <zlib.h>
#include <zstd.h>

namespace bgfs::test {

namespace {

// Numbers straight from the bytes, past the end zero: none of the driver's code is used.
struct reader {
  std::span<const std::byte> bytes;
  [[nodiscard]] u64 number(u64 at, unsigned length) const {
    u64 n = 0;
    for (unsigned i = 0; i < length; i++)
      n = n << 8 | (at + i < bytes.size() ? std::to_integer<u64>(bytes[at + i]) : 0);
    return n;
  }
  [[nodiscard]] u64 be64(u64 at) const { return number(at, 8); }
  [[nodiscard]] u64 be32(u64 at) const { return number(at, 4); }
  [[nodiscard]] u64 be16(u64 at) const { return number(at, 2); }
};

constexpr u64 offset_bits = 0x00fffffffffffe00;
constexpr u64 copied = u64{1} << 63;
constexpr u64 compressed = u64{1} << 62;

struct layout {
  reader r;
  u64 version, cluster_bits, cluster, length, l1, l1_entries, table, table_clusters;
  u64 incompatible = 0;
  u64 refcount_bits = 16;
  bool is_extended = false;
  bool has_data_file = false;
  bool is_zstd = false;
  u64 entry_bytes = 8, entries = 0;

  explicit layout(std::span<const std::byte> image) : r{image} {
    version = r.be32(4);
    cluster_bits = r.be32(20);
    cluster = u64{1} << cluster_bits;
    length = r.be64(24);
    l1_entries = r.be32(36);
    l1 = r.be64(40);
    table = r.be64(48);
    table_clusters = r.be32(56);
    if (version >= 3) {
      incompatible = r.be64(72);
      refcount_bits = u64{1} << r.be32(96);
      is_extended = (incompatible & 0x10) != 0;
      has_data_file = (incompatible & 4) != 0;
      is_zstd = (incompatible & 8) != 0 && r.number(104, 1) == 1;
    }
    entry_bytes = is_extended ? 16 : 8;
    entries = cluster / entry_bytes;
  }
};

// Of bitmaps, where the header says that there are some.
struct directory {
  u64 at = 0, length = 0, count = 0;

  explicit directory(const layout& l) {
    if (l.version < 3 || (l.r.be64(88) & 1) == 0)
      return;
    for (u64 e = l.r.be32(100); l.r.be32(e) != 0 && e < l.cluster;
         e += 8 + (l.r.be32(e + 4) + 7) / 8 * 8) {
      if (l.r.be32(e) != 0x23852875)
        continue;
      count = l.r.be32(e + 8);
      length = l.r.be64(e + 16);
      at = l.r.be64(e + 24);
    }
  }
  struct entry {
    u64 table, table_entries, flags, granularity;
    std::string name;
  };
  [[nodiscard]] std::vector<entry> entries(const layout& l) const {
    std::vector<entry> all;
    u64 e = at;
    for (u64 i = 0; i < count; i++) {
      const u64 name_length = l.r.be16(e + 18), extra = l.r.be32(e + 20);
      all.push_back(
          {l.r.be64(e), l.r.be32(e + 8), l.r.be32(e + 12), u64{1} << l.r.number(e + 17, 1), {}});
      for (u64 c = 0; c < name_length; c++)
        all.back().name += static_cast<char>(l.r.number(e + 24 + extra + c, 1));
      e += (24 + extra + name_length + 7) / 8 * 8;
    }
    return all;
  }
};

class checker {
public:
  explicit checker(std::span<const std::byte> image) : l_(image) {}

  check_report run() {
    if (l_.r.be32(0) != 0x514649fb) {
      report_.errors.push_back("no magic");
      return report_;
    }
    report_.is_dirty = (l_.incompatible & 1) != 0;
    use(0, 1, "header");
    use(l_.table, l_.table_clusters * l_.cluster, "refcount table");
    for (u64 i = 0; i < l_.table_clusters * l_.cluster / 8; i++) {
      const u64 block = l_.r.be64(l_.table + i * 8);
      if (block != 0)
        use(block, l_.cluster, "refcount block");
    }
    use_crypto_header();
    walk(l_.l1, l_.l1_entries);
    walk_snapshots();
    walk_bitmaps();
    if (!report_.is_dirty) {
      compare();
      check_copied();
    }
    return report_;
  }

private:
  void error(std::string text) {
    if (report_.errors.size() < 20)
      report_.errors.push_back(std::move(text));
  }
  void use(u64 at, u64 length, const char* what) {
    if (length == 0)
      return;
    for (u64 c = at / l_.cluster; c <= (at + length - 1) / l_.cluster; c++) {
      references_[c]++;
      auto& name = names_[c];
      // Data shared with a snapshot is data both times; anything else must be alone.
      if (!name.empty() && (name != what))
        error(fmt::format("cluster {:#x} is a {} and a {}", c, name, what));
      name = what;
    }
  }
  void use_crypto_header() {
    u64 at = l_.version < 3 ? 72 : l_.r.be32(100);
    while (l_.r.be32(at) != 0 && at < l_.cluster) {
      if (l_.r.be32(at) == 0x0537be77)
        use(l_.r.be64(at + 8), l_.r.be64(at + 16), "encryption header");
      at += 8 + (l_.r.be32(at + 4) + 7) / 8 * 8;
    }
  }
  void walk_bitmaps() {
    const directory d(l_);
    use(d.at, d.length, "bitmap directory");
    for (const directory::entry& e : d.entries(l_)) {
      use(e.table, e.table_entries * 8, "bitmap table");
      for (u64 i = 0; i < e.table_entries; i++) {
        const u64 place = l_.r.be64(e.table + i * 8);
        if (place % l_.cluster > 1)
          error(fmt::format("bitmap '{}': table entry {:#x}", e.name, place));
        if (place > 1)
          use(place, l_.cluster, "bitmap");
      }
    }
  }
  void walk(u64 l1, u64 l1_entries) {
    use(l1, l1_entries * 8, "L1 table");
    for (u64 i = 0; i < l1_entries; i++) {
      const u64 table = l_.r.be64(l1 + i * 8) & offset_bits;
      if (table == 0)
        continue;
      if (table % l_.cluster != 0 || table >= l_.r.bytes.size()) {
        error(fmt::format("L2 table at {:#x}", table));
        continue;
      }
      use(table, l_.cluster, "L2 table");
      walk_l2(table);
    }
  }
  void walk_l2(u64 table) {
    if (l_.has_data_file)
      return;
    for (u64 j = 0; j < l_.entries; j++) {
      const u64 entry = l_.r.be64(table + j * l_.entry_bytes);
      const u64 bitmap = l_.is_extended ? l_.r.be64(table + j * l_.entry_bytes + 8) : 0;
      if ((entry & compressed) != 0) {
        const u64 x = 62 - (l_.cluster_bits - 8);
        const u64 at = entry & ((u64{1} << x) - 1);
        const u64 sectors = (entry & (compressed - 1)) >> x;
        use(at & ~u64{511}, (sectors + 1) * 512, "compressed data");
        continue;
      }
      if ((bitmap & bitmap >> 32) != 0)
        error(fmt::format("subclusters of entry {:#x} are both", table + j * l_.entry_bytes));
      const u64 at = entry & offset_bits;
      if (at == 0) {
        if ((bitmap & 0xffffffff) != 0)
          error("allocated subclusters without a cluster");
        continue;
      }
      if (at % l_.cluster != 0)
        error(fmt::format("cluster at {:#x}", at));
      use(at, l_.cluster, "data");
    }
  }
  void walk_snapshots() {
    u64 at = l_.r.be64(64);
    const u64 begin = at;
    const u64 count = l_.r.be32(60);
    for (u64 i = 0; i < count; i++) {
      walk(l_.r.be64(at), l_.r.be32(at + 8));
      at += (40 + l_.r.be32(at + 36) + l_.r.be16(at + 12) + l_.r.be16(at + 14) + 7) / 8 * 8;
    }
    use(begin, at - begin, "snapshot table");
  }
  [[nodiscard]] u64 refcount(u64 c) const {
    const u64 per_block = l_.cluster * 8 / l_.refcount_bits;
    if (c / per_block >= l_.table_clusters * l_.cluster / 8)
      return 0;
    const u64 block = l_.r.be64(l_.table + c / per_block * 8);
    if (block == 0)
      return 0;
    const u64 bit = c % per_block * l_.refcount_bits;
    if (l_.refcount_bits >= 8)
      return l_.r.number(block + bit / 8, static_cast<unsigned>(l_.refcount_bits / 8));
    return l_.r.number(block + bit / 8, 1) >> bit % 8 & ((1u << l_.refcount_bits) - 1);
  }
  void compare() {
    const u64 per_block = l_.cluster * 8 / l_.refcount_bits;
    for (const auto& [c, count] : references_)
      if (refcount(c) < count)
        error(fmt::format("cluster {:#x} ({}): refcount {} but {} references", c, names_.at(c),
                          refcount(c), count));
    for (u64 i = 0; i < l_.table_clusters * l_.cluster / 8; i++) {
      if (l_.r.be64(l_.table + i * 8) == 0)
        continue;
      for (u64 c = i * per_block; c < (i + 1) * per_block; c++) {
        const auto found = references_.find(c);
        report_.leaks += refcount(c) > (found == references_.end() ? 0 : found->second);
      }
    }
  }
  // The flag may only be missing: claiming it wrongly makes writes go to shared clusters.
  void check_copied() {
    for (u64 i = 0; i < l_.l1_entries; i++) {
      const u64 l1 = l_.r.be64(l_.l1 + i * 8);
      const u64 table = l1 & offset_bits;
      if (table == 0)
        continue;
      if ((l1 & copied) != 0 && refs(table) != 1)
        error(fmt::format("L1 entry {} says copied", i));
      report_.missing_copied += (l1 & copied) == 0 && refcount(table / l_.cluster) == 1;
      report_.early_copied += (l1 & copied) != 0 && refcount(table / l_.cluster) > 1;
      for (u64 j = 0; j < l_.entries && !l_.has_data_file; j++) {
        const u64 entry = l_.r.be64(table + j * l_.entry_bytes);
        if ((entry & copied) != 0 && ((entry & compressed) != 0 || refs(entry & offset_bits) != 1))
          error(fmt::format("L2 entry {} of table {} says copied", j, i));
        report_.missing_copied += (entry & (copied | compressed)) == 0 &&
                                  (entry & offset_bits) != 0 &&
                                  refcount((entry & offset_bits) / l_.cluster) == 1;
        report_.early_copied += (entry & (copied | compressed)) == copied &&
                                (entry & offset_bits) != 0 &&
                                refcount((entry & offset_bits) / l_.cluster) > 1;
      }
    }
  }
  [[nodiscard]] u64 refs(u64 at) const {
    const auto found = references_.find(at / l_.cluster);
    return found == references_.end() ? 0 : found->second;
  }

  layout l_;
  check_report report_;
  std::map<u64, u64> references_;
  std::map<u64, std::string> names_;
};

} // namespace

std::string check_report::text() const {
  std::string all = fmt::format("{} leaks, {} flags missing", leaks, missing_copied);
  for (const std::string& e : errors)
    all += "; " + e;
  return all;
}

check_report check_image(std::span<const std::byte> image) {
  return checker(image).run();
}

namespace {

// What a compressed cluster holds, as a strict reader sees it: no more than a window of 4 KiB, and
// a whole cluster. Empty: it makes none.
std::vector<std::byte> inflated(const layout& l, std::span<const std::byte> image, u64 entry) {
  const u64 shift = 62 - (l.cluster_bits - 8);
  const u64 from = entry & ((u64{1} << shift) - 1);
  const u64 sectors = ((entry & ~compressed) >> shift) + 1;
  if (from >= image.size())
    return {};
  const auto stream =
      image.subspan(from, std::min<u64>(sectors * 512 - from % 512, image.size() - from));
  std::vector<std::byte> out(l.cluster);
  if (l.is_zstd) {
    ZSTD_DCtx* d = ZSTD_createDCtx();
    ZSTD_inBuffer in{stream.data(), stream.size(), 0};
    ZSTD_outBuffer made{out.data(), out.size(), 0};
    std::size_t left = 1;
    while (left != 0 && !ZSTD_isError(left) && made.pos < made.size && in.pos < in.size)
      left = ZSTD_decompressStream(d, &made, &in);
    ZSTD_freeDCtx(d);
    return made.pos == made.size ? out : std::vector<std::byte>();
  }
  z_stream z{};
  if (inflateInit2(&z, -12) != Z_OK)
    return {};
  z.next_in = const_cast<Bytef*>(reinterpret_cast<const Bytef*>(stream.data()));
  z.avail_in = static_cast<uInt>(stream.size());
  z.next_out = reinterpret_cast<Bytef*>(out.data());
  z.avail_out = static_cast<uInt>(out.size());
  const int status = inflate(&z, Z_FINISH);
  inflateEnd(&z);
  return status == Z_STREAM_END && z.avail_out == 0 ? out : std::vector<std::byte>();
}

std::vector<std::byte> read_layout(const layout& l, std::span<const std::byte> image,
                                   std::span<const std::byte> backing,
                                   const decryption& decrypt = {},
                                   std::span<const std::byte> data = {}) {
  std::vector<std::byte> disk(l.length);
  const u64 parts = l.is_extended ? 32 : 1;
  const u64 step = l.cluster / parts;
  for (u64 at = 0; at < disk.size(); at += step) {
    const u64 length = std::min<u64>(step, disk.size() - at);
    const u64 index = at / l.cluster;
    const u64 table = l.r.be64(l.l1 + index / l.entries * 8) & offset_bits;
    const u64 place = table + index % l.entries * l.entry_bytes;
    const u64 entry = table == 0 ? 0 : l.r.be64(place);
    if ((entry & compressed) != 0) {
      const std::vector<std::byte> whole = inflated(l, image, entry);
      if (whole.empty()) // then nothing is like what was written
        std::memset(disk.data() + at, 0xee, length);
      else
        std::memcpy(disk.data() + at, whole.data() + at % l.cluster, length);
      continue;
    }
    const u64 bitmap = table == 0 || !l.is_extended ? 0 : l.r.be64(place + 8);
    const u64 part = at % l.cluster / step;
    const bool zero = l.is_extended ? (bitmap >> 32 >> part & 1) != 0 : (entry & 1) != 0;
    const u64 in_use = l.has_data_file ? offset_bits | copied : offset_bits;
    const bool has_data =
        !zero && (l.is_extended ? (bitmap >> part & 1) != 0 : (entry & in_use) != 0);
    const auto& holder = l.has_data_file ? data : image;
    const auto& from = has_data ? holder : backing;
    const u64 source = has_data ? (entry & offset_bits) + at % l.cluster : at;
    if (zero || (source >= from.size() && !(has_data && decrypt)))
      continue;
    const u64 inside = source >= from.size() ? 0 : std::min<u64>(length, from.size() - source);
    if (inside > 0)
      std::memcpy(disk.data() + at, from.data() + source, inside);
    if (has_data && decrypt)
      decrypt(at, source, std::span(disk).subspan(at, length));
  }
  return disk;
}

} // namespace

std::vector<std::byte> read_disk(std::span<const std::byte> image,
                                 std::span<const std::byte> backing, const decryption& decrypt,
                                 std::span<const std::byte> data) {
  return read_layout(layout(image), image, backing, decrypt, data);
}

std::vector<snapshot_content> read_snapshots(std::span<const std::byte> image,
                                             std::span<const std::byte> backing,
                                             const decryption& decrypt) {
  std::vector<snapshot_content> all;
  const layout live(image);
  u64 at = live.r.be64(64);
  for (u64 i = 0; i < live.r.be32(60); i++) {
    const u64 extra = live.r.be32(at + 36);
    const auto text = [&](u64 from, u64 length) {
      std::string t;
      for (u64 k = 0; k < length; k++)
        t.push_back(static_cast<char>(live.r.number(from + k, 1)));
      return t;
    };
    layout l = live;
    l.l1 = live.r.be64(at);
    l.l1_entries = live.r.be32(at + 8);
    if (extra >= 16)
      l.length = live.r.be64(at + 48);
    const u64 id_at = at + 40 + extra;
    const u64 name_at = id_at + live.r.be16(at + 12);
    const u64 end = name_at + live.r.be16(at + 14);
    all.push_back({text(id_at, name_at - id_at), text(name_at, end - name_at),
                   read_layout(l, image, backing, decrypt)});
    at = (end + 7) / 8 * 8;
  }
  return all;
}

std::map<std::string, image_bitmap> read_bitmaps(std::span<const std::byte> image) {
  const layout l(image);
  std::map<std::string, image_bitmap> all;
  for (const directory::entry& e : directory(l).entries(l)) {
    image_bitmap b{e.flags, e.granularity, {}};
    b.bits.resize((l.length + e.granularity - 1) / e.granularity);
    const u64 per_cluster = l.cluster * 8;
    for (u64 i = 0; i < b.bits.size(); i++) {
      const u64 place =
          i / per_cluster < e.table_entries ? l.r.be64(e.table + i / per_cluster * 8) : 0;
      const u64 bit = i % per_cluster;
      b.bits[i] = place == 1 || (place > 1 && (l.r.number(place + bit / 8, 1) >> bit % 8 & 1) != 0);
    }
    all[e.name] = std::move(b);
  }
  return all;
}

} // namespace bgfs::test
