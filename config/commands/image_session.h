// SPDX-License-Identifier: MIT
// An image opened for the time of a command: its name and options become a graph on a loop of the
// command's own.
#pragma once

#include "config/commands/command_signals.h"
#include "config/commands/commands.h"
#include "config/references.h"
#include "graph/io/with.h"

namespace bgfs {

enum class host_cache : u8 { writeback, writethrough, none, directsync, unsafe };
[[nodiscard]] result<host_cache> parse_host_cache(const std::string& name);

// How a command names an image and what it wants of it.
struct image_choice {
  std::string name;        // a path, json:{...}, or option=value,... with is_options
  std::string format = {}; // -f; empty: by its first bytes
  bool is_options = false; // --image-opts
  bool is_writable = false;
  bool is_resized = false;        // with it: its length will change
  bool shares_writes = false;     // others of this process and elsewhere may write, too
  bool is_force_shared = false;   // -U
  bool needs_backing = true;      // false: only the image itself is opened
  bool is_for_check = false;      // and that only to be checked (node_options::is_for_check)
  bool is_info_only = false;      // its content is not looked at: no key, no data file is needed
  bool discards = false;          // discards reach the host
  std::string aio = {};           // how its file is read and written; empty: as it says
  std::string extra_options = {}; // name=value,... added to a path's definition
  bool copies_on_read = false;    // what it reads from its backing chain stays in it
  bool is_temporary = false;      // `bgfs io`: writes go to an overlay that is gone at the end
  // A new qcow2 image, which becomes an overlay of it and takes all writes; empty: there is none.
  std::string overlay_path = {};
  std::string snapshot = {}; // -l: an internal snapshot of it, as parse_snapshot takes it
  host_cache cache = host_cache::writeback;
};

// The definition of the whole node: the protocol that the name says under the format that was
// asked for or found, with the options of the choice.
[[nodiscard]] result<value> define_image(const image_choice& choice, const registry& drivers);

// A root over an open image; given up through `with`.
class open_image {
public:
  open_image(graph& owner, std::unique_ptr<root> top, image_choice choice)
      : owner_(owner), top_(std::move(top)), choice_(std::move(choice)) {}

  [[nodiscard]] root& disk() const { return *top_; }
  [[nodiscard]] node& top() const { return top_->top(); }
  [[nodiscard]] const image_choice& choice() const { return choice_; }
  // With a write-through cache, every write is durable before it is answered.
  [[nodiscard]] write_flags flags_of_writes() const;
  // Not in a file that was empty when it was made.
  [[nodiscard]] bool is_on_device() const;
  // Writes back, closes the image and gives up its locks.
  task<void> release();

private:
  graph& owner_;
  std::unique_ptr<root> top_;
  image_choice choice_;
};

task<std::unique_ptr<open_image>> open(graph& into, image_choice choice);

// What the user lets headers of images name.
struct allowed_references {
  std::vector<std::string> directories;     // --allow-references
  std::vector<std::string> raw_directories; // --allow-raw-references
};

// The loop and the graph of one command.
class command_session {
public:
  [[nodiscard]] static result<std::unique_ptr<command_session>>
  create(const registry& drivers, const allowed_references& allowed, command_signals& signals,
         std::shared_ptr<const secret_store> secrets);
  ~command_session();

  [[nodiscard]] graph& nodes() { return *graph_; }
  [[nodiscard]] loop& home() { return *loop_; }
  [[nodiscard]] const reference_policy& policy() const { return policy_; }
  [[nodiscard]] const registry& drivers() const { return drivers_; }
  [[nodiscard]] command_signals& signals() { return signals_; }
  [[nodiscard]] const std::shared_ptr<const secret_store>& secrets() const { return secrets_; }

private:
  command_session(std::unique_ptr<loop> home, const registry& drivers, reference_policy policy,
                  command_signals& signals);
  const registry& drivers_;
  command_signals& signals_;
  reference_policy policy_;
  std::shared_ptr<const secret_store> secrets_;
  policy_resolver resolver_;
  std::unique_ptr<loop> loop_;
  std::unique_ptr<graph> graph_;
};

} // namespace bgfs
