// SPDX-License-Identifier: MIT
// The server with a kernel made of a list of requests.
#include "fuse/operations/server.h"

#include "drivers/format/raw/raw.h"
#include "drivers/protocol/null/null.h"
#include "fuse/transport/next_turn.h"
#include "tests/unit/lib/heap_trips.h"

#include <doctest/doctest.h>

#include <algorithm>
#include <cerrno>
#include <cstdlib>
#include <fcntl.h>
#include <fstream>
#include <functional>

using namespace bgfs;

namespace {

struct given_answer {
  u64 unique;
  int os_error;
  std::vector<std::byte> body;

  template<class T>
  T as() const {
    REQUIRE(body.size() >= sizeof(T));
    return load<T>(body);
  }
};

// Sends what `next` makes of the answers so far, until it makes nothing.
class scripted_kernel final : public transport {
public:
  using bytes = std::vector<std::byte>;
  explicit scripted_kernel(mount_state& mount) : mount_(mount) {}

  std::function<const bytes*(scripted_kernel&)> next;
  std::vector<given_answer> answers;
  bool keeps_answers = true;
  unsigned answered = 0;

  task<std::optional<received>> receive(buffer reuse) override {
    while (mount_.requests_running > 0)
      co_await next_turn(); // one at a time
    const bytes* const request = next(*this);
    if (request == nullptr)
      co_return std::nullopt;
    buffer storage = reuse.is_empty() ? mount_.home.buffers().allocate(1 << 16) : std::move(reuse);
    std::ranges::copy(*request, storage.data());
    const auto part = storage.bytes().first(request->size());
    co_return received{std::move(storage), part};
  }
  void answer(u64 unique, int os_error, std::span<const std::byte> head,
              std::span<const std::byte> body) override {
    answered++;
    if (!keeps_answers)
      return;
    std::vector<std::byte> all(head.begin(), head.end());
    all.insert(all.end(), body.begin(), body.end());
    answers.push_back({unique, os_error, std::move(all)});
  }
  std::string_view name() const override { return "scripted"; }

  template<class T>
  static bytes request(u32 opcode, u64 node, const T& in, std::string_view name = {}) {
    bytes made(sizeof(fuse_in_header) + sizeof(T));
    store(std::span(made), in, sizeof(fuse_in_header));
    add_name(made, name);
    return finish(std::move(made), opcode, node);
  }
  static bytes request(u32 opcode, u64 node, std::string_view name = {}) {
    bytes made(sizeof(fuse_in_header));
    add_name(made, name);
    return finish(std::move(made), opcode, node);
  }

private:
  static void add_name(bytes& to, std::string_view name) {
    if (name.empty())
      return;
    for (const char c : name)
      to.push_back(static_cast<std::byte>(c));
    to.push_back(std::byte{});
  }
  static bytes finish(bytes made, u32 opcode, u64 node) {
    fuse_in_header header{};
    header.len = static_cast<u32>(made.size());
    header.opcode = opcode;
    header.nodeid = node;
    header.unique = 1;
    store(std::span(made), header);
    return made;
  }
  mount_state& mount_;
};

using kernel_bytes = scripted_kernel::bytes;

// A mount of one root, `disk`, of 1 MiB that reads as zeroes.
struct scripted_mount {
  registry drivers{{&null_co_driver_type, &raw_driver_type}};
  std::string path = "/tmp/bgfs-unit-XXXXXX";
  std::unique_ptr<loop> home = *loop::create();
  std::unique_ptr<mount_state> state;
  std::unique_ptr<scripted_kernel> kernel;

  scripted_mount() {
    close(mkstemp(path.data()));
    std::ofstream(path) << "version: 1\n"
                           "nodes: [ { node-name: n, driver: null-co, size: 1M } ]\n"
                           "exports: [ { name: disk, node-name: n, writable: true } ]\n";
    result<graph_config> config = graph_config::load(path, drivers);
    REQUIRE(config.has_value());
    state = std::make_unique<mount_state>(*home, mount_request{.config = *std::move(config)},
                                          "/nonexistent", drivers);
    kernel = std::make_unique<scripted_kernel>(*state);
  }
  ~scripted_mount() {
    for (const auto& root : state->roots)
      CHECK(run_to_end(*home, root->close()).has_value());
    CHECK(run_to_end(*home, state->nodes.close_all()).has_value());
    unlink(path.c_str());
  }
  scripted_mount(const scripted_mount&) = delete;
  scripted_mount& operator=(const scripted_mount&) = delete;

  // Sends requests one after the other; each may be made from the answers before it.
  void play(std::vector<std::function<kernel_bytes(scripted_kernel&)>> script) {
    kernel_bytes current;
    std::size_t at = 0;
    kernel->next = [&](scripted_kernel& k) -> const kernel_bytes* {
      if (at == script.size())
        return nullptr;
      current = script[at++](k);
      return &current;
    };
    server served(*state, *kernel);
    CHECK(run_to_end(*home, served.run()).has_value());
  }
};

kernel_bytes init_request() {
  fuse_init_in in{};
  in.major = 7;
  in.minor = 40;
  in.flags = FUSE_MAX_PAGES | FUSE_ASYNC_DIO;
  return scripted_kernel::request(FUSE_INIT, 0, in);
}

u64 looked_up(const scripted_kernel& k) {
  return k.answers.back().as<fuse_entry_out>().nodeid;
}

} // namespace

