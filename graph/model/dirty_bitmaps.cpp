// SPDX-License-Identifier: MIT
// Dirty bitmaps of nodes: added, changed, read, and kept in images. The bits themselves are set
// where requests end (write_path.cpp, zero_path.cpp, discard_path.cpp, resize_path.cpp).
//
// A node that records is not written by leases (resolve.cpp) nor by the kernel (host_file.cpp), so
// that no write passes it. Changes drain the nodes: no request is half done when bits are taken
// away or begin to count, and one cannot set its bit in a bitmap of after it.
#include "graph/io/spawn.h"
#include "graph/io/with.h"
#include "graph/model/bitmap_change.h"
#include "graph/model/graph.h"

#include <algorithm>

namespace bgfs {

namespace {

// Of all bitmaps of a node together, when one is to be read from its image.
constexpr u64 node_bitmaps_memory_max = GiB;
constexpr std::size_t named_max = 10;

std::string names_of(const bitmap_list& all) {
  if (all.is_empty())
    return "there are none";
  std::string text = "there are ";
  for (const auto& b : all.all().first(std::min(all.all().size(), named_max)))
    text += fmt::format("{}'{}'", b == all.all().front() ? "" : ", ", b->name());
  if (all.all().size() > named_max)
    text += fmt::format(" and {} more", all.all().size() - named_max);
  return text;
}

result<dirty_bitmap*> find_bitmap(const node& n, std::string_view name) {
  dirty_bitmap* const found = n.bitmaps().find(name);
  if (found == nullptr)
    return fail(error_kind::not_found, "{} has no bitmap '{}'; {}", n.describe(), name,
                names_of(n.bitmaps()));
  return found;
}

result<> check_usable(const node& n, const dirty_bitmap& b) {
  if (!b.is_inconsistent())
    return {};
  return fail(error_kind::corrupt_image,
              "bitmap '{}' of {} is inconsistent ({}): it can only be removed", b.name(),
              n.describe(), b.definition().inconsistency);
}

result<> check_not_held(const node& n, const dirty_bitmap& b) {
  if (b.holders().empty())
    return {};
  return fail(error_kind::busy, "bitmap '{}' of {} is in use by {}", b.name(), n.describe(),
              b.holders().front());
}

// All of its bits are in memory afterwards.
task<void> complete(node& n, dirty_bitmap& b) {
  co_await check_usable(n, b);
  if (b.is_complete())
    co_return;
  u64 memory = 0;
  for (const auto& other : n.bitmaps().all())
    memory += other->memory();
  co_await context(check_bitmaps_memory(memory), "reading bitmap '{}' of {}", b.name(),
                   n.describe());
  co_await context(n.as_bitmap_store()->read_bitmap(b), "reading bitmap '{}' of {}", b.name(),
                   n.describe());
}

} // namespace

result<> check_bitmaps_memory(u64 bytes) {
  if (bytes <= node_bitmaps_memory_max)
    return {};
  return fail(error_kind::out_of_range,
              "the bitmaps of the node take {} bytes of memory already, more than {}; remove some",
              bytes, node_bitmaps_memory_max);
}

std::string bitmap_change::attempt() const {
  const std::string which = fmt::format("bitmap '{}'", name);
  switch (what) {
  case kind::add:
    return fmt::format("adding {} to {}", which, where->describe());
  case kind::remove:
    return fmt::format("removing {} from {}", which, where->describe());
  case kind::clear:
    return fmt::format("clearing {} of {}", which, where->describe());
  case kind::enable:
    return fmt::format("enabling {} of {}", which, where->describe());
  case kind::disable:
    return fmt::format("disabling {} of {}", which, where->describe());
  case kind::set_granularity:
    return fmt::format("setting the granularity of {} of {}", which, where->describe());
  case kind::merge:
    return fmt::format("merging bitmap '{}' of {} into {} of {}", source_name, source->describe(),
                       which, where->describe());
  }
  return {};
}

// Some changes, all of them or none, while the nodes are drained.
class bitmap_transaction {
public:
  explicit bitmap_transaction(const std::vector<bitmap_change>& changes) : changes_(changes) {}

