// SPDX-License-Identifier: MIT
#include "graph/jobs/stored_bytes.h"

#include "graph/io/file.h"

namespace bgfs {

bool same_file_check::operator()(const block_status& a, const block_status& b) {
  const auto is_plain = [](const block_status& s) {
    return s.file != nullptr && !s.is_compressed && s.file->type().kind == driver_kind::protocol;
  };
  if (!is_plain(a) || !is_plain(b) || a.offset != b.offset)
    return false;
  if (a.file != last_[0] || b.file != last_[1]) {
    last_[0] = a.file;
    last_[1] = b.file;
    const std::string path = a.file->host_path();
    are_one_file_ = a.file == b.file || (!path.empty() && is_same_file(path, b.file->host_path()));
  }
  return are_one_file_;
}

} // namespace bgfs
