// SPDX-License-Identifier: MIT
// The crash run: images of random shapes, random operations on them, and the power cut at every
// instant. See --help.
#define DOCTEST_CONFIG_IMPLEMENT
#include "tests/crash/judge.h"

#include <fmt/format.h>

#include <atomic>
#include <charconv>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

using namespace bgfs;
using namespace bgfs::test;

namespace {

constexpr const char* help = R"(usage: bgfs_crash [OPTION VALUE]...
  --seed N              the first seed (1); each makes one image and one sequence of operations
  --seeds N             how many (no limit)
  --states N            ends after so many distinct states (100000)
  --seconds N           ends after so long (no limit)
  --jobs N              processes (1)
  --steps N             operations of a seed (24)
  --subset-bits N       so many unflushed events are taken apart into all subsets (8)
  --states-per-seed N   distinct ones, then the next seed has its turn (1500)
  --peer-every N        qemu-img judges every Nth distinct state; 0: none (50)
  --peer-leaks-every N  and every Nth of those with leaks; 0: none (10)
  --keep DIRECTORY      where the files of a state that failed go (crash-failures)
)";

struct run_options {
  u64 seed = 1;
  u64 seeds = ~u64{0};
  u64 states = 100'000;
  u64 seconds = ~u64{0};
  u64 jobs = 1;
  u64 steps = 24;
  u64 subset_bits = 8;
  u64 states_per_seed = 1500;
  u64 peer_every = 50;
  u64 peer_leaks_every = 10;
  std::string keep = "crash-failures";
};

struct option_name {
  std::string_view name;
  u64 run_options::* value;
};
constexpr option_name option_names[] = {
    {"--seed", &run_options::seed},
    {"--seeds", &run_options::seeds},
    {"--states", &run_options::states},
    {"--seconds", &run_options::seconds},
    {"--jobs", &run_options::jobs},
    {"--steps", &run_options::steps},
    {"--subset-bits", &run_options::subset_bits},
    {"--states-per-seed", &run_options::states_per_seed},
    {"--peer-every", &run_options::peer_every},
    {"--peer-leaks-every", &run_options::peer_leaks_every},
};

std::optional<run_options> parse(std::span<char* const> words) {
  run_options o;
  for (std::size_t i = 0; i < words.size(); i += 2) {
    if (i + 1 == words.size())
      return std::nullopt;
    const std::string_view name = words[i];
    const std::string_view text = words[i + 1];
    if (name == "--keep") {
      o.keep = text;
      continue;
    }
    const auto known = std::ranges::find(option_names, name, &option_name::name);
    if (known == std::end(option_names))
      return std::nullopt;
    const auto [end, failure] =
        std::from_chars(text.data(), text.data() + text.size(), o.*known->value);
    if (failure != std::errc() || end != text.data() + text.size())
      return std::nullopt;
  }
  return o;
}

// What the processes have done together; in memory that they share.
struct tally {
  std::atomic<u64> passed, failed;
  std::atomic<u64> instants, states, distinct, with_leaks, dirty, by_peer, wrong_flags;

  void add(const judge_counts& c) {
    states += c.states;
    distinct += c.distinct;
    with_leaks += c.with_leaks;
    dirty += c.dirty;
    by_peer += c.by_peer;
    wrong_flags += c.wrong_flags;
  }
};

struct seed_run {
  const run_options& options;
  tally& sums;
  u64 seed;
};
const seed_run* running = nullptr; // what the test case below is for

std::string reproduction(const run_options& o, u64 seed) {
  return fmt::format("bgfs_crash --seed {} --seeds 1 --steps {} --subset-bits {} "
                     "--states-per-seed {} --peer-every {} --peer-leaks-every {}",
                     seed, o.steps, o.subset_bits, o.states_per_seed, o.peer_every,
                     o.peer_leaks_every);
}

