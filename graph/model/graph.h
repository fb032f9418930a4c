// SPDX-License-Identifier: MIT
// The nodes of one component and their edges: opening from specs, attaching roots, closing. A graph
// has one home loop; all of its methods run there.
#pragma once

#include "graph/model/debugging.h"
#include "graph/model/events.h"
#include "graph/model/lease.h"
#include "graph/model/node.h"

#include <atomic>
#include <functional>
#include <map>
#include <unordered_map>
#include <variant>

namespace bgfs {

struct bitmap_change;
struct edit_outcome;
struct graph_edit;
struct node_spec;
struct reference_resolver;
class moving_component;

// A child as the YAML gives it: the name of another node, or a definition in place.
struct child_spec {
  std::string slot;
  std::variant<std::string, std::unique_ptr<node_spec>> target;
  source_mark mark;
};

struct node_spec {
  std::string node_name; // empty: the graph makes one up ("#block001")
  const driver_type* type = nullptr;
  options given;        // the driver's own, validated
  node_options generic; // the options of every node, validated and inherited
  std::vector<child_spec> children;
  bool has_no_backing = false; // `backing: null`: what the header names is not opened
  // What may be followed from the header, and below; null: as what leads here.
  reference_resolver* references = nullptr;
  // What its options may name, and those of what is below; null: as what leads here.
  std::shared_ptr<const secret_store> secrets;
  // Only what it is will be asked, not what it holds (open_request::is_info_only).
  bool is_info_only = false;
  // Goes with its last parent, as a definition in place does.
  bool is_owned_by_parent = false;
  // Looks at its children for a while, as nodes of the configuration do not know of it: who opened
  // it closes it, and a reload leaves it where it is.
  bool is_visitor = false;
  source_mark mark;
};

// The options of every node as a schema, and their meaning. `inherited` is the parent's, or null
// for a node without one; `slot` roles decide what is inherited (reference section 1.11).
extern const option_schema generic_node_schema;
[[nodiscard]] node_options parse_generic_options(const options& given,
                                                 const node_options* inherited,
                                                 child_role roles_in_parent);
// Combinations that contradict each other; graph::open checks it too.
[[nodiscard]] result<> check_generic_options(const node_options& o, std::string_view node_name);

// Decides what a file name in an image header means. The policy (references:, --allow-references)
// is its owner's; a refusal is an error that says how to allow it.
struct reference_resolver {
  virtual ~reference_resolver() = default;
  // `overlay_path` is the host path of the image that names it, for relative names.
  virtual result<node_spec> resolve_backing(const node& overlay,
                                            const image_reference& reference) = 0;
  // A file beside the image that holds a part of it, as the image names it: a protocol node.
  virtual result<node_spec> resolve_part(const node& image, const named_child& part) = 0;
};

// Told about changes below a root. None may suspend.
struct root_observer {
  virtual ~root_observer() = default;
  virtual void resized() = 0;
  // It goes on over another node: what is shown may be other bytes.
  virtual void medium_changed() {}
};

// An edge without a parent node: what exports and commands use a graph through. Requests wait while
// the part of the graph below is drained.
class root {
public:
  root(std::string name, node& top, root_observer* observer); // graph::attach makes them
  ~root();

  task<void> read(u64 offset, std::span<std::byte> bytes);
  task<void> write(u64 offset, std::span<const std::byte> bytes, write_flags flags = 0);
  task<void> write_zeroes(byte_range range, write_flags flags = 0);
  task<void> discard(byte_range range);
  task<void> flush();
  task<void> truncate(u64 length, truncate_options options = {});
  // Writes to `to`, which is of the same graph, what this root reads (node::copy_to). Both are
  // entered at once, so that draining either waits for nobody who waits for the other.
  task<void> copy_to(byte_range range, root& to, u64 to_offset);
  task<block_status> status_above(byte_range range, bool wants_zero = true);
  [[nodiscard]] u64 length() const { return top().length(); }

