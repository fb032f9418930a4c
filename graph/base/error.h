// SPDX-License-Identifier: MIT
// What went wrong: a kind that callers branch on, a sentence for people, and the chain of what was
// being attempted. Errors are values; nothing in bgfs throws for a failed operation.
#pragma once

#include "graph/base/ints.h"

#include <fmt/core.h>

#include <memory>
#include <string>
#include <string_view>
#include <utility>

namespace bgfs {

// Small and closed: callers branch on the kind, never on the text.
enum class error_kind : u8 {
  io,               // the device or the network failed
  no_space,         // the medium is full
  invalid_argument, // a request, an option or a line of YAML that cannot be honoured as written
  invalid_image,    // not an image of this format
  corrupt_image,    // an image of this format that contradicts itself
  unsupported,      // understood, but not something this object can do
  permission,       // not allowed by the graph, the file system or the mount
  busy,             // somebody else is using it
  not_found,
  out_of_range, // beyond the end
  cancelled,    // the caller gave up waiting
};

[[nodiscard]] std::string_view to_string(error_kind kind);

class error {
public:
  error(error_kind kind, std::string message, int os_error = 0);
  error(const error& other);
  error(error&&) noexcept = default;
  error& operator=(const error& other);
  error& operator=(error&&) noexcept = default;
  ~error() = default;

  // An error of the operating system: `what` says what was attempted, the kind follows the errno.
  [[nodiscard]] static error from_errno(int os_error, std::string what);

  [[nodiscard]] error_kind kind() const { return body_->kind; }
  // The errno that caused it, or 0. The table of fuse/reply.cpp prefers it over the kind.
  [[nodiscard]] int os_error() const { return body_->os_error; }

  // Adds what was being attempted; the outermost attempt is read first.
  error& add_context(std::string_view text);
  // The whole chain, outside in, without a full stop at the end.
  [[nodiscard]] const std::string& message() const { return body_->message; }

private:
  struct content {
    error_kind kind;
    int os_error;
    std::string message;
  };
  std::unique_ptr<content>
      body_; // one pointer, so that result<T> stays small; null once moved from
};

// The kind that an errno of the operating system stands for.
[[nodiscard]] error_kind kind_of_errno(int os_error);

} // namespace bgfs
