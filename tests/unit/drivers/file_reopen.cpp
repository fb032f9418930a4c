// SPDX-License-Identifier: MIT
// A file that goes on with another descriptor: reopened, or opened for writing with auto-read-only.
#include "drivers/format/raw/raw.h"
#include "drivers/protocol/file/file.h"
#include "drivers/protocol/file/image_lock.h"
#include "graph/io/file.h"
#include "tests/unit/lib/graph_bench.h"
#include "tests/unit/lib/scratch_directory.h"

#include <fcntl.h>
#include <thread>
#include <unistd.h>

using namespace bgfs;
using namespace bgfs::test;
namespace fs = std::filesystem;
namespace pm = bgfs::permission;

namespace {

std::vector<const driver_type*> drivers() {
  return {&raw_driver_type, &file_driver_type, &host_device_driver_type};
}

spec_builder file_spec(const std::string& name) {
  return spec_builder("disk", file_driver_type).set("filename", name);
}

std::vector<int> descriptors_of(const std::string& name) {
  std::vector<int> found;
  for (const auto& entry : fs::directory_iterator("/proc/self/fd")) {
    std::error_code gone;
    if (fs::read_symlink(entry, gone) == name)
      found.push_back(std::stoi(entry.path().filename()));
  }
  return found;
}

// "r", "rw", "r direct", of each descriptor that has the file open.
std::string access_of(const std::string& name) {
  std::string text;
  for (const int fd : descriptors_of(name)) {
    const int flags = fcntl(fd, F_GETFL);
    text +=
        fmt::format("{}{}{}", text.empty() ? "" : ", ", (flags & O_ACCMODE) == O_RDWR ? "rw" : "r",
                    (flags & O_DIRECT) != 0 ? " direct" : "");
  }
  return text;
}

// Another process, as far as locks can tell: a description of its own.
class peer {
public:
  explicit peer(const std::string& name)
      : fd_(open(name.c_str(), O_RDWR | O_CLOEXEC)), lock_(fd_.get(), name) {}
  image_lock& lock() { return lock_; }
  // The bytes that others have locked: "100 201".
  [[nodiscard]] std::string sees() const {
    std::string text;
    for (int byte = 100; byte < 208; byte++)
      if (sees(byte))
        text += fmt::format("{}{}", text.empty() ? "" : " ", byte);
    return text;
  }
  [[nodiscard]] bool sees(int byte) const {
    struct flock lock{};
    lock.l_type = F_WRLCK;
    lock.l_start = byte;
    lock.l_len = 1;
    REQUIRE(fcntl(fd_.get(), F_OFD_GETLK, &lock) == 0);
    return lock.l_type != F_UNLCK;
  }

private:
  descriptor fd_;
  image_lock lock_;
};

// The faces of an open node, driven by hand.
struct driven {
  graph_bench& bench;
  node& target;
  reopenable& face = dynamic_cast<reopenable&>(target.instance());
  permission_holder& holder = dynamic_cast<permission_holder&>(target.instance());

  result<> prepare(const spec_builder& to) {
    const node_spec spec = to.build();
    return bench.run(face.prepare_reopen(spec.given, spec.generic));
  }
  void reopen(const spec_builder& to) {
    const result<> prepared = prepare(to);
    REQUIRE_MESSAGE(prepared.has_value(), (prepared ? std::string() : prepared.error().message()));
    face.commit_reopen();
    bench.must(face.finish_reopen());
  }
};

constexpr permissions reading{pm::consistent_read, pm::all};
constexpr permissions alone{pm::consistent_read | pm::write, pm::consistent_read};

} // namespace

TEST_CASE("a file is reopened with another access, and stays the same file") {
  const scratch_directory dir;
  const std::string name = dir.file("disk", 64 * KiB);
  graph_bench bench(drivers());
  driven d{bench, bench.open(file_spec(name))};
  root& r = bench.attach(d.target);
  bench.must(r.write(0, pattern(4096, 1)));
  CHECK(access_of(name) == "rw");
  const int number = descriptors_of(name).at(0);

  d.reopen(file_spec(name).set("read-only", true));
  CHECK(access_of(name) == "r");
  CHECK(descriptors_of(name).at(0) == number);
  std::vector<std::byte> seen(4096);
  bench.must(r.read(0, seen));
  CHECK(seen == pattern(4096, 1));
  auto& writes = dynamic_cast<writable&>(d.target.instance());
  CHECK_FALSE(bench.run(writes.write(0, seen, 0)).has_value()); // the kernel says no

  fs::rename(name, name + ".moved"); // a name is not the file
  std::ofstream(name) << "another";
  d.reopen(file_spec(name).set("aio", "threads"));
  CHECK(access_of(name + ".moved") == "rw");
  bench.must(r.write(4096, pattern(4096, 2)));
  bench.must(r.read(4096, seen));
  CHECK(seen == pattern(4096, 2));
  CHECK(fs::file_size(name) == 7);
  fs::remove(name + ".moved");
  d.reopen(file_spec(name).set("aio", "threads").set("read-only", true));
  bench.must(r.read(4096, seen));
  CHECK(seen == pattern(4096, 2));
}

