// SPDX-License-Identifier: MIT
// Checking an image that is in use, and giving back what leaked.
#include "drivers/format/qcow2/check/checker.h"
#include "drivers/format/qcow2/image.h"
#include "graph/io/spawn.h"

namespace bgfs::qcow2 {
namespace {

struct no_sink final : check_sink {
  void message(std::string_view) override {}
  void progress(u64, u64) override {}
};

} // namespace

// With the lock held, and what is in memory written.
task<check_result> image::check_locked(check_mode mode, check_sink& sink) {
  header h = header_;
  check_result found =
      co_await check_image({.file = request_.file, .h = &h, .mode = mode, .sink = &sink});
  co_return found;
}

// Holds the lock from the first look to the last, so that no table changes between: requests that
// allocate wait meanwhile. What is in memory is written first, or its file would be behind.
task<check_result> image::check(check_mode mode, check_sink& sink) {
  if (mode == check_mode::repair_all)
    co_await fail(error_kind::unsupported,
                  "only leaks are repaired while an image is in use; close it and run 'bgfs check "
                  "-r all'");
  if (mode == check_mode::repair_leaks)
    co_return co_await repair_leaks(sink);
  const async_mutex::guard lock = co_await store_->lock().lock();
  if (file_.is_writable()) {
    co_await write_back_locked();
    co_await store_->write_refcounts();
  }
  check_result found = co_await check_locked(mode, sink);
  co_return found;
}

// Nobody has a request under way, so that after what closing does, too, every cluster that is in
// use is referred to on the disk. Of a sound image the repair only lowers refcounts in place and
// then sets COPIED flags (check/repair.cpp): if we stop between, the rest still leaks, or an entry
// lacks its flag, which makes its next writer copy. What is cached is read anew.
task<check_result> image::repair_leaks(check_sink& sink) {
  if (!file_.is_writable())
    co_await fail(error_kind::permission, "the image is read-only, and cannot be repaired");
  co_await shielded(close_writable());
  const async_mutex::guard lock = co_await store_->lock().lock();
  const check_result before = co_await check_locked(check_mode::report, sink);
  if (!before.is_sound() || before.leaks == 0)
    co_return before; // of a corrupt image nobody knows what leaked
  const cache_settings& caches = settings_.caches;
  auto fresh = co_await metadata_region::create({caches.l2, caches.refcounts});
  no_sink quiet;
  const result<check_result> repaired =
      co_await as_result(check_locked(check_mode::repair_leaks, quiet));
  store_->use_region(std::move(fresh));
  allocator_->forget_where_free();
  co_await shielded(load_l1());
  co_await repaired;
  check_result after = co_await check_locked(check_mode::report, quiet);
  after.leaks_fixed = before.leaks - std::min(before.leaks, after.leaks);
  co_return after;
}

} // namespace bgfs::qcow2
