// SPDX-License-Identifier: MIT
#include "drivers/filter/blkdebug/suspensions.h"

#include <algorithm>

namespace bgfs::blkdebug {

// One breakpoint that keeps one request: in the list until it is let go, or gives up.
class suspensions::stay {
public:
  stay(suspensions& owner, debug_breakpoint at) : owner_(owner), at_(std::move(at)) {
    owner_.kept_.push_back(this);
    owner_.told_(change::suspended, at_);
  }
  ~stay() { leave(); }
  stay(const stay&) = delete;
  stay& operator=(const stay&) = delete;

  void leave() {
    if (is_kept_)
      owner_.kept_.remove(this);
    is_kept_ = false;
  }
  [[nodiscard]] bool is_kept() const { return is_kept_; }
  [[nodiscard]] const debug_breakpoint& at() const { return at_; }

private:
  suspensions& owner_;
  debug_breakpoint at_;
  bool is_kept_ = true;
};

void suspensions::let_go(stay& kept) {
  kept.leave();
  told_(change::resumed, kept.at());
  let_go_.wake_all();
}

bool suspensions::resume(std::string_view tag) {
  const auto found = std::ranges::find_if(kept_, [&](const stay* s) { return s->at().tag == tag; });
  if (found == kept_.end())
    return false;
  let_go(**found);
  return true;
}

bool suspensions::remove(std::string_view tag) {
  const auto count =
      std::erase_if(breakpoints_, [&](const debug_breakpoint& b) { return b.tag == tag; });
  while (resume(tag)) {
  }
  return count > 0;
}

bool suspensions::is_suspended(std::string_view tag) const {
  return std::ranges::any_of(kept_, [&](const stay* s) { return s->at().tag == tag; });
}

std::shared_ptr<const void> suspensions::let_all_pass() {
  (*passing_)++;
  while (!kept_.empty())
    let_go(*kept_.front());
  return {passing_.get(), [shared = passing_](const void*) { (*shared)--; }};
}

std::vector<debug_breakpoint> suspensions::suspended() const {
  std::vector<debug_breakpoint> all;
  for (const stay* s : kept_)
    all.push_back(s->at());
  return all;
}

bool suspensions::has_breakpoint(debug_event event) const {
  return *passing_ == 0 &&
         std::ranges::find(breakpoints_, event, &debug_breakpoint::event) != breakpoints_.end();
}

task<void> suspensions::pass(debug_event event) {
  std::list<stay> stays;
  for (auto at = breakpoints_.end(); at != breakpoints_.begin();) {
    --at;
    if (at->event != event)
      continue;
    stays.emplace_back(*this, std::move(*at));
    at = breakpoints_.erase(at);
  }
  for (const stay& s : stays)
    while (s.is_kept())
      co_await let_go_.wait();
}

} // namespace bgfs::blkdebug
