// SPDX-License-Identifier: MIT
#include "fuse/tree/passthrough.h"

#include "fuse/transport/backing.h"
#include "fuse/tree/mount_state.h"
#include "graph/io/offload.h"
#include "graph/io/spawn.h"

#include <algorithm>
#include <cerrno>
#include <fcntl.h>

namespace bgfs {
namespace {

// A description of its own: no lock of ours is on it, and closing it gives none up.
result<descriptor> open_again(const host_file& file, bool for_writing) {
  const std::string name = fmt::format("/proc/self/fd/{}", file.fd);
  descriptor fd(open_quietly(name.c_str(), (for_writing ? O_RDWR : O_RDONLY) | O_NOCTTY));
  if (!fd.is_open())
    return fail_errno(errno, "cannot open '{}' again, to pass it through", file.path);
  return fd;
}

struct backing {
  descriptor fd;
  i32 number = 0;
};

result<backing> make_backing(const host_file& file, bool for_writing, int session_fd) {
  backing made;
  BGFS_TRY(made.fd, open_again(file, for_writing));
  BGFS_TRY(made.number, open_backing(session_fd, made.fd.get(), file.path));
  return made;
}

task<host_file> find_file(node& top, bool for_writing) {
  co_return co_await top.whole_host_file(for_writing);
}

} // namespace

task<void> require_passthrough(const mount_state& mount, const export_spec& root, node& top) {
  const auto insist = [&root](error why) {
    return fail(why.kind(), "{}export '{}' cannot be passed through: {}",
                root.passthrough_mark.prefix(), root.name, why.message());
  };
  result<host_file> file = top.whole_host_file(root.is_writable);
  if (!file)
    co_await insist(std::move(file).error());
  if (!mount.may_pass_through)
    co_return; // the kernel is asked when it is there
  if (!*mount.may_pass_through)
    co_await insist(mount.may_pass_through->error());
  const int session_fd = mount.session_fd;
  result<backing> tried = co_await offload([&] {
    result<backing> made = make_backing(*file, root.is_writable, session_fd);
    if (made)
      close_backing(session_fd, made->number);
    return made;
  });
  if (!tried)
    co_await insist(std::move(tried).error());
}

struct passthrough::users {
  unsigned passed = 0;
  unsigned writing = 0; // of those
  unsigned plain = 0;
  std::string reason;
};

passthrough::users passthrough::count() const {
  users now;
  const opener* first = nullptr;
  for (const opener& o : root_.openers) {
    // What nobody can change may be read in both ways.
    if (!o.is_admitted || (o.partition != 0 && !root_.is_writable()))
      continue;
    (o.is_passed_through ? now.passed : now.plain)++;
    now.writing += o.is_passed_through && o.is_writing ? 1 : 0;
    if (o.is_passed_through && first == nullptr)
      first = &o;
  }
  if (first != nullptr)
    now.reason = fmt::format(
        "the kernel serves '{}' by itself, which cannot be undone while process {} ({}){} it open; "
        "close it there first",
        root_.name(), first->pid, first->command,
        now.passed > 1 ? fmt::format(" and {} more have", now.passed - 1) : " has");
  return now;
}

std::string passthrough::reason() const {
  return count().reason;
}

std::string passthrough::forbidden_change(const export_spec& next) const {
  const export_spec& now = root_.spec();
  const auto differs = [&](auto member) { return now.*member != next.*member; };
  const bool is_fixed = differs(&export_spec::is_writable) || differs(&export_spec::is_growable) ||
                        differs(&export_spec::cache) || differs(&export_spec::passthrough) ||
                        differs(&export_spec::node_name);
  if (!is_in_use() || !is_fixed)
    return {};
  return fmt::format("root '{}' cannot be changed now: {}", root_.name(), reason());
}

task<std::optional<i32>> passthrough::admit(opener& who) {
  // One at a time: the kernel fails opens of a file whose answers contradict each other.
  const auto guard = co_await changing_.lock();
  who.is_passed_through = co_await may_pass();
  who.is_admitted = true;
  if (!who.is_passed_through)
    co_return std::nullopt;
  co_await shielded(settle());
  co_return number_;
}

task<void> passthrough::admit_partition(opener& who) {
  const auto guard = co_await changing_.lock();
  if (number_ != 0 && root_.is_writable())
    co_await fail(error_kind::busy, "a partition of '{}' cannot be opened now: {}", root_.name(),
                  reason());
  who.is_admitted = true;
}

task<bool> passthrough::may_pass() {
  const export_spec& spec = root_.spec();
  const bool is_wanted = spec.passthrough == passthrough_mode::on ||
                         (spec.passthrough == passthrough_mode::automatic && !spec.is_writable);
  // The kernel's page cache and another file's bytes would contradict each other.
  if (!is_wanted || spec.cache == cache_mode::kernel)
    co_return false;
  const bool is_insisting = spec.passthrough == passthrough_mode::on;
  if (!is_insisting && mount_.may_pass_through && !*mount_.may_pass_through)
    co_return false;
  if (count().plain > 0)
    co_return false;
  if (number_ != 0)
    co_return true;
  result<> opened = co_await as_result(open_file());
  if (!opened && is_insisting)
    co_await fail(std::move(opened).error());
  co_return opened.has_value();
}

task<void> passthrough::dismiss() {
  const auto guard = co_await changing_.lock();
  if (number_ == 0)
    co_return;
  co_await settle();
  if (count().passed == 0)
    co_await close_file();
}

task<void> passthrough::abandon() {
  const auto guard = co_await changing_.lock();
  if (number_ == 0)
    co_return;
  for (opener& o : root_.openers)
    o.is_passed_through = false;
  co_await settle();
  co_await close_file();
}

task<void> passthrough::open_file() {
  if (mount_.may_pass_through && !*mount_.may_pass_through)
    co_await fail(mount_.may_pass_through->error());
  const bool for_writing = root_.is_writable();
  const int session_fd = mount_.session_fd;
  const host_file file =
      co_await root_.place().run([&] { return find_file(root_.disk()->top(), for_writing); });
  result<backing> made =
      co_await offload([&] { return make_backing(file, for_writing, session_fd); });
  if (!made)
    co_await fail(std::move(made).error());
  file_ = std::move(made->fd);
  number_ = made->number;
}

task<void> passthrough::close_file() {
  co_await offload([this] {
    close_backing(mount_.session_fd, number_);
    file_.reset();
    return true;
  });
  number_ = 0;
}

// Makes the nodes, and the disk, what the openers demand.
task<void> passthrough::settle() {
  users now = count();
  const bool was_writing = is_writing_;
  co_await root_.place().run([&] { return settle_nodes(now); });
  if (is_writing_ && !was_writing)
    root_.forget_shared_attributes();
}

void passthrough::release_nodes() {
  for (auto& [blocked, token] : blocked_)
    blocked->blockers().remove(token);
  blocked_.clear();
}

task<void> passthrough::settle_nodes(users now) {
  raw_disk& disk = *root_.disk();
  disk.attached().hold(now.reason);
  release_nodes();
  if (now.passed > 0)
    for (node* n : disk.top().nodes_to_host_file())
      blocked_.emplace_back(
          n, n->blockers().add(now.writing > 0 ? needs_to_see_writes : moves_data, now.reason));
  const bool was_writing = std::exchange(is_writing_, now.writing > 0);
  if (is_writing_ && !was_writing)
    co_await disk.begin_writes_by_kernel();
  if (was_writing && !is_writing_)
    co_await disk.end_writes_by_kernel();
}

} // namespace bgfs