  task<void> run() {
    for (const bitmap_change& c : changes_) {
      result<> done = co_await as_result(apply(c));
      if (done)
        continue;
      undo();
      co_await fail(std::move(done).error());
    }
    co_await shielded(remove_from_images());
  }

private:
  using kind = bitmap_change::kind;
  // What was there before, of a bitmap that was changed; taken out, if one was removed.
  struct undone {
    node* where;
    dirty_bitmap* added = nullptr;
    dirty_bitmap* changed = nullptr;
    std::optional<dirty_bitmap::content> before = {};
    std::unique_ptr<dirty_bitmap> removed = {};
  };

  static result<> check_may_change(node& n) {
    BGFS_CHECK(n.check_active());
    return n.check_operation(node_operation::dirty_bitmap);
  }
  // Those who write past the node are not recorded.
  static result<> check_sees_writes(const node& n) {
    if (!n.is_written_by_others())
      return {};
    return fail(error_kind::busy, "{} is written past this process at the moment", n.describe());
  }
  static result<> check_image(node& n, bool is_persistent) {
    return is_persistent ? n.check_writable() : result<>();
  }

  task<void> apply(const bitmap_change& c) {
    co_await check_may_change(*c.where);
    switch (c.what) {
    case kind::add:
      co_await context(add(c), "{}", c.attempt());
      break;
    case kind::remove:
      co_await context(remove(c), "{}", c.attempt());
      break;
    case kind::set_granularity:
      co_await context(replace_clear(c), "{}", c.attempt());
      break;
    case kind::clear:
    case kind::enable:
    case kind::disable:
    case kind::merge:
      co_await context(change(c), "{}", c.attempt());
      break;
    }
  }

  result<> add(const bitmap_change& c) {
    node& n = *c.where;
    BGFS_CHECK(check_bitmap_name(c.name));
    bitmap_definition wanted{.name = c.name,
                             .granularity = c.granularity != 0
                                                ? c.granularity
                                                : default_bitmap_granularity(n.cluster_size_),
                             .is_enabled = c.is_enabled,
                             .is_persistent = c.is_persistent};
    BGFS_CHECK(check_bitmap_granularity(wanted.granularity));
    BGFS_CHECK(check_bitmap_size(n.length(), wanted.granularity));
    if (n.bitmaps_.find(c.name) != nullptr)
      return fail(error_kind::invalid_argument, "there is a bitmap of that name already");
    if (c.is_enabled)
      BGFS_CHECK(check_sees_writes(n));
    if (c.is_persistent)
      BGFS_CHECK(check_can_store(n, wanted));
    dirty_bitmap& made = n.bitmaps_.add(
        std::make_unique<dirty_bitmap>(std::move(wanted), n.length(), dirty_bitmap::origin::added));
    undos_.push_back({.where = &n, .added = &made});
    return {};
  }

  static result<> check_can_store(const node& n, const bitmap_definition& wanted) {
    BGFS_CHECK(n.check_writable());
    if (n.bitmap_store_ == nullptr)
      return fail(error_kind::unsupported,
                  "driver '{}' keeps no bitmaps in its images; use a format that does, such as "
                  "qcow2, or one that is not persistent",
                  n.type().name);
    std::vector<bitmap_definition> all;
    for (const auto& b : n.bitmaps_.all())
      if (b->is_persistent())
        all.push_back(b->definition());
    all.push_back(wanted);
    return n.bitmap_store_->check_can_store(all);
  }

  // From the image only when nothing else can fail.
  result<> remove(const bitmap_change& c) {
    node& n = *c.where;
    BGFS_TRY(const dirty_bitmap* found, find_bitmap(n, c.name));
    BGFS_CHECK(check_not_held(n, *found));
    BGFS_CHECK(check_image(n, found->is_persistent()));
    undos_.push_back({.where = &n, .removed = n.bitmaps_.take(*found)});
    return {};
  }

