// SPDX-License-Identifier: MIT
// A disk whose file the kernel writes to by itself: what is known of it is asked of the file.
#include "fuse/tree/raw_disk.h"
#include "graph/io/offload.h"

#include <cerrno>
#include <sys/stat.h>

namespace bgfs {
namespace {

bool is_same(const std::timespec& a, const std::timespec& b) {
  return a.tv_sec == b.tv_sec && a.tv_nsec == b.tv_nsec;
}

} // namespace

task<std::optional<std::timespec>> raw_disk::time_of_file() {
  if (!is_attached())
    co_return std::nullopt;
  const result<host_file> file = top().whole_host_file(false);
  if (!file)
    co_return std::nullopt;
  struct stat found{};
  const int bad = co_await offload([&] { return fstat(file->fd, &found) == 0 ? 0 : errno; });
  if (bad != 0)
    co_return std::nullopt;
  co_return found.st_mtim;
}

// What was written since the last look changed the content.
task<void> raw_disk::look_at_file() {
  const std::optional<std::timespec> now = co_await time_of_file();
  if (!now || is_same(*now, file_time_))
    co_return;
  file_time_ = *now;
  time_.changed();
}

task<std::timespec> raw_disk::modified() {
  if (is_written_by_kernel_)
    co_await look_at_file();
  co_return time().shown();
}

task<void> raw_disk::begin_writes_by_kernel() {
  BGFS_ASSERT(!is_written_by_kernel_);
  const std::optional<std::timespec> now = co_await time_of_file();
  file_time_ = now.value_or(std::timespec{});
  top().begin_writes_by_others();
  is_written_by_kernel_ = true;
}

task<void> raw_disk::end_writes_by_kernel() {
  BGFS_ASSERT(is_written_by_kernel_);
  co_await look_at_file();
  is_written_by_kernel_ = false;
  top().end_writes_by_others();
  change_count_++;
  allocated_.reset();
  has_unflushed_ = true;
}

result<> raw_disk::require_resizable() const {
  BGFS_CHECK(require_attached());
  for (node* n : top().nodes_to_host_file())
    if (const std::string* reason = n->blockers().find(node_operation::internal_snapshot);
        reason != nullptr && n->is_written_by_others())
      return fail(error_kind::busy, "'{}' cannot be given another length now: {}", policy_.name,
                  *reason);
  return {};
}

} // namespace bgfs
