// SPDX-License-Identifier: MIT
// A lease lets threads other than the home of a graph read, and write in place, what a root's
// resolved extents say (DESIGN.md section 3, "The lease"). It is also the short way for the home
// itself: no task, no list of requests, no node on the way.
//
//   visit      a thread enters, looks up extents, does its I/O, counts it, and leaves. Inside
//              nothing is allocated and no metadata changes.
//   closure    keeps visits away: whoever must see every request, or narrows what an extent allows,
//              closes the lease and waits until all visits that had begun have ended.
//   retire     extents stop being true, while visits go on: discards, writes that move data.
//   turn       all visits that had begun when it was asked for have ended. Space that was freed is
//              used again only after a turn (request_list::oldest asks for it).
//
// A visit counts itself in its queue's counter of the current epoch and only then looks whether the
// lease is open, and at extents; the home closes or retires first and looks at the counters
// afterwards. Both sides are sequentially consistent, so at least one sees the other. A turn waits
// for the counters of the coming epoch, turns the epoch, and waits for those of the old one: new
// visits cannot keep it waiting, and one that was counted late, in an epoch that had just ended, is
// waited for by the next turn.
//
// Invariants:
//  L1  An extent that a visit found is true until it leaves, or was retired after it entered; then
//      what it names is not reused before it leaves.
//  L2  While a lease is closed and a turn has ended since, nobody is inside.
//  L3  What a visit did is counted before it leaves, and it leaves before its request is answered:
//      a flush or a statistic that comes after the answer sees it.
//  L4  Who writes in place holds an extent that says so: data of the top layer that is nobody
//      else's, in a root whose nodes need no word about it.
#pragma once

#include "graph/base/back_off.h"
#include "graph/io/run_item.h"
#include "graph/io/wait_queue.h"
#include "graph/model/extent_table.h"
#include "graph/model/lease_counters.h"

#include <ctime>
#include <memory>
#include <span>

namespace bgfs {

class edge;
class node;
class root;

// How a protocol's bytes can be had without it.
struct direct_access {
  int fd = -1;
  bool is_in_memory = false; // nothing waits: plain system calls; else with RWF_NOWAIT first
  bool passes_cache = false; // O_DIRECT: everything waits
  bool may_write = false;
  u32 memory_alignment = 1; // of buffers

  friend bool operator==(const direct_access&, const direct_access&) = default;
};

// The nodes on the way from the root to a file, top first, and the file. Constant once visits can
// see it; they use the first part and count in the last.
struct lease_path {
  direct_access file; // fd -1: ends in zeroes
  u64 alignment = 1;  // of offsets and lengths, the strictest on the way
  std::vector<node*> nodes;
  std::vector<path_counters> of_queue;
  settled_counters settled; // of the home
};

class lease : public std::enable_shared_from_this<lease> {
public:
  static constexpr std::size_t paths_max = 256;
  static constexpr unsigned queues_max = 16;

  // For `queues` threads, or loops, that visit; at first it is closed, and bound to no root.
  explicit lease(unsigned queues);
  ~lease();
  lease(const lease&) = delete;
  lease& operator=(const lease&) = delete;

  // --- any thread -----------------------------------------------------------------------------
  // False: closed; nothing was entered. `epoch` goes back to leave.
  [[nodiscard]] bool enter(unsigned queue, unsigned& epoch) {
    epoch = current_epoch();
    return enter_in(epoch, queue);
  }
  // Its two steps; the epoch may turn between them.
  [[nodiscard]] unsigned current_epoch() const { return epoch_.load() & 1; }
  [[nodiscard]] bool enter_in(unsigned epoch, unsigned queue);
  void leave(unsigned queue, unsigned epoch);
  // Inside only.
  [[nodiscard]] std::optional<resolved_extent> find(u64 offset) const {
    return table_.find(offset);
  }
  [[nodiscard]] const lease_path& path(u16 index) const {
    return *paths_[index].load(std::memory_order_acquire);
  }
  [[nodiscard]] u64 length() const { return length_.load(std::memory_order_acquire); }
  [[nodiscard]] bool may_write() const { return may_write_.load(); }
  // Inside, after the I/O of a request has ended: what the top node is to count, and the pieces.
  void count(unsigned queue, const leased_request& done);
  void count_piece(unsigned queue, u16 path, const leased_request& piece);
  [[nodiscard]] bool is_home(const loop& l) const {
    return home_.load(std::memory_order_acquire) == &l;
  }

