// SPDX-License-Identifier: MIT
#include "graph/model/lease.h"

#include "graph/model/graph.h"
#include "graph/model/reach.h"
#include "graph/model/resolve.h"

#include <algorithm>
#include <bit>

namespace bgfs {
namespace {

// Below it a table would be spent on pieces that no request asks for one by one.
constexpr u64 granule_min = 4096;

// Where extents end anyway: the smallest cluster on the way. Files have none, and one granule may
// be as long as lets the whole of the disk be known at once.
unsigned granule_bits_for(const node& top, std::span<node* const> nodes) {
  u64 cluster = 0;
  for (const node* n : nodes) {
    const driver_info info = n->instance().info();
    const u64 unit = info.subcluster_size != 0 ? info.subcluster_size : info.cluster_size;
    if (unit != 0)
      cluster = cluster == 0 ? unit : std::min(cluster, unit);
  }
  if (cluster == 0)
    cluster = std::max(divide_up(top.length(), extent_table::slot_count), MiB);
  return static_cast<unsigned>(std::bit_width(std::max(cluster, granule_min) - 1));
}

} // namespace

lease::lease(unsigned queues) : queues_(std::min(queues, queues_max)) {
  BGFS_ASSERT(queues <= queues_max, "a mount has no more queues than a lease");
}

lease::~lease() {
  BGFS_ASSERT(root_ == nullptr, "a lease outlives its root");
  BGFS_ASSERT(is_empty(), "L2: a lease goes when nobody is inside");
}

bool lease::enter_in(unsigned epoch, unsigned queue) {
  queues_[queue].inside[epoch].fetch_add(1);
  if (is_open_.load())
    return true;
  leave(queue, epoch);
  return false;
}

// Nothing of the lease is touched afterwards, unless somebody waits for it: who sees the counter at
// 0 may let it go.
void lease::leave(unsigned queue, unsigned epoch) {
  if (queues_[queue].inside[epoch].fetch_sub(1) == (awaited | 1))
    wake_home();
}

// Holds the lease: whoever waits for it may let it go before the loop comes to this.
struct lease::waker : run_item {
  std::shared_ptr<lease> of; // the lease must be there when the loop gets to this
};

void lease::wake_home() {
  if (is_waking_.exchange(true))
    return;                     // one is on its way
  auto* const item = new waker; // rare: only while a turn waits
  item->of = shared_from_this();
  item->run = [](run_item& self) {
    const std::unique_ptr<waker> arrived(static_cast<waker*>(&self));
    arrived->of->is_waking_.store(false);
    arrived->of->advance();
  };
  home_.load()->post_remote(*item);
}

bool lease::is_epoch_empty(unsigned epoch) const {
  return std::ranges::all_of(
      queues_, [&](const queue_state& q) { return (q.inside[epoch].load() & ~awaited) == 0; });
}

// Before a counter is looked at: who makes it 0 afterwards says so.
void lease::await_all(bool on) {
  for (queue_state& q : queues_)
    for (std::atomic<u32>& inside : q.inside)
      on ? inside.fetch_or(awaited) : inside.fetch_and(~awaited);
}

bool lease::is_empty() const {
  return is_epoch_empty(0) && is_epoch_empty(1);
}

// As far as the turns that are wanted can go now. Asked again by whoever empties a counter.
void lease::advance() {
  const auto step = [this] {
    switch (phase_) {
    case phase::idle:
      if (turns_ == turns_wanted_)
        return false;
      phase_ = phase::empties_next;
      return true;
    case phase::empties_next: // late ones of the epoch before the last
      if (!is_epoch_empty((epoch_.load() + 1) & 1))
        return false;
      epoch_.fetch_add(1);
      phase_ = phase::empties_last;
      return true;
    case phase::empties_last:
      if (!is_epoch_empty((epoch_.load() + 1) & 1))
        return false;
      turns_++;
      phase_ = phase::idle;
      return true;
    }
    return false;
  };
  await_all(true);
  while (step()) {
  }
  if (phase_ == phase::idle)
    await_all(false);
  turned_.wake_all();
}

u64 lease::ask_for_turn() {
  // One that is under way may have looked at a counter already.
  const u64 wanted = turns_ + (phase_ == phase::idle ? 1 : 2);
  turns_wanted_ = std::max(turns_wanted_, wanted);
  advance();
  return wanted;
}

task<void> lease::turn() {
  const std::shared_ptr<lease> kept = shared_from_this(); // whoever closed it may go meanwhile
  const u64 wanted = ask_for_turn();
  while (!has_turned(wanted))
    co_await turned_.wait();
}

void lease::shut() {
  is_open_.store(false);
}

void lease::open() {
  BGFS_ASSERT(closures_ > 0);
  if (--closures_ == 0)
    is_open_.store(true);
}

void lease::bind(root& of) {
  BGFS_ASSERT(root_ == nullptr && closures_ > 0, "L2: bound while nobody can enter");
  root_ = &of;
  resolving_.succeeded();
  home_.store(&of.top().owner().home());
  bound_nodes_ = nodes_below(of.top());
  table_.reset(granule_bits_for(of.top(), bound_nodes_));
  for (node* n : bound_nodes_)
    n->requests().add_lease(*this);
  length_changed();
  open();
}

void lease::unbind() {
  // Not is_empty: who is refused counts itself in and out again.
  BGFS_ASSERT(root_ != nullptr && !is_open(), "L2: unbound while nobody can enter");
  settle_counters();
  closures_++;
  for (node* n : bound_nodes_)
    n->requests().remove_lease(*this);
  bound_nodes_.clear();
  for (auto& p : paths_)
    p.store(nullptr);
  owned_paths_.clear();
  table_.retire_all();
  root_ = nullptr;
}

void lease::length_changed() {
  if (root_ == nullptr)
    return;
  table_.retire_all(); // ends of extents, and what shows through behind them
  length_.store(root_->top().length(), std::memory_order_release);
}

void lease::retire(byte_range guest) {
  // To the end of everything, for who does not know how far: no sum may wrap.
  guest.length = std::min(guest.length, device_length_max);
  table_.retire(guest);
}

std::optional<u16> lease::path_to(std::span<node* const> nodes, const direct_access& file) {
  for (std::size_t i = 0; i < owned_paths_.size(); i++)
    if (std::ranges::equal(owned_paths_[i]->nodes, nodes) && owned_paths_[i]->file == file)
      return static_cast<u16>(i);
  if (owned_paths_.size() == paths_max)
    return std::nullopt;
  auto made = std::make_unique<lease_path>();
  made->file = file;
  made->nodes.assign(nodes.begin(), nodes.end());
  made->of_queue = std::vector<path_counters>(queues_.size());
  for (const node* n : nodes)
    made->alignment = std::max<u64>(made->alignment, n->limits().request_alignment);
  const auto index = static_cast<u16>(owned_paths_.size());
  paths_[index].store(made.get(), std::memory_order_release);
  owned_paths_.push_back(std::move(made));
  return index;
}

std::optional<resolved_extent> lease::resolve(u64 offset) {
  if (!is_open() || offset >= root_->top().length())
    return std::nullopt;
  if (!resolving_.is_due())
    return std::nullopt;
  const std::optional<resolved_extent> found = resolve_now(offset);
  if (found) {
    resolving_.succeeded();
  } else {
    resolving_.failed();
  }
  return found;
}

std::optional<resolved_extent> lease::resolve_now(u64 offset) {
  node& top = root_->top();
  const u64 granule = table_.granule();
  u64 at = align_down(offset, granule);
  const u64 end = std::min(at + granule, top.length());
  while (offset < end) {
    const std::optional<resolution> found = resolve_extent(top, byte_range::between(at, end));
    if (!found && at < offset) {
      at = offset; // what comes before it in the granule is nobody's concern
      continue;
    }
    if (!found)
      return std::nullopt;
    if (at + found->length <= offset) {
      at += found->length;
      continue;
    }
    const std::optional<u16> path = path_to(found->nodes(), found->file);
    if (!path)
      return std::nullopt;
    const resolved_extent e{.guest = {at, found->length},
                            .is_zero = found->is_zero,
                            .may_write = found->may_write && root_->may_write_in_place(),
                            .path = *path,
                            .offset = found->offset};
    table_.put(e, offset);
    return e;
  }
  return std::nullopt;
}

void lease::count(unsigned queue, const leased_request& done) {
  queues_[queue].requests.add(done);
}

void lease::count_piece(unsigned queue, u16 path, const leased_request& piece) {
  paths_[path].load(std::memory_order_relaxed)->of_queue[queue].add(piece);
}

namespace {
using counters_of_queues = std::vector<const operation_counters*>;
} // namespace

void lease::add_to_node(node& n, operation kind, const operation_delta& news, bool knows_end) {
  if (news.count != 0)
    n.add_leased(kind, news, knows_end);
}

void lease::settle_path(lease_path& path) {
  counters_of_queues reads;
  counters_of_queues writes;
  for (const path_counters& c : path.of_queue) {
    reads.push_back(&c.reads);
    writes.push_back(&c.writes);
  }
  const operation_delta read = path.settled.reads.look_at(reads);
  const operation_delta written = path.settled.writes.look_at(writes);
  // The top counts requests, the others the pieces that reach them. Offsets are those of the file.
  for (std::size_t i = 1; i < path.nodes.size(); i++) {
    add_to_node(*path.nodes[i], operation::read, read, false);
    add_to_node(*path.nodes[i], operation::write, written, i + 1 == path.nodes.size());
  }
}

void lease::settle_counters() {
  if (root_ == nullptr)
    return;
  counters_of_queues reads;
  counters_of_queues writes;
  for (const queue_state& q : queues_) {
    reads.push_back(&q.requests.reads);
    writes.push_back(&q.requests.writes);
  }
  add_to_node(root_->top(), operation::read, settled_.reads.look_at(reads), false);
  add_to_node(root_->top(), operation::write, settled_.writes.look_at(writes), true);
  for (const auto& p : owned_paths_)
    settle_path(*p);
}

u64 lease::writes() const {
  u64 sum = 0;
  for (const queue_state& q : queues_)
    sum += q.requests.writes.count.get();
  return sum;
}

std::timespec lease::last_write() const {
  u64 last = 0;
  for (const queue_state& q : queues_)
    last = std::max(last, q.requests.writes.last_ended.get());
  const std::chrono::steady_clock::time_point then{std::chrono::nanoseconds(last)};
  const auto ago = std::chrono::steady_clock::now() - then;
  const auto at = std::chrono::system_clock::now() - ago;
  const auto ns =
      std::chrono::duration_cast<std::chrono::nanoseconds>(at.time_since_epoch()).count();
  constexpr i64 second = 1'000'000'000;
  return {ns / second, ns % second};
}

task<void> lease_closure::wait() const {
  if (of_ != nullptr)
    co_await of_->turn();
}

} // namespace bgfs
