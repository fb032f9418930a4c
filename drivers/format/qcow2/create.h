// SPDX-License-Identifier: MIT
// New qcow2 images (reference sections 1.1 and 3.14).
#pragma once

#include "drivers/format/qcow2/header.h"
#include "graph/model/driver.h"

namespace bgfs::qcow2 {

extern const option_schema create_schema;

// Writes an empty image of request.length bytes (rounded up to 512) into request.file.
task<void> create_image(create_request request);
// measure.cpp
[[nodiscard]] result<measured_space> measure_image(const measure_request& request);
// What the options say of the header, everything but lengths and places; refuses what cannot be.
// Measuring does without the format of the backing file.
enum class header_purpose : u8 { creating, measuring };
[[nodiscard]] result<header> make_header(const options& given, header_purpose purpose);
// Of options that are given, or have a default; amending has the same ones.
[[nodiscard]] unsigned read_version(const options& given);
[[nodiscard]] result<unsigned> read_refcount_order(const options& given);
// Whether a disk may be so long with these clusters.
[[nodiscard]] result<> check_length(const header& h, u64 length);
[[nodiscard]] preallocation read_preallocation(const options& given);
[[nodiscard]] result<std::vector<new_part>> created_parts(const options& given);
[[nodiscard]] result<> takes_compressed(const options& given);
[[nodiscard]] result<> takes_bitmaps(const options& given);

} // namespace bgfs::qcow2