void examine_all(const crash_history& h, const seed_run& r) {
  judge j(h, {.peer_every = r.options.peer_every, .peer_leaks_every = r.options.peer_leaks_every},
          r.seed);
  const cut_bounds bounds{.subset_bits = static_cast<unsigned>(r.options.subset_bits)};
  for_each_power_cut(h, bounds, r.seed, [&](u64 cut, const file_contents& files) {
    INFO("cut after " << cut << " of " << h.instants << " events");
    try {
      j.examine(cut, files);
    } catch (...) {
      const auto place = std::filesystem::path(r.options.keep) / std::to_string(r.seed);
      save(place, h, files);
      std::printf("the files are kept in %s\n", place.c_str());
      throw;
    }
    return j.counts().distinct < r.options.states_per_seed;
  });
  r.sums.instants += h.instants;
  r.sums.add(j.counts());
}

} // namespace

TEST_CASE("a power cut loses nothing that was acknowledged and mixes nothing up") {
  const seed_run& r = *running;
  std::mt19937_64 random(r.seed);
  const crash_shape shape = draw_shape(random);
  INFO("to repeat: " << reproduction(r.options, r.seed));
  INFO("shape: " << shape.text());
  std::string steps;
  const crash_history h = workload(shape, random()).run(static_cast<unsigned>(r.options.steps));
  for (const std::string& s : h.steps)
    steps += s + "; ";
  INFO("steps: " << steps);
  examine_all(h, r);
}

namespace {

bool run_seed(const seed_run& r) {
  running = &r;
  doctest::Context context;
  context.setOption("minimal", true);
  context.setOption("no-colors", true);
  return context.run() == 0;
}

void work(const run_options& o, tally& sums, u64 job) {
  const auto end =
      std::chrono::steady_clock::now() + std::chrono::seconds(std::min<u64>(o.seconds, 1'000'000));
  constexpr u64 failures_max = 10;
  for (u64 i = job; i < o.seeds && sums.distinct < o.states && sums.failed < failures_max &&
                    std::chrono::steady_clock::now() < end;
       i += o.jobs) {
    if (run_seed({o, sums, o.seed + i})) {
      sums.passed++;
    } else {
      sums.failed++;
      std::printf("FAIL seed %llu; to repeat: %s\n", static_cast<unsigned long long>(o.seed + i),
                  reproduction(o, o.seed + i).c_str());
    }
    std::fflush(stdout);
  }
}

// Whether all ended as they should.
bool run_jobs(const run_options& o, tally& sums) {
  std::vector<pid_t> children;
  for (u64 job = 0; job < o.jobs; job++) {
    const pid_t child = fork();
    if (child == 0) {
      work(o, sums, job);
      std::fflush(stdout);
      _exit(0);
    }
    children.push_back(child);
  }
  bool all_ended = true;
  for (const pid_t child : children) {
    int status = 0;
    all_ended = waitpid(child, &status, 0) == child && status == 0 && all_ended;
  }
  return all_ended;
}

} // namespace

int main(int argc, char** argv) {
  const auto options = parse(std::span(argv, static_cast<std::size_t>(argc)).subspan(1));
  if (!options) {
    std::fputs(help, stderr);
    return 2;
  }
  void* const shared =
      mmap(nullptr, sizeof(tally), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
  if (shared == MAP_FAILED)
    return 2;
  tally& sums = *new (shared) tally{};
  const bool all_ended = run_jobs(*options, sums);
  if (!all_ended) {
    std::puts("a process of the run ended early");
    sums.failed++;
  }
  fmt::print("{} power cuts at {} instants, {} distinct states: {} with leaks, {} dirty, {} "
             "with wrong flags; {} by qemu-img\n",
             sums.states.load(), sums.instants.load(), sums.distinct.load(), sums.with_leaks.load(),
             sums.dirty.load(), sums.wrong_flags.load(), sums.by_peer.load());
  fmt::print("{} passed, {} failed, 0 skipped\n", sums.passed.load(), sums.failed.load());
  return sums.failed == 0 && sums.passed > 0 ? 0 : 1;
}
