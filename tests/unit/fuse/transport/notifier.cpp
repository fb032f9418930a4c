// SPDX-License-Identifier: MIT
#include "fuse/transport/notifier.h"

#include "fuse/protocol/kernel.h"
#include "graph/base/endian.h"
#include "graph/io/file.h"

#include <doctest/doctest.h>

#include <array>
#include <csignal>
#include <fcntl.h>
#include <sys/socket.h>
#include <thread>
#include <unistd.h>
#include <vector>

using namespace bgfs;

namespace {

// The kernel's end: each notification is one packet.
struct wire {
  std::array<int, 2> ends{};
  wire() {
    std::signal(SIGPIPE, SIG_IGN);
    REQUIRE(socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, ends.data()) == 0);
  }
  ~wire() {
    ::close(ends[0]);
    ::close(ends[1]);
  }
  wire(const wire&) = delete;
  wire& operator=(const wire&) = delete;

  std::vector<std::byte> next() const {
    std::vector<std::byte> packet(4096);
    const ssize_t count = ::recv(ends[1], packet.data(), packet.size(), 0);
    REQUIRE(count > 0);
    packet.resize(static_cast<std::size_t>(count));
    return packet;
  }
};

template<class T>
T body_of(const std::vector<std::byte>& packet, i32 code) {
  const auto header = load<fuse_out_header>(packet);
  CHECK(header.len == packet.size());
  CHECK(header.unique == 0);
  CHECK(header.error == code);
  return load<T>(packet, sizeof header);
}

} // namespace

TEST_CASE("notifications are what the kernel expects, in the order they were asked for") {
  const wire to;
  notifier n(to.ends[0]);
  CHECK_FALSE(n.has_queued());
  n.forget_attributes(7);
  n.invalidate(8, {4096, 512});
  n.forget_name(1, "web");
  n.wake_poll(99);
  CHECK(n.wait_until_sent());
  CHECK_FALSE(n.has_queued());
  const auto attributes = body_of<fuse_notify_inval_inode_out>(to.next(), FUSE_NOTIFY_INVAL_INODE);
  CHECK(attributes.ino == 7);
  CHECK(attributes.off == -1);
  const auto bytes = body_of<fuse_notify_inval_inode_out>(to.next(), FUSE_NOTIFY_INVAL_INODE);
  CHECK(bytes.ino == 8);
  CHECK(bytes.off == 4096);
  CHECK(bytes.len == 512);
  const std::vector<std::byte> packet = to.next();
  const auto entry = body_of<fuse_notify_inval_entry_out>(packet, FUSE_NOTIFY_INVAL_ENTRY);
  CHECK(entry.parent == 1);
  CHECK(entry.namelen == 3);
  const std::size_t name_at = sizeof(fuse_out_header) + sizeof entry;
  REQUIRE(packet.size() == name_at + 4);
  CHECK(std::string(reinterpret_cast<const char*>(packet.data()) + name_at) == "web");
  CHECK(body_of<fuse_notify_poll_wakeup_out>(to.next(), FUSE_NOTIFY_POLL).kh == 99);
}

TEST_CASE("who waits for notifications does not wait for a kernel that takes none") {
  const wire to;
  const int small = 4096;
  ::setsockopt(to.ends[0], SOL_SOCKET, SO_SNDBUF, &small, sizeof small);
  notifier n(to.ends[0]);
  for (u64 i = 0; i < 5000; i++) // more than the socket takes: the sender is stuck
    n.forget_attributes(i);
  CHECK(n.has_queued());
  CHECK_FALSE(n.wait_until_sent());
  ::shutdown(to.ends[1], SHUT_RDWR);
  n.stop();
  CHECK_FALSE(n.has_queued());
}

TEST_CASE("who waits is not told too early because what is queued was merged with later things") {
  const wire to;
  const int small = 4096;
  ::setsockopt(to.ends[0], SOL_SOCKET, SO_SNDBUF, &small, sizeof small);
  notifier n(to.ends[0]);
  for (u64 i = 0; i < 500; i++) // more than the socket takes
    n.forget_attributes(i);
  bool is_sent = true;
  std::thread waits([&] { is_sent = n.wait_until_sent(); });
  std::this_thread::sleep_for(std::chrono::milliseconds(100));
  for (unsigned i = 0; i < 2 * notifier::queued_max; i++)
    n.invalidate(5, {i, 1});
  for (int i = 0; i < 40; i++) // the sender comes to what was merged, and is stuck again
    (void)to.next();
  waits.join();
  CHECK_FALSE(is_sent);
  ::shutdown(to.ends[1], SHUT_RDWR);
}

TEST_CASE("too many notifications about one thing become one, and names are all kept") {
  const wire to;
  const int small = 4096;
  ::setsockopt(to.ends[0], SOL_SOCKET, SO_SNDBUF, &small, sizeof small);
  notifier n(to.ends[0]);
  constexpr unsigned names = 40;
  for (unsigned i = 0; i < names; i++)
    n.forget_name(1, "n" + std::to_string(i));
  for (unsigned i = 0; i < 10 * notifier::queued_max; i++)
    n.invalidate(5, {i, 1});
  n.forget_name(2, "last");
  std::size_t received = 0;
  std::size_t named = 0;
  for (bool is_last = false; !is_last; received++) {
    const std::vector<std::byte> packet = to.next();
    const auto header = load<fuse_out_header>(packet);
    if (header.error != FUSE_NOTIFY_INVAL_ENTRY)
      continue;
    named++;
    is_last = load<fuse_notify_inval_entry_out>(packet, sizeof header).parent == 2;
  }
  CHECK(named == names + 1);
  CHECK(received < 3 * notifier::queued_max);
}
