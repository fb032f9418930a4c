// SPDX-License-Identifier: MIT
#include "drivers/filter/copy_before_write/copy_before_write.h"

#include "drivers/filter/copy_before_write/kept_clusters.h"
#include "graph/io/buffer_pool.h"
#include "graph/io/spawn.h"
#include "graph/model/graph.h"

#include <algorithm>
#include <cerrno>

namespace bgfs {

namespace {

using cbw::kept_clusters;

constexpr u64 cluster_min = 64 * KiB;
constexpr u64 cluster_max = 64 * MiB;
constexpr u64 piece_length_max = MiB; // or a cluster: what is copied at once

constexpr std::string_view error_choices[] = {"break-guest-write", "break-snapshot"};
constexpr option option_list[] = {
    {.name = "on-cbw-error",
     .type = option_type::choice,
     .help = "when old bytes cannot be kept: the write fails, or the instant is given up for good",
     .default_text = "break-guest-write",
     .choices = error_choices},
    {.name = "min-cluster-size",
     .type = option_type::size,
     .help = "old bytes are kept in pieces of at least so many bytes, a power of two; the target's "
             "cluster size and 64K if they are larger",
     .default_text = "0",
     .maximum = cluster_max},
    {.name = "kept-max",
     .type = option_type::size,
     .help = "old bytes that are kept at most; more is an error as when the target is full",
     .maximum = device_length_max},
};
constexpr option_schema copy_before_write_options{"driver 'copy-before-write'", option_list};

constexpr child_slot slots[] = {{"file", role::filtered | role::primary}, {"target", role::data}};

struct cbw_settings {
  u64 cluster = 0;
  u64 kept_max = 0;
  bool gives_up_instant = false;
};

class copy_before_write_driver final : public driver,
                                       public writable,
                                       public zeroable,
                                       public discardable,
                                       public compressible,
                                       public resizable,
                                       public flushable,
                                       public frozen_disk {
public:
  copy_before_write_driver(edge& below, edge& target, cbw_settings s)
      : below_(below), target_(target), settings_(s), clusters_(below.length(), s.cluster) {}

  [[nodiscard]] u64 length() const override { return below_.length(); }
  task<void> close() override { co_return; }

  // Nobody else may write to what old bytes are read from, nor to where they are kept. Until the
  // filter has taken its place, those who will be above it still write past it.
  [[nodiscard]] permissions child_permissions(const edge& child,
                                              permissions parents) const override {
    constexpr permission_set reads = permission::consistent_read;
    constexpr permission_set unshared = permission::write | permission::resize;
    if (&child == &target_)
      return {reads | permission::write, permission::all & ~unshared};
    if (!is_in_use(*child.parent()))
      return driver::child_permissions(child, parents);
    return {static_cast<permission_set>(parents.used | reads),
            static_cast<permission_set>(parents.shared & ~unshared)};
  }

  // --- the live disk -------------------------------------------------------------------------

  task<void> write(u64 offset, std::span<const std::byte> bytes, write_flags flags) override {
    if ((flags & write_flag::unchanged) == 0)
      co_await keep({offset, bytes.size()});
    co_await below_.write(offset, bytes, flags);
  }
  [[nodiscard]] write_flags supported_write_flags() const override {
    return write_flag::durable | write_flag::unchanged;
  }
  task<void> write_zeroes(byte_range range, write_flags flags) override {
    if ((flags & write_flag::unchanged) == 0)
      co_await keep(range);
    co_await below_.write_zeroes(range, flags);
  }
  [[nodiscard]] write_flags supported_zero_flags() const override {
    return write_flag::durable | write_flag::unchanged | write_flag::may_unmap |
           write_flag::no_fallback;
  }
  task<void> discard(byte_range range) override {
    co_await keep(range);
    co_await below_.discard(range);
  }
  task<void> write_compressed(u64 offset, std::span<const std::byte> bytes) override {
    co_await keep({offset, bytes.size()});
    co_await below_.write(offset, bytes, write_flag::compressed);
  }
  // What is cut off is kept; what is added was not there at that instant.
  task<void> truncate(u64 length, truncate_options options) override {
    if (length < clusters_.length())
      co_await keep(byte_range::between(length, clusters_.length()));
    co_await below_.truncate(length, options);
  }
  task<void> write_back() override { co_return; }
  task<void> flush_to_disk() override { co_return; }
  // The instant does not outlive this process, so nothing of it need be durable.
  [[nodiscard]] bool needs_flush(const edge& child) const override { return &child != &target_; }

  // --- the instant ---------------------------------------------------------------------------

  [[nodiscard]] u64 frozen_length() const override { return clusters_.length(); }
  [[nodiscard]] result<> check_frozen() const override {
    if (broken_)
      return std::unexpected(*broken_);
    return {};
  }
  task<extent> map_frozen(byte_range range) override {
    co_await check_frozen();
    const kept_clusters::run next = clusters_.find(range);
    co_await check_wanted(next);
    block_status s;
    if (next.is == kept_clusters::where::kept) {
      s = co_await target_.child().status_above(next.range);
    } else {
      const kept_clusters::reading inside(clusters_, next.range);
      s = co_await below_.child().status_above(next.range);
      co_await check_frozen();
    }
    BGFS_ASSERT(s.length > 0, "M5: a mapping makes progress");
    co_return extent{.length = std::min(s.length, next.range.length),
                     .kind = s.is_zero ? extent_kind::zero : extent_kind::encoded};
  }
  task<void> read_frozen(u64 offset, std::span<std::byte> bytes) override {
    while (!bytes.empty()) {
      co_await check_frozen();
      const kept_clusters::run next = clusters_.find({offset, bytes.size()});
      co_await check_wanted(next);
      const auto part = bytes.first(next.range.length);
      if (next.is == kept_clusters::where::kept) {
        co_await target_.read(offset, part);
      } else {
        const kept_clusters::reading inside(clusters_, next.range);
        co_await below_.read(offset, part);
        co_await check_frozen(); // once it is given up nobody waits for us
      }
      bytes = bytes.subspan(part.size());
      offset += part.size();
    }
  }
  task<void> discard_frozen(byte_range range) override {
    const byte_range clusters = clusters_.clusters_of(range);
    const range_lock::guard alone = co_await clusters_.lock(clusters);
    clusters_.forget(range);
    if (range.is_aligned_to(settings_.cluster) || range.end() == clusters_.length())
      co_await target_.discard(range);
  }

  [[nodiscard]] value statistics_specific() const override {
    value v;
    v.set("driver", "copy-before-write");
    v.set("kept-bytes", kept_data_);
    v.set("cluster-size", settings_.cluster);
    if (broken_)
      v.set("given-up", broken_->message());
    return v;
  }

private:
  // By more than who looks at the instant, or at that of a filter over it.
  [[nodiscard]] static bool is_in_use(const node& self) {
    return std::ranges::any_of(self.parents(), [](const edge* e) {
      return e->parent() == nullptr || (e->roles() != role::primary && is_in_use(*e->parent()));
    });
  }
  [[nodiscard]] static result<> check_wanted(const kept_clusters::run& run) {
    if (run.is != kept_clusters::where::nowhere)
      return {};
    return fail(error{error_kind::permission,
                      fmt::format("bytes {:#x} to {:#x} of the instant were discarded",
                                  run.range.offset, run.range.end()),
                      EACCES});
  }

  // When it returns these bytes of the live disk may be overwritten.
  task<void> keep(byte_range range) {
    range = range.intersection({0, clusters_.length()});
    if (range.is_empty() || broken_)
      co_return;
    result<> kept = co_await as_result(keep_clusters(range));
    if (!kept) {
      kept.error().add_context(fmt::format("keeping what the instant holds at {:#x} to {:#x}",
                                           range.offset, range.end()));
      if (!settings_.gives_up_instant)
        co_await fail(std::move(kept).error());
      if (!broken_)
        broken_ = std::move(kept).error();
      co_return;
    }
    co_await clusters_.readers_left(range);
  }

  task<void> keep_clusters(byte_range range) {
    for (;;) {
      const std::optional<byte_range> next = clusters_.next_to_keep(range, piece_length_max);
      if (!next || broken_)
        co_return;
      const range_lock::guard alone = co_await clusters_.lock(*next);
      // Who was before us may have kept it, or a part.
      const std::optional<byte_range> left = clusters_.next_to_keep(*next, piece_length_max);
      if (!left || broken_)
        continue;
      co_await copy(*left);
      clusters_.keep(*left);
    }
  }

  [[nodiscard]] result<> check_room(u64 more) const {
    if (settings_.kept_max == 0 || kept_data_ + more <= settings_.kept_max)
      return {};
    return fail(error{error_kind::no_space,
                      fmt::format("{} bytes of old data are kept, and 'kept-max' allows {}",
                                  kept_data_, settings_.kept_max),
                      ENOSPC});
  }

  // Both disks read zeroes where nothing was written yet, so zeroes need no space.
  task<void> copy(byte_range range) {
    while (!range.is_empty()) {
      const block_status s = co_await below_.child().status_above(range);
      BGFS_ASSERT(s.length > 0, "M5: a status makes progress");
      const byte_range part{range.offset, std::min(s.length, range.length)};
      if (s.is_zero) {
        co_await target_.write_zeroes(part, write_flag::may_unmap);
      } else {
        co_await copy_data(part);
      }
      range = byte_range::between(part.end(), range.end());
    }
  }

  // The host copies, or shares, where it can.
  task<void> copy_data(byte_range range) {
    co_await check_room(range.length);
    const result<> shared =
        co_await as_result(below_.child().copy_to(range, target_, range.offset));
    if (shared) {
      kept_data_ += range.length;
      co_return;
    }
    const task_context context = co_await current_context{};
    const buffer bytes = context.home->buffers().allocate(range.length);
    co_await below_.read(range.offset, bytes.bytes());
    co_await target_.write(range.offset, bytes.bytes());
    kept_data_ += range.length;
  }

  edge& below_;
  edge& target_;
  cbw_settings settings_;
  kept_clusters clusters_;
  u64 kept_data_ = 0;           // bytes of it that take space in the target
  std::optional<error> broken_; // the instant was given up
};

result<cbw_settings> read_settings(const options& given, const edge& below, const edge& target) {
  cbw_settings s;
  const u64 wanted = given.number("min-cluster-size");
  if (wanted != 0 && !is_power_of_two(wanted))
    return fail(error_kind::invalid_argument,
                "{}'min-cluster-size' is {}, which is no power of two",
                given.mark("min-cluster-size").prefix(), wanted);
  s.cluster = std::max({wanted, cluster_min, target.child().cluster_size()});
  s.kept_max = given.maybe_number("kept-max").value_or(0);
  s.gives_up_instant = given.text("on-cbw-error") == "break-snapshot";
  if (target.length() < below.length())
    return fail(
        error_kind::invalid_argument,
        "the target {} has {} bytes; to keep any of the {} bytes of {} it has to be as long",
        target.child().describe(), target.length(), below.length(), below.child().describe());
  return s;
}

task<std::unique_ptr<driver>> open_copy_before_write(open_request request) {
  edge& below = *request.children[0];
  edge& target = *request.children[1];
  const cbw_settings s = co_await read_settings(request.given, below, target);
  co_return std::make_unique<copy_before_write_driver>(below, target, s);
}

} // namespace

const driver_type copy_before_write_driver_type{
    .name = "copy-before-write",
    .kind = driver_kind::filter,
    .summary =
        "keeps what its child held when it was opened, by copying it before it is overwritten",
    .children = slots,
    .open_options = &copy_before_write_options,
    .open = open_copy_before_write,
};

} // namespace bgfs