TEST_CASE("a mount is initialised, a disk looked up, opened, read and written") {
  scripted_mount m;
  u64 node = 0;
  u64 handle = 0;
  m.play({
      [](scripted_kernel&) { return init_request(); },
      [](scripted_kernel&) { return scripted_kernel::request(FUSE_LOOKUP, 1, "disk"); },
      [](scripted_kernel&) { return scripted_kernel::request(FUSE_STATFS, 1); },
  });
  REQUIRE(m.kernel->answers.size() == 3);
  CHECK(m.kernel->answers[0].as<fuse_init_out>().max_write == 1 << 20);
  // On demand: nobody opened the root before.
  CHECK(m.kernel->answers[1].as<fuse_entry_out>().attr.size == MiB);
  m.kernel->answers.clear();
  m.play({
      [](scripted_kernel&) { return scripted_kernel::request(FUSE_LOOKUP, 1, "disk"); },
      [&](scripted_kernel& k) {
        node = looked_up(k);
        fuse_open_in in{};
        in.flags = O_RDWR;
        return scripted_kernel::request(FUSE_OPEN, node, in);
      },
      [&](scripted_kernel& k) {
        handle = k.answers.back().as<fuse_open_out>().fh;
        fuse_read_in in{};
        in.fh = handle;
        in.offset = MiB - 100;
        in.size = 4096;
        return scripted_kernel::request(FUSE_READ, node, in);
      },
      [&](scripted_kernel& k) {
        CHECK(k.answers.back().body.size() == 100);
        fuse_write_in in{};
        in.fh = handle;
        in.offset = MiB - 2;
        in.size = 6;
        return scripted_kernel::request(FUSE_WRITE, node, in, "hello"); // and its zero byte
      },
      [&](scripted_kernel& k) {
        CHECK(k.answers.back().as<fuse_write_out>().size == 2);
        fuse_release_in in{};
        in.fh = handle;
        return scripted_kernel::request(FUSE_RELEASE, node, in);
      },
      [&](scripted_kernel&) {
        fuse_read_in in{};
        in.fh = handle;
        in.size = 10;
        return scripted_kernel::request(FUSE_READ, node, in);
      },
  });
  CHECK(m.kernel->answers.back().os_error == EINVAL); // the handle is gone
}

TEST_CASE("requests that are none, unknown or refused are answered and harm nobody") {
  scripted_mount m;
  m.play({
      [](scripted_kernel&) { return kernel_bytes(3); },
      [](scripted_kernel&) { return scripted_kernel::request(4711, 1); },
      [](scripted_kernel&) { return scripted_kernel::request(FUSE_READ, 1); },
      [](scripted_kernel&) { return scripted_kernel::request(FUSE_UNLINK, 1, "disk"); },
      [](scripted_kernel&) { return scripted_kernel::request(FUSE_GETATTR, 99999); },
      [](scripted_kernel&) { return scripted_kernel::request(FUSE_LOOKUP, 1, "nothing"); },
      [](scripted_kernel&) { return scripted_kernel::request(FUSE_INTERRUPT, 0, u64{5}); },
      [](scripted_kernel&) { return scripted_kernel::request(FUSE_FORGET, 1, u64{5}); },
      [](scripted_kernel&) { return scripted_kernel::request(FUSE_GETATTR, 1); },
  });
  std::vector<int> seen;
  for (const given_answer& a : m.kernel->answers)
    seen.push_back(a.os_error);
  CHECK(seen == std::vector<int>{ENOSYS, EINVAL, EPERM, ESTALE, ENOENT, 0});
}

TEST_CASE("a kernel that is too old is refused") {
  scripted_mount m;
  fuse_init_in in{};
  in.major = 7;
  in.minor = 20;
  m.kernel->next = [&, sent = false](scripted_kernel&) mutable -> const kernel_bytes* {
    static const kernel_bytes request = scripted_kernel::request(FUSE_INIT, 0, in);
    return std::exchange(sent, true) ? nullptr : &request;
  };
  server served(*m.state, *m.kernel);
  CHECK(run_to_end(*m.home, served.run()).has_value());
  REQUIRE(served.refusal() != nullptr);
  CHECK(served.refusal()->message().contains("Linux 5.10"));
  CHECK(m.kernel->answers.back().os_error == EPROTO);
}

#if !__has_feature(thread_sanitizer)
TEST_CASE("a read of 4 KiB makes no trip to the heap between the kernel's request and its answer") {
  scripted_mount m;
  u64 node = 0;
  u64 handle = 0;
  m.play({
      [](scripted_kernel&) { return scripted_kernel::request(FUSE_LOOKUP, 1, "disk"); },
  });
  unsigned sent = 0;
  unsigned long before = 0;
  unsigned long after = 0;
  kernel_bytes current;
  m.kernel->next = [&](scripted_kernel& k) -> const kernel_bytes* {
    constexpr unsigned warm_up = 70;
    constexpr unsigned measured = 200;
    if (sent == 0) {
      current = scripted_kernel::request(FUSE_LOOKUP, 1, "disk");
    } else if (sent == 1) {
      node = looked_up(k);
      current = scripted_kernel::request(FUSE_OPEN, node, fuse_open_in{});
    } else if (sent == 2) {
      handle = k.answers.back().as<fuse_open_out>().fh;
      fuse_read_in in{};
      in.fh = handle;
      in.offset = 8192;
      in.size = 4096;
      current = scripted_kernel::request(FUSE_READ, node, in);
      k.keeps_answers = false;
    }
    if (sent == warm_up)
      before = test::heap_trips();
    if (sent == warm_up + measured) {
      after = test::heap_trips();
      return nullptr;
    }
    sent++;
    return &current;
  };
  server served(*m.state, *m.kernel);
  CHECK(run_to_end(*m.home, served.run()).has_value());
  CHECK(m.kernel->answered >= sent);
  CHECK(after - before == 0);
}
#endif