TEST_CASE("a reopen that is given up leaves the file as it was") {
  const scratch_directory dir;
  const std::string name = dir.file("disk", 64 * KiB);
  graph_bench bench(drivers());
  driven d{bench, bench.open(file_spec(name))};
  root& r = bench.attach(d.target);
  const peer other(name);
  const std::string before = other.sees();
  REQUIRE(d.prepare(file_spec(name).set("read-only", true).set("aio", "threads")));
  CHECK(access_of(name) == "rw, rw, r"); // ours, the peer's, and the one that stands by
  d.face.abort_reopen();
  CHECK(access_of(name) == "rw, rw");
  CHECK(other.sees() == before);
  bench.must(r.write(0, pattern(4096, 1)));
}

TEST_CASE("a file cannot become another file") {
  const scratch_directory dir;
  const std::string name = dir.file("disk", 4096);
  const std::string other = dir.file("other", 4096);
  graph_bench bench(drivers());
  driven d{bench, bench.open(file_spec(name))};
  const result<> refused = d.prepare(file_spec(other));
  REQUIRE(!refused);
  CHECK(refused.error().kind() == error_kind::unsupported);
  CHECK(refused.error().message() == "option 'filename' of driver 'file' cannot change while the "
                                     "node is open; it has to be opened anew");
  CHECK(access_of(name) == "rw");
}

TEST_CASE("cache.direct changes while a file is open, and with it what requests need") {
  const scratch_directory dir;
  const std::string name = dir.file("disk", 64 * KiB);
  graph_bench bench(drivers());
  driven d{bench, bench.open(file_spec(name))};
  const result<> prepared = d.prepare(file_spec(name).set("cache.direct", true));
  if (!prepared) { // a scratch file system without O_DIRECT
    CHECK(prepared.error().kind() == error_kind::unsupported);
    CHECK(prepared.error().message() ==
          fmt::format("the file system of '{}' does not support 'cache.direct' (O_DIRECT)", name));
    CHECK(access_of(name) == "rw");
    return;
  }
  block_limits limits;
  d.target.instance().refine_limits(limits);
  CHECK(limits.request_alignment == 1); // not before the commit
  d.face.commit_reopen();
  CHECK(access_of(name) == "rw direct");
  d.target.instance().refine_limits(limits);
  CHECK(limits.request_alignment >= 512);
  auto& writes = dynamic_cast<writable&>(d.target.instance());
  auto& reads = dynamic_cast<readable&>(d.target.instance());
  const auto data = pattern(8192 + 1, 3);
  bench.must(writes.write(4096, std::span(data).subspan(1), 0)); // from an odd address
  std::vector<std::byte> seen(8192);
  bench.must(reads.read(4096, seen));
  CHECK(std::equal(seen.begin(), seen.end(), data.begin() + 1));
  d.reopen(file_spec(name));
  CHECK(access_of(name) == "rw");
  d.target.instance().refine_limits(limits);
  CHECK(limits.request_alignment == 1);
}

TEST_CASE("locks follow a reopen, whichever of permissions and driver is committed first") {
  const scratch_directory dir;
  const std::string name = dir.file("disk", 4096);
  for (const bool permissions_first : {true, false}) {
    CAPTURE(permissions_first);
    graph_bench bench(drivers());
    driven d{bench, bench.open(file_spec(name))};
    const peer other(name);
    const auto commit = [&] {
      if (permissions_first)
        d.holder.commit_permissions();
      d.face.commit_reopen();
      if (!permissions_first)
        d.holder.commit_permissions();
    };
    REQUIRE(d.holder.check_permissions(alone));
    d.holder.commit_permissions();
    CHECK(other.sees() == "100 101 201 202 203");
    REQUIRE(d.prepare(file_spec(name).set("read-only", true)));
    CHECK(other.sees() == "100 101 201 202 203");
    REQUIRE(d.holder.check_permissions(reading));
    CHECK(other.sees() == "100 101 201 202 203");
    commit();
    CHECK(other.sees() == "100");
    REQUIRE(d.prepare(file_spec(name)));
    CHECK(other.sees() == "100");
    // Ours stand on two descriptors; the test must see only those of others.
    REQUIRE(d.holder.check_permissions({pm::consistent_read | pm::write, 0}));
    CHECK(other.sees() == "100 101 200 201 202 203");
    commit();
    CHECK(other.sees() == "100 101 200 201 202 203");
    CHECK(access_of(name) == "rw, rw");
  }
}

