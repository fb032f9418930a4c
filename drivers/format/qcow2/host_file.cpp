// SPDX-License-Identifier: MIT
#include "drivers/format/qcow2/host_file.h"

#include "graph/io/spawn.h"

#include <cstring>

namespace bgfs::qcow2 {

host_file::host_file(host_file_options options, header& h, metadata_kinds watched)
    : options_(options), header_(h), overlaps_(h.g, watched) {}

task<void> host_file::read_structure(host_offset at, std::span<std::byte> bytes,
                                     std::string_view what) {
  if (at.value > length() || bytes.size() > length() - at.value)
    co_await corrupt(fmt::format("{} at {:#x} of {:#x} bytes reaches beyond the end of the file at "
                                 "{:#x}",
                                 what, at.value, bytes.size(), length()));
  co_await context(options_.file->read(at.value, bytes), "reading {} at {:#x}", std::string(what),
                   at.value);
}

task<void> host_file::read_data(host_offset at, std::span<std::byte> bytes) {
  co_await check_has_data();
  const u64 end = data_length();
  const u64 inside = at.value >= end ? 0 : std::min<u64>(bytes.size(), end - at.value);
  std::memset(bytes.data() + inside, 0, bytes.size() - inside);
  if (inside > 0)
    co_await data().read(at.value, bytes.first(inside));
}

result<> host_file::check_has_data() const {
  if (!header_.has_data_file() || has_data_file())
    return {};
  return fail(error_kind::unsupported, "the image was opened without its data file");
}

task<void> host_file::check_overlap(byte_range host, metadata_kinds own) {
  if (is_stopped_)
    co_await stopped();
  if (const auto hit = overlaps_.find(host, own))
    co_await corrupt(fmt::format("a write of {:#x} bytes at {:#x} would go over {} at {:#x}",
                                 host.length, host.offset, describe_metadata(hit->kinds),
                                 hit->cluster.value));
}

task<void> host_file::write_structure(host_offset at, std::span<const std::byte> bytes,
                                      metadata_kinds own) {
  BGFS_ASSERT(options_.is_writable, "Q1: a read-only image is never written");
  co_await check_overlap({at.value, bytes.size()}, own);
  co_await check_room(at.value + bytes.size());
  co_await context(options_.file->write(at.value, bytes), "writing {} at {:#x}",
                   describe_metadata(own), at.value);
}

bool host_file::may_write_data(byte_range host) const {
  if (is_stopped_)
    return false;
  return header_.has_data_file() ? has_data_file() : !overlaps_.find(host, metadata_kind::none);
}

task<void> host_file::write_data(host_offset at, std::span<const std::byte> bytes) {
  BGFS_ASSERT(options_.is_writable, "Q1: a read-only image is never written");
  const byte_range host{at.value, bytes.size()};
  if (!may_write_data(host))
    co_await refuse_data(host);
  co_await data().write(at.value, bytes);
}

task<void> host_file::copy_data(host_offset at, bytes_of_file source) {
  BGFS_ASSERT(options_.is_writable, "Q1: a read-only image is never written");
  const byte_range host{at.value, source.range.length};
  if (!may_write_data(host))
    co_await refuse_data(host);
  co_await data().copy_from(source, at.value);
}

// Why may_write_data says no.
task<void> host_file::refuse_data(byte_range host) {
  co_await check_has_data();
  if (header_.has_data_file())
    co_await stopped();
  co_await check_overlap(host, metadata_kind::none);
}

task<void> host_file::write_zeroes(byte_range host, write_flags flags) {
  BGFS_ASSERT(options_.is_writable, "Q1: a read-only image is never written");
  if (!may_write_data(host))
    co_await refuse_data(host);
  co_await data().write_zeroes(host, flags);
}

task<void> host_file::write_header(u64 at, std::span<const std::byte> bytes) {
  BGFS_ASSERT(options_.is_writable, "Q1: a read-only image is never written");
  if (is_stopped_)
    co_await stopped();
  co_await context(options_.file->write(at, bytes), "writing the header field at {:#x}", at);
}

task<void> host_file::write_header_durably(u64 at, std::span<const std::byte> bytes) {
  co_await write_header(at, bytes);
  co_await flush();
}

task<void> host_file::write_location(u64 at, std::span<const std::byte> bytes,
                                     std::span<const std::byte> old) {
  result<> written = co_await as_result(write_header_durably(at, bytes));
  if (written)
    co_return;
  const result<> undone = co_await as_result(write_header_durably(at, old));
  if (!undone) {
    is_stopped_ = true;
    stop_reason_ =
        "a write of the header failed, so that it is not known which tables are in force";
  }
  co_await fail(std::move(written).error());
}

std::unexpected<error> host_file::stopped() const {
  return fail(error_kind::io, "the image takes no more writes: {}", stop_reason_);
}

task<void> host_file::extend_data(u64 length, truncate_options options) {
  co_await check_has_data();
  co_await data().truncate(length, options);
}

task<void> host_file::discard(byte_range host) {
  BGFS_ASSERT(options_.is_writable, "Q1: a read-only image is never written");
  if (is_stopped_ || host.offset >= length())
    co_return;
  host.length = std::min(host.length, length() - host.offset);
  // Advisory: the clusters are free whether or not the file system takes them back.
  (void)co_await as_result(options_.file->discard(host));
}

task<void> host_file::discard_data(byte_range host) {
  if (!has_data_file()) {
    co_await discard(host);
    co_return;
  }
  BGFS_ASSERT(options_.is_writable, "Q1: a read-only image is never written");
  if (is_stopped_ || host.offset >= data_length())
    co_return;
  host.length = std::min(host.length, data_length() - host.offset);
  (void)co_await as_result(data().discard(host)); // advisory, as above
}

task<void> host_file::flush() {
  if (is_stopped_)
    co_await stopped();
  if (has_data_file())
    co_await data().flush();
  co_await options_.file->flush();
}

result<> host_file::check_room(u64 end) const {
  if (end <= length() || options_.file->child().may_grow_by_writing())
    return {};
  return fail(error_kind::no_space,
              "the image needs its file to be {:#x} bytes long, but {} ends at {:#x} and cannot "
              "grow",
              end, options_.file->child().describe(), length());
}

task<void> host_file::trim_to(u64 end) {
  if (is_stopped_ || end >= length())
    co_return;
  (void)co_await as_result(options_.file->truncate(end));
}

task<void> host_file::lengthen_to(u64 end) {
  if (!is_stopped_ && end > length() && check_room(end))
    (void)co_await as_result(options_.file->truncate(end));
}

task<void> host_file::set_corrupt_bit() {
  if (!options_.is_writable || !is_open_ || header_.version < 3 || header_.is_corrupt())
    co_return;
  header_.incompatible |= incompatible_bit::corrupt;
  std::array<std::byte, 8> field;
  store(std::span<std::byte>(field), be64(header_.incompatible));
  co_await options_.file->write(header_at::incompatible, field);
  co_await options_.file->flush();
}

task<void> host_file::corrupt(std::string what) {
  const bool is_first = !is_stopped_;
  if (options_.is_writable && is_first) {
    is_stopped_ = true;
    stop_reason_ = what;
  }
  // If even that fails there is nothing more to be done than to say what was found.
  if (is_first)
    (void)co_await as_result(set_corrupt_bit());
  if (options_.self != nullptr)
    co_await fail(options_.self->report_corruption(std::move(what)));
  co_await fail(error_kind::corrupt_image, "{}; the image is corrupt", what);
}

u64 host_file::newest_request() const {
  return options_.self == nullptr ? 0 : options_.self->requests().newest();
}

u64 host_file::oldest_request() const {
  return options_.self == nullptr ? 1 : options_.self->requests().oldest();
}

} // namespace bgfs::qcow2
