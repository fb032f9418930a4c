// SPDX-License-Identifier: MIT
// `bgfs mount` and `bgfs umount`, for the command line (config/program.h).
#pragma once

#include "config/program.h"

namespace bgfs {

class fuse_mounter final : public mounter {
public:
  int mount(mount_request request, const registry& drivers) override;
  int remount(const remount_request& request) override; // remount.cpp
  int umount(const std::string& directory) override;
};

// As of mount(8).
namespace mount_status {
inline constexpr int ok = 0;
inline constexpr int usage = 1; // or permission
inline constexpr int system = 2;
inline constexpr int failure = 32;
} // namespace mount_status

// On standard error: "bgfs: MESSAGE".
void complain(const error& e);
void complain(std::string_view message);

} // namespace bgfs
