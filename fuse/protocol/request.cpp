// SPDX-License-Identifier: MIT
#include "fuse/protocol/request.h"

#include "graph/base/endian.h"

#include <algorithm>
#include <cerrno>
#include <cstddef>
#include <cstring>
#include <fcntl.h>
#include <linux/limits.h>

namespace bgfs {
namespace {

// The bytes after the header, without the extensions that newer kernels append.
result<std::span<const std::byte>> arguments_of(const fuse_in_header& header,
                                                std::span<const std::byte> bytes) {
  const std::size_t extensions = std::size_t{header.total_extlen} * 8;
  const auto body = bytes.subspan(sizeof(fuse_in_header));
  if (extensions > body.size())
    return fail(error_kind::invalid_argument, "request {} has {} bytes of extensions in {} bytes",
                header.opcode, extensions, body.size());
  return body.first(body.size() - extensions);
}

template<class T>
result<T> fixed(const fuse_in_header& header, std::span<const std::byte> body) {
  if (body.size() < sizeof(T))
    return fail(error_kind::invalid_argument, "request {} has {} bytes, needs {}", header.opcode,
                body.size(), sizeof(T));
  return load<T>(body);
}

// Text that ends with a zero byte.
result<std::string> text_in(const fuse_in_header& header, std::span<const std::byte> body) {
  const void* end = body.empty() ? nullptr : std::memchr(body.data(), 0, body.size());
  if (end == nullptr)
    return fail(error_kind::invalid_argument, "request {} has a name without an end",
                header.opcode);
  std::string text(static_cast<std::size_t>(static_cast<const std::byte*>(end) - body.data()), 0);
  std::memcpy(text.data(), body.data(), text.size());
  return text;
}

// A name that is one component of a path.
result<std::string> name_in(const fuse_in_header& header, std::span<const std::byte> body) {
  BGFS_TRY(std::string name, text_in(header, body));
  if (name.empty() || name.contains('/'))
    return fail(error_kind::invalid_argument, "request {} has a name that is no path component",
                header.opcode);
  return name;
}

// Those of attributes may be paths.
result<std::string> name_of_attribute(const fuse_in_header& header,
                                      std::span<const std::byte> body) {
  BGFS_TRY(std::string name, text_in(header, body));
  if (name.empty() || name.size() > XATTR_NAME_MAX)
    return fail(error_kind::invalid_argument, "request {} has an attribute's name of {} bytes",
                header.opcode, name.size());
  return name;
}

result<byte_range> range_of(const fuse_in_header& header, u64 offset, u64 length) {
  const auto end = checked_add<i64>(static_cast<i64>(offset), static_cast<i64>(length));
  if (static_cast<i64>(offset) < 0 || static_cast<i64>(length) < 0 || !end)
    return fail(error_kind::invalid_argument, "request {} is about {:#x} bytes at {:#x}",
                header.opcode, length, offset);
  return byte_range{offset, length};
}

using arguments = std::span<const std::byte>;

result<request_body> parse_read(const fuse_in_header& header, arguments body) {
  BGFS_TRY(const auto in, fixed<fuse_read_in>(header, body));
  if (in.size > kernel::payload_length_max)
    return fail(error_kind::invalid_argument, "a read of {} bytes was asked for, at most {} fit",
                in.size, kernel::payload_length_max);
  BGFS_TRY(const auto range, range_of(header, in.offset, in.size));
  return ask::read{in.fh, range};
}

result<request_body> parse_write(const fuse_in_header& header, arguments body) {
  BGFS_TRY(const auto in, fixed<fuse_write_in>(header, body));
  const auto payload = body.subspan(sizeof in);
  if (in.size != payload.size())
    return fail(error_kind::invalid_argument, "a write says {} bytes and carries {}", in.size,
                payload.size());
  BGFS_TRY(const auto range, range_of(header, in.offset, in.size));
  return ask::write{.handle = in.fh,
                    .offset = range.offset,
                    .flags = in.flags,
                    .payload = payload,
                    .is_from_pages = (in.write_flags & FUSE_WRITE_CACHE) != 0};
}

result<request_body> parse_readdir(const fuse_in_header& header, arguments body) {
  BGFS_TRY(const auto in, fixed<fuse_read_in>(header, body));
  const u32 length = std::min(in.size, kernel::payload_length_max);
  return ask::readdir{in.fh, in.offset, length, header.opcode == FUSE_READDIRPLUS};
}

result<request_body> parse_forgets(const fuse_in_header& header, arguments body) {
  BGFS_TRY(const auto in, fixed<fuse_batch_forget_in>(header, body));
  const auto list = body.subspan(sizeof in);
  if (in.count > list.size() / sizeof(fuse_forget_one))
    return fail(error_kind::invalid_argument, "a list of {} forgotten nodes has {} bytes", in.count,
                list.size());
  ask::forget made;
  made.nodes.reserve(in.count);
  for (u32 i = 0; i < in.count; i++)
    made.nodes.push_back(load<fuse_forget_one>(list, i * sizeof(fuse_forget_one)));
  return made;
}

result<request_body> parse_getxattr(const fuse_in_header& header, arguments body) {
  BGFS_TRY(const auto in, fixed<fuse_getxattr_in>(header, body));
  BGFS_TRY(auto name, name_of_attribute(header, body.subspan(sizeof in)));
  return ask::getxattr{std::move(name), in.size};
}

// The short form of the arguments: FUSE_SETXATTR_EXT is never agreed on.
result<request_body> parse_setxattr(const fuse_in_header& header, arguments body) {
  if (body.size() < FUSE_COMPAT_SETXATTR_IN_SIZE)
    return fail(error_kind::invalid_argument, "request {} has {} bytes, needs {}", header.opcode,
                body.size(), FUSE_COMPAT_SETXATTR_IN_SIZE);
  const auto length = load<u32>(body);
  const auto flags = load<u32>(body, sizeof length);
  body = body.subspan(FUSE_COMPAT_SETXATTR_IN_SIZE);
  BGFS_TRY(auto name, name_of_attribute(header, body));
  body = body.subspan(name.size() + 1);
  if (body.size() != length)
    return fail(error_kind::invalid_argument, "an attribute says {} bytes and carries {}", length,
                body.size());
  std::string value(length, '\0');
  std::ranges::copy(body, std::as_writable_bytes(std::span(value)).data());
  return ask::setxattr{std::move(name), std::move(value), flags};
}

result<request_body> parse_copy(const fuse_in_header& header, arguments body) {
  BGFS_TRY(const auto in, fixed<fuse_copy_file_range_in>(header, body));
  BGFS_CHECK(range_of(header, in.off_in, in.len));
  BGFS_CHECK(range_of(header, in.off_out, in.len));
  if (in.flags != 0)
    return fail(error_kind::invalid_argument, "copy_file_range has unknown flags {:#x}", in.flags);
  return ask::copy{in.fh_in,   in.off_in, in.fh_out,
                   in.off_out, in.len,    header.opcode == kernel::opcode_copy_file_range_64};
}

// Two names, one behind the other.
result<request_body> parse_rename(const fuse_in_header& header, arguments body) {
  ask::rename made{};
  if (header.opcode == FUSE_RENAME2) {
    BGFS_TRY(const auto in, fixed<fuse_rename2_in>(header, body));
    made.to_directory = in.newdir;
    made.flags = in.flags;
    body = body.subspan(sizeof in);
  } else {
    BGFS_TRY(const auto in, fixed<fuse_rename_in>(header, body));
    made.to_directory = in.newdir;
    body = body.subspan(sizeof in);
  }
  BGFS_TRY(made.from, name_in(header, body));
  BGFS_TRY(made.to, name_in(header, body.subspan(made.from.size() + 1)));
  return made;
}

result<request_body> parse_making(const fuse_in_header& header, arguments body) {
  const auto after = [&]<class T>(const T&) -> result<arguments> {
    BGFS_TRY([[maybe_unused]] const auto in, fixed<T>(header, body));
    return body.subspan(sizeof(T));
  };
  switch (header.opcode) {
  case FUSE_MKDIR: {
    BGFS_TRY(const auto rest, after(fuse_mkdir_in{}));
    BGFS_TRY(auto name, name_in(header, rest));
    return ask::make_directory{std::move(name)};
  }
  case FUSE_MKNOD: {
    BGFS_TRY(const auto rest, after(fuse_mknod_in{}));
    BGFS_TRY(auto name, name_in(header, rest));
    return ask::make_other{"mknod", std::move(name)};
  }
  case FUSE_CREATE: {
    BGFS_TRY(const auto rest, after(fuse_create_in{}));
    BGFS_TRY(auto name, name_in(header, rest));
    return ask::make_other{"create", std::move(name)};
  }
  case FUSE_LINK: {
    BGFS_TRY(const auto rest, after(fuse_link_in{}));
    BGFS_TRY(auto name, name_in(header, rest));
    return ask::make_other{"link", std::move(name)};
  }
  default: { // FUSE_SYMLINK: the name, then where it leads
    BGFS_TRY(auto name, name_in(header, body));
    return ask::make_other{"symlink", std::move(name)};
  }
  }
}

// INIT may be shorter than the newest struct; what is missing is zero.
result<request_body> parse_init(const fuse_in_header& header, arguments body) {
  constexpr std::size_t length_min = 4 * sizeof(u32);
  if (body.size() < length_min)
    return fail(error_kind::invalid_argument, "request {} has {} bytes, needs {}", header.opcode,
                body.size(), length_min);
  ask::init made{};
  std::memcpy(&made.in, body.data(), std::min(body.size(), sizeof made.in));
  return made;
}

result<request_body> parse_on_handle(const fuse_in_header& header, arguments body) {
  switch (header.opcode) {
  case FUSE_RELEASE:
  case FUSE_RELEASEDIR: {
    BGFS_TRY(const auto in, fixed<fuse_release_in>(header, body));
    if (header.opcode == FUSE_RELEASE)
      return ask::release{in.fh};
    return ask::releasedir{in.fh};
  }
  case FUSE_FLUSH: {
    BGFS_TRY(const auto in, fixed<fuse_flush_in>(header, body));
    return ask::flush{in.fh};
  }
  case FUSE_FSYNC: {
    BGFS_TRY(const auto in, fixed<fuse_fsync_in>(header, body));
    return ask::fsync{in.fh};
  }
  case FUSE_FALLOCATE: {
    BGFS_TRY(const auto in, fixed<fuse_fallocate_in>(header, body));
    BGFS_TRY(const auto range, range_of(header, in.offset, in.length));
    return ask::allocate{in.fh, in.mode, range};
  }
  case FUSE_POLL: {
    BGFS_TRY(const auto in, fixed<fuse_poll_in>(header, body));
    return ask::poll{in.fh, in.kh, (in.flags & FUSE_POLL_SCHEDULE_NOTIFY) != 0, in.events};
  }
  default: { // FUSE_LSEEK
    BGFS_TRY(const auto in, fixed<fuse_lseek_in>(header, body));
    return ask::seek{in.fh, in.offset, in.whence};
  }
  }
}

result<request_body> parse_on_node(const fuse_in_header& header, arguments body) {
  switch (header.opcode) {
  case FUSE_LOOKUP: {
    BGFS_TRY(auto name, name_in(header, body));
    return ask::lookup{std::move(name)};
  }
  case FUSE_FORGET: {
    BGFS_TRY(const auto in, fixed<fuse_forget_in>(header, body));
    return ask::forget{{{header.nodeid, in.nlookup}}};
  }
  case FUSE_SETATTR: {
    BGFS_TRY(const auto in, fixed<fuse_setattr_in>(header, body));
    return ask::setattr{in};
  }
  case FUSE_OPEN: {
    BGFS_TRY(const auto in, fixed<fuse_open_in>(header, body));
    return ask::open{in.flags};
  }
  case FUSE_LISTXATTR: {
    BGFS_TRY(const auto in, fixed<fuse_getxattr_in>(header, body));
    return ask::listxattr{in.size};
  }
  default: { // FUSE_INTERRUPT
    BGFS_TRY(const auto in, fixed<fuse_interrupt_in>(header, body));
    return ask::interrupt{in.unique};
  }
  }
}

} // namespace

result<fuse_in_header> parse_header(std::span<const std::byte> bytes) {
  if (bytes.size() < sizeof(fuse_in_header))
    return fail(error_kind::invalid_argument, "a request of {} bytes is shorter than its header",
                bytes.size());
  const auto header = load<fuse_in_header>(bytes);
  if (header.len != bytes.size())
    return fail(error_kind::invalid_argument, "a request of {} bytes says it has {}", bytes.size(),
                header.len);
  return header;
}

result<request_body> parse_body(const fuse_in_header& header, std::span<const std::byte> bytes) {
  BGFS_TRY(const auto body, arguments_of(header, bytes));
  switch (header.opcode) {
  case FUSE_READ:
    return parse_read(header, body);
  case FUSE_WRITE:
    return parse_write(header, body);
  case FUSE_LOOKUP:
  case FUSE_FORGET:
  case FUSE_SETATTR:
  case FUSE_OPEN:
  case FUSE_LISTXATTR:
  case FUSE_INTERRUPT:
    return parse_on_node(header, body);
  case FUSE_RELEASE:
  case FUSE_RELEASEDIR:
  case FUSE_FLUSH:
  case FUSE_FSYNC:
  case FUSE_FALLOCATE:
  case FUSE_LSEEK:
  case FUSE_POLL:
    return parse_on_handle(header, body);
  case FUSE_BATCH_FORGET:
    return parse_forgets(header, body);
  case FUSE_GETATTR:
    return ask::getattr{};
  case FUSE_READLINK:
    return ask::readlink{};
  case FUSE_OPENDIR:
    return ask::opendir{};
  case FUSE_READDIR:
  case FUSE_READDIRPLUS:
    return parse_readdir(header, body);
  case FUSE_STATFS:
    return ask::statfs{};
  case FUSE_GETXATTR:
    return parse_getxattr(header, body);
  case FUSE_INIT:
    return parse_init(header, body);
  case FUSE_COPY_FILE_RANGE:
  case kernel::opcode_copy_file_range_64:
    return parse_copy(header, body);
  case FUSE_SYNCFS:
    return ask::sync_all{};
  case FUSE_FSYNCDIR:
  case FUSE_ACCESS:
  case FUSE_DESTROY:
    return ask::nothing{};
  case FUSE_SYMLINK:
  case FUSE_MKNOD:
  case FUSE_MKDIR:
  case FUSE_LINK:
  case FUSE_CREATE:
    return parse_making(header, body);
  case FUSE_UNLINK: {
    BGFS_TRY(auto name, name_in(header, body));
    return ask::unlink{std::move(name)};
  }
  case FUSE_RMDIR: {
    BGFS_TRY(auto name, name_in(header, body));
    return ask::remove_directory{std::move(name)};
  }
  case FUSE_RENAME:
  case FUSE_RENAME2:
    return parse_rename(header, body);
  case FUSE_SETXATTR:
    return parse_setxattr(header, body);
  case FUSE_REMOVEXATTR: {
    BGFS_TRY(auto name, name_of_attribute(header, body));
    return ask::removexattr{std::move(name)};
  }
  case FUSE_TMPFILE:
    return ask::refused{EOPNOTSUPP}; // ENOSYS would be remembered for the whole mount
  case FUSE_IOCTL:
    return ask::refused{ENOTTY};
  default:
    return ask::unknown{};
  }
}

std::optional<transfer_request> parse_transfer(const fuse_in_header& header,
                                               std::span<const std::byte> bytes) {
  static_assert(sizeof(fuse_read_in) == sizeof(fuse_write_in));
  const bool is_write = header.opcode == FUSE_WRITE;
  constexpr std::size_t fixed_length = sizeof(fuse_in_header) + sizeof(fuse_write_in);
  if ((!is_write && header.opcode != FUSE_READ) || bytes.size() < fixed_length ||
      header.total_extlen != 0)
    return std::nullopt;
  const auto in =
      load<fuse_write_in>(bytes, sizeof(fuse_in_header)); // a read's fields lie there too
  const auto payload = bytes.subspan(fixed_length);
  const bool fits = is_write ? in.size == payload.size()
                             : payload.empty() && in.size <= kernel::payload_length_max;
  if (!fits || static_cast<i64>(in.offset) < 0 ||
      !checked_add<i64>(static_cast<i64>(in.offset), in.size))
    return std::nullopt;
  return transfer_request{.handle = in.fh,
                          .range = {in.offset, in.size},
                          .is_write = is_write,
                          .is_durable = is_write && (in.flags & (O_DSYNC | O_SYNC)) != 0,
                          .payload = payload};
}

} // namespace bgfs