  // --- the home -------------------------------------------------------------------------------
  // Goes with `of` from now on, until unbind. Its nodes know this lease; one of them may keep it
  // closed.
  void bind(root& of);
  // While nobody is inside. Nothing that was resolved stays.
  void unbind();
  [[nodiscard]] bool is_bound() const { return root_ != nullptr; }

  void close() { closures_++ == 0 ? shut() : void(); }
  void open();
  [[nodiscard]] bool is_open() const { return closures_ == 0; }
  // Nobody is inside at this moment. May be false of a closed one while somebody is being refused.
  [[nodiscard]] bool is_empty() const;
  // Waits until all visits that have begun by now have ended.
  task<void> turn();
  // The same without waiting: has_turned says whether it is over.
  [[nodiscard]] u64 ask_for_turn();
  [[nodiscard]] bool has_turned(u64 number) const { return turns_ >= number; }

  [[nodiscard]] u64 granule() const { return table_.granule(); }
  // Finds out what is at `offset`, as far as that takes no I/O, and keeps it. While it is open.
  // Where that fails, again and again, it is tried more and more rarely: nodes that have to be
  // asked each time pay little for the question.
  std::optional<resolved_extent> resolve(u64 offset);
  void retire(byte_range guest);
  void retire_all() { table_.retire_all(); }
  void length_changed();
  // The maker of the root may forbid writing, whatever the nodes say. Visits that have begun may
  // still write; none does after a turn.
  void set_may_write(bool may) { may_write_.store(may); }
  // Brings what visits have counted to the nodes.
  void settle_counters();
  // Writes that visits have made since the lease was made, and when the last one ended.
  [[nodiscard]] u64 writes() const;
  [[nodiscard]] std::timespec last_write() const;

private:
  struct waker;
  enum class phase : u8 { idle, empties_next, empties_last };
  void shut();
  void advance();
  void wake_home();
  void await_all(bool on);
  [[nodiscard]] bool is_epoch_empty(unsigned epoch) const;
  [[nodiscard]] std::optional<resolved_extent> resolve_now(u64 offset);
  [[nodiscard]] std::optional<u16> path_to(std::span<node* const> nodes, const direct_access& file);
  void settle_path(lease_path& path);
  static void add_to_node(node& n, operation kind, const operation_delta& news, bool knows_end);

  static constexpr u32 awaited = u32{1} << 31;
  struct alignas(64) queue_state {
    std::atomic<u32> inside[2] = {0, 0}; // of each epoch; with `awaited` while a turn waits
    request_counters requests;
  };

  extent_table table_{16};
  std::vector<queue_state> queues_;
  std::atomic<bool> is_open_{false};
  std::atomic<u32> epoch_{0};
  std::atomic<bool> is_waking_{false};
  std::atomic<u64> length_{0};
  std::atomic<bool> may_write_{false};
  std::atomic<loop*> home_{nullptr};
  std::array<std::atomic<lease_path*>, paths_max> paths_{};
  std::vector<std::unique_ptr<lease_path>> owned_paths_;

  root* root_ = nullptr;
  std::vector<node*> bound_nodes_; // those that know this lease
  unsigned closures_ = 1;          // being unbound
  phase phase_ = phase::idle;
  u64 turns_ = 0;        // ended
  u64 turns_wanted_ = 0; // the last one asked for
  wait_queue turned_;
  back_off resolving_;
  settled_counters settled_;
};

// Visits kept away for as long as it lives.
class [[nodiscard]] lease_closure {
public:
  lease_closure() = default;
  explicit lease_closure(std::shared_ptr<lease> of) : of_(std::move(of)) {
    if (of_ != nullptr)
      of_->close();
  }
  ~lease_closure() {
    if (of_ != nullptr)
      of_->open();
  }
  lease_closure(lease_closure&& other) noexcept : of_(std::move(other.of_)) {}
  lease_closure& operator=(lease_closure&& other) noexcept {
    std::swap(of_, other.of_);
    return *this;
  }
  // Nobody is inside any more.
  task<void> wait() const;

private:
  std::shared_ptr<lease> of_; // shared with the root and with open files
};

} // namespace bgfs