  // Nothing is set: another in its place says the same.
  task<void> replace_clear(const bitmap_change& c) {
    node& n = *c.where;
    dirty_bitmap* const b = co_await find_bitmap(n, c.name);
    co_await complete(n, *b);
    if (b->bits().set_count() != 0)
      co_await fail(error_kind::busy,
                    "{} bytes are dirty; its granularity can be set before the first is, or after "
                    "it was cleared",
                    b->dirty_bytes());
    bitmap_definition wanted = b->definition();
    wanted.granularity = c.granularity;
    co_await check_bitmap_granularity(wanted.granularity);
    co_await check_bitmap_size(n.length(), wanted.granularity);
    co_await remove(c);
    dirty_bitmap& made = n.bitmaps_.add(
        std::make_unique<dirty_bitmap>(std::move(wanted), n.length(), dirty_bitmap::origin::added));
    undos_.push_back({.where = &n, .added = &made});
  }

  task<void> change(const bitmap_change& c) {
    node& n = *c.where;
    dirty_bitmap* const b = co_await find_bitmap(n, c.name);
    co_await check_usable(n, *b);
    co_await check_not_held(n, *b);
    co_await check_image(n, b->is_persistent());
    if (c.what == kind::enable)
      co_await check_sees_writes(n);
    const dirty_bitmap* source = nullptr;
    if (c.what == kind::merge)
      source = co_await prepare_merge(c, *b);
    // Should we stop after the change, the image must not promise what it held before.
    if (b->is_persistent())
      co_await n.bitmap_store_->begin_bitmap_change();
    undos_.push_back({.where = &n, .changed = b});
    if (changes_.size() > 1)
      undos_.back().before = b->save();
    switch (c.what) {
    case kind::add:
    case kind::remove:
    case kind::set_granularity:
      break;
    case kind::clear:
      b->clear();
      break;
    case kind::enable:
    case kind::disable:
      b->set_enabled(c.what == kind::enable);
      break;
    case kind::merge:
      b->merge(*source);
      break;
    }
    n.bitmaps_.refresh();
  }

  static task<const dirty_bitmap*> prepare_merge(const bitmap_change& c, dirty_bitmap& into) {
    co_await c.source->check_active();
    dirty_bitmap* const source = co_await find_bitmap(*c.source, c.source_name);
    if (source->length() != into.length())
      co_await fail(error_kind::invalid_argument,
                    "the bitmaps describe disks of different lengths: {} bytes and {}",
                    source->length(), into.length());
    co_await complete(*c.source, *source);
    co_await complete(*c.where, into);
    co_return source;
  }

  void undo() {
    while (!undos_.empty()) {
      undone u = std::move(undos_.back());
      undos_.pop_back();
      if (u.added != nullptr)
        (void)u.where->bitmaps_.take(*u.added);
      if (u.changed != nullptr && u.before)
        u.changed->restore(*std::move(u.before));
      if (u.removed != nullptr)
        u.where->bitmaps_.add(std::move(u.removed));
      u.where->bitmaps_.refresh();
    }
  }

  // One node after the other, each as a whole. If an image cannot be written, the bitmaps of those
  // before it are gone, and everything else is as it was.
  task<void> remove_from_images() {
    std::vector<node*> nodes;
    for (const undone& u : undos_)
      if (u.removed != nullptr && u.removed->is_persistent() &&
          std::ranges::find(nodes, u.where) == nodes.end())
        nodes.push_back(u.where);
    for (node* n : nodes) {
      std::vector<std::string> names;
      for (const undone& u : undos_)
        if (u.where == n && u.removed != nullptr && u.removed->is_persistent())
          names.push_back(u.removed->name());
      result<> removed = co_await as_result(n->bitmap_store_->remove_bitmaps(std::move(names)));
      if (removed) {
        std::erase_if(undos_,
                      [n](const undone& u) { return u.where == n && u.removed != nullptr; });
        continue;
      }
      removed.error().add_context(fmt::format("removing bitmaps from {}", n->describe()));
      undo();
      co_await fail(std::move(removed).error());
    }
  }

