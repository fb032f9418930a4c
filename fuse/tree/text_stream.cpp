// SPDX-License-Identifier: MIT
#include "fuse/tree/text_stream.h"

#include <cerrno>

namespace bgfs {

task<void> text_stream::make_part(view_subject subject) {
  const bool has_more = co_await from_->append(std::move(subject), kept_, part_length);
  is_over_ = !has_more;
  if (is_over_)
    file().set_rendered_length(kept_from_ + kept_.size());
}

task<void> text_stream::begin(view_subject subject) {
  const auto guard = co_await making_.lock();
  co_await make_part(std::move(subject));
}

// Another part at a time, so that nobody who changes the graph waits for all of it.
task<std::string> text_stream::read(byte_range range, u32 pid) {
  const auto guard = co_await making_.lock();
  while (!is_over_ && kept_from_ + kept_.size() < range.end()) {
    if (kept_.size() >= kept_max) {
      const std::size_t gone = kept_.size() - kept_max / 2;
      kept_.erase(0, gone);
      kept_from_ += gone;
    }
    const auto looking = co_await file().where().mount.looking.lock_shared();
    view_subject subject = co_await file().subject(pid);
    co_await make_part(std::move(subject));
  }
  if (range.offset < kept_from_)
    co_return fail(
        error{error_kind::not_found,
              fmt::format("the first {} MiB of this text were read already, and are not kept: read "
                          "it from its beginning to its end, or open it again",
                          kept_from_ / MiB),
              ENODATA});
  co_return kept_.substr(std::min<u64>(range.offset - kept_from_, kept_.size()), range.length);
}

} // namespace bgfs
