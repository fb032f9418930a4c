// SPDX-License-Identifier: MIT
#include "fuse/operations/view_commands.h"

#include <algorithm>
#include <cerrno>

namespace bgfs {
namespace {

// One command a write: its text without the newline that echo puts at the end.
result<std::string> command_in(std::span<const std::byte> payload) {
  if (payload.size() > command_length_max)
    return fail(error_kind::invalid_argument, "a command has {} bytes, at most {} are taken",
                payload.size(), command_length_max);
  std::string text(payload.size(), '\0');
  std::ranges::copy(payload, std::as_writable_bytes(std::span(text)).data());
  while (!text.empty() && (text.back() == '\n' || text.back() == '\0'))
    text.pop_back();
  return text;
}

task<void> carry_out(view_subject subject, const view& what, std::string text) {
  if (what.write == nullptr)
    co_await fail(
        error{error_kind::permission, fmt::format("'{}' takes no commands", what.name), EBADF});
  co_await bgfs::write_view(what, subject, std::move(text));
}

task<void> run_text(const view& what, view_place place, u32 pid, result<std::string> text) {
  async_shared_mutex::guard looking;
  if (!what.changes_graph)
    looking = co_await place.mount.looking.lock_shared();
  if (place.root != nullptr && what.needs_medium)
    co_await place.root->require_medium();
  const view_subject about = co_await place.subject(pid);
  std::string command = co_await std::move(text);
  co_await carry_out(about, what, std::move(command));
}

} // namespace

task<void> run_command(const view& what, view_place place, u32 pid,
                       std::span<const std::byte> payload) {
  return run_text(what, std::move(place), pid, command_in(payload));
}

std::string verb_of(const view& what, std::span<const std::byte> payload) {
  std::string verb(what.name);
  const result<std::string> text = command_in(payload);
  if (text && !text->empty())
    verb += ":" + text->substr(0, text->find_first_of(" \n"));
  return verb;
}

} // namespace bgfs
