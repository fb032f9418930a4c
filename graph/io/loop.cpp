// SPDX-License-Identifier: MIT
#include "graph/io/loop.h"

#include "graph/base/assert.h"
#include "graph/io/buffer_pool.h"
#include "graph/io/io_backend.h"
#include "graph/io/offload.h"

#include <sys/eventfd.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdlib>
#include <utility>

namespace bgfs {
namespace {

constexpr auto later = [](const timer* a, const timer* b) { return a->due > b->due; };

u64 choose_seed(u64 asked) {
#ifdef BGFS_DEBUG
  // BGFS_SHUFFLE_SEED repeats a run; 0 keeps the order.
  if (asked == 0) {
    const char* given =
        std::getenv("BGFS_SHUFFLE_SEED"); // NOLINT(concurrency-mt-unsafe): read only
    return given != nullptr ? std::strtoull(given, nullptr, 10) : std::random_device{}() | 1;
  }
#endif
  return asked;
}

} // namespace

loop::loop(loop_options options)
    : has_one_task_(options.has_one_task), shuffle_seed_(choose_seed(options.shuffle_seed)),
      shuffle_(shuffle_seed_),
      offloads_(
          std::make_unique<offload_pool>(options.offload_threads, std::move(options.processors))),
      buffers_(std::make_unique<buffer_pool>()) {}

loop::~loop() {
  offloads_.reset(); // its threads post here until they are joined
  backend_.reset();
  if (wake_fd_ >= 0)
    close(wake_fd_);
}

result<std::unique_ptr<loop>> loop::create(loop_options options) {
  std::unique_ptr<loop> made(new loop(options));
  made->wake_fd_ = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
  if (made->wake_fd_ < 0)
    return fail_errno(errno, "cannot make an eventfd");
  if (options.backend != io_backend_kind::threads) {
    auto ring = make_uring_backend(made->wake_fd_);
    if (ring) {
      made->backend_ = *std::move(ring);
      return made;
    }
    if (options.backend == io_backend_kind::io_uring)
      return fail(std::move(ring).error());
  }
  BGFS_TRY(made->backend_, make_threads_backend(made->wake_fd_, *made));
  return made;
}

bool loop::takes_commands() const {
  return backend_->takes_commands();
}

std::string_view loop::backend_name() const {
  return backend_->name();
}

void loop::run() {
  while (!stop_.load(std::memory_order_acquire))
    run_once();
  stop_.store(false, std::memory_order_release);
}

void loop::stop() {
  stop_.store(true, std::memory_order_release);
  const u64 one = 1;
  (void)!write(wake_fd_, &one, sizeof one);
}

void loop::post(run_item& item) {
  ready_.push_back(&item);
}

void loop::post_remote(run_item& item) {
  run_item* head = remote_.load(std::memory_order_relaxed);
  do {
    item.next = head;
  } while (!remote_.compare_exchange_weak(head, &item, std::memory_order_release,
                                          std::memory_order_relaxed));
  if (head != nullptr)
    return; // whoever posted the first one has woken the loop
  const u64 one = 1;
  (void)!write(wake_fd_, &one, sizeof one);
}

void loop::take_remote() {
  run_item* newest = remote_.exchange(nullptr, std::memory_order_acquire);
  const auto first = static_cast<std::ptrdiff_t>(ready_.size());
  for (; newest != nullptr; newest = newest->next)
    ready_.push_back(newest);
  std::reverse(ready_.begin() + first, ready_.end());
}

void loop::submit(io_operation& operation) {
  backend_->submit(operation);
}
void loop::cancel(io_operation& operation) {
  backend_->cancel(operation);
}

void loop::arm(timer& t) {
  BGFS_ASSERT(!t.is_armed);
  t.is_armed = true;
  timers_.push_back(&t);
  std::push_heap(timers_.begin(), timers_.end(), later);
}

void loop::disarm(timer& t) {
  if (!t.is_armed) {
    // It may have fired and be about to run, while something else ended who armed it.
    std::erase(ready_, &t);
    std::ranges::replace(running_, static_cast<run_item*>(&t), nullptr);
    return;
  }
  t.is_armed = false;
  std::erase(timers_, &t);
  std::make_heap(timers_.begin(), timers_.end(), later);
}

void loop::fire_timers() {
  if (timers_.empty())
    return;
  const auto now = std::chrono::steady_clock::now();
  while (!timers_.empty() && timers_.front()->due <= now) {
    timer* due = timers_.front();
    std::pop_heap(timers_.begin(), timers_.end(), later);
    timers_.pop_back();
    due->is_armed = false;
    ready_.push_back(due);
  }
}

void loop::run_ready() {
  std::swap(ready_, running_);
  if (shuffle_seed_ != 0)
    std::shuffle(running_.begin(), running_.end(), shuffle_);
  for (run_item*& item : running_) {
    is_now_known_ = false;
    if (run_item* next = std::exchange(item, nullptr))
      next->run(*next);
  }
  is_now_known_ = false;
  running_.clear();
}

void loop::run_once() {
  take_remote();
  fire_timers();
  const bool may_wait = ready_.empty() && !stop_.load(std::memory_order_acquire);
  std::optional<steady_time> until;
  if (!timers_.empty())
    until = timers_.front()->due;
  backend_->turn(may_wait, until, ready_);
  take_remote();
  run_ready();
}

} // namespace bgfs
