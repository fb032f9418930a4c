// SPDX-License-Identifier: MIT
// task<T>: a lazy coroutine that ends with a value or an error.
//
// A task starts when it is awaited and is awaited where it is made. Awaiting gives the value; a
// task that fails ends its parent too, with the same error, and so on up to the nearest
// as_result(). On the way up each awaiting expression may add context (see `context` below); then
// the frames between are destroyed, innermost first; then the catcher runs. No exception is
// involved, and code after a failed await never runs: what needs an awaited undo belongs in `with`
// (graph/io/with.h).
//
// Inside a task one may also await a result<T>: an error there ends the task.
#pragma once

#include "graph/base/assert.h"
#include "graph/base/result.h"
#include "graph/io/frame_pool.h"

#include <coroutine>
#include <optional>
#include <tuple>
#include <type_traits>
#include <utility>

namespace bgfs {

class loop;
class cancel_state;
struct promise_base;

template<class T = void>
class task;

// What a coroutine inherits from the one that awaits it.
struct task_context {
  loop* home = nullptr;           // where its waits resume it
  cancel_state* cancel = nullptr; // what interrupts its waits; null: nothing
};

// An await in a parent's frame, seen from the child: where to go on, and what to do with an error.
struct await_link {
  promise_base* parent = nullptr;
  std::coroutine_handle<> resume_parent;
  // Adds context to a passing error; null when the await has none.
  void (*add_context)(await_link& self, error& e) = nullptr;
  // Non-null in an as_result await: takes the error, which ends its journey here.
  void (*catch_error)(await_link& self, error&& e) = nullptr;
};

struct promise_base {
  task_context context;
  await_link* link = nullptr;
  std::coroutine_handle<> self;

  static void* operator new(std::size_t bytes) { return allocate_frame(bytes); }
  static void operator delete(void* frame, std::size_t bytes) noexcept { free_frame(frame, bytes); }
};

// Carries `e` from the suspended coroutine `from` to the nearest catcher, destroying the frames
// between, and returns the catcher to resume. Every chain of awaits ends in a catcher
// (detail::root).
[[nodiscard]] std::coroutine_handle<> propagate(promise_base& from, error e) noexcept;

namespace detail {

// Awaiting a result inside a task.
template<class R>
struct result_await {
  R value;
  bool await_ready() const noexcept { return value.has_value(); }
  template<class P>
  std::coroutine_handle<> await_suspend(std::coroutine_handle<P> from) noexcept {
    // The frame, and this object in it, may be gone when propagate returns.
    return propagate(from.promise(), std::move(value).error());
  }
  auto await_resume() {
    if constexpr (!std::is_void_v<typename R::value_type>)
      return *std::move(value);
  }
};

struct failure_await {
  error value;
  bool await_ready() const noexcept { return false; }
  template<class P>
  std::coroutine_handle<> await_suspend(std::coroutine_handle<P> from) noexcept {
    return propagate(from.promise(), std::move(value));
  }
  void await_resume() const noexcept {}
};

struct final_await {
  bool await_ready() const noexcept { return false; }
  template<class P>
  std::coroutine_handle<> await_suspend(std::coroutine_handle<P> done) noexcept {
    promise_base& promise = done.promise();
    if (auto& failed = done.promise().failed)
      return propagate(promise, *std::move(failed));
    return promise.link->resume_parent;
  }
  void await_resume() const noexcept {}
};

template<class T>
struct promise_common : promise_base {
  std::optional<error> failed; // set by `co_return fail(...)`

  std::suspend_always initial_suspend() const noexcept { return {}; }
  final_await final_suspend() const noexcept { return {}; }
  // Only std::bad_alloc gets here: there is no memory to go on with.
  void unhandled_exception() const noexcept { std::terminate(); }

  template<class U>
  result_await<result<U>> await_transform(result<U> r) {
    return {std::move(r)};
  }
  failure_await await_transform(std::unexpected<error> e) { return {std::move(e).error()}; }
  template<class A>
  A&& await_transform(A&& awaitable) {
    return std::forward<A>(awaitable);
  }
};

template<class T>
struct promise : promise_common<T> {
  std::optional<T> value;
  task<T> get_return_object();
  template<class U = T>
  void return_value(U&& v) {
    using given = std::remove_cvref_t<U>;
    if constexpr (std::is_same_v<given, std::unexpected<error>>) {
      this->failed = std::forward<U>(v).error();
    } else if constexpr (std::is_same_v<given, result<T>>) {
      if (v) {
        value.emplace(*std::forward<U>(v));
      } else {
        this->failed = std::forward<U>(v).error();
      }
    } else {
      value.emplace(std::forward<U>(v));
    }
  }
  T take() { return *std::move(value); }
};

template<>
struct promise<void> : promise_common<void> {
  task<void> get_return_object();
  void return_void() const noexcept {}
  void take() const noexcept {}
};

template<class T>
struct task_await : await_link {
  using handle = std::coroutine_handle<promise<T>>;
  handle child;

