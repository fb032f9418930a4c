// SPDX-License-Identifier: MIT
#include "config/svg_text.h"

namespace bgfs {
namespace {

// How many bytes the UTF-8 sequence at the beginning has; 0: there is none.
std::size_t sequence_length(std::string_view text) {
  const auto lead = static_cast<unsigned char>(text[0]);
  const std::size_t length = lead < 0x80                   ? 1
                             : lead >= 0xc2 && lead < 0xe0 ? 2
                             : lead >= 0xe0 && lead < 0xf0 ? 3
                             : lead >= 0xf0 && lead < 0xf5 ? 4
                                                           : 0;
  if (length > text.size())
    return 0;
  for (std::size_t i = 1; i < length; i++)
    if ((static_cast<unsigned char>(text[i]) & 0xc0) != 0x80)
      return 0;
  return length;
}

std::string_view escaped(std::string_view one) {
  switch (one[0]) {
  case '<':
    return "&lt;";
  case '>':
    return "&gt;";
  case '&':
    return "&amp;";
  case '"':
    return "&quot;";
  default:
    break;
  }
  const auto byte = static_cast<unsigned char>(one[0]);
  return byte < 0x20 || byte == 0x7f ? "\xef\xbf\xbd" : one;
}

} // namespace

std::string svg_text(std::string_view text, std::size_t length_max) {
  std::string out;
  std::size_t count = 0;
  while (!text.empty()) {
    const std::size_t length = sequence_length(text);
    if (length_max != 0 && ++count == length_max && length < text.size())
      return out + "\xe2\x80\xa6";
    if (length == 0)
      out += "\xef\xbf\xbd";
    else
      out += escaped(text.substr(0, length));
    text.remove_prefix(length == 0 ? 1 : length);
  }
  return out;
}

} // namespace bgfs
