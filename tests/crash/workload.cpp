// SPDX-License-Identifier: MIT
#include "tests/crash/workload.h"

#include "drivers/format/qcow2/refcount_block.h"
#include "tests/unit/drivers/qcow2/check_bench.h"
#include "tests/unit/drivers/qcow2/encrypted_image.h"
#include "tests/unit/lib/background.h"

namespace bgfs::test {

// A new operation is a line here and a function: it tells `promised_` what it is going to do, does
// it, and tells what is durable then.
struct workload::operation {
  const char* name;
  unsigned weight;
  bool (workload::*applies)() const;
  void (workload::*run)();
};

const workload::operation workload::operations[] = {
    {"write", 30, &workload::always, &workload::write},
    {"write several", 8, &workload::always, &workload::write_several},
    {"copy", 6, &workload::always, &workload::copy},
    {"zero", 10, &workload::always, &workload::zero},
    {"discard", 10, &workload::can_discard, &workload::discard},
    {"flush", 10, &workload::always, &workload::flush},
    {"reopen", 3, &workload::always, &workload::reopen},
    {"grow", 4, &workload::can_resize, &workload::grow},
    {"shrink", 4, &workload::can_resize, &workload::shrink},
    {"create snapshot", 7, &workload::can_take_snapshot, &workload::create_snapshot},
    {"delete snapshot", 5, &workload::has_snapshots, &workload::delete_snapshot},
    {"revert", 3, &workload::can_revert, &workload::revert},
    {"rename snapshot", 2, &workload::has_snapshots, &workload::rename_snapshot},
    {"write compressed", 12, &workload::can_compress, &workload::write_compressed},
    {"add bitmap", 3, &workload::can_add_bitmap, &workload::add_bitmap},
    {"clear bitmap", 3, &workload::has_bitmaps, &workload::clear_bitmap},
    {"remove bitmap", 1, &workload::has_bitmaps, &workload::remove_bitmap},
    {"amend lazy refcounts", 2, &workload::has_version_3, &workload::amend_laziness},
    {"amend refcount width", 2, &workload::has_wide_counts, &workload::amend_width},
    {"make empty", 1, &workload::counts_data, &workload::make_empty},
    {"add key", 3, &workload::is_luks, &workload::add_key},
    {"erase key", 3, &workload::has_two_keys, &workload::erase_key},
    {"repair leaks", 2, &workload::always, &workload::repair_leaks},
    {"repair dirty", 2, &workload::has_version_3, &workload::repair_dirty},
};

std::string passphrase_of(const std::string& secret) {
  return secret == "sec0" ? std::string(test_passphrase) : "passphrase of " + secret;
}

workload::workload(const crash_shape& shape, u64 seed)
    : shape_(shape), random_(seed),
      b_(loop_options{.backend = io_backend_kind::threads, .shuffle_seed = seed | 1}) {
  for (const char* const secret : crash_secrets)
    b_.add_secret(secret, passphrase_of(secret));
  disk_ = &b_.create("d", shape_.length, create_options(shape_.encryption, shape_.create));
  if (shape_.encryption == "aes")
    make_legacy(*disk_);
  if (shape_.has_data_file)
    data_ = memory_disks()["data"];
  backing_ = pattern(shape_.backing, seed);
  if (shape_.backing != 0)
    b_.place("base", backing_);
  std::vector<std::byte> content = backing_;
  content.resize(shape_.length);
  promised_.begin(std::move(content), {}, {"sec0"});
}

void workload::open() {
  option_list how = shape_.open;
  if (is_luks())
    how.emplace_back("encrypt.key-secret", *promised_.keys().begin());
  else
    how = open_options(shape_.encryption, how);
  root_ = &b_.open("d", how, backing_.empty() ? "" : "base");
  actions_.emplace(b_.bench, b_.top());
}

void workload::close() {
  flush();
  actions_.reset();
  b_.close();
}

// Something is there before the log begins, often a snapshot too.
void workload::prepare() {
  for (u64 n = random_() % 8; n > 0; n--)
    write();
  if (can_take_snapshot() && random_() % 2 == 0)
    create_snapshot();
  flush();
  promised_.begin(promised_.disk(), promised_.snapshots(), promised_.keys());
  steps_.clear();
}

crash_history workload::run(unsigned steps) {
  crash_history h;
  h.decrypt = decryption_of(b_.bench, shape_.encryption, *disk_);
  open();
  prepare();
  std::vector<memory_disk*> files = {disk_};
  if (data_ != nullptr)
    files.push_back(data_);
  for (memory_disk* const file : files) {
    h.files.push_back({file->bytes, {}});
    file->keeps_log = true;
    file->clock = &clock_;
  }
  for (unsigned i = 0; i < steps; i++)
    step();
  close();
  for (std::size_t i = 0; i < files.size(); i++) {
    files[i]->keeps_log = false;
    h.files[i].log = std::move(files[i]->log);
  }
  h.shape = shape_;
  h.backing = backing_;
  h.acknowledged = std::move(promised_);
  h.instants = clock_;
  h.steps = std::move(steps_);
  return h;
}

void workload::step() {
  unsigned total = 0;
  for (const operation& o : operations)
    total += (this->*o.applies)() ? o.weight : 0;
  u64 drawn = random_() % total;
  for (const operation& o : operations) {
    if (!(this->*o.applies)())
      continue;
    if (drawn < o.weight) {
      steps_.push_back(std::to_string(now()) + ": " + o.name);
      (this->*o.run)();
      return;
    }
    drawn -= o.weight;
  }
}

byte_range workload::draw_range(u64 length_max) {
  const u64 unit = random_() % 3 == 0 ? shape_.cluster : shape_.unit();
  const u64 offset = align_down(random_() % length(), unit);
  const u64 count = align_up(1 + random_() % length_max, unit);
  return {offset, std::min(count, length() - offset)};
}

byte_range workload::draw_clusters() {
  const u64 offset = align_down(random_() % length(), shape_.cluster);
  return {offset, std::min((1 + random_() % 3) * shape_.cluster, length() - offset)};
}

void workload::write() {
  const byte_range r = draw_range(3 * shape_.cluster);
  const auto bytes = pattern(r.length, random_());
  promised_.writes(now(), r.offset, bytes);
  b_.bench.must(root_->write(r.offset, bytes));
}

// Of another disk, whose bytes do not come by; what cannot be copied is not.
void workload::copy() {
  constexpr u64 source_length = 1 << 20;
  if (source_ == nullptr) {
    b_.place("source", pattern(source_length, 1));
    source_ = &b_.bench.attach(b_.bench.open(disk_spec("source")), may_read);
  }
  const byte_range to = draw_range(std::min<u64>(3 * shape_.cluster, source_length / 2));
  const byte_range from{align_down(random_() % (source_length / 2), 512), to.length};
  const auto begin = memory_disks()["source"]->bytes.begin() + static_cast<i64>(from.offset);
  const std::vector<std::byte> bytes(begin, begin + static_cast<i64>(from.length));
  promised_.writes(now(), to.offset, bytes);
  const result<> copied = b_.bench.run(source_->copy_to(from, *root_, to.offset));
  if (!copied)
    b_.bench.must(root_->write(to.offset, bytes));
}

// At once, each in its own part of the disk; in a cluster where they meet, both must be there.
void workload::write_several() {
  const u64 parts = std::min<u64>(4, length() / 512);
  const u64 each = align_down(length() / parts, 512);
  std::vector<std::vector<std::byte>> bytes;
  bytes.reserve(parts);
  background writers(b_.bench);
  for (u64 i = 0; i < parts; i++) {
    const u64 offset = i * each + random_() % (each / 512) * 512;
    const u64 most = std::min((i + 1) * each - offset, 2 * shape_.cluster);
    bytes.push_back(pattern(align_up(1 + random_() % most, 512), random_()));
    promised_.writes(now(), offset, bytes.back());
    writers.spawn(root_->write(offset, bytes.back()));
  }
  const result<> written = writers.finish();
  REQUIRE_MESSAGE(written.has_value(), (written ? std::string() : written.error().message()));
}

void workload::zero() {
  const byte_range r = draw_range(2 * shape_.cluster);
  promised_.clears(now(), r);
  b_.bench.must(root_->write_zeroes(r, random_() % 2 == 0 ? write_flag::may_unmap : 0));
}

void workload::discard() {
  const byte_range r = draw_clusters();
  promised_.clears(now(), r);
  b_.bench.must(root_->discard(r));
}

void workload::flush() {
  b_.bench.must(root_->flush());
  promised_.flushed(now());
}

void workload::reopen() {
  close();
  open();
}

void workload::resize(u64 to, truncate_options how) {
  promised_.resizes(now(), to);
  b_.bench.must(root_->truncate(to, how));
}

void workload::grow() {
  constexpr preallocation modes[] = {preallocation::off, preallocation::off,
                                     preallocation::metadata, preallocation::falloc,
                                     preallocation::full};
  const bool may_preallocate =
      (shape_.backing == 0 || shape_.is_extended) && (shape_.encryption.empty() || !shape_.is_v2);
  const u64 to = length() + (1 + random_() % (8 * shape_.cluster / 512)) * 512;
  if (to > 2 * shape_.length)
    return;
  resize(to,
         {.prealloc = may_preallocate ? modes[random_() % std::size(modes)] : preallocation::off});
}

void workload::shrink() {
  const u64 less = (1 + random_() % (8 * shape_.cluster / 512)) * 512;
  if (less + shape_.length / 2 < length())
    resize(length() - less, {});
}

std::string workload::draw_snapshot() {
  const snapshot_list& all = promised_.snapshots();
  return std::next(all.begin(), static_cast<i64>(random_() % all.size()))->first;
}

void workload::create_snapshot() {
  promised_.begins_change(now());
  const std::string name = "s" + std::to_string(random_() % 100);
  const std::string id = actions_->create(name);
  promised_.keeps(id, {name, promised_.disk()});
  promised_.ends_with_flush(now());
}

void workload::delete_snapshot() {
  promised_.begins_change(now());
  const std::string id = draw_snapshot();
  actions_->remove(with_id(id));
  promised_.forgets(id);
  promised_.ends_with_flush(now());
}

void workload::revert() {
  promised_.begins_change(now());
  const std::string id = draw_snapshot();
  actions_->revert(with_id(id));
  promised_.reverts(id);
  promised_.ends_with_flush(now());
}

void workload::rename_snapshot() {
  promised_.begins_change(now());
  const std::string id = draw_snapshot();
  const std::string name = "a rather longer name " + std::to_string(random_() % 100);
  actions_->rename(with_id(id), name);
  promised_.renames(id, name);
  promised_.ends_with_flush(now());
}

void workload::amend(const option_list& list) {
  const option_schema* schemas[] = {qcow2_driver_type.amend_options};
  const result<options> given = validate_options(schemas, to_value(list));
  REQUIRE(given.has_value());
  b_.bench.must(b_.bench.graph().amend(b_.top(), {.given = *given, .secrets = b_.secrets()}));
}

void workload::write_compressed() {
  const byte_range r = draw_clusters();
  const auto bytes = compressible_pattern(r.length, shape_.cluster, random_());
  promised_.writes(now(), r.offset, bytes);
  b_.bench.must(root_->write(r.offset, bytes, write_flag::compressed));
}

std::string workload::draw_bitmap() {
  const std::set<std::string> all = promised_.bitmaps();
  return *std::next(all.begin(), static_cast<i64>(random_() % all.size()));
}

void workload::add_bitmap() {
  const std::string name = "b" + std::to_string(random_() % 3);
  if (promised_.bitmaps().contains(name))
    return;
  const u64 granularity = u64{512} << random_() % 4;
  promised_.adds_bitmap(now(), name, granularity);
  bitmap_actions{b_.bench, b_.top()}.add_persistent(name, granularity);
}

void workload::clear_bitmap() {
  const std::string name = draw_bitmap();
  promised_.clears_bitmap(now(), name);
  bitmap_actions{b_.bench, b_.top()}.clear(name);
}

void workload::remove_bitmap() {
  const std::string name = draw_bitmap();
  promised_.removes_bitmap(now(), name);
  bitmap_actions{b_.bench, b_.top()}.remove(name);
}

// What does not concern the guest changes nothing that was promised.
void workload::amend_laziness() {
  amend({{"lazy_refcounts", random_() % 2 == 0 ? "on" : "off"}});
}

void workload::amend_width() {
  constexpr unsigned widths[] = {16, 32, 64};
  const unsigned width = widths[random_() % std::size(widths)];
  amend({{"refcount_bits", std::to_string(width)}});
  shape_.refcount_bits = width;
}

// The disk is what lies below, as a whole.
void workload::make_empty() {
  std::vector<std::byte> below = backing_;
  below.resize(length());
  promised_.begins_change(now());
  b_.bench.must(b_.bench.graph().make_empty(b_.top()));
  promised_.becomes(std::move(below));
  promised_.ends_with_flush(now());
}

void workload::add_key() {
  std::set<std::string> keys = promised_.keys();
  for (const char* const secret : crash_secrets) {
    if (keys.contains(secret))
      continue;
    promised_.begins_change(now());
    amend(
        {{"encrypt.state", "active"}, {"encrypt.new-secret", secret}, {"encrypt.iter-time", "1"}});
    keys.insert(secret);
    promised_.has_keys(keys);
    promised_.ends_change(now());
    return;
  }
}

void workload::erase_key() {
  std::set<std::string> keys = promised_.keys();
  const std::string gone = *std::next(keys.begin(), static_cast<i64>(random_() % keys.size()));
  promised_.begins_change(now());
  amend({{"encrypt.state", "inactive"}, {"encrypt.old-secret", gone}});
  keys.erase(gone);
  promised_.has_keys(keys);
  promised_.ends_change(now());
}

void workload::put(u64 at, std::span<const std::byte> bytes) {
  std::ranges::copy(bytes, disk_->bytes.begin() + static_cast<i64>(at));
  if (!disk_->keeps_log)
    return;
  using kind = memory_event::kind;
  disk_->log.push_back({kind::write, {at, bytes.size()}, {bytes.begin(), bytes.end()}, clock_++});
  disk_->log.push_back({kind::flush, {}, {}, clock_++});
}

void workload::spoil_refcounts(const std::function<u64(u64)>& value_of) {
  const qcow2::header h = *qcow2::parse_header(disk_->bytes);
  const u64 block = load<be64>(disk_->bytes, h.refcount_table.value);
  for (u64 n = 1 + random_() % 4; n > 0; n--) {
    const u64 per_block = h.g.cluster() * 8 / shape_.refcount_bits;
    const u64 index = random_() % std::min<u64>(per_block, 2 * disk_->bytes.size() / h.g.cluster());
    std::vector<std::byte> bytes(disk_->bytes.begin() + static_cast<i64>(block),
                                 disk_->bytes.begin() + static_cast<i64>(block + h.g.cluster()));
    const u64 value = qcow2::load_refcount(bytes, h.g.refcount_order, index);
    qcow2::store_refcount(bytes, h.g.refcount_order, index, value_of(value));
    const u64 sector_at = align_down(index * shape_.refcount_bits / 8, 512);
    put(block + sector_at, std::span(bytes).subspan(sector_at, 512));
  }
}

void workload::repair(check_mode mode) {
  recorded_findings findings;
  node& file = b_.bench.open(disk_spec("d"));
  root& way = b_.bench.attach(file, may_resize);
  const check_result found =
      b_.bench.must(check_file(way.as_edge(), mode, findings, qcow2::check_limits{}));
  REQUIRE_MESSAGE(found.is_sound(), findings.text());
  b_.bench.detach(way);
  b_.bench.must(b_.bench.graph().close(file));
}

// Clusters nobody refers to are counted: space is lost, and comes back.
void workload::repair_leaks() {
  close();
  spoil_refcounts([](u64 value) { return value == 0 ? 1 : value; });
  repair(random_() % 2 == 0 ? check_mode::repair_leaks : check_mode::repair_all);
  open();
}

// The refcounts make no claim any more, and are then anything; opening repairs them, or a check.
void workload::repair_dirty() {
  close();
  constexpr u64 features_at = 79; // the lowest byte of the incompatible ones
  const std::byte dirty = disk_->bytes[features_at] | std::byte{1};
  put(features_at, {&dirty, 1});
  const u64 mask = shape_.refcount_bits == 64 ? ~u64{0} : (u64{1} << shape_.refcount_bits) - 1;
  spoil_refcounts([&](u64) { return random_() % 3 & mask; });
  if (random_() % 2 == 0)
    repair(check_mode::repair_all);
  open();
}

} // namespace bgfs::test
