// SPDX-License-Identifier: MIT
#include "drivers/format/qcow2/metadata_region.h"

#include <cerrno>
#include <sys/mman.h>
#include <unistd.h>

namespace bgfs::qcow2 {

namespace {
constexpr u64 system_page = 4096; // alignment of the parts; larger system pages only waste a little
}

std::string_view to_string(table_kind kind) {
  switch (kind) {
  case table_kind::l2_slice:
    return "the L2 table";
  case table_kind::refcount_block:
    return "the refcount block";
  }
  return "";
}

result<std::unique_ptr<metadata_region>>
metadata_region::create(std::array<page_plan, table_kinds> plans) {
  region_header h{};
  h.magic = magic;
  h.version = 1;
  h.header_bytes = sizeof(region_header);
  u64 length = align_up(sizeof(region_header), system_page);
  for (std::size_t i = 0; i < table_kinds; i++) {
    h.caches[i] = {plans[i].page_bytes, plans[i].page_count, 0, length, 0};
    length += align_up(plans[i].page_count * sizeof(page_descriptor), system_page);
  }
  for (std::size_t i = 0; i < table_kinds; i++) {
    h.caches[i].pages_at = length;
    length += align_up(plans[i].page_count * plans[i].page_bytes, system_page);
  }
  const int fd = memfd_create("bgfs-qcow2-metadata", MFD_CLOEXEC);
  if (fd < 0)
    return fail_errno(errno, "cannot make memory for the metadata cache of {} bytes", length);
  void* base = MAP_FAILED;
  if (ftruncate(fd, static_cast<off_t>(length)) == 0)
    base = mmap(nullptr, length, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_NORESERVE, fd, 0);
  if (base == MAP_FAILED) {
    const int os_error = errno;
    close(fd);
    return fail_errno(os_error,
                      "cannot map the metadata cache of {} bytes; use a smaller "
                      "'cache-size'",
                      length);
  }
  std::unique_ptr<metadata_region> region(
      new metadata_region(fd, static_cast<std::byte*>(base), length));
  region->header() = h;
  return region;
}

metadata_region::~metadata_region() {
  munmap(base_, length_);
  close(fd_);
}

void metadata_region::release_page(table_kind kind, u32 index) {
  const std::span<std::byte> bytes = page(kind, index);
  if (bytes.size() % system_page == 0)
    madvise(bytes.data(), bytes.size(), MADV_REMOVE); // a failure only keeps the memory
}

} // namespace bgfs::qcow2
