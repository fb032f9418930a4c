// SPDX-License-Identifier: MIT
// Making a new image: the protocol makes an empty file, then the format writes itself into it.
#pragma once

#include "graph/model/graph.h"

namespace bgfs {

// A file that the protocol makes, unless it is there and stays.
struct new_file {
  std::string_view slot; // of the child that it will be; empty: the image's own
  const driver_type* protocol = nullptr;
  options protocol_options; // passed protocol->create_options; unused where it cannot create
  std::string filename;     // what the protocol creates or, if it cannot, what must be there
  options open_options;     // of the protocol node, which name the same file
  bool is_kept = false;
};

struct new_image {
  const driver_type* format = nullptr; // can create
  options format_options;              // passed format->create_options
  new_file file;
  std::vector<new_file> parts = {};                 // beside it, as format->created_parts asks
  u64 length = 0;                                   // of the disk
  std::shared_ptr<const secret_store> secrets = {}; // what the options may name; null: nothing
};

// Existing files are replaced. When it fails, those that were not there before are removed again;
// others are left as far as they got. Nothing stays open.
task<void> create_image(graph& nodes, new_image what);

} // namespace bgfs
