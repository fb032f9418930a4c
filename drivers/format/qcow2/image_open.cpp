// SPDX-License-Identifier: MIT
// Opening and closing an image.
#include "drivers/format/qcow2/check/checked_image.h"
#include "drivers/format/qcow2/image.h"
#include "drivers/format/qcow2/snapshot_table.h"
#include "graph/io/spawn.h"

namespace bgfs::qcow2 {

namespace {

std::string file_name(const image_request& request) {
  const std::string path = request.self == nullptr ? "" : request.self->host_path();
  return path.empty() ? "IMAGE" : path;
}

} // namespace

task<header> read_header(edge& file, header_use use) {
  const u64 file_length = file.length();
  std::vector<std::byte> head(std::min<u64>(file_length, sizeof(header_v2_wire)));
  co_await context(file.read(0, head), "reading the header");
  const u64 cluster = co_await header_cluster_bytes(head);
  std::vector<std::byte> first(std::min(file_length, cluster));
  co_await context(file.read(0, first), "reading the header");
  header h = co_await parse_header(first, use);
  co_return h;
}

// Whether an image that is going to be written is fit for it.
result<> check_writable(const header& h, const image_request& request) {
  if (h.is_corrupt())
    return fail(error_kind::corrupt_image,
                "the image is marked corrupt and must not be written to; repair it with 'bgfs "
                "check -r all {}', or open it with 'read-only: true'",
                file_name(request));
  return {};
}

image::image(image_request request, header h, const settings& s)
    : home_(&request.home), request_(request), header_(std::move(h)),
      file_({.file = request.file,
             .data_file = request.data_file,
             .self = request.self,
             .is_writable = !request.is_read_only},
            header_, s.overlap_checks),
      settings_(s), is_lazy_(s.has_lazy_refcounts && !request.is_read_only) {
  cleaning_.owner = this;
  cleaning_.interval = std::chrono::milliseconds(s.caches.clean_interval_ms);
  cleaning_.run = [](run_item& item) {
    image& self = *static_cast<cleaning_timer&>(item).owner;
    self.store_->drop_unused();
    self.inflated_.clear();
    self.arm_cleaning();
  };
}

image::~image() {
  home_->disarm(cleaning_);
}

void image::detach_loop() {
  home_->disarm(cleaning_);
  inflated_.clear(); // its buffers are the loop's
}

void image::attach_loop(loop& home) {
  home_ = &home;
  arm_cleaning();
}

void image::arm_cleaning() {
  if (cleaning_.interval.count() == 0)
    return;
  cleaning_.due = std::chrono::steady_clock::now() + cleaning_.interval;
  home_->arm(cleaning_);
}

task<std::unique_ptr<image>> image::open(image_request request) {
  header h = co_await read_header(*request.file);
  if (!request.is_read_only)
    co_await check_writable(h, request);
  co_await check_data_file(h, request);
  // Lazy refcounts that nobody wrote: with counts that are too low, clusters in use would be given
  // to somebody else. If we stop within the repair, the image is still dirty.
  if (!request.is_read_only && h.is_dirty())
    co_await context(repair_dirty(*request.file, h),
                     "the image was not closed properly, and its refcounts could not be repaired");
  const bool discards =
      request.self != nullptr && request.self->generic().discard == discard_mode::unmap;
  settings s;
  s.has_lazy_refcounts = h.has_lazy_refcounts();
  if (request.given != nullptr) {
    s = co_await read_settings(*request.given, h, discards);
  } else {
    s.caches.l2 = {h.g.cluster(), 16};
    s.caches.refcounts = {h.g.cluster(), 16};
  }
  std::unique_ptr<image> opened(new image(request, std::move(h), s));
  co_await opened->load_tables(s);
  co_await opened->open_encryption();
  if (!request.is_read_only)
    co_await opened->make_writable();
  co_await opened->detect_preallocation();
  opened->file_.opened();
  opened->arm_cleaning();
  if (request.self != nullptr)
    trace<point::qcow2_open>(request.home.log(), request.self->name(), opened->header_.version,
                             opened->header_.g.cluster(), !request.is_read_only);
  co_return opened;
}

task<void> image::load_tables(const settings& s) {
  auto region = co_await metadata_region::create({s.caches.l2, s.caches.refcounts});
  store_ = std::make_unique<metadata_store>(file_, std::move(region));
  store_->set_lazy(is_lazy_);
  allocator_ = std::make_unique<cluster_allocator>(file_, *store_, header_, s.discards);
  co_await load_l1();
  co_await allocator_->load_table();
  co_await load_snapshots();
  co_await find_metadata(file_.overlaps());
  co_await load_bitmaps();
}

// Everything that no write of something else may go over; what `known` does not watch is not read.
task<void> image::find_metadata(overlap_map& known) {
  known.add(metadata_kind::main_header, {0, 1});
  if (!l1_.empty())
    known.add(metadata_kind::active_l1, {header_.l1.value, l1_.size() * 8});
  for (const u64 entry : l1_) {
    const u64 table = entry & entry_offset_mask;
    // A misplaced one is reported when it is used: the rest of the disk can still be read.
    if (table != 0 && is_aligned(table, g().cluster()))
      known.add(metadata_kind::active_l2, {table, g().cluster()});
  }
  allocator_->add_metadata(known);
  const std::optional<bitmap_directory> bitmaps = co_await header_.bitmaps();
  if (bitmaps)
    known.add(metadata_kind::bitmap_directory, bitmaps->range);
  if (header_.encryption == encryption_method::luks) {
    const byte_range place = co_await header_.crypto_header();
    known.add(metadata_kind::crypto_header, place);
  }
  co_await find_snapshots(known);
}

task<void> image::load_l1() {
  std::vector<std::byte> bytes(u64{header_.l1_entries} * 8);
  if (bytes.empty())
    co_return;
  co_await file_.read_structure(header_.l1, bytes, "the L1 table");
  l1_.resize(header_.l1_entries);
  for (u64 i = 0; i < l1_.size(); i++)
    l1_[i] = load<be64>(bytes, i * 8);
}

task<void> image::load_snapshots() {
  if (header_.snapshot_count == 0)
    co_return;
  // The table's length is not known before it is parsed: read more until it is all there.
  std::optional<snapshot_table> table;
  for (u64 length = 64 * KiB; !table; length *= 32) {
    const u64 at = header_.snapshots.value;
    const u64 left = file_.length() > at ? file_.length() - at : 0;
    std::vector<std::byte> bytes(std::min({length, left, snapshot_table_bytes_max}));
    co_await file_.read_structure(header_.snapshots, bytes, "the snapshot table");
    table = co_await parse_snapshots(g(), bytes, header_.snapshot_count);
    if (!table && bytes.size() < length)
      co_await fail(error_kind::corrupt_image,
                    "the table of {} snapshots at {:#x} does not end within {:#x} bytes; the image "
                    "is corrupt",
                    header_.snapshot_count, at, bytes.size());
  }
  snapshots_ = std::move(table->snapshots);
  snapshot_table_bytes_ = table->bytes;
  // One that does not record its length has the disk's, also when that changes from now on.
  for (snapshot& s : snapshots_)
    if (!s.disk_length)
      s.disk_length = header_.disk_length;
}

task<void> image::find_snapshots(overlap_map& known) {
  if (snapshots_.empty())
    co_return;
  known.add(metadata_kind::snapshot_table, {header_.snapshots.value, snapshot_table_bytes_});
  for (const snapshot& s : snapshots_) {
    known.add(metadata_kind::inactive_l1, {s.l1.value, u64{s.l1_entries} * 8});
    if ((known.watched() & metadata_kind::inactive_l2) != 0)
      co_await find_inactive_l2(known, s.l1, s.l1_entries, s.name);
  }
}

task<void> image::find_inactive_l2(overlap_map& known, host_offset l1, u32 entries,
                                   std::string name) {
  std::vector<std::byte> bytes(u64{entries} * 8);
  if (bytes.empty())
    co_return;
  co_await context(file_.read_structure(l1, bytes, "its L1 table"), "reading snapshot '{}'", name);
  for (u64 i = 0; i < entries; i++) {
    const u64 table = load<be64>(bytes, i * 8) & entry_offset_mask;
    if (table != 0 && is_aligned(table, g().cluster()))
      known.add(metadata_kind::inactive_l2, {table, g().cluster()});
  }
}

// Spec, "autoclear_features": bits that are not maintained here are cleared before anything else is
// written.
task<void> image::make_writable() {
  const u64 kept = header_.autoclear & autoclear_bit::known;
  if (header_.version < 3 || kept == header_.autoclear)
    co_return;
  const u64 before = std::exchange(header_.autoclear, kept);
  result<> written = co_await as_result(write_features());
  if (written)
    co_return;
  header_.autoclear = before; // the next write tries again
  co_await fail(std::move(written).error());
}

// Autoclear and incompatible bits, durable when this returns (R10).
task<void> image::write_features() {
  std::array<std::byte, 8> field;
  store(std::span<std::byte>(field), be64(header_.autoclear));
  co_await file_.write_header(header_at::autoclear, field);
  store(std::span<std::byte>(field), be64(header_.incompatible));
  co_await file_.write_header(header_at::incompatible, field);
  co_await file_.flush();
}

// Metadata preallocation: far more clusters are in use than the file has space for, so data may lie
// in holes, and status asks the file. Only worth a look at the refcounts if the file is sparse.
task<void> image::detect_preallocation() {
  if (header_.has_data_file()) {
    // A raw one is preallocated always: where it has holes is its own business.
    may_be_preallocated_ = header_.has_raw_data_file();
    co_return;
  }
  const result<u64> known = co_await as_result(file_.file().child().allocated_length());
  if (!known)
    co_return;
  const u64 clusters = divide_up(file_.length(), g().cluster());
  const u64 real = divide_up(*known, g().cluster());
  const u64 enough = std::max(real * 10 / 9, real + 2);
  if (clusters < enough)
    co_return;
  const async_mutex::guard lock = co_await store_->lock().lock();
  const result<u64> used = co_await as_result(allocator_->count_used(clusters, enough));
  may_be_preallocated_ = used.has_value() && *used >= enough;
}

task<void> image::prepare_to_write() {
  const async_mutex::guard lock = co_await store_->lock().lock();
  if (is_prepared_)
    co_return;
  co_await make_writable(); // of an image that became writable; nothing to do otherwise
  co_await mark_bitmaps();
  is_prepared_ = true;
}

// With lazy refcounts the dirty bit is durable before the first refcount is out of date (R1, R10).
task<void> image::begin_metadata_change() {
  if (!is_lazy_ || header_.is_dirty())
    co_return;
  header_.incompatible |= incompatible_bit::dirty;
  result<> written = co_await as_result(write_features());
  if (written)
    co_return;
  header_.incompatible &= ~incompatible_bit::dirty;
  co_await fail(std::move(written).error());
}

task<void> image::close() {
  BGFS_ASSERT(views_.empty(), "Q10: who reads a snapshot keeps the image open");
  home_->disarm(cleaning_);
  cleaning_.interval = {};
  inflated_.clear();
  if (!request_.is_read_only)
    co_await shielded(close_writable());
}

task<void> image::close_writable() {
  BGFS_ASSERT(allocations_.is_empty(), "Q7: requests end before their image is closed");
  if (file_.is_stopped())
    co_return; // corrupt: what is cached may be part of what is wrong
  const async_mutex::guard lock = co_await store_->lock().lock();
  // No request is running: all frees are ready, and what they free cannot be in use.
  co_await write_back_locked();
  co_await store_->write_refcounts();
  if (has_compressed_) // of which the last may end within a sector
    co_await file_.lengthen_to(align_up(file_.length(), 512));
  co_await file_.flush();
  if (!header_.is_dirty())
    co_return;
  // R10: everything is durable; the refcounts are right.
  header_.incompatible &= ~incompatible_bit::dirty;
  co_await write_features();
}

void image::refine_limits(block_limits& limits) const {
  limits.request_alignment = header_.is_encrypted() ? crypt::sector_length : 1;
  limits.write_zeroes_alignment =
      static_cast<u32>(header_.version < 3 ? g().cluster() : g().subcluster());
  limits.discard_alignment = static_cast<u32>(g().cluster());
}

std::optional<image_reference> image::backing_reference() const {
  if (header_.backing_file.empty())
    return std::nullopt;
  return image_reference{header_.backing_file, header_.backing_format()};
}

driver_info image::info() const {
  value data = value::map();
  data.set("compat", header_.version < 3 ? "0.10" : "1.1");
  data.set("compression-type", to_string(header_.compression));
  if (header_.version >= 3)
    data.set("lazy-refcounts", header_.has_lazy_refcounts());
  if (!bitmaps_.empty())
    data.set("bitmaps", describe_bitmaps());
  data.set("refcount-bits", g().refcount_bits());
  if (header_.is_encrypted())
    data.set("encrypt", describe_encryption());
  if (header_.version >= 3) {
    if (header_.has_data_file()) {
      if (const std::string name = header_.data_file(); !name.empty())
        data.set("data-file", name);
      data.set("data-file-raw", header_.has_raw_data_file());
    }
    data.set("corrupt", header_.is_corrupt());
    data.set("extended-l2", g().is_extended);
  }
  driver_info i;
  i.cluster_size = g().cluster();
  i.subcluster_size = g().subcluster();
  i.vmstate_offset = vmstate_offset(live().length);
  i.is_dirty = header_.is_dirty();
  i.is_corrupt = header_.is_corrupt();
  i.is_encrypted = header_.is_encrypted();
  i.format_specific = value::map();
  i.format_specific.set("type", "qcow2");
  i.format_specific.set("data", std::move(data));
  return i;
}

} // namespace bgfs::qcow2
