// SPDX-License-Identifier: MIT
// Making a new image: the protocol makes an empty file, then the format writes itself into it.
#pragma once

#include "graph/model/graph.h"

namespace bgfs {

struct new_image {
  const driver_type* format = nullptr; // can create
  options format_options;              // passed format->create_options
  const driver_type* protocol = nullptr;
  options protocol_options; // passed protocol->create_options; unused where it cannot create
  std::string filename;     // what the protocol creates or, if it cannot, what must be there
  // The open options of the protocol node, which name the same file.
  options protocol_open_options;
  u64 length = 0;                              // of the disk
  std::shared_ptr<const secret_store> secrets; // what the options may name; null: nothing
};

// An existing file is replaced. When it fails, a file that was not there before is removed again;
// one that was there is left as far as it got. Nothing stays open.
task<void> create_image(graph& nodes, new_image what);

} // namespace bgfs
