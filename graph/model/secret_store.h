// SPDX-License-Identifier: MIT
// The secrets that options may name by id: passphrases and keys (DESIGN.md section 4, `secrets`).
// Who reads a graph file or a command line fills a store; after that it does not change, and those
// who open nodes share it. Ids may be shown, what they stand for never is.
#pragma once

#include "graph/base/option_schema.h"
#include "graph/io/secret_bytes.h"

#include <map>

namespace bgfs {

class secret_store {
public:
  // Fails if the id is taken.
  [[nodiscard]] result<> add(const std::string& id, secret_bytes bytes);
  [[nodiscard]] const secret_bytes* find(std::string_view id) const; // null: there is none
  [[nodiscard]] std::vector<std::string_view> ids() const;
  [[nodiscard]] bool is_empty() const { return secrets_.empty(); }
  // See secret_bytes.
  void relock() const noexcept;

private:
  std::map<std::string, secret_bytes, std::less<>> secrets_;
};

// What the option names. Fails, with the option's place and what there is, if the store (null: an
// empty one) does not have it. The option is set.
[[nodiscard]] result<const secret_bytes*>
find_secret(const secret_store* store, const options& given, std::string_view option_name);

} // namespace bgfs
