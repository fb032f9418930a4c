// SPDX-License-Identifier: MIT
// File names as command lines and image headers write them: a path, "file:PATH" (or another
// protocol's prefix), or "json:{...}" with a whole definition.
#pragma once

#include "graph/base/value.h"
#include "graph/model/driver.h"

namespace bgfs {

// "nbd" of "nbd:host:port"; "" for a path. A path with a colon is written "./a:b" or "file:a:b".
[[nodiscard]] std::string_view protocol_of_name(std::string_view name);

// The definition of what a name stands for: a protocol node, or whatever json: says. Dotted keys of
// json: are nested. `name` is shown in messages.
[[nodiscard]] result<value> parse_image_name(const std::string& name, const registry& drivers);

// The definition of a host file: driver `host_device` for block devices, else `file`.
[[nodiscard]] value define_host_file(const std::string& path, const registry& drivers);

// The format that recognises the first bytes of the file; null if none does. The file must be a
// regular file or a block device.
[[nodiscard]] result<const driver_type*> probe_host_file(const std::string& path,
                                                         const registry& drivers);

// "a/b.qcow2" for "b.qcow2" named by "a/c.qcow2"; an absolute name stays as it is.
[[nodiscard]] std::string combine_paths(std::string_view base_file, std::string_view name);
// What opens the backing file that the image `overlay` names so: paths are relative to its place.
[[nodiscard]] std::string backing_name_from(std::string_view overlay, const std::string& name);

} // namespace bgfs