TEST_CASE("a reopen that another process does not permit changes no lock") {
  const scratch_directory dir;
  const std::string name = dir.file("disk", 4096);
  graph_bench bench(drivers());
  driven d{bench, bench.open(file_spec(name).set("read-only", true))};
  REQUIRE(d.holder.check_permissions(reading));
  d.holder.commit_permissions();
  peer writer(name);
  REQUIRE(writer.lock().acquire(alone));
  REQUIRE(d.prepare(file_spec(name)));
  const result<> refused = d.holder.check_permissions(alone);
  REQUIRE(!refused);
  CHECK(refused.error().kind() == error_kind::busy);
  d.face.abort_reopen();
  CHECK(access_of(name) == "r, rw");
  writer.lock().release_beyond({});
  CHECK(writer.sees() == "100");
}

TEST_CASE("there is no moment without the lock while a file is reopened") {
  const scratch_directory dir;
  const std::string name = dir.file("disk", 4096);
  graph_bench bench(drivers());
  driven d{bench, bench.open(file_spec(name))};
  REQUIRE(d.holder.check_permissions(alone));
  d.holder.commit_permissions();
  const descriptor watching(open(name.c_str(), O_RDWR | O_CLOEXEC));
  std::atomic<bool> is_over{false};
  unsigned looks = 0;
  unsigned gaps = 0;
  std::thread watcher([&] {
    for (; !is_over || looks < 100; looks++) {
      struct flock lock{};
      lock.l_type = F_WRLCK;
      lock.l_start = 201;
      lock.l_len = 1;
      fcntl(watching.get(), F_OFD_GETLK, &lock);
      gaps += lock.l_type == F_UNLCK ? 1 : 0;
    }
  });
  for (int i = 0; i < 200; i++)
    d.reopen(file_spec(name).set("read-only", i % 2 == 0));
  is_over = true;
  watcher.join();
  CHECK(looks >= 100);
  CHECK(gaps == 0);
}

TEST_CASE("locking can be switched on and off while a file is open") {
  const scratch_directory dir;
  const std::string name = dir.file("disk", 4096);
  graph_bench bench(drivers());
  driven d{bench, bench.open(file_spec(name).set("locking", "off"))};
  peer other(name);
  REQUIRE(other.lock().acquire(alone));
  REQUIRE(d.holder.check_permissions(alone)); // nobody asks
  d.holder.commit_permissions();
  const result<> refused = d.prepare(file_spec(name).set("locking", "on"));
  REQUIRE(!refused);
  CHECK(refused.error().kind() == error_kind::busy);
  CHECK(refused.error().message() ==
        fmt::format(
            "cannot get the 'write' lock of '{}': another node of this process, or a process that "
            "cannot be seen from here, uses the image; stop it, or open the image with 'read-only: "
            "true, force-share: true'",
            name));
  CHECK(other.sees().empty());
  other.lock().release_beyond({});
  REQUIRE(d.prepare(file_spec(name).set("locking", "on")));
  d.face.abort_reopen();
  CHECK(other.sees().empty());
  d.reopen(file_spec(name).set("locking", "on"));
  CHECK(other.sees() == "100 101 201 202 203");
  d.reopen(file_spec(name).set("locking", "off").set("read-only", true));
  CHECK(other.sees().empty());
}

TEST_CASE("force-share takes no locks and asks for none") {
  const scratch_directory dir;
  const std::string name = dir.file("disk", 4096);
  graph_bench bench(drivers());
  peer writer(name);
  REQUIRE(writer.lock().acquire({pm::consistent_read | pm::write, 0}));
  node& n = bench.open(file_spec(name).set("read-only", true).set("force-share", true));
  root& r = bench.attach(n, may_read);
  std::vector<std::byte> seen(4096);
  bench.must(r.read(0, seen));
  CHECK(writer.sees().empty());
}

TEST_CASE("who writes excludes other processes, even where users inside the graph share writing") {
  const scratch_directory dir;
  const std::string name = dir.file("disk", 4096);
  graph_bench bench(drivers());
  node& n = bench.open(file_spec(name));
  root& a = bench.attach(n, may_write);
  root& b = bench.attach(n, may_write);
  const peer other(name);
  CHECK(other.sees() == "100 101 201");
  graph_bench second(drivers());
  node& again = second.open(file_spec(name));
  const auto refused = second.run(second.graph().attach("b", again, may_write));
  REQUIRE(!refused);
  CHECK(refused.error().message() ==
        fmt::format(
            "cannot get the 'write' lock of '{}': another node of this process, or a process that "
            "cannot be seen from here, uses the image; stop it, or open the image with 'read-only: "
            "true, force-share: true'",
            name));
  second.attach(again, may_read);
  bench.detach(a);
  CHECK(other.sees() == "100 101 201");
  bench.detach(b);
  CHECK(other.sees() == "100"); // the second graph's
}

