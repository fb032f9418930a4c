// SPDX-License-Identifier: MIT
// GUIDs as GPT stores them: the first three fields are little-endian (UEFI Specification 2.10,
// appendix A).
#pragma once

#include "graph/base/ints.h"

#include <array>
#include <string>

namespace bgfs {

struct guid {
  std::array<u8, 16> bytes{};

  [[nodiscard]] bool is_null() const { return *this == guid{}; }
  // "0fc63daf-8483-4772-8e79-3d69d8477de4".
  [[nodiscard]] std::string to_string() const;
  friend bool operator==(const guid&, const guid&) = default;
};
static_assert(sizeof(guid) == 16);

} // namespace bgfs
