// SPDX-License-Identifier: MIT
// What a graph file (DESIGN.md section 4) or the short form `bgfs mount IMAGE DIR` asks for,
// checked against the schemas but not opened: node definitions, exports, and what image headers may
// name. A value: reading it opens no image and takes no lock.
#pragma once

#include "config/graph_state.h"
#include "graph/model/graph.h"

#include <sys/types.h>

namespace bgfs {

enum class truncate_policy : u8 { refuse, zero };
enum class control_mode : u8 { beside, hidden, none };
enum class cache_mode : u8 { none, kernel };
enum class passthrough_mode : u8 { automatic, on, off };
enum class snapshot_mode : u8 { internal, external };
enum class open_mode : u8 { at_mount, on_demand };

// One root of the mount.
struct export_spec {
  std::string name;
  std::string node_name;
  bool is_writable = false;
  bool is_growable = false;
  truncate_policy on_truncate = truncate_policy::refuse;
  control_mode control = control_mode::beside;
  cache_mode cache = cache_mode::none;
  passthrough_mode passthrough = passthrough_mode::automatic;
  open_mode open = open_mode::at_mount;
  bool is_exclusive = false; // the raw file and partitions are not open for writing at once
  bool is_required = false;
  bool is_untrusted = false;
  std::optional<mode_t> mode; // permission bits; absent: 0600 or 0400, by is_writable
  std::optional<uid_t> owner;
  std::optional<gid_t> group;
  u64 flush_interval_ms = 5000; // 0: only fsync
  // Where new snapshots go: into the image, or into overlays in a directory, an absolute path.
  snapshot_mode snapshots = snapshot_mode::internal;
  std::string snapshots_directory;
  std::string points_directory = "/var/tmp"; // absolute
  std::optional<u64> points_limit;           // bytes that each point keeps; absent: no limit
  // The thread that serves it and everything connected with its nodes, which is the same for all
  // exports of a component, whichever of them names it. Empty: the mount's own.
  std::string iothread;
  source_mark mark;
  source_mark passthrough_mark; // where `passthrough` stands
};

// The short form: one image, no YAML.
struct image_request {
  std::string filename;
  std::string format;                          // -F; empty: by its magic
  bool is_writable = false;                    // --writable; needs a format
  std::vector<std::string> allowed_references; // --allow-references=DIR
};

class graph_config;

// How a configuration was read, to read it again: a reload.
struct config_source {
  image_request image; // its filename, absolute, is that of the graph file or the image
  bool is_graph = false;
  bool is_read_only = false; // -o ro
  std::string only_export;   // -o export=NAME; empty: all of them
  bool is_writeback = false; // -o writeback
  // `state`: instead of what the state file says.
  // What was read of secrets before: descriptors give theirs only once.
  std::shared_ptr<const secret_store> secrets;
  [[nodiscard]] result<graph_config> read(const registry& drivers,
                                          const graph_state* state = nullptr) const;
};

// How a graph file is read otherwise than it says.
struct load_options {
  const graph_state* state = nullptr;    // instead of the state file beside it
  std::string only_export = {};          // as if it had no other one
  const secret_store* secrets = nullptr; // what descriptors gave before (config/secrets.h)
};

class graph_config {
public:
  // Reads the file and its fragments. Errors say file:line:column, what was allowed, what to do.
  // The state file beside it (config/graph_state.h) is in force.
  [[nodiscard]] static result<graph_config> load(const std::string& path, const registry& drivers,
                                                 const load_options& how = {});
  // The root is called "disk"; reads the image's first bytes to find its format.
  [[nodiscard]] static result<graph_config> for_image(const image_request& request,
                                                      const registry& drivers);
  graph_config(graph_config&&) noexcept;
  graph_config& operator=(graph_config&&) noexcept;
  ~graph_config();

  // Everything is opened read-only and no root is writable, whatever the file says: -o ro.
  void make_read_only();
  // Only this root is shown: -o export=NAME.
  [[nodiscard]] result<> serve_only(std::string_view name);
  // The kernel holds back what is written to the only root, and owns its length: -o writeback.
  [[nodiscard]] result<> write_back();
  // Headers may lead below these directories too, also for untrusted roots: --allow-references.
  void allow_references(const std::vector<std::string>& directories);

  // Headers lead nowhere into these directories, and they are not looked at: where we are mounted.
  void keep_out_of(std::vector<std::string> directories);
  // What changed at run time and is in force.
  [[nodiscard]] const graph_state& state() const;
  // Snapshots of it, which make no difference to the graph, are others than when it was read.
  void replace_snapshots(std::map<std::string, std::vector<external_snapshot>> snapshots);
  // Where it was read from: an absolute path (of the image, in the short form).
  [[nodiscard]] const std::string& source() const;
  [[nodiscard]] const std::vector<export_spec>& exports() const;
  // Why a root cannot be opened although the graph can: its fragment is wrong. Null: it can.
  [[nodiscard]] const error* failure_of(const export_spec& root) const;
  // The definition of a named node, ready for graph::open; made anew at each call. A node that no
  // writable root writes through is opened read-only unless it says `read-only: false`.
  [[nodiscard]] result<node_spec> make_node_spec(std::string_view node_name) const;
  // The named nodes that must be open before this one can be, first things first, itself last.
  [[nodiscard]] std::vector<std::string> opening_order(std::string_view node_name) const;
  // Whether another export reaches a node of this one, which is one of exports(), and either
  // writes.
  [[nodiscard]] bool is_shared(const export_spec& root) const;
  // Every node and export that leads straight to this node, as messages name them.
  [[nodiscard]] std::vector<std::string> users_of(std::string_view node_name) const;
  // Every host path the definitions name, absolute; to be refused where they lie in our own mount.
  [[nodiscard]] std::vector<std::string> host_paths() const;
  // The same of what the node and all that it needs are made of.
  [[nodiscard]] std::vector<std::string> host_paths_below(std::string_view node_name) const;
  // The effective configuration with defaults and secrets hidden, for .bgfs/graph.yaml and .json.
  [[nodiscard]] value effective() const;
  // Carries out the `references` policy for this root; lives as long as the config.
  [[nodiscard]] reference_resolver& references(const export_spec& root) const;
  // What `secrets` stands for; never null.
  [[nodiscard]] const std::shared_ptr<const secret_store>& secrets() const;
  // Things the user should know that are no errors: one bad fragment fails only its own roots.
  [[nodiscard]] const std::vector<error>& warnings() const;

  struct content; // known to config/ only: graph_content.h

private:
  friend result<graph_config> make_graph_config(std::unique_ptr<content> c);
  explicit graph_config(std::unique_ptr<content> c);
  void count_reach();
  std::unique_ptr<content> content_;
};

// What a root takes from its top node and lets others do: it shares with the other roots of its
// mount that reach the same nodes, and lets nobody else write.
[[nodiscard]] permissions permissions_of(const export_spec& root, const graph_config& config);

// Opens the nodes of one root in their order, those already open excepted, and returns the top.
// When it fails, what it opened is closed again and other roots are untouched.
task<node*> open_export(graph& into, const graph_config& config, const export_spec& root);

} // namespace bgfs