TEST_CASE("auto-read-only opens a file for writing when the first writer comes") {
  const scratch_directory dir;
  const std::string name = dir.file("disk", 4096);
  graph_bench bench(drivers());
  node& n = bench.open(file_spec(name).set("auto-read-only", true));
  CHECK(access_of(name) == "r");
  CHECK_FALSE(n.is_read_only());
  bench.attach(n, may_read);
  CHECK(access_of(name) == "r");
  root& first = bench.attach(n, may_write);
  CHECK(access_of(name) == "rw");
  root& second = bench.attach(n, may_write);
  bench.must(first.write(0, pattern(512, 1)));
  bench.detach(first);
  CHECK(access_of(name) == "rw");
  bench.detach(second);
  CHECK(access_of(name) == "r");
  const peer other(name);
  CHECK(other.sees() == "100");

  // A writer that is refused leaves it as it was.
  peer writer(name);
  REQUIRE(writer.lock().acquire(alone));
  CHECK_FALSE(bench.run(bench.graph().attach("c", n, may_write)).has_value());
  CHECK(access_of(name) == "r, rw, rw");

  driven d{bench, n};
  d.reopen(file_spec(name)); // without it the descriptor writes at once
  CHECK(access_of(name) == "rw, rw, rw");
  d.reopen(file_spec(name).set("auto-read-only", true));
  CHECK(access_of(name) == "r, rw, rw");
}

TEST_CASE("requests in flight do not notice that a file changes its access") {
  const scratch_directory dir;
  const std::string name = dir.file("disk", MiB);
  for (const char* aio : {"io_uring", "threads"}) {
    graph_bench bench(drivers());
    node& n = bench.open(file_spec(name).set("auto-read-only", true).set("aio", aio));
    root& r = bench.attach(n, may_read);
    std::vector<std::vector<std::byte>> seen(16, std::vector<std::byte>(64 * KiB));
    unsigned ended = 0;
    unsigned failed = 0;
    for (std::size_t i = 0; i < seen.size(); i++)
      spawn(bench.home(), r.read(i * 64 * KiB, seen[i]), nullptr, [&](result<> outcome) {
        ended++;
        failed += outcome ? 0 : 1;
      });
    for (int i = 0; i < 4; i++)
      bench.detach(bench.attach(n, may_write));
    while (ended < seen.size())
      bench.home().run_once();
    CHECK(failed == 0);
  }
}

TEST_CASE("auto-read-only says why when somebody wants to write what cannot be written") {
  // The one kind of file that even root may not open for writing.
  const std::string name = "/sys/devices/system/cpu/online";
  graph_bench bench(drivers());
  const auto strict = bench.try_open(file_spec(name));
  REQUIRE(!strict);
  CHECK(
      strict.error().message().ends_with(fmt::format("cannot open '{}': Permission denied", name)));
  node& n = bench.open(file_spec(name).set("auto-read-only", true));
  bench.attach(n, may_read);
  const auto refused = bench.run(bench.graph().attach("writer", n, may_write));
  REQUIRE(!refused);
  CHECK(refused.error().kind() == error_kind::permission);
  CHECK(refused.error().message() ==
        fmt::format("cannot open '{}' again, for writing: Permission denied", name));
}

TEST_CASE("a flush that failed once has failed for good, also after a reopen") {
  const scratch_directory dir;
  const std::string name = dir.file("disk", 4096);
  graph_bench bench(drivers());
  driven d{bench, bench.open(file_spec(name))};
  auto& flushes = dynamic_cast<flushable&>(d.target.instance());
  bench.must(flushes.flush_to_disk());
  // A pipe cannot be flushed: for a moment the descriptor is one.
  const int number = descriptors_of(name).at(0);
  const descriptor kept(fcntl(number, F_DUPFD_CLOEXEC, 0));
  int ends[2];
  REQUIRE(pipe2(ends, O_CLOEXEC) == 0);
  const descriptor one(ends[0]);
  const descriptor two(ends[1]);
  REQUIRE(dup3(one.get(), number, O_CLOEXEC) == number);
  const result<> failed = bench.run(flushes.flush_to_disk());
  REQUIRE(!failed);
  REQUIRE(dup3(kept.get(), number, O_CLOEXEC) == number);
  d.reopen(file_spec(name).set("read-only", true));
  d.reopen(file_spec(name));
  const result<> again = bench.run(flushes.flush_to_disk());
  REQUIRE(!again);
  CHECK(again.error().message() == failed.error().message());
}
