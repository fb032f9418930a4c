// SPDX-License-Identifier: MIT
#include "graph/jobs/bench.h"

#include "graph/io/buffer_pool.h"
#include "graph/io/spawn.h"
#include "graph/io/sync.h"

namespace bgfs {

namespace {

class bench {
public:
  bench(loop& home, const bench_plan& plan) : home_(home), plan_(plan), next_(plan.offset) {}

  task<void> run() {
    std::vector<task<void>> workers;
    for (u64 i = 0; i < std::min<u64>(plan_.depth, plan_.count); i++)
      workers.push_back(work());
    co_await when_all(std::move(workers));
  }

private:
  task<void> work() {
    const buffer bytes = home_.buffers().allocate(plan_.length);
    std::ranges::fill(bytes.bytes(), plan_.pattern);
    while (begun_ < plan_.count) {
      co_await stop_if_cancelled("the measurement");
      begun_++;
      const u64 at = take_offset();
      co_await request(at, bytes.bytes());
    }
  }

  u64 take_offset() {
    const u64 at = next_;
    next_ = (next_ + plan_.step) % plan_.disk->length();
    if (next_ + plan_.length > plan_.disk->length())
      next_ = 0;
    return at;
  }

  task<void> request(u64 at, std::span<std::byte> bytes) {
    if (!plan_.is_writing) {
      co_await context(plan_.disk->read(at, bytes), "reading {} bytes at {:#x}", bytes.size(), at);
      co_return;
    }
    if (plan_.flush_interval == 0) {
      co_await write(at, bytes);
      co_return;
    }
    {
      const async_shared_mutex::guard beside_others = co_await flushing_.lock_shared();
      co_await write(at, bytes);
    }
    if (++written_ % plan_.flush_interval != 0)
      co_return;
    if (plan_.drains_to_flush) {
      const async_shared_mutex::guard alone = co_await flushing_.lock();
      co_await context(plan_.disk->flush(), "flushing");
    } else {
      co_await context(plan_.disk->flush(), "flushing");
    }
  }

  task<void> write(u64 at, std::span<const std::byte> bytes) {
    co_await context(plan_.disk->write(at, bytes, plan_.flags), "writing {} bytes at {:#x}",
                     bytes.size(), at);
  }

  loop& home_;
  const bench_plan& plan_;
  u64 next_;
  u64 begun_ = 0;
  u64 written_ = 0;
  async_shared_mutex flushing_; // a flush that drains holds it alone
};

} // namespace

task<void> run_bench(loop& home, bench_plan plan) {
  if (plan.length > plan.disk->length() || plan.offset > plan.disk->length() - plan.length)
    co_await fail(error_kind::out_of_range,
                  "the first request, {} bytes at {:#x}, does not lie inside the disk of {} bytes",
                  plan.length, plan.offset, plan.disk->length());
  bench b(home, plan);
  co_await b.run();
}

} // namespace bgfs
