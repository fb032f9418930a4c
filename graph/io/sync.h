// SPDX-License-Identifier: MIT
// What tasks of one loop use to wait for each other: event, async_mutex, semaphore, gate and
// range_lock. None of them is for use between threads. Lock order is in graph/ARCHITECTURE.md.
#pragma once

#include "graph/base/byte_range.h"
#include "graph/io/wait_queue.h"

#include <list>

namespace bgfs {

// Set once or many times; waiting returns at once while it is set.
class event {
public:
  void set() {
    is_set_ = true;
    queue_.wake_all();
  }
  void reset() { is_set_ = false; }
  [[nodiscard]] bool is_set() const { return is_set_; }
  task<void> wait();

private:
  wait_queue queue_;
  bool is_set_ = false;
};

// Mutual exclusion that may be held over an await. First come, first served.
class async_mutex {
public:
  class [[nodiscard]] guard {
  public:
    guard() = default;
    guard(guard&& other) noexcept : mutex_(std::exchange(other.mutex_, nullptr)) {}
    guard& operator=(guard&& other) noexcept {
      std::swap(mutex_, other.mutex_);
      return *this;
    }
    ~guard() { unlock(); }
    void unlock() {
      if (mutex_ != nullptr)
        std::exchange(mutex_, nullptr)->unlock();
    }
    [[nodiscard]] bool is_held() const { return mutex_ != nullptr; }

  private:
    friend class async_mutex;
    explicit guard(async_mutex& m) : mutex_(&m) {}
    async_mutex* mutex_ = nullptr;
  };

  task<guard> lock();
  [[nodiscard]] bool is_locked() const { return is_locked_; }

private:
  void unlock();
  wait_queue queue_;
  bool is_locked_ = false;
};

// Many readers or one writer. A writer that waits keeps new readers out, so that it gets its turn.
class async_shared_mutex {
public:
  class [[nodiscard]] guard {
  public:
    guard() = default;
    guard(guard&& other) noexcept
        : mutex_(std::exchange(other.mutex_, nullptr)), is_shared_(other.is_shared_) {}
    guard& operator=(guard&& other) noexcept {
      std::swap(mutex_, other.mutex_);
      std::swap(is_shared_, other.is_shared_);
      return *this;
    }
    ~guard() {
      if (mutex_ != nullptr)
        mutex_->unlock(is_shared_);
    }

  private:
    friend class async_shared_mutex;
    guard(async_shared_mutex& m, bool is_shared) : mutex_(&m), is_shared_(is_shared) {}
    async_shared_mutex* mutex_ = nullptr;
    bool is_shared_ = false;
  };

  task<guard> lock();
  task<guard> lock_shared();

private:
  void unlock(bool is_shared);
  wait_queue changed_;
  unsigned readers_ = 0;
  unsigned writers_waiting_ = 0;
  bool is_written_ = false;
};

// Bounds how many tasks do something at once.
class semaphore {
public:
  explicit semaphore(unsigned permits) : free_(permits) {}
  class [[nodiscard]] permit {
  public:
    permit(permit&& other) noexcept : owner_(std::exchange(other.owner_, nullptr)) {}
    permit& operator=(permit&&) = delete;
    ~permit() {
      if (owner_ != nullptr)
        owner_->release();
    }

  private:
    friend class semaphore;
    explicit permit(semaphore& s) : owner_(&s) {}
    semaphore* owner_;
  };
  task<permit> acquire();

private:
  void release();
  wait_queue queue_;
  unsigned free_;
};

// Counts who is inside; closing refuses newcomers and waits until everybody has left.
class gate {
public:
  class [[nodiscard]] pass {
  public:
    pass(pass&& other) noexcept : gate_(std::exchange(other.gate_, nullptr)) {}
    pass& operator=(pass&&) = delete;
    ~pass() {
      if (gate_ != nullptr)
        gate_->leave();
    }

  private:
    friend class gate;
    explicit pass(gate& g) : gate_(&g) { g.inside_++; }
    gate* gate_;
  };

  // error_kind::busy once the gate is closed: `what` names what is closing.
  [[nodiscard]] result<pass> enter(std::string_view what);
  task<void> close();
  [[nodiscard]] unsigned inside() const { return inside_; }
  [[nodiscard]] bool is_closed() const { return is_closed_; }

private:
  void leave();
  wait_queue empty_;
  unsigned inside_ = 0;
  bool is_closed_ = false;
};

// Excludes overlapping ranges from each other; disjoint ones go on side by side.
class range_lock {
public:
  class [[nodiscard]] guard {
  public:
    guard(guard&& other) noexcept
        : lock_(std::exchange(other.lock_, nullptr)), held_(other.held_) {}
    guard& operator=(guard&&) = delete;
    ~guard() {
      if (lock_ != nullptr)
        lock_->unlock(held_);
    }

  private:
    friend class range_lock;
    guard(range_lock& lock, std::list<byte_range>::iterator held) : lock_(&lock), held_(held) {}
    range_lock* lock_;
    std::list<byte_range>::iterator held_;
  };
  task<guard> lock(byte_range range);

private:
  void unlock(std::list<byte_range>::iterator held);
  [[nodiscard]] bool is_free(byte_range range) const;
  std::list<byte_range> held_;
  wait_queue queue_;
};

} // namespace bgfs
