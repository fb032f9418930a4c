// SPDX-License-Identifier: MIT
// Checking an image that is in use.
#include "drivers/format/qcow2/check/checker.h"
#include "drivers/format/qcow2/image.h"

namespace bgfs::qcow2 {

// Holds the lock from the first look to the last, so that no table changes between: requests that
// allocate wait meanwhile. What is in memory is written first, or its file would be behind.
task<check_result> image::check(check_mode mode, check_sink& sink) {
  if (mode != check_mode::report)
    co_await fail(error_kind::unsupported,
                  "an image is not repaired while it is in use; close it and run 'bgfs check -r'");
  const async_mutex::guard lock = co_await store_->lock().lock();
  if (file_.is_writable()) {
    co_await write_back_locked();
    co_await store_->write_refcounts();
  }
  header h = header_;
  check_result found =
      co_await check_image({.file = request_.file, .h = &h, .mode = mode, .sink = &sink});
  co_return found;
}

} // namespace bgfs::qcow2