  [[nodiscard]] node& top() const { return edge_->child(); } // not after release
  // For a driver's create, which writes through an edge of nobody's graph. Not after release.
  [[nodiscard]] edge& as_edge() const { return *edge_; }
  [[nodiscard]] const std::string& name() const { return name_; }
  // Detaches; the nodes stay open. For `with`.
  task<void> release();
  [[nodiscard]] unsigned in_flight() const { return in_flight_; }
  [[nodiscard]] bool is_attached() const { return edge_ != nullptr; }
  // Null: its graph has no queues (graph::set_lease_queues). Shared with open files, whose requests
  // look at it on other threads while the root may go.
  [[nodiscard]] const std::shared_ptr<lease>& shared_lease() const { return lease_; }
  // Whether a write may pass its nodes at all: it holds the permission, and is not durable by rule.
  [[nodiscard]] bool may_write_in_place() const;
  // Keeps edits from leading it elsewhere, from taking it away and from changing what it may do;
  // the reason is the end of a sentence, "": they may.
  void hold(std::string reason) { held_by_ = std::move(reason); }

private:
  friend class graph;
  friend class graph_transaction;
  friend class node;
  struct passage;
  void bind_lease();
  task<void> end_lease();
  void learn(byte_range range);
  task<void> enter();
  [[nodiscard]] result<> check_attached() const;
  [[nodiscard]] result<> check_may_write() const;
  [[nodiscard]] result<> check_not_held() const;
  std::string name_;
  std::string held_by_;
  std::unique_ptr<edge> edge_; // null once released
  root_observer* observer_;
  std::shared_ptr<lease> lease_;
  unsigned quiesced_ = 0;
  unsigned in_flight_ = 0;
  wait_queue resumed_;
  wait_queue idle_;
};

// `n`, or what it filters: the image whose driver keeps snapshots. error_kind::unsupported.
[[nodiscard]] result<node*> find_snapshottable(node& n);

class graph {
public:
  graph(loop& home, const registry& drivers, reference_resolver* references);
  // For components that may move between the two: with the drivers and the event sink of `like`,
  // and no made-up name twice.
  graph(loop& home, const graph& like);
  ~graph(); // every node is closed by then
  graph(const graph&) = delete;
  graph& operator=(const graph&) = delete;

  // Opens a node and what it needs below; children named by reference must be open already. On
  // failure everything this call opened is closed again. The node stays open until close_all, or
  // until close() is called on it while it has no parents.
  task<node*> open(node_spec spec);
  // Flushes and closes a node without parents, and the nodes below that only it used and that were
  // defined in place. The first error is reported; everything is closed all the same.
  task<void> close(node& n);
  // Closes all nodes, parents first. No root may be attached. The first error is reported.
  task<void> close_all();

  // Attaches a root to an open node, if its permissions allow.
  task<std::unique_ptr<root>> attach(std::string name, node& top, permissions wanted,
                                     root_observer* observer = nullptr);

  // Holds back new requests of every root above `n` (or any of `nodes`) and waits for those in
  // flight. Use with `with`.
  class drained;
  task<std::unique_ptr<drained>> drain(node& n);
  task<std::unique_ptr<drained>> drain(std::vector<node*> nodes, std::vector<root*> more = {});

  // Carries out an edit (graph/model/edit.h). On failure nothing was changed, unless a node that
  // was closed for the edit cannot be opened again: then it is lost (node::loss) and says so.
  task<edit_outcome> apply(graph_edit edit);

  // Gives up the exclusive use of an image, so that another process may take it over: everything is
  // written back, the locks go, requests fail. Refused while a parent needs to write. A node that
  // only it used is deactivated, too. `activate` takes the image back and reads it anew.
  task<void> deactivate(node& n);
  task<void> activate(node& n);

  // Internal snapshots of `n`, or of what it filters (snapshots.cpp). Each is one instant: the node
  // is drained, so that what was answered before is in a new snapshot, and nothing that begins
  // later. Durable when it returns. error_kind::unsupported where the format keeps none.
  [[nodiscard]] result<std::vector<snapshot_info>> snapshots(node& n) const;
  task<std::string> create_snapshot(node& n, new_snapshot wanted); // its id
  task<void> delete_snapshot(node& n, snapshot_key which);
  task<void> rename_snapshot(node& n, snapshot_key which, std::string name);
  // The disk goes back to it, in content and length; who uses the node is told.
  task<void> revert_to_snapshot(node& n, snapshot_key which);
  // The same by who has a root over it that may write and resize.
  task<void> revert_held(node& n, snapshot_key which);
  // Part of create_snapshots (snapshot_group.h): `inside` runs while all of `images`, which are of
  // this graph and may have another snapshot, are drained and held for writing.
  task<void> hold_for_snapshots(std::vector<node*> images, std::function<task<void>()> inside);
  task<void> drain_for_snapshots(const std::vector<node*>& images,
                                 const std::function<task<void>()>& inside);
  // Within it. The name was checked.
  task<std::string> create_snapshot_held(node& image, new_snapshot wanted);
  task<void> delete_snapshot_held(node& image, std::string id);

  // Dirty bitmaps (bitmap_change.h, dirty_bitmaps.cpp). The changes are made in order and at one
  // instant: the nodes are drained, so that what was answered before is on one side of it and all
  // that begins later on the other. All are made, or none.
  task<void> change_bitmaps(std::vector<bitmap_change> changes);
  // The same as a part of an edit (graph_edit::before_commit), which has the nodes drained.
  task<void> change_bitmaps_held(std::vector<bitmap_change> changes);
  // One to look at, all of whose bits are in memory; valid until the next await of the caller.
  task<const dirty_bitmap*> read_bitmap(node& n, std::string name);

  // Changes how the image of `n` is made (amendable). The caller has a root over it that may write
  // and resize; the node is drained meanwhile. error_kind::unsupported where the format cannot.
  task<void> amend(node& n, amend_request request);
  // The image of `n` gives up its content (emptiable), under the same conditions.
  enum class emptied : u8 { reads_otherwise, reads_the_same };
  task<void> make_empty(node& n, emptied what = emptied::reads_otherwise);

