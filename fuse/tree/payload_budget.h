// SPDX-License-Identifier: MIT
// How much memory the payloads of requests take together: what reads are answered from, and what
// writes have brought. Requests over it wait, those of one root in the order they came.
//
// A root takes no more than what is left free when it has taken it. So one root whose requests hang
// holds half of the budget and leaves the other half to the rest, two leave a third, and so on;
// what ends gives its share back. A request for which that is too little takes what is free if its
// root holds nothing else.
//
// Used on the loop of the mount only.
#pragma once

#include "graph/io/sync.h"

#include <deque>
#include <list>
#include <utility>

namespace bgfs {

class payload_budget;

// What one root holds of it and who of its requests waits. Outlives its requests.
class payload_share {
public:
  payload_share() = default;
  ~payload_share() {
    BGFS_ASSERT(held_ == 0 && waiting_.empty(), "a root ends after its requests");
  }
  payload_share(const payload_share&) = delete;
  payload_share& operator=(const payload_share&) = delete;

  [[nodiscard]] u64 held() const { return held_; }
  [[nodiscard]] std::size_t waiting() const { return waiting_.size(); }

private:
  friend class payload_budget;
  struct waiter {
    u64 length;
    event granted;
    std::list<waiter*>::iterator place{}; // thousands may give up at once
  };
  u64 held_ = 0;
  std::list<waiter*> waiting_; // first come, first served
};

class payload_budget {
public:
  static constexpr u64 total_default = 16 * MiB;
  static constexpr u64 total_min = 4 * MiB; // a few requests of the longest kind
  static constexpr u64 total_max = 64 * GiB;

  explicit payload_budget(u64 total = total_default) : total_(total) {}
  ~payload_budget() { BGFS_ASSERT(held_ == 0, "a budget ends after its requests"); }
  payload_budget(const payload_budget&) = delete;
  payload_budget& operator=(const payload_budget&) = delete;

  // A part of the budget, given back at its end.
  class [[nodiscard]] hold {
  public:
    hold() = default;
    hold(hold&& other) noexcept
        : of_(std::exchange(other.of_, nullptr)), share_(other.share_), length_(other.length_) {}
    hold& operator=(hold&& other) noexcept {
      std::swap(of_, other.of_);
      std::swap(share_, other.share_);
      std::swap(length_, other.length_);
      return *this;
    }
    ~hold() {
      if (of_ != nullptr)
        of_->give_back(*share_, length_);
    }
    [[nodiscard]] explicit operator bool() const { return of_ != nullptr; }

  private:
    friend class payload_budget;
    hold(payload_budget& of, payload_share& share, u64 length)
        : of_(&of), share_(&share), length_(length) {}
    payload_budget* of_ = nullptr;
    payload_share* share_ = nullptr;
    u64 length_ = 0;
  };

  // Empty when it has to wait. Without a trip to the heap.
  [[nodiscard]] hold try_take(payload_share& share, u64 length);
  // Waits for its turn; a cancelled one takes nothing. `length` is at most the whole.
  task<hold> take(payload_share& share, u64 length);

  // Before anything is taken.
  void set_total(u64 total) { total_ = total; }
  [[nodiscard]] u64 total() const { return total_; }
  [[nodiscard]] u64 held() const { return held_; }
  [[nodiscard]] u64 held_max() const { return held_max_; } // ever
  [[nodiscard]] std::size_t waiting() const { return waiting_count_; }

private:
  [[nodiscard]] bool may_take(const payload_share& share, u64 length) const;
  void give(payload_share& share, u64 length);
  void give_back(payload_share& share, u64 length);
  void serve_waiting();
  [[nodiscard]] bool serve_first(payload_share& share);

  u64 total_;
  u64 held_ = 0;
  u64 held_max_ = 0;
  std::size_t waiting_count_ = 0;
  std::deque<payload_share*> queue_; // shares with waiters, each once; they take turns
};

} // namespace bgfs
