// SPDX-License-Identifier: MIT
#include "tests/crash/judge.h"

#include "tests/unit/drivers/qcow2/check_bench.h"

#include <fmt/format.h>

namespace bgfs::test {

namespace {

u64 hash_of(const file_contents& files) {
  u64 all = 0;
  for (const std::vector<std::byte>& file : files)
    all = all * 0x9e3779b97f4a7c15u +
          std::hash<std::string_view>()({reinterpret_cast<const char*>(file.data()), file.size()});
  return all;
}

bool is_every(u64 every, u64 count) {
  return every != 0 && count % every == 0;
}

} // namespace

judge::judge(const crash_history& h, const judge_options& options, u64 seed)
    : history_(h), options_(options), peer_(options.peer_place), random_(seed),
      b_(loop_options{.backend = io_backend_kind::threads, .shuffle_seed = seed | 1}) {
  for (const char* const secret : crash_secrets)
    b_.add_secret(secret, passphrase_of(secret));
  disks_.push_back(&b_.place("d", {}));
  if (h.shape.has_data_file)
    disks_.push_back(&b_.place("data", {}));
  if (!h.backing.empty())
    b_.place("base", h.backing).yields = false;
  for (memory_disk* const disk : disks_)
    disk->yields = false;
}

judge::reading judge::read(const file_contents& files) const {
  const std::span<const std::byte> data =
      files.size() > 1 ? std::span<const std::byte>(files[1]) : std::span<const std::byte>();
  reading found{read_disk(files[0], history_.backing, history_.decrypt, data), {}};
  for (snapshot_content& s : read_snapshots(files[0], history_.backing, history_.decrypt))
    found.snapshots[s.id] = {std::move(s.name), std::move(s.disk)};
  return found;
}

void judge::require_promises(u64 cut, const file_contents& files, const reading& found) const {
  const promises& told = history_.acknowledged;
  std::string objection = told.objection(cut, found.disk);
  REQUIRE_MESSAGE(objection.empty(), objection);
  objection = told.objection(cut, found.snapshots);
  REQUIRE_MESSAGE(objection.empty(), objection);
  objection = told.objection(cut, found.disk, read_bitmaps(files[0]));
  REQUIRE_MESSAGE(objection.empty(), objection);
  if (!history_.shape.is_raw_data)
    return;
  disk_content raw = files[1]; // which is the disk without the image
  raw.resize(found.disk.size());
  objection = told.objection(cut, raw);
  REQUIRE_MESSAGE(objection.empty(), "raw data file: " << objection);
}

void judge::examine(u64 cut, const file_contents& files) {
  counts_.states++;
  const check_report report = check_image(files[0]);
  REQUIRE_MESSAGE(report.errors.empty(), report.text());
  const reading found = read(files);
  require_promises(cut, files, found);
  if (!known_.insert(hash_of(files)).second)
    return;
  counts_.distinct++;
  counts_.with_leaks += report.leaks > 0;
  counts_.dirty += report.is_dirty;
  const bool has_wrong_flags = report.missing_copied + report.early_copied > 0;
  counts_.wrong_flags += has_wrong_flags;
  const std::set<std::string> keys = history_.acknowledged.keys_at(cut);
  place(files);
  if (!report.is_dirty)
    check(has_wrong_flags);
  go_on(files, found, keys);
  if (is_every(options_.peer_every, counts_.distinct) ||
      (report.leaks > 0 && is_every(options_.peer_leaks_every, counts_.with_leaks))) {
    counts_.by_peer++;
    const std::string objection =
        peer_.objection({.history = history_,
                         .files = files,
                         .disk = found.disk,
                         .key = *keys.begin(),
                         .needs_repair = report.is_dirty || has_wrong_flags});
    REQUIRE_MESSAGE(objection.empty(), objection);
  }
}

void judge::place(const file_contents& files) {
  for (std::size_t i = 0; i < files.size(); i++)
    disks_[i]->bytes = files[i];
}

void judge::open_with(const std::string& key) {
  option_list how = history_.shape.open;
  if (!history_.shape.encryption.empty())
    how.emplace_back("encrypt.key-secret", key);
  (void)b_.open("d", how, history_.backing.empty() ? "" : "base");
}

// The driver's own check. COPIED flags that do not agree with the refcount are corruptions to it,
// and harmless where the count is too high: a cluster is copied for nothing, or written in place
// that really is the disk's alone.
void judge::check(bool may_have_wrong_flags) {
  recorded_findings findings;
  node& file = b_.bench.open(disk_spec("d"));
  root& way = b_.bench.attach(file, may_read);
  const check_result found =
      b_.bench.must(check_file(way.as_edge(), check_mode::report, findings, qcow2::check_limits{}));
  b_.bench.detach(way);
  b_.bench.must(b_.bench.graph().close(file));
  const bool has_only_wrong_flags =
      may_have_wrong_flags && std::ranges::all_of(findings.lines, [](const std::string& line) {
        return line.contains("OFLAG_COPIED") || line.contains("Leaked");
      });
  REQUIRE_MESSAGE((found.is_sound() || has_only_wrong_flags), findings.text());
}

// Whoever opens the image after the crash sees this disk and these snapshots, and what is written
// next destroys none of it.
void judge::go_on(const file_contents& files, const reading& found,
                  const std::set<std::string>& keys) {
  REQUIRE(!keys.empty());
  for (auto key = std::next(keys.begin()); key != keys.end(); ++key) {
    const std::string error = b_.open_error("d", [&] {
      option_list how = history_.shape.open;
      how.emplace_back("encrypt.key-secret", *key);
      return how;
    }());
    REQUIRE_MESSAGE(error.empty(), error);
  }
  place(files);
  open_with(*keys.begin());
  root& way = b_.way();
  REQUIRE(way.length() == found.disk.size());
  REQUIRE(is_same(read_all(b_.bench, way), found.disk));
  reading after = found;
  for (int i = 0; i < 2; i++) {
    const u64 offset = align_down(random_() % after.disk.size(), 512);
    const u64 most = std::min<u64>(after.disk.size() - offset, history_.shape.cluster + 512);
    const auto bytes = pattern(align_up(1 + random_() % most, 512), random_());
    b_.bench.must(way.write(offset, bytes));
    std::ranges::copy(bytes, after.disk.begin() + static_cast<i64>(offset));
  }
  b_.close();
  file_contents now;
  for (const memory_disk* const disk : disks_)
    now.push_back(disk->bytes);
  const check_report report = check_image(now[0]);
  REQUIRE_MESSAGE((report.errors.empty() && !report.is_dirty), report.text());
  const reading seen = read(now);
  REQUIRE(is_same(seen.disk, after.disk));
  REQUIRE(seen.snapshots == after.snapshots);
}

} // namespace bgfs::test