  const std::vector<bitmap_change>& changes_;
  std::vector<undone> undos_;
};

task<void> graph::change_bitmaps(std::vector<bitmap_change> changes) {
  const async_mutex::guard editing = co_await edits_.lock();
  std::vector<node*> nodes;
  for (const bitmap_change& c : changes) {
    nodes.push_back(c.where);
    if (c.source != nullptr)
      nodes.push_back(c.source);
  }
  bitmap_transaction work(changes);
  co_await with(drain(std::move(nodes)), [&](drained&) { return work.run(); });
}

task<void> graph::change_bitmaps_held(std::vector<bitmap_change> changes) {
  BGFS_ASSERT(edits_.is_locked(), "an edit is under way");
  bitmap_transaction work(changes);
  co_await work.run();
}

task<const dirty_bitmap*> graph::read_bitmap(node& n, std::string name) {
  dirty_bitmap* found = co_await find_bitmap(n, name);
  co_await check_usable(n, *found);
  if (found->is_complete())
    co_return found;
  const async_mutex::guard editing = co_await edits_.lock();
  co_await n.check_active();
  found = co_await find_bitmap(n, name); // it may have gone meanwhile
  co_await complete(n, *found);
  co_return found;
}

std::vector<bitmap_definition> within_memory(std::vector<bitmap_definition> all, u64 length) {
  constexpr u64 slot_bytes = 16; // of a chunk of bits
  u64 left = node_bitmaps_memory_max;
  for (bitmap_definition& d : all) {
    if (!d.inconsistency.empty())
      continue;
    const u64 least = divide_up(length, d.granularity * dirty_bits::chunk_bits) * slot_bytes;
    if (least <= left) {
      left -= least;
    } else {
      d.inconsistency = "the bitmaps before it take all the memory that there may be";
    }
  }
  return all;
}

// Those of an image that was opened. One that nobody may trust is there to be removed.
result<> graph::adopt_bitmaps(node& n) {
  if (n.bitmap_store_ == nullptr || n.is_info_only_)
    return {};
  for (bitmap_definition& d : within_memory(n.bitmap_store_->stored_bitmaps(), n.length())) {
    if (n.bitmaps_.find(d.name) != nullptr)
      return fail(error_kind::busy,
                  "{} and the image, which was in other hands, both have a bitmap '{}' now; remove "
                  "that from the image",
                  n.describe(), d.name);
    n.bitmaps_.add(
        std::make_unique<dirty_bitmap>(std::move(d), n.length(), dirty_bitmap::origin::stored));
  }
  return {};
}

// Before an image is closed, or becomes read-only.
task<void> graph::store_bitmaps(node& n) {
  if (n.bitmap_store_ == nullptr || n.is_read_only() || n.is_suspended_)
    co_return;
  std::vector<dirty_bitmap*> kept;
  for (const auto& b : n.bitmaps_.all())
    if (b->is_persistent() && !b->is_inconsistent())
      kept.push_back(b.get());
  if (!kept.empty())
    co_await context(n.bitmap_store_->store_bitmaps(kept), "storing the bitmaps of {}",
                     n.describe());
}

// What is about to change the length of this node, and with it that of those above that show it.
result<> node::check_bitmaps_follow(u64 length) const {
  for (const auto& b : bitmaps_.all()) {
    BGFS_CHECK(check_not_held(*this, *b));
    if (b->is_inconsistent())
      return fail(error_kind::busy,
                  "bitmap '{}' of {} is inconsistent ({}) and cannot follow another length; remove "
                  "it first",
                  b->name(), describe(), b->definition().inconsistency);
    BGFS_CHECK(context(check_bitmap_size(length, b->granularity()), "bitmap '{}' of {}", b->name(),
                       describe()));
  }
  for (const edge* e : parents_)
    if (e->parent() != nullptr && e->has_role(role::filtered) && e->parent()->length() == length_)
      BGFS_CHECK(e->parent()->check_bitmaps_follow(length));
  return {};
}

bitmap_hold::bitmap_hold(node& of, dirty_bitmap& which, std::string who) : of_(of), which_(which) {
  which.holders_.push_back(who);
  holder_ = std::prev(which.holders_.end());
  using enum node_operation;
  blocker_ =
      of.blockers().add(bit(change) | bit(resize) | bit(replace) | bit(eject) | bit(drive_del),
                        fmt::format("bitmap '{}' is in use by {}", which.name(), who));
}

bitmap_hold::~bitmap_hold() {
  of_.blockers().remove(blocker_);
  which_.holders_.erase(holder_);
}

} // namespace bgfs