  explicit task_await(handle h) : child(h) {}
  bool await_ready() const noexcept { return false; }
  template<class P>
  std::coroutine_handle<> await_suspend(std::coroutine_handle<P> from) noexcept {
    parent = &from.promise();
    resume_parent = from;
    child.promise().link = this;
    child.promise().context = parent->context;
    return child;
  }
  T await_resume() { return child.promise().take(); }
};

} // namespace detail

template<class T>
class [[nodiscard]] task {
public:
  using promise_type = detail::promise<T>;
  using value_type = T;
  using handle = std::coroutine_handle<promise_type>;

  task(task&& other) noexcept : handle_(std::exchange(other.handle_, nullptr)) {}
  task& operator=(task&& other) noexcept {
    std::swap(handle_, other.handle_);
    return *this;
  }
  ~task() {
    if (handle_)
      handle_.destroy();
  }

  detail::task_await<T> operator co_await() && noexcept { return detail::task_await<T>(handle_); }
  [[nodiscard]] handle get() const { return handle_; }

private:
  friend promise_type;
  explicit task(handle h) : handle_(h) { h.promise().self = h; }
  handle handle_;
};

template<class T>
task<T> detail::promise<T>::get_return_object() {
  return task<T>(std::coroutine_handle<promise>::from_promise(*this));
}
inline task<void> detail::promise<void>::get_return_object() {
  return task<void>(std::coroutine_handle<promise>::from_promise(*this));
}

namespace detail {

template<class T>
struct as_result_await : task_await<T> {
  task<T> inner;
  std::optional<error> caught;

  explicit as_result_await(task<T> t) : task_await<T>(t.get()), inner(std::move(t)) {
    this->catch_error = [](await_link& self, error&& e) {
      auto& me = static_cast<as_result_await&>(self);
      me.caught = std::move(e);
      // Destroys the failed frames, innermost first: each one's current await owns the next.
      const task<T> failed_frames = std::move(me.inner);
    };
  }
  result<T> await_resume() {
    if (caught)
      return std::unexpected(*std::move(caught));
    if constexpr (std::is_void_v<T>) {
      return {};
    } else {
      return this->child.promise().take();
    }
  }
};

template<class T>
struct as_result_task {
  task<T> inner;
  as_result_await<T> operator co_await() && noexcept {
    return as_result_await<T>(std::move(inner));
  }
};

template<class T, class... Args>
struct context_await : task_await<T> {
  fmt::format_string<Args...> format;
  std::tuple<Args...> args;

  context_await(typename task<T>::handle h, fmt::format_string<Args...> f, std::tuple<Args...> a)
      : task_await<T>(h), format(f), args(std::move(a)) {
    this->add_context = [](await_link& self, error& e) {
      auto& me = static_cast<context_await&>(self);
      const fmt::string_view text = me.format;
      e.add_context(std::apply(
          [&](auto&... a2) { return fmt::vformat(text, fmt::make_format_args(a2...)); }, me.args));
    };
  }
};

template<class T, class... Args>
struct context_task {
  task<T> inner;
  fmt::format_string<Args...> format;
  std::tuple<Args...> args;
  context_await<T, Args...> operator co_await() && noexcept {
    return context_await<T, Args...>(inner.get(), format, std::move(args));
  }
};

} // namespace detail

// Catches: `const result<header> r = co_await as_result(read_header(...));`
template<class T>
[[nodiscard]] detail::as_result_task<T> as_result(task<T> t) {
  return {std::move(t)};
}

// Adds what was being attempted, formatted only if the task fails:
// `co_await context(read_table(i), "reading L2 table {}", i);` Arguments are copied; a string_view
// or pointer among them must outlive the await.
template<class T, class... Args>
[[nodiscard]] detail::context_task<T, std::decay_t<Args>...>
context(task<T> t, fmt::format_string<std::decay_t<Args>...> format, Args&&... args) {
  return {std::move(t), format, {std::forward<Args>(args)...}};
}

} // namespace bgfs
