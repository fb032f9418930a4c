// SPDX-License-Identifier: MIT
// bgfs bench: how long many equal requests take.
#include "graph/jobs/bench.h"
#include "config/commands/verb_frame.h"
#include "graph/base/text.h"

#include <chrono>

namespace bgfs {

namespace {

constexpr u64 count_max = 0xffff'ffff;
constexpr u64 bytes_max = 0x7fff'ffff; // of a request and of a step
constexpr u64 depth_max = 65'536;

struct bench_arguments {
  image_choice image;
  session_options session;
  u64 count = 75'000;
  u64 depth = 64;
  u64 length = 4096;
  u64 offset = 0;
  u64 step = 0; // 0: the length
  u64 pattern = 0;
  u64 flush_interval = 0;
  bool is_writing = false;
  bool is_undrained = false;
  bool is_quiet = false;
};

task<void> measure(command_session& session, open_image& image, const bench_arguments& a) {
  const bench_plan plan{.disk = &image.disk(),
                        .count = a.count,
                        .depth = static_cast<unsigned>(a.depth),
                        .length = a.length,
                        .offset = a.offset,
                        .step = a.step == 0 ? a.length : a.step,
                        .is_writing = a.is_writing,
                        .pattern = static_cast<std::byte>(a.pattern),
                        .flags = image.flags_of_writes(),
                        .flush_interval = a.flush_interval,
                        .drains_to_flush = !a.is_undrained};
  if (!a.is_quiet) {
    print(fmt::format("Sending {} {} requests, {} bytes each, {} in parallel (starting at offset "
                      "{}, step size {})\n",
                      plan.count, plan.is_writing ? "write" : "read", plan.length, plan.depth,
                      plan.offset, plan.step));
    if (plan.flush_interval != 0)
      print(fmt::format("Sending flush every {} requests\n", plan.flush_interval));
    (void)std::fflush(stdout);
  }
  const auto begun = std::chrono::steady_clock::now();
  co_await context(run_bench(session.home(), plan), "'{}'", a.image.name);
  const std::chrono::duration<double> taken = std::chrono::steady_clock::now() - begun;
  if (!a.is_quiet)
    print(fmt::format("Run completed in {:.3f} seconds.\n", taken.count()));
}

task<void> bench(command_session& session, const bench_arguments& a) {
  co_await with(open(session.nodes(), a.image),
                [&](open_image& image) { return measure(session, image, a); });
}

struct bounded {
  u64 least;
  u64 most;
};

void add_number(arguments& known, char letter, std::string_view name, std::string_view placeholder,
                std::string_view help, bounded range, u64& into) {
  known.value(letter, name, placeholder, help, [range, &into](const std::string& v) -> result<> {
    BGFS_TRY(into, parse_size(v));
    if (into < range.least || into > range.most)
      return fail(error_kind::invalid_argument, "{} is not between {} and {}", into, range.least,
                  range.most);
    return {};
  });
}

void declare(arguments& known, bench_arguments& a) {
  add_image_options(known, a.image);
  add_number(known, 'c', "count", "COUNT", "how many requests (75000)", {0, count_max}, a.count);
  add_number(known, 'd', "depth", "COUNT", "how many at once (64)", {1, depth_max}, a.depth);
  add_number(known, 's', "buffer-size", "SIZE", "bytes of a request (4096)", {1, bytes_max},
             a.length);
  add_number(known, 'S', "step-size", "SIZE",
             "bytes from the beginning of one to that of the next (as long as they are)",
             {0, bytes_max}, a.step);
  add_number(known, 'o', "offset", "OFFSET", "where the first one begins (0)",
             {0, device_length_max}, a.offset);
  known.flag('w', "write", "write, which destroys what the image holds", a.is_writing);
  add_number(known, 0, "pattern", "BYTE", "what is written (0)", {0, 0xff}, a.pattern);
  add_number(known, 0, "flush-interval", "COUNT", "with -w: flush after so many requests",
             {0, count_max}, a.flush_interval);
  known.flag(0, "no-drain", "flush beside other requests, instead of waiting for them",
             a.is_undrained);
  add_aio_options(known, 'n', "native", a.image);
  add_cache_option(known, 't', "cache", "how the host caches the image", a.image.cache);
  known.flag('q', "quiet", "print nothing", a.is_quiet);
  add_share_option(known, a.image);
  add_session_options(known, a.session);
}

result<> check(const bench_arguments& a) {
  if (a.flush_interval != 0 && !a.is_writing)
    return fail(error_kind::invalid_argument, "--flush-interval is only available in write tests");
  if (a.flush_interval != 0 && a.flush_interval < a.depth)
    return fail(error_kind::invalid_argument,
                "the flush interval can't be smaller than the depth: {} requests are at once, a "
                "flush would come after {}",
                a.depth, a.flush_interval);
  if (a.is_writing && a.image.is_force_shared)
    return fail(error_kind::invalid_argument,
                "-U is for looking at images that somebody else is writing; -w writes");
  return {};
}

} // namespace

int run_bench(const command_call& call) {
  bench_arguments a;
  arguments known(call.name, "[OPTION]... FILE",
                  "Measures how long many equal requests take. They go around the end of the disk; "
                  "where one\nwould pass it, they begin at 0 again.");
  declare(known, a);
  const parsed_arguments parsed = parse_arguments(call, known);
  if (parsed.is_over)
    return parsed.status;
  if (!take_image(call, parsed.operands, a.image))
    return 1;
  if (const result<> ok = check(a); !ok) {
    complain(call, ok.error().message());
    return 1;
  }
  a.image.is_writable = a.is_writing;
  return run_session(call, a.session, [&](command_session& session) { return bench(session, a); });
}

} // namespace bgfs
