// SPDX-License-Identifier: MIT
#include "graph/io/offload.h"

namespace bgfs {

offload_pool::~offload_pool() {
  {
    const std::lock_guard hold(mutex_);
    stop_ = true;
  }
  wake_.notify_all();
  for (std::thread& t : threads_)
    t.join();
}

void offload_pool::submit(run_item& item) {
  const std::lock_guard hold(mutex_);
  item.next = nullptr;
  (last_ != nullptr ? last_->next : first_) = &item;
  last_ = &item;
  queued_++;
  if (queued_ > idle_ && threads_.size() < thread_count_max_)
    threads_.emplace_back([this] { work(); });
  wake_.notify_one();
}

void offload_pool::work() {
  stay_on(processors_);
  std::unique_lock hold(mutex_);
  for (;;) {
    while (first_ == nullptr && !stop_) {
      idle_++;
      wake_.wait(hold);
      idle_--;
    }
    if (first_ == nullptr)
      return;
    run_item* item = first_;
    first_ = item->next;
    if (first_ == nullptr)
      last_ = nullptr;
    queued_--;
    hold.unlock();
    item->run(*item);
    hold.lock();
  }
}

} // namespace bgfs
