// SPDX-License-Identifier: MIT
// What an image's header may name. A header is data from wherever the image came from: it may lead
// only to files below allowed directories, never makes a file a raw image, and never reaches
// another protocol or a node of the graph. All of that only the user can declare.
#pragma once

#include "config/node_definition.h"

namespace bgfs {

struct reference_policy {
  // Absolute directories; symbolic links are resolved when a name is held against them.
  std::vector<std::string> allowed;
  // The image's own directory is allowed too: for commands about one image.
  bool allows_own_directory = false;
  // Directories whose files a header may declare raw. Only the user can know that a file without a
  // format of its own is an image at all, so this is never a default.
  std::vector<std::string> raw_allowed;
  // A backing file whose format the header leaves out is recognised by its first bytes.
  bool is_probing = false;
  // Relative names after "file:" and in "json:" have no place to start from but the working
  // directory: fine for a command, meaningless for a daemon.
  bool has_working_directory = false;
  // A json: name may name secrets: fine where whoever gave them gives the command, too.
  bool may_name_secrets = false;
  // Where this process itself is mounted: never looked into, whoever says so.
  std::vector<std::string> kept_out;
  // Directories that have moved: names that begin with the first begin with the second instead.
  std::vector<std::pair<std::string, std::string>> rewrites;
  // How to allow a directory, which stands between the two.
  std::pair<std::string, std::string> how_to_allow = {"give --allow-references=", ""};
  // Where a node's backing can be declared: "declare 'backing' in web.yaml".
  std::string how_to_declare = "declare the graph in YAML, with 'backing' of this node";
  // How to allow a raw file, before its directory; empty: only by declaring it.
  std::string how_to_allow_raw = {};
};

class policy_resolver final : public reference_resolver {
public:
  policy_resolver(const registry& drivers, reference_policy policy)
      : drivers_(drivers), policy_(std::move(policy)) {}

  result<node_spec> resolve_backing(const node& overlay, const image_reference& reference) override;
  result<node_spec> resolve_part(const node& image, const named_child& part) override;

private:
  static result<node_spec> spec_of(const node& image, const registry& drivers, result<value> given,
                                   const named_child& named, child_role roles,
                                   bool may_name_secrets);
  const registry& drivers_;
  reference_policy policy_;
};

// Where `name`, found in the header of the image at `image_path`, leads under this policy: the path
// to open. Errors continue a sentence about the reference.
[[nodiscard]] result<std::string> locate_reference(const reference_policy& policy,
                                                   const std::string& image_path,
                                                   const std::string& name);

} // namespace bgfs
