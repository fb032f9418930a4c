// SPDX-License-Identifier: MIT
// Asking a mount to reload, also one whose control files cannot be written because it is read-only.
#pragma once

#include "config/mount_client.h"

namespace bgfs {

// `words` is what .bgfs/reload takes: "1", "force", "ro", "rw". The error is the reason of the
// mount. Through a read-only mount nothing can be written: then "1" is asked for by a signal, and
// the answer found among the events; other words fail.
[[nodiscard]] result<> request_reload(const mount_client& mount, const std::string& words);

} // namespace bgfs
