// SPDX-License-Identifier: MIT
// Moving open drivers from one loop to another.
#include "drivers/format/qcow2/image.h"
#include "tests/unit/lib/image_file.h"
#include "tests/unit/lib/scratch_directory.h"

using namespace bgfs;
using namespace bgfs::test;

namespace {

void move(node& top, loop& to) {
  node& file = top.child("file")->child();
  for (node* n : {&top, &file})
    n->instance().detach_loop();
  for (node* n : {&file, &top})
    n->instance().attach_loop(to);
}

} // namespace

TEST_CASE("an image and its file move to another loop and go on, timers included") {
  const scratch_directory dir;
  const std::string name = dir.file("a.qcow2");
  graph_bench bench({&qcow2_driver_type, &file_driver_type});
  make_image_file(bench, name);
  const std::unique_ptr<loop> other = *loop::create();
  for (const char* aio : {"io_uring", "threads"}) {
    node& top = bench.open(
        spec_builder("top", qcow2_driver_type)
            .set("cache-clean-interval", "10ms")
            .child("file",
                   spec_builder("", file_driver_type).set("filename", name).set("aio", aio)));
    root& r = bench.attach(top);
    std::vector<std::byte> model(MiB);
    const auto write = [&](loop& on, u64 at, u64 seed) {
      const auto bytes = pattern(100000, seed);
      const result<> written = run_to_end(on, r.write(at, bytes));
      REQUIRE(written.has_value());
      std::ranges::copy(bytes, model.begin() + static_cast<i64>(at));
    };
    write(bench.home(), 5000, 1);
    bench.must(r.flush());
    move(top, *other);
    write(*other, 80000, 2);
    REQUIRE(run_to_end(*other, r.flush()).has_value());
    auto& image = dynamic_cast<qcow2::image&>(top.instance());
    CHECK(image.cached_l2_pages() > 0);
    while (image.cached_l2_pages() > 0) // the timer is the other loop's now
      other->run_once();
    move(top, bench.home());
    write(bench.home(), 300000, 3);
    std::vector<std::byte> first(400000);
    bench.must(r.read(0, first));
    CHECK(std::equal(first.begin(), first.end(), model.begin()));
    bench.must(r.write_zeroes({0, MiB}));
    bench.detach(r);
    bench.must(bench.graph().close(top));
  }
}
