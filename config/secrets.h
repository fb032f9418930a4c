// SPDX-License-Identifier: MIT
// Where secrets come from: `secrets:` of a graph file and --object secret,... of a command.
//   { id: key0, file: key0.txt }      the bytes of the file, a line break at its end included
//   { id: key0, env: BACKUP_KEY }     a variable of the environment
//   { id: key0, fd: 5 }               what a descriptor gives until its end; read once
//   { id: key0, data: ... }           written out: for tests, since others can read it there
// `format: base64` decodes the text first. Nothing here puts what it reads into messages.
#pragma once

#include "graph/model/secret_store.h"

namespace bgfs {

inline constexpr std::size_t secret_length_max = 64 * KiB;
inline constexpr std::size_t secrets_max = 1000;

// One secret as it was written: where it comes from. What was written out is kept apart.
struct secret_source {
  std::string id;
  options given; // for views, too: of `data` they only say that it was there
  std::shared_ptr<const secret_bytes> data; // shared by copies of the source; null: from elsewhere
  source_mark mark;
};

// The list under `secrets` of a graph file in `directory`; reads nothing yet. What is written out
// there is wiped.
[[nodiscard]] result<std::vector<secret_source>> parse_secrets(value& whole,
                                                               const std::string& directory);

// Files that everybody can read are refused. What comes from descriptors is taken from `before`
// (may be null), a store that was filled from the same, since they can be read only once.
[[nodiscard]] result<std::shared_ptr<const secret_store>>
load_secrets(std::span<const secret_source> sources, const secret_store* before);

// The arguments of --object. Files are read whoever else can read them, as scripts expect of
// commands. What was given is wiped.
[[nodiscard]] result<std::shared_ptr<const secret_store>>
load_secret_objects(std::vector<std::string>& objects);

} // namespace bgfs
