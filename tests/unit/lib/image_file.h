// SPDX-License-Identifier: MIT
// qcow2 images in files.
#pragma once

#include "drivers/format/qcow2/qcow2.h"
#include "drivers/protocol/file/file.h"
#include "graph/jobs/create.h"
#include "tests/unit/lib/graph_bench.h"

namespace bgfs::test {

// An image of 1 MiB, created with `given`.
inline void make_image_file(graph_bench& bench, const std::string& name,
                            const value& given = value(value::map{})) {
  const option_schema* format[] = {qcow2_driver_type.create_options};
  const option_schema* protocol[] = {file_driver_type.create_options};
  const option_schema* open[] = {file_driver_type.open_options};
  new_image what;
  what.format = &qcow2_driver_type;
  what.format_options = *validate_options(format, given);
  what.file = {.protocol = &file_driver_type,
               .protocol_options = *validate_options(protocol, value(value::map{})),
               .filename = name,
               .open_options = *validate_options(open, value(value::map{{"filename", name}}))};
  what.length = MiB;
  bench.must(create_image(bench.graph(), std::move(what)));
}

} // namespace bgfs::test
