// SPDX-License-Identifier: MIT
// What the kernel asks: a request's bytes, checked and turned into values. Pure and bounded: any
// bytes are either a request or an error, so this can be fuzzed. Nothing refers to the buffer
// afterwards except the payload of a write, which is used in place.
#pragma once

#include "fuse/protocol/kernel.h"
#include "graph/base/byte_range.h"
#include "graph/base/result.h"
#include "graph/io/buffer_pool.h"

#include <optional>
#include <span>
#include <string>
#include <variant>
#include <vector>

namespace bgfs {

namespace ask {

struct init {
  fuse_init_in in;
};
struct lookup {
  std::string name;
};
struct forget {
  std::vector<fuse_forget_one> nodes;
};
struct getattr {};
struct setattr {
  fuse_setattr_in in;
};
struct readlink {};
struct open {
  u32 flags;
};
struct opendir {};
struct read {
  u64 handle;
  byte_range range;
};
struct write {
  u64 handle;
  u64 offset;
  u32 flags; // O_* of the open file, O_DSYNC where the caller asked for it
  std::span<const std::byte> payload;
  buffer* storage = nullptr;  // what the payload lies in; null: an entry of a ring
  bool is_from_pages = false; // the kernel writes back what was stored through a mapping
};
struct readdir {
  u64 handle;
  u64 position;
  u32 length;
  bool wants_attributes;
};
struct release {
  u64 handle;
};
struct releasedir {
  u64 handle;
};
struct flush {
  u64 handle;
};
struct fsync {
  u64 handle;
};
struct nothing {}; // fsyncdir, access, destroy: succeed without doing anything
struct sync_all {};
struct statfs {};
struct getxattr {
  std::string name;
  u32 length_max; // 0: only the length is asked for
};
struct listxattr {
  u32 length_max;
};
struct setxattr {
  std::string name;
  std::string value;
  u32 flags; // XATTR_CREATE, XATTR_REPLACE
};
struct removexattr {
  std::string name;
};
struct interrupt {
  u64 unique;
};
struct allocate {
  u64 handle;
  u32 mode; // FALLOC_FL_*
  byte_range range;
};
struct seek {
  u64 handle;
  u64 offset;
  u32 whence;
};
// poll(2), select, epoll, and io_uring before each request of its own.
struct poll {
  u64 handle;
  u64 kernel_handle; // what a wake-up is addressed to
  bool wants_wake;   // somebody waits: a wake-up is due when the answer changes
  u32 events;        // POLL*
};
struct copy {
  u64 from_handle;
  u64 from_offset;
  u64 to_handle;
  u64 to_offset;
  u64 length;
  bool has_wide_reply; // the answer is 64 bits wide
};
struct make_directory {
  std::string name;
};
struct remove_directory {
  std::string name;
};
struct rename {
  std::string from;
  u64 to_directory; // the inode
  std::string to;
  u32 flags; // RENAME_*
};
struct unlink {
  std::string name;
};
// A name of another kind is to be made: a file, a link. Nowhere allowed; `verb` is the system call.
struct make_other {
  std::string_view verb;
  std::string name;
};
// Understood, and never allowed here: files without a name.
struct refused {
  int os_error;
};
// Not known to this program, or without meaning here; ENOSYS makes the kernel stop asking.
struct unknown {};

} // namespace ask

using request_body =
    std::variant<ask::unknown, ask::refused, ask::nothing, ask::init, ask::lookup, ask::forget,
                 ask::getattr, ask::setattr, ask::readlink, ask::open, ask::opendir, ask::read,
                 ask::write, ask::readdir, ask::release, ask::releasedir, ask::flush, ask::fsync,
                 ask::sync_all, ask::statfs, ask::getxattr, ask::listxattr, ask::setxattr,
                 ask::removexattr, ask::interrupt, ask::allocate, ask::seek, ask::copy, ask::poll, ask::make_directory,
                 ask::remove_directory, ask::rename, ask::unlink, ask::make_other>;

// Fails when the bytes are no request at all: shorter than a header, or of another length than the
// header says.
[[nodiscard]] result<fuse_in_header> parse_header(std::span<const std::byte> bytes);

// `bytes` is the whole request. Fails with invalid_argument when what follows the header is not
// what the opcode demands.
// A read or a write of any file.
struct transfer_request {
  u64 handle = 0;
  byte_range range;
  bool is_write = false;
  bool is_durable = false; // O_SYNC, O_DSYNC
  std::span<const std::byte> payload;
};
// What most requests are, without the detour through request_body; nullopt for anything else, and
// for what parse_body would refuse.
[[nodiscard]] std::optional<transfer_request> parse_transfer(const fuse_in_header& header,
                                                             std::span<const std::byte> bytes);

[[nodiscard]] result<request_body> parse_body(const fuse_in_header& header,
                                              std::span<const std::byte> bytes);

} // namespace bgfs
