// SPDX-License-Identifier: MIT
// The clusters that hold the LUKS header of an image, as the code of LUKS sees them.
#pragma once

#include "drivers/format/common/luks1_keys.h"
#include "drivers/format/qcow2/host_file.h"

namespace bgfs::qcow2 {

class crypto_area final : public crypt::luks1_area {
public:
  crypto_area(host_file& file, byte_range place) : file_(file), place_(place) {}

  task<void> read(u64 offset, std::span<std::byte> bytes) override {
    return file_.read_structure(host_offset(place_.offset + offset), bytes,
                                "the encryption header");
  }
  task<void> write(u64 offset, std::span<const std::byte> bytes) override {
    BGFS_ASSERT(place_.contains(byte_range{place_.offset + offset, bytes.size()}),
                "a parsed header keeps to its area");
    return file_.write_structure(host_offset(place_.offset + offset), bytes,
                                 metadata_kind::crypto_header);
  }
  task<void> flush() override { return file_.flush(); }

private:
  host_file& file_;
  byte_range place_;
};

} // namespace bgfs::qcow2
