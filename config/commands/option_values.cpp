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

result<> take_preallocation(const std::string& given, preallocation& into) {
  struct known {
    std::string_view name;
    preallocation mode;
  };
  static constexpr known modes[] = {{"off", preallocation::off},
                                    {"metadata", preallocation::metadata},
                                    {"falloc", preallocation::falloc},
                                    {"full", preallocation::full}};
  for (const known& k : modes) {
    if (k.name == given) {
      into = k.mode;
      return {};
    }
  }
  return fail(error_kind::invalid_argument, "'{}' is not one of off, metadata, falloc, full",
              given);
}

} // namespace bgfs
