// SPDX-License-Identifier: MIT
#include "fuse/tree/lister_ledger.h"

namespace bgfs {

void lister_ledger::forget_the_dead() {
  std::erase_if(processes_, [this](const auto& known) { return !lives_(known.first); });
}

void lister_ledger::note(const process_identity& who, const std::string& directory) {
  auto at = processes_.find(who);
  if (at == processes_.end()) {
    if (processes_.size() >= processes_max)
      forget_the_dead();
    if (processes_.size() >= processes_max) {
      has_overflowed_ = true;
      return;
    }
    at = processes_.emplace(who, listed{}).first;
  }
  listed& l = at->second;
  if (l.is_everything)
    return;
  l.directories.insert(directory);
  if (l.directories.size() <= directories_max)
    return;
  l.is_everything = true;
  l.directories.clear();
}

bool lister_ledger::has_listed(const process_identity& who, const std::string& directory) {
  const auto at = processes_.find(who);
  if (at == processes_.end())
    return false;
  return at->second.is_everything || at->second.directories.contains(directory);
}

// Who was not remembered may have ended with those who were: when half of them are gone, it is
// taken to be so.
bool lister_ledger::is_overflowing() {
  if (!has_overflowed_)
    return false;
  forget_the_dead();
  if (processes_.size() <= processes_max / 2)
    has_overflowed_ = false;
  return has_overflowed_;
}

} // namespace bgfs
