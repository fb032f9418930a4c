// SPDX-License-Identifier: MIT
// Reading compressed clusters (spec, "Compressed Clusters Descriptor"). Pure: runs on any thread.
#pragma once

#include "drivers/format/qcow2/header.h"

namespace bgfs::qcow2 {

// Fills `cluster` from `stream`, which may have bytes of other clusters behind its end. Fails when
// the stream is damaged or does not make exactly a cluster.
[[nodiscard]] result<> decompress(compression_type type, std::span<const std::byte> stream,
                                  std::span<std::byte> cluster);

} // namespace bgfs::qcow2
