// SPDX-License-Identifier: MIT
// What `bgfs convert` was asked to do.
#pragma once

#include "config/commands/new_image.h"
#include "config/commands/progress.h"

namespace bgfs {

struct convert_options {
  std::vector<std::string> sources;
  image_choice source; // all but the name
  image_choice target;
  new_image_request new_image; // all but the file name and the length
  bool is_stream = false;      // to standard output
  bool is_existing = false;    // -n
  bool is_target_zero = false; // --target-is-zero
  bool is_out_of_order = false;
  bool is_compressed = false;
  bool offloads = false;        // -C
  bool is_sparse_given = false; // -S
  progress_form progress = progress_form::when_long;
  unsigned parallel = 8;
  u64 sparse_unit = 4096;
  u64 bytes_per_second = 0; // 0: as fast as it goes
  bool copies_bitmaps = false;
  bool skips_broken_bitmaps = false;
  bool salvages = false;
  std::function<void(std::string)> warn; // of what is left out
};

task<void> convert(command_session& session, const convert_options& options);

} // namespace bgfs
