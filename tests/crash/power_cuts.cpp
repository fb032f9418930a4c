// SPDX-License-Identifier: MIT
#include "tests/crash/power_cuts.h"

#include "tests/unit/drivers/qcow2/crash_replay.h"

namespace bgfs::test {

namespace {

struct file_event {
  std::size_t file;
  const memory_event* what;
};

std::vector<file_event> in_order(const crash_history& h) {
  std::vector<file_event> all(h.instants);
  for (std::size_t i = 0; i < h.files.size(); i++)
    for (const memory_event& e : h.files[i].log)
      all.at(e.instant) = {i, &e};
  return all;
}

class cutter {
public:
  using visitor = std::function<bool(u64 cut, const file_contents& files)>;

  cutter(const crash_history& h, const cut_bounds& bounds, u64 seed, const visitor& visit)
      : bounds_(bounds), random_(seed), visit_(visit), events_(in_order(h)) {
    for (const crash_history::recorded_file& f : h.files)
      durable_.push_back(f.start);
  }

  void run() {
    bool goes_on = states_at(0, 0);
    for (u64 i = 0; i < events_.size() && goes_on; i++) {
      const bool is_flush = events_[i].what->what == memory_event::kind::flush;
      if (is_flush) {
        flush(events_[i].file);
      } else {
        unflushed_.push_back(events_[i]);
      }
      // Whatever lacks the last event was there a cut before; but after a flush more is promised.
      goes_on = states_at(i + 1, is_flush ? 0 : 1);
    }
  }

private:
  void flush(std::size_t file) {
    std::erase_if(unflushed_, [&](const file_event& e) {
      if (e.file != file)
        return false;
      replay(durable_[file], *e.what);
      return true;
    });
  }
  // The last `kept` events are in all of them.
  bool states_at(u64 cut, std::size_t kept) {
    const std::size_t free = unflushed_.size() - kept;
    const auto with = [&](u64 mask) { return visit_(cut, subset(free, mask)); };
    if (free <= bounds_.subset_bits) {
      for (u64 mask = 0; mask < u64{1} << free; mask++)
        if (!with(mask))
          return false;
    } else {
      for (unsigned i = 0; i < bounds_.random_subsets; i++)
        if (!with(i == 0 ? ~u64{0} : random_()))
          return false;
    }
    if (unflushed_.empty())
      return true;
    return visit_(cut, torn(survival::beginnings)) && visit_(cut, torn(survival::sectors));
  }
  // Bit n stands for every event n modulo 64.
  file_contents subset(std::size_t free, u64 mask) const {
    file_contents files = durable_;
    for (std::size_t i = 0; i < unflushed_.size(); i++)
      if (i >= free || (mask >> i % 64 & 1) != 0)
        replay(files[unflushed_[i].file], *unflushed_[i].what);
    return files;
  }
  file_contents torn(survival how) {
    file_contents files = durable_;
    for (const file_event& e : unflushed_) {
      if (e.what->what == memory_event::kind::write) {
        replay_sectors(files[e.file], *e.what, how, random_);
      } else if (random_() % 2 == 0) {
        replay(files[e.file], *e.what);
      }
    }
    return files;
  }

  cut_bounds bounds_;
  std::mt19937_64 random_;
  const visitor& visit_;
  std::vector<file_event> events_;
  std::vector<file_event> unflushed_; // in the order in which they happened
  file_contents durable_;
};

} // namespace

void for_each_power_cut(const crash_history& h, const cut_bounds& bounds, u64 seed,
                        const std::function<bool(u64 cut, const file_contents& files)>& visit) {
  cutter(h, bounds, seed, visit).run();
}

} // namespace bgfs::test
