// SPDX-License-Identifier: MIT
#include "fuse/tree/line_ring.h"

#include "fuse/transport/notifier.h"

#include <algorithm>

namespace bgfs {

void line_ring::add(std::string line) {
  line += '\n';
  const std::lock_guard lock(mutex_);
  if (kept_.size() == kept_max_) {
    kept_.pop_front();
    dropped_++;
  }
  const u64 begin = end_;
  end_ += line.size();
  kept_.push_back({std::move(line), begin});
  clock_gettime(CLOCK_REALTIME, &last_added_);
  if (notifier_ != nullptr)
    for (const u64 handle : watching_)
      notifier_->wake_poll(handle);
  watching_.clear();
}

u64 line_ring::kept_length() const {
  const std::lock_guard lock(mutex_);
  return kept_.empty() ? 0 : end_ - kept_.front().begin;
}

std::timespec line_ring::last_added() const {
  const std::lock_guard lock(mutex_);
  return last_added_;
}

void line_ring::watch(u64 kernel_handle) {
  const std::lock_guard lock(mutex_);
  if (std::ranges::find(watching_, kernel_handle) == watching_.end())
    watching_.push_back(kernel_handle);
}

void line_ring::forget(u64 kernel_handle) {
  const std::lock_guard lock(mutex_);
  std::erase(watching_, kernel_handle);
}

void line_ring::set_notifier(notifier* to) {
  const std::lock_guard lock(mutex_);
  notifier_ = to;
}

line_reader::line_reader(line_ring& ring) : ring_(&ring) {
  const std::lock_guard lock(ring_->mutex_);
  rewind();
}

// The file begins anew with the oldest line.
void line_reader::rewind() {
  const line_ring& ring = *ring_;
  run_offset_ = 0;
  run_begin_ = ring.kept_.empty() ? ring.end_ : ring.kept_.front().begin;
  gap_.clear();
  next_offset_ = 0;
  next_line_ = ring.dropped_;
  is_mid_line_ = false;
}

// What stood at this offset is gone: a line that counts the loss takes its place.
void line_reader::skip_lost(u64 offset) {
  const line_ring& ring = *ring_;
  gap_ = is_mid_line_ ? "\n" : "";
  gap_ += ring.describe_loss_(ring.dropped_ - next_line_) + "\n";
  run_offset_ = offset + gap_.size();
  run_begin_ = ring.kept_.front().begin;
  next_line_ = ring.dropped_;
}

std::string line_reader::read(u64 offset, std::size_t length_max) {
  const std::lock_guard lock(ring_->mutex_);
  const line_ring& ring = *ring_;
  const bool is_back = offset == 0 || offset < run_offset_ - gap_.size();
  if (is_back && next_offset_ > 0)
    rewind();
  const u64 oldest = ring.kept_.empty() ? ring.end_ : ring.kept_.front().begin;
  if (offset >= run_offset_ && run_begin_ + (offset - run_offset_) < oldest)
    skip_lost(offset);
  std::string text;
  if (offset < run_offset_) {
    text = gap_.substr(gap_.size() - (run_offset_ - offset), length_max);
    next_offset_ = offset + text.size();
    is_mid_line_ = false;
    return text;
  }
  const u64 begin = run_begin_ + (offset - run_offset_);
  auto line = std::ranges::upper_bound(ring.kept_, begin, {}, &line_ring::kept_line::begin);
  u64 number = ring.dropped_ + static_cast<u64>(line - ring.kept_.begin());
  // The line that holds the byte, unless it stands before the first or behind the last.
  if (line != ring.kept_.begin() && begin < std::prev(line)->begin + std::prev(line)->text.size()) {
    --line;
    --number;
    text = line->text.substr(begin - line->begin, length_max);
    if (text.size() == line->begin + line->text.size() - begin) {
      ++line;
      ++number;
    } else {
      line = ring.kept_.end();
    }
  }
  for (; line != ring.kept_.end() && text.size() + line->text.size() <= length_max;
       ++line, ++number)
    text += line->text;
  if (text.empty())
    return text;
  next_offset_ = offset + text.size();
  next_line_ = number;
  is_mid_line_ = text.back() != '\n';
  return text;
}

bool line_reader::has_more() const {
  const std::lock_guard lock(ring_->mutex_);
  return next_offset_ < run_offset_ || run_begin_ + (next_offset_ - run_offset_) < ring_->end_;
}

u64 line_reader::end_offset() const {
  const std::lock_guard lock(ring_->mutex_);
  return run_offset_ + (ring_->end_ - run_begin_);
}

} // namespace bgfs
