// SPDX-License-Identifier: MIT
#include "config/mount_helper.h"

#include <algorithm>

namespace bgfs {

namespace {

struct helper_call {
  std::vector<std::string> operands;
  std::vector<std::string> options; // of -o
  bool is_fake = false;
  bool is_lazy = false;
  bool is_forced = false;
};

result<helper_call> parse_call(std::span<const std::string> given, bool is_umount) {
  helper_call call;
  while (!given.empty()) {
    const std::string& word = given.front();
    given = given.subspan(1);
    if (word.size() < 2 || word[0] != '-') {
      call.operands.push_back(word);
      continue;
    }
    for (std::size_t i = 1; i < word.size(); i++) {
      const char letter = word[i];
      const bool takes_value = letter == 'o' || letter == 't' || letter == 'N';
      if (takes_value) {
        std::string value = word.substr(i + 1);
        if (value.empty() && given.empty())
          return fail(error_kind::invalid_argument, "option '-{}' needs a value", letter);
        if (value.empty()) {
          value = given.front();
          given = given.subspan(1);
        }
        if (letter == 'o')
          call.options.push_back(std::move(value));
        break;
      }
      if (letter == 'f') {
        (is_umount ? call.is_forced : call.is_fake) = true;
      } else if (letter == 'l') {
        call.is_lazy = true;
      } else if (std::string_view("nvsr").find(letter) == std::string_view::npos) {
        return fail(error_kind::invalid_argument, "option '-{}' is not known", letter);
      }
    }
  }
  return call;
}

bool is_remount(const helper_call& call) {
  return std::ranges::any_of(call.options, [](const std::string& list) {
    return ("," + list + ",").find(",remount,") != std::string::npos;
  });
}

result<std::vector<std::string>> translate_mount(const helper_call& call) {
  // mount(8) names what is mounted also for a remount; people who call us directly need not.
  const std::size_t count = call.operands.size();
  if (count != 2 && !(count == 1 && is_remount(call)))
    return fail(error_kind::invalid_argument, "a graph file or an image, and a directory are "
                                              "expected");
  std::vector<std::string> words = {"mount"};
  if (call.is_fake)
    words.emplace_back("--fake");
  for (const std::string& list : call.options) {
    words.emplace_back("-o");
    words.push_back(list);
  }
  words.emplace_back("--");
  words.insert(words.end(), call.operands.begin(), call.operands.end());
  return words;
}

result<std::vector<std::string>> translate_umount(const helper_call& call) {
  if (call.operands.size() != 1)
    return fail(error_kind::invalid_argument, "one directory is expected");
  if (call.is_lazy || call.is_forced)
    return fail(error_kind::unsupported,
                "'-{}' would leave images open behind the caller's back; unmount without it, or "
                "call 'umount -i'",
                call.is_lazy ? 'l' : 'f');
  return std::vector<std::string>{"umount", "--", call.operands[0]};
}

} // namespace

std::optional<result<std::vector<std::string>>>
translate_helper_call(const std::string& program, std::span<const std::string> given) {
  const std::string name = program.substr(program.rfind('/') + 1);
  const bool is_mount = name == "mount.bgfs" || name == "mount.fuse.bgfs";
  const bool is_umount = name == "umount.bgfs" || name == "umount.fuse.bgfs";
  if (!is_mount && !is_umount)
    return std::nullopt;
  const result<helper_call> call = parse_call(given, is_umount);
  if (!call)
    return fail(call.error());
  return is_mount ? translate_mount(*call) : translate_umount(*call);
}

} // namespace bgfs
