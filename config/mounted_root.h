// SPDX-License-Identifier: MIT
// A root of a mount as a command finds it: by the path of its raw file, wherever that is seen.
#pragma once

#include "config/control_tree.h"

#include <optional>

namespace bgfs {

class mounted_root {
public:
  // nullopt: the file is no raw file of a mount of bgfs. An error: it is one, and cannot be
  // commanded. Its control directory is beside it, or (bound elsewhere, a mount of one file) all
  // that is asked are its attributes.
  [[nodiscard]] static std::optional<result<mounted_root>> find(const std::string& path);

  // What is in NAME.d.
  [[nodiscard]] const control_tree& control() const { return control_; }
  // The raw file, as it was given.
  [[nodiscard]] const std::string& path() const { return path_; }

private:
  mounted_root(control_tree control, std::string path)
      : control_(std::move(control)), path_(std::move(path)) {}
  control_tree control_;
  std::string path_;
};

// The control files that belong to what a command was given: those of a root, by its raw file, or
// those of the whole mount, by its directory.
struct control_place {
  control_tree control;
  std::string prefix; // of names in it: "", ".bgfs/"
};
[[nodiscard]] result<control_place> find_control_place(const std::string& given);

// The raw file of a mount on this machine that shows this image; nullopt: none that this process
// can see. Asks every mount of bgfs there is, so it is for messages. Blocks.
[[nodiscard]] std::optional<std::string> raw_file_of(const std::string& image);

} // namespace bgfs
