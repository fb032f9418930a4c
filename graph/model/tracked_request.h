// SPDX-License-Identifier: MIT
// Requests in flight on a node, and which of them must not overlap (reference section 1.2). A
// request is a guard: it is on the list from its construction to its destruction.
#pragma once

#include "graph/base/byte_range.h"
#include "graph/base/trace.h"
#include "graph/io/wait_queue.h"

#include <chrono>
#include <vector>

namespace bgfs {

enum class request_type : u8 { read, write, discard, truncate };
[[nodiscard]] std::string_view to_string(request_type type);

class lease;
class tracked_request;

class request_list {
public:
  [[nodiscard]] unsigned in_flight() const { return in_flight_; }
  // Waits until no request is on the list.
  task<void> wait_idle();
  [[nodiscard]] const tracked_request* first() const { return first_; }
  [[nodiscard]] bool has_serialising() const { return serialising_ > 0; }

  // For drivers that free space. A read may have been told where its bytes live and not have read
  // them yet: space freed now holds them until every request that is in flight now has ended. Tag
  // what is freed with newest(); it may be reused once oldest() is greater than the tag.
  [[nodiscard]] u64 newest() const { return sequence_; }
  [[nodiscard]] u64 oldest() const; // of those in flight; newest() + 1 if there is none

  // Whose requests these are, for trace points; both outlive the list.
  void trace_as(const trace_log& log, std::string_view node_name) {
    log_ = &log;
    node_name_ = node_name;
  }
  // For drivers, in write, write_zeroes, discard and truncate, before their first await: the
  // request they serve. They may make it serialise over more (and then wait for conflicts).
  [[nodiscard]] tracked_request* entering() const { return entering_; }
  // For nodes, just before they call the driver.
  void enter_driver(tracked_request& request);

  // Leases let requests pass the list (lease.h). A request that serialises keeps their visits away
  // and waits until nobody is inside; so does whoever must see every request. Both are counted.
  void add_lease(lease& l);
  void remove_lease(lease& l);
  void exclude_leases();
  void admit_leases();
  [[nodiscard]] bool has_visitors() const;
  task<void> wait_for_visitors();
  void settle_leases() const; // brings what visits have counted to the nodes

private:
  friend class tracked_request;
  tracked_request* first_ = nullptr; // oldest first
  tracked_request* last_ = nullptr;
  tracked_request* entering_ = nullptr;
  u64 sequence_ = 0;
  unsigned in_flight_ = 0;
  unsigned serialising_ = 0;
  // Of a lease: visits that had begun when newest() was `marked` are waited for by turn `turn`;
  // those of requests before `safe` have ended.
  struct visited {
    lease* by = nullptr;
    u64 turn = 0; // 0: none is asked for
    u64 marked = 0;
    u64 safe = 0;
  };
  [[nodiscard]] u64 oldest_visit(visited& v) const;
  mutable std::vector<visited> leases_;
  unsigned exclusions_ = 0;
  wait_queue idle_;
  const trace_log* log_ = &silent_log;
  std::string_view node_name_;
};

class tracked_request {
public:
  tracked_request(request_list& list, request_type type, byte_range range,
                  std::chrono::steady_clock::time_point since = {});
  ~tracked_request();
  tracked_request(const tracked_request&) = delete;
  tracked_request& operator=(const tracked_request&) = delete;

  // From now on nothing that overlaps the range, widened to `alignment`, runs beside this request,
  // once it has waited for conflicts. What it serialised over before stays.
  void make_serialising(u64 alignment) { serialise_over(range_.widened_to(alignment)); }
  void serialise_over(byte_range range);
  // Waits until no conflicting request is running. Two requests conflict if they overlap and at
  // least one of them serialises. One that is itself waiting is not waited for: it will look again
  // and find us - unless it waits in its driver, half done; then only one that waits for us, if in
  // a roundabout way, is passed by, since nobody else would ever go on. What the caller knew about
  // the node (its length) may be untrue afterwards.
  task<void> wait_for_conflicts();
  // The same without waiting: error_kind::busy where wait_for_conflicts would wait.
  [[nodiscard]] result<> check_conflicts() const;

  [[nodiscard]] u64 sequence() const { return sequence_; }
  [[nodiscard]] request_type type() const { return type_; }
  [[nodiscard]] byte_range range() const { return range_; }
  [[nodiscard]] byte_range overlap_range() const { return overlap_; }
  [[nodiscard]] bool is_serialising() const { return is_serialising_; }
  [[nodiscard]] bool is_waiting() const { return is_waiting_; }
  // Null: it waits for nobody, or whom it waited for has just ended.
  [[nodiscard]] const tracked_request* waiting_for() const { return waiting_for_; }
  [[nodiscard]] std::chrono::steady_clock::time_point since() const { return since_; }
  [[nodiscard]] const tracked_request* next() const { return next_; }

private:
  friend class request_list;
  struct waiting_mark;
  [[nodiscard]] tracked_request* find_conflict() const;
  [[nodiscard]] const trace_log& log() const { return *list_.log_; }
  [[nodiscard]] bool waits_for(const tracked_request& other) const;

  request_list& list_;
  u64 sequence_;
  request_type type_;
  byte_range range_;
  byte_range overlap_;
  bool is_serialising_ = false;
  bool is_waiting_ = false;
  bool has_begun_ = false; // its driver was called
  tracked_request* waiting_for_ = nullptr;
  tracked_request* previous_ = nullptr;
  tracked_request* next_ = nullptr;
  wait_queue ended_;
  std::chrono::steady_clock::time_point since_;
};

} // namespace bgfs
