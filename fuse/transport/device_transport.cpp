// SPDX-License-Identifier: MIT
#include "fuse/transport/device_transport.h"

#include "fuse/protocol/kernel.h"
#include "fuse/transport/next_turn.h"
#include "fuse/transport/spinning.h"
#include "graph/io/io_operation.h"
#include "graph/io/processors.h"

#include <array>
#include <cerrno>
#include <fcntl.h>
#include <poll.h>
#include <sys/uio.h>
#include <unistd.h>

namespace bgfs {
namespace {

// A write's payload begins on the second page: pages are copied faster, and direct I/O of the image
// can use them in place. The header before it lies at the end of the first.
constexpr std::size_t page = buffer_pool::alignment;
constexpr std::size_t header_length = sizeof(fuse_in_header) + sizeof(fuse_write_in);
constexpr std::size_t request_offset = page - header_length;
constexpr std::size_t storage_length = page + kernel::payload_length_max + page;

class device_transport final : public transport {
public:
  device_transport(loop& home, int fd) : home_(home), fd_(fd) {
    fcntl(fd_, F_SETFL, fcntl(fd_, F_GETFL) | O_NONBLOCK);
  }

  task<std::optional<received>> receive(buffer reuse) override {
    buffer storage = reuse.is_empty() ? home_.buffers().allocate(storage_length) : std::move(reuse);
    const auto room = storage.bytes().subspan(request_offset);
    if (++since_turn_ >= requests_per_turn) {
      since_turn_ = 0;
      co_await next_turn();
    }
    for (;;) {
      const ssize_t count = ::read(fd_, room.data(), room.size());
      if (count > 0) {
        spins_.found();
        const auto bytes = room.first(static_cast<std::size_t>(count));
        co_return received{std::move(storage), bytes};
      }
      // ENOENT: the process gave up before the request was read. Interrupted reads just go on.
      if (count < 0 && (errno == ENOENT || errno == EINTR))
        continue;
      if (count == 0 || errno != EAGAIN)
        co_return std::nullopt; // ENODEV: unmounted; ECONNABORTED: aborted
      since_turn_ = 0;
      if (spins_.lasts(std::chrono::steady_clock::now())) {
        co_await next_turn(); // others run meanwhile
        continue;
      }
      const i64 events = co_await io_poll(fd_, POLLIN);
      spins_.woke(std::chrono::steady_clock::now());
      if (events == -ECANCELED)
        co_return std::nullopt;
    }
  }

  void answer(u64 unique, int os_error, std::span<const std::byte> head,
              std::span<const std::byte> body) override {
    fuse_out_header header{};
    header.unique = unique;
    header.error = -os_error;
    header.len = static_cast<u32>(sizeof header + (os_error == 0 ? head.size() + body.size() : 0));
    // An iovec cannot say that it is only read.
    const std::array<iovec, 3> parts = {
        iovec{&header, sizeof header},
        iovec{const_cast<std::byte*>(head.data()), head.size()},
        iovec{const_cast<std::byte*>(body.data()), body.size()},
    };
    // Fails only when the request or the connection is gone, and then nobody waits for it.
    (void)!::writev(fd_, parts.data(), os_error == 0 ? 3 : 1);
  }

  std::string_view name() const override { return "dev"; }

private:
  loop& home_;
  int fd_;
  unsigned since_turn_ = 0;
  spinning spins_{allowed_processors().size() > 1};
};

} // namespace

std::unique_ptr<transport> make_device_transport(loop& home, int fd) {
  return std::make_unique<device_transport>(home, fd);
}

} // namespace bgfs
