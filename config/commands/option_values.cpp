// SPDX-License-Identifier: MIT
#include "config/commands/option_values.h"

#include "graph/base/text.h"

namespace bgfs {

result<> take_output_format(const std::string& given, bool& is_json) {
  if (given != "json" && given != "human")
    return fail(error_kind::invalid_argument, "'{}' is neither 'human' nor 'json'", given);
  is_json = given == "json";
  return {};
}

result<> take_size(const std::string& given, u64& into) {
  BGFS_TRY(into, parse_size(given));
  return {};
}

} // namespace bgfs
