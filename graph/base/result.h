// SPDX-License-Identifier: MIT
// result<T>: a value or the error that kept it from being made. For code that does not suspend;
// code that may suspend returns task<T> (graph/io/task.h), which carries the same errors.
#pragma once

#include "graph/base/error.h"

#include <expected>

namespace bgfs {

template<class T = void>
using result = std::expected<T, error>;

// `return fail(error_kind::busy, "...")` in a function that returns a result;
// `co_await fail(...)` in a task, which ends there.
template<class... Args>
[[nodiscard]] std::unexpected<error> fail(error_kind kind, fmt::format_string<Args...> format,
                                          Args&&... args) {
  return std::unexpected(error(kind, fmt::format(format, std::forward<Args>(args)...)));
}

[[nodiscard]] inline std::unexpected<error> fail(error e) {
  return std::unexpected(std::move(e));
}

// An errno with what was attempted: fail_errno(errno, "cannot open '{}'", path).
template<class... Args>
[[nodiscard]] std::unexpected<error> fail_errno(int os_error, fmt::format_string<Args...> format,
                                                Args&&... args) {
  return std::unexpected(
      error::from_errno(os_error, fmt::format(format, std::forward<Args>(args)...)));
}

// Adds what was being attempted to a failed result; costs nothing when it succeeded.
template<class T, class... Args>
[[nodiscard]] result<T> context(result<T> r, fmt::format_string<Args...> format, Args&&... args) {
  if (!r)
    r.error().add_context(fmt::format(format, std::forward<Args>(args)...));
  return r;
}

} // namespace bgfs

#define BGFS_CONCAT_(a, b) a##b
#define BGFS_CONCAT(a, b) BGFS_CONCAT_(a, b)

// In a function that returns a result: `BGFS_TRY(const auto header, parse_header(bytes));`
#define BGFS_TRY(declaration, ...)                                                                 \
  auto BGFS_CONCAT(bgfs_try_, __LINE__) = (__VA_ARGS__);                                           \
  if (!BGFS_CONCAT(bgfs_try_, __LINE__))                                                           \
    return std::unexpected(std::move(BGFS_CONCAT(bgfs_try_, __LINE__)).error());                   \
  declaration = *std::move(BGFS_CONCAT(bgfs_try_, __LINE__))

// The same where there is no value: `BGFS_CHECK(validate(header));`
#define BGFS_CHECK(...)                                                                            \
  if (auto bgfs_check = (__VA_ARGS__); !bgfs_check)                                                \
  return std::unexpected(std::move(bgfs_check).error())
