// SPDX-License-Identifier: MIT
// The small files of a mount, for whoever commands it: below a directory, or as attributes of a raw
// file, where that is all one has (fuse/README.md, "Attributes").
#pragma once

#include "graph/base/result.h"

#include <string>
#include <vector>

namespace bgfs {

class control_tree {
public:
  // Names are paths below this directory.
  [[nodiscard]] static control_tree below(std::string directory);
  // The name NAME is the attribute user.bgfs.NAME of this file.
  [[nodiscard]] static control_tree attributes_of(std::string file);

  // The whole text of a file.
  [[nodiscard]] result<std::string> read(const std::string& name) const;
  // Writes one command to a control file. The error is the sentence that the mount gives for it.
  [[nodiscard]] result<> command(const std::string& name, const std::string& text) const;
  // The names in a directory, sorted.
  [[nodiscard]] result<std::vector<std::string>> list(const std::string& name) const;
  // What a directory is to be called: a name as it was given is one, and no way to somewhere else.
  // `kind` is for messages: "snapshot".
  [[nodiscard]] static result<> check_entry_name(std::string_view kind, std::string_view name);
  // mkdir(2) and rmdir(2) of a name; errors as of command().
  [[nodiscard]] result<> make_directory(const std::string& name) const;
  [[nodiscard]] result<> remove_directory(const std::string& name) const;
  // rename(2) of one name to another that is not there; attributes have none.
  [[nodiscard]] result<> rename_directory(const std::string& from, const std::string& to) const;
  // What the mount has said to this process last in the last-error of that directory, "" if it said
  // nothing. `verb` is what was asked for, "" for whatever it was.
  [[nodiscard]] std::string last_sentence(const std::string& log, std::string_view verb = {}) const;

  // For messages, and where it is below a directory for opening.
  [[nodiscard]] std::string path(const std::string& name) const;
  [[nodiscard]] bool is_attributes() const { return is_attributes_; }
  // The directory, or the file.
  [[nodiscard]] const std::string& place() const { return place_; }

private:
  control_tree(std::string place, bool is_attributes)
      : place_(std::move(place)), is_attributes_(is_attributes) {}
  [[nodiscard]] std::unexpected<error> refused(int os_error, const std::string& name,
                                               const std::string& sentence) const;
  [[nodiscard]] result<> set_attribute(const std::string& name, const std::string& text) const;

  std::string place_;
  bool is_attributes_;
};

} // namespace bgfs
