// SPDX-License-Identifier: MIT
#include "fuse/transport/ring_transport.h"

#include "fuse/protocol/kernel.h"
#include "fuse/transport/next_turn.h"
#include "graph/base/endian.h"
#include "graph/io/io_operation.h"

#include <algorithm>
#include <cerrno>
#include <charconv>
#include <cstdlib>
#include <cstring>
#include <fstream>
#include <thread>

namespace bgfs {
namespace {

// The header and the first argument of a request are put together before the payload, so that all
// of it can be read as one piece, and the payload begins on a page.
constexpr std::size_t payload_offset = buffer_pool::alignment;

} // namespace

class ring_transport::entry final : public answer_place, public io_operation {
public:
  entry(ring_transport& of, u16 queue) : of_(of), command_{.queue = queue} {
    trip_.of = this;
    BGFS_ASSERT(memory_of_requests_ != nullptr, "there is no memory at all");
    memory_[0] = {&headers_, sizeof headers_};
    memory_[1] = {room().data(), room().size()};
    code = io_code::command;
    fd = of.fd_;
    argument = std::as_bytes(std::span(&command_, 1));
    run = [](run_item& self) { static_cast<entry&>(self).completed(); };
  }

  void hand_over() {
    flags = kernel::uring_register;
    vectors = memory_;
    vector_count = 2;
    submit();
  }

  // What gets no answer never comes through a ring.
  void drop() override {}

  // Answered there, the entry comes back to its own loop, whose command it is.
  void send_home(received request, home_address to) override {
    away_ = std::move(request);
    home_ = to;
    trip_.run = [](run_item& self) {
      entry& e = *static_cast<trip&>(self).of;
      e.home_.sink->take_from(std::exchange(e.away_, {}));
    };
    is_away_ = true;
    of_.away_++;
    to.at->post_remote(trip_);
  }

  void answer(u64 unique, int os_error, std::span<const std::byte> head,
              std::span<const std::byte> body) override {
    if (os_error != 0)
      head = body = {};
    std::byte* const payload = room().data();
    if (body.data() != payload + head.size())
      std::copy_backward(body.begin(), body.end(), payload + head.size() + body.size());
    std::ranges::copy(head, payload);
    fuse_out_header header{};
    header.unique = unique;
    header.error = -os_error;
    header.len = static_cast<u32>(sizeof header + head.size() + body.size());
    store(std::span(headers_.in_out), header);
    headers_.entry.payload_length = static_cast<u32>(head.size() + body.size());
    command_.commit_id = headers_.entry.commit_id;
    flags = kernel::uring_commit_and_fetch;
    vectors = nullptr;
    vector_count = 0;
    if (!is_away_) {
      submit();
      return;
    }
    trip_.run = [](run_item& self) {
      entry& e = *static_cast<trip&>(self).of;
      e.is_away_ = false;
      e.of_.away_--;
      e.submit();
    };
    of_.home_.post_remote(trip_);
  }

  [[nodiscard]] std::span<std::byte> room() override {
    return {memory_of_requests_.get() + payload_offset, kernel::payload_length_max};
  }

private:
  void submit() { of_.home_.submit(*this); }

  void completed() {
    if (of_.is_closing_)
      return;
    if (result < 0) {
      of_.has_ended(static_cast<int>(-result));
      return;
    }
    const std::span<std::byte> bytes = put_together();
    if (bytes.empty()) {
      answer(load<fuse_in_header>(headers_.in_out).unique, EIO, {}, {});
      return;
    }
    of_.to_.take_from({.storage = {}, .bytes = bytes, .place = this});
  }

  // Empty: the lengths contradict each other.
  std::span<std::byte> put_together() {
    const auto header = load<fuse_in_header>(headers_.in_out);
    const std::size_t payload = headers_.entry.payload_length;
    if (payload > room().size() || header.len < sizeof header + payload ||
        header.len - sizeof header - payload > sizeof headers_.operation)
      return {};
    const std::size_t first = header.len - sizeof header - payload;
    std::byte* const begin = room().data() - first - sizeof header;
    std::memcpy(begin, headers_.in_out, sizeof header);
    std::memcpy(begin + sizeof header, headers_.operation, first);
    return {begin, header.len};
  }

  struct trip : run_item {
    entry* of = nullptr;
  };

  ring_transport& of_;
  trip trip_;
  // On the way to the mount's loop, there, or on the way back.
  bool is_away_ = false;
  received away_;
  home_address home_;
  // Not of the loop's pool, which may go before the kernel has let go.
  struct freed {
    void operator()(std::byte* memory) const { std::free(memory); }
  };
  std::unique_ptr<std::byte, freed> memory_of_requests_{static_cast<std::byte*>(
      std::aligned_alloc(buffer_pool::alignment, payload_offset + kernel::payload_length_max))};
  kernel::uring_headers headers_{};
  kernel::uring_command command_;
  iovec memory_[2];
};

ring_transport::ring_transport(loop& home, int fd, request_sink& to, std::span<const u16> queues,
                               unsigned depth)
    : home_(home), fd_(fd), to_(to) {
  for (unsigned i = 0; i < depth; i++) // one entry of each queue first: then the kernel can begin
    for (const u16 queue : queues)
      entries_.push_back(std::make_unique<entry>(*this, queue));
}

unsigned ring_transport::depth_within(u64 payload_bytes) {
  const u64 entries = payload_bytes / kernel::payload_length_max;
  return static_cast<unsigned>(
      std::clamp<u64>(entries / count_possible_processors(), 1, queue_depth_max));
}

ring_transport::~ring_transport() {
  BGFS_ASSERT(out_ == 0, "the kernel still has entries of a ring");
}

void ring_transport::close(std::unique_ptr<ring_transport> ring) {
  ring->is_closing_ = true;
  if (ring->out_ == 0)
    return;
  static auto& kept = *new std::vector<std::unique_ptr<ring_transport>>;
  kept.push_back(std::move(ring));
}

task<void> ring_transport::open() {
  for (const auto& e : entries_) {
    out_++;
    e->hand_over();
  }
  // An entry that is refused completes as it is submitted.
  co_await next_turn();
  co_await next_turn();
  if (refusal_ != 0 && refusal_ != ENOTCONN)
    co_await fail_errno(refusal_, "the kernel takes no requests over io_uring; use transport=dev");
}

void ring_transport::has_ended(int status) {
  if (refusal_ == 0)
    refusal_ = status;
  out_--;
}

std::optional<unsigned> count_in_list(std::string_view text) {
  unsigned count = 0;
  while (!text.empty() && text != "\n") {
    unsigned first = 0;
    const auto one = std::from_chars(text.data(), text.data() + text.size(), first);
    if (one.ec != std::errc())
      return std::nullopt;
    text.remove_prefix(static_cast<std::size_t>(one.ptr - text.data()));
    unsigned last = first;
    if (text.starts_with('-')) {
      const auto other = std::from_chars(text.data() + 1, text.data() + text.size(), last);
      if (other.ec != std::errc() || last < first)
        return std::nullopt;
      text.remove_prefix(static_cast<std::size_t>(other.ptr - text.data()));
    }
    count += last - first + 1;
    if (text.starts_with(','))
      text.remove_prefix(1);
  }
  return count == 0 ? std::nullopt : std::optional(count);
}

unsigned count_possible_processors() {
  std::ifstream list("/sys/devices/system/cpu/possible");
  std::string text;
  std::getline(list, text);
  return count_in_list(text).value_or(std::max(std::thread::hardware_concurrency(), 1U));
}

} // namespace bgfs
