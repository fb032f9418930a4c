// SPDX-License-Identifier: MIT
// What create and convert say about an image that is to be made, checked and turned into a job.
#pragma once

#include "config/commands/image_session.h"
#include "graph/jobs/create.h"

namespace bgfs {

struct new_image_request {
  std::string filename;
  std::string format = "raw";
  std::vector<std::string> option_lists; // of -o
  std::string backing = {};
  std::string backing_format = {};
  bool is_backing_unchecked = false; // -u: the backing file need not be there
  std::optional<u64> length = {};    // absent: the 'size' option, or the backing file's
};

struct prepared_image {
  new_image job;
  std::string announcement; // "Formatting 'x', fmt=raw size=1048576\n"
  bool has_backing = false;
};

// Opens the backing file to learn its length, if nothing else says it; creates nothing.
task<prepared_image> prepare_new_image(command_session& session, new_image_request request);

// All lists in one; what is given again later counts.
[[nodiscard]] result<value> merge_option_lists(const std::vector<std::string>& lists);
// True if one of the lists is "help" or "?".
[[nodiscard]] bool asks_option_help(const std::vector<std::string>& option_lists);
// A line for each option, in the order of their names.
[[nodiscard]] std::string describe_options(const option_schema& schema);
// The options that creating this format takes, in the order of their names.
[[nodiscard]] result<std::string> describe_create_options(const registry& drivers,
                                                          const std::string& format,
                                                          const std::string& filename);

} // namespace bgfs