  // Moving a component to another graph (graph/model/migration.h): `let_go` on this graph's loop,
  // `take_in` on the other's. The caller keeps requests away from the roots above meanwhile; what
  // runs still is waited for.
  task<moving_component> let_go(node& any_of_it);
  task<void> take_in(moving_component component); // never fails

  // How many threads or loops may use leases of the roots that are attached from now on; 0, as at
  // first: there are none.
  void set_lease_queues(unsigned queues) { lease_queues_ = queues; }

  // For tests: called before each step of an edit; an error makes the edit fail there.
  void set_edit_fault(std::function<std::optional<error>(std::string_view step)> fault) {
    edit_fault_ = std::move(fault);
  }

  // The nodes whose opening is under way, outermost first: what a reference resolver may look at to
  // find loops and to know who asks.
  [[nodiscard]] const std::vector<const node*>& opening() const { return opening_; }

  // What nodes may name whose specs bring nothing of their own; null, as at first: nothing.
  void set_secrets(std::shared_ptr<const secret_store> secrets) { secrets_ = std::move(secrets); }

  // Where events go; null, as at first: nowhere. The sink outlives the graph.
  void set_events(event_sink* sink) { events_ = sink; }
  void emit(std::string_view type, value data) const {
    if (events_ != nullptr)
      events_->emit(type, std::move(data));
  }

  [[nodiscard]] node* find(std::string_view name) const;
  [[nodiscard]] const std::list<std::unique_ptr<node>>& nodes() const { return nodes_; }
  [[nodiscard]] loop& home() const { return home_; }
  [[nodiscard]] const registry& drivers() const { return drivers_; }

  // A node name that nothing has and that no user can choose: "#block001".
  std::string make_auto_name();

private:
  friend class bitmap_transaction;
  friend class graph_transaction;
  friend class node;
  friend class permission_plan;
  friend class root;
  void add_name(node& n);
  void remove_name(node& n);
  task<node*> open_node(node_spec spec);
  task<void> open_named_children(node& n);
  task<void> open_driver(node& n);
  task<void> open_child(node& n, child_spec child);
  task<void> open_backing(node& n);
  task<void> dismantle(node& n);
  task<void> close_unlocked(node& n);
  [[nodiscard]] result<> check_loop(const node& n) const;
  [[nodiscard]] result<> add_edge(node& parent, std::string name, child_role roles, node& child);
  void tell_resized(node& n);
  task<void> close_since(std::size_t count);
  [[nodiscard]] std::vector<node*> nodes_parents_first() const;
  [[nodiscard]] static result<> check_may_attach(const node& parent, std::string_view slot,
                                                 const node& child);
  task<void> suspend(node& n);
  task<void> resume(node& n);
  task<void> deactivate_drained(node& n);
  task<void> activate_drained(node& n);
  [[nodiscard]] static result<> adopt_bitmaps(node& n);
  static task<void> store_bitmaps(node& n);
  void settle_permissions();
  struct snapshot_change;
  struct snapshots_touched;
  task<std::string> change_snapshots(node& top, snapshot_change change);
  task<void> amend_drained(node& n, const amend_request& request);
  task<void> empty_drained(node& n, emptied what);
  task<std::string> change_drained(node& image, const snapshot_change& change);
  task<std::string> change_with_root(node& image, const snapshot_change& change);
  task<void> revert_drained(node& image, snapshot_key which);

  loop& home_;
  const registry& drivers_;
  reference_resolver* references_;
  std::shared_ptr<const secret_store> secrets_; // while a node is opened: what leads to it brings
  event_sink* events_ = nullptr;
  unsigned lease_queues_ = 0;
  std::list<std::unique_ptr<node>> nodes_;
  // All of nodes_; the names belong to them. Of two with one name one is leaving.
  std::unordered_multimap<std::string_view, node*> by_name_;
  std::list<root*> roots_;
  std::vector<const node*> opening_;
  async_mutex edits_; // one open or close at a time
  std::shared_ptr<std::atomic<unsigned>> auto_names_;
  std::list<drained*> drains_;
  // During an edit drivers keep the locks they had beside those they need.
  bool keeps_locks_ = false;
  std::function<std::optional<error>(std::string_view step)> edit_fault_;
};

class graph::drained {
public:
  drained(graph& of, std::vector<root*> roots, std::vector<node*> nodes);
  ~drained() { BGFS_ASSERT(is_released_, "a drain was not ended through with"); }
  task<void> release();

private:
  friend class graph;
  graph* graph_;
  std::vector<root*> roots_;
  std::vector<node*> nodes_; // told to their drivers; those closed meanwhile are taken out
  std::vector<breakpoints_off> passing_; // what is waited for below the roots is not kept
  bool is_released_ = false;
};

} // namespace bgfs
