// SPDX-License-Identifier: MIT
#include "tests/benchmarks/request_source.h"

#include "fuse/protocol/kernel.h"
#include "graph/base/endian.h"

#include <algorithm>
#include <cstring>
#include <fcntl.h>
#include <fmt/core.h>

namespace bgfs::benchmarks {
namespace {

// As device_transport lays requests out: a write's payload begins on the second page, and every
// buffer has room for the longest request.
constexpr std::size_t page = buffer_pool::alignment;
constexpr std::size_t request_offset = page - sizeof(fuse_in_header) - sizeof(fuse_write_in);
constexpr std::size_t storage_length = page + kernel::payload_length_max + page;

u64 block_of(u64 number) {
  constexpr u64 stride = 389; // a prime: every block has its turn, far from the one before
  return number * stride % block_count;
}

fuse_in_header header_of(u64 number, u32 opcode, u64 inode, std::size_t length) {
  fuse_in_header header{};
  header.len = static_cast<u32>(length);
  header.opcode = opcode;
  header.unique = number;
  header.nodeid = inode;
  return header;
}

template<class T>
std::span<const std::byte> put(const buffer& storage, u64 number, u32 opcode, u64 inode,
                               const T& in, std::size_t payload_length) {
  const std::size_t length = sizeof(fuse_in_header) + sizeof in + payload_length;
  const auto bytes = storage.bytes().subspan(request_offset, length);
  store(bytes, header_of(number, opcode, inode, length));
  store(bytes, in, sizeof(fuse_in_header));
  return bytes;
}

} // namespace

bool request_source::is_write(u64 number) const {
  return number < first_data_number + block_count || plan_.writes;
}

task<std::optional<received>> request_source::receive(buffer reuse) {
  while (sent_ - answered_ >= depth_now())
    co_await room_.wait();
  if (sent_ == total() || failure_)
    co_return std::nullopt;
  buffer storage = reuse.is_empty() ? home_.buffers().allocate(storage_length) : std::move(reuse);
  const auto bytes = compose(++sent_, storage);
  co_return received{std::move(storage), bytes};
}

std::span<const std::byte> request_source::compose(u64 number, const buffer& storage) const {
  if (number == lookup_number)
    return compose_lookup(storage);
  if (number == open_number) {
    fuse_open_in in{};
    in.flags = O_RDWR;
    return put(storage, number, FUSE_OPEN, inode_, in, 0);
  }
  const u64 block = block_of(number);
  if (!is_write(number)) {
    fuse_read_in in{};
    in.fh = handle_;
    in.offset = block * block_length;
    in.size = block_length;
    return put(storage, number, FUSE_READ, inode_, in, 0);
  }
  fuse_write_in in{};
  in.fh = handle_;
  in.offset = block * block_length;
  in.size = block_length;
  std::memcpy(storage.data() + page, &block, sizeof block);
  return put(storage, number, FUSE_WRITE, inode_, in, block_length);
}

std::span<const std::byte> request_source::compose_lookup(const buffer& storage) const {
  const std::size_t length = sizeof(fuse_in_header) + plan_.root.size() + 1;
  const auto bytes = storage.bytes().subspan(request_offset, length);
  store(bytes, header_of(lookup_number, FUSE_LOOKUP, FUSE_ROOT_ID, length));
  std::memcpy(bytes.data() + sizeof(fuse_in_header), plan_.root.c_str(), plan_.root.size() + 1);
  return bytes;
}

void request_source::answer(u64 unique, int os_error, std::span<const std::byte> head,
                            std::span<const std::byte> body) {
  answered_++;
  if (!failure_)
    failure_ = fault_of(unique, os_error, head, body);
  if (!failure_ && unique == lookup_number)
    inode_ = load<fuse_entry_out>(head).nodeid;
  if (!failure_ && unique == open_number)
    handle_ = load<fuse_open_out>(head).fh;
  if (answered_ == open_number + warm_up && begins)
    begins();
  if (answered_ == total() && ends)
    ends();
  room_.wake_one();
}

std::optional<std::string> request_source::fault_of(u64 number, int os_error,
                                                    std::span<const std::byte> head,
                                                    std::span<const std::byte> body) const {
  if (os_error != 0)
    return fmt::format("request {} failed: {}", number, std::strerror(os_error));
  if (number < first_data_number)
    return std::nullopt;
  if (is_write(number)) {
    if (load<fuse_write_out>(head).size != block_length)
      return fmt::format("write {} was cut short", number);
    return std::nullopt;
  }
  if (body.size() != block_length)
    return fmt::format("read {} gave {} bytes of {}", number, body.size(), block_length);
  const u64 wanted = plan_.keeps_data ? block_of(number) : 0;
  u64 found = 0;
  std::memcpy(&found, body.data(), sizeof found);
  if (found != wanted)
    return fmt::format("read {} gave block {:#x} instead of {:#x}", number, found, wanted);
  return std::nullopt;
}

} // namespace bgfs::benchmarks
