// SPDX-License-Identifier: MIT
#include "fuse/operations/request_queue.h"

#include "fuse/operations/kept_storage.h"
#include "fuse/transport/device_transport.h"
#include "fuse/transport/next_turn.h"
#include "graph/io/processors.h"
#include "graph/io/run_on.h"

#include <algorithm>
#include <cerrno>
#include <fcntl.h>
#include <pthread.h>
#include <sys/ioctl.h>
#include <unistd.h>

namespace bgfs {
namespace {

// A ring's requests have places of their own.
class no_transport final : public transport {
public:
  task<std::optional<received>> receive(buffer) override { co_return std::nullopt; }
  void answer(u64, int, std::span<const std::byte>, std::span<const std::byte>) override {
    BGFS_ASSERT(false, "a request of a ring is answered by its entry");
  }
  std::string_view name() const override { return "uring"; }
};

// Another way to the same connection, with requests in its hands of its own. Where /dev/fuse may
// not be opened again, the session's descriptor is shared.
descriptor clone_session(int fd) {
  descriptor made(open("/dev/fuse", O_RDWR | O_CLOEXEC));
  auto source = static_cast<u32>(fd);
  if (made.is_open() && ioctl(made.get(), FUSE_DEV_IOC_CLONE, &source) == 0)
    return made;
  return descriptor(dup(fd));
}

// A request of /dev/fuse on its way to the mount's loop. Its storage belongs to the pool of the
// loop that took it, so that is where it ends: with the answer, or before, when it was let go.
class traveller final : public answer_place, public run_item {
public:
  traveller(loop& own, transport& through, buffer storage, storage_away* counted)
      : own_(own), through_(through), storage_(std::move(storage)), counted_(counted) {
    back_.of = this;
    if (counted_ != nullptr)
      counted_->count++;
  }

  void answer(u64 unique, int os_error, std::span<const std::byte> head,
              std::span<const std::byte> body) override {
    through_.answer(unique, os_error, head, body);
    drop();
  }
  void drop() override {
    run = [](run_item& self) { static_cast<traveller&>(self).end(); };
    own_.post_remote(*this);
  }
  void let_go() override {
    if (std::exchange(has_let_go_, true))
      return;
    back_.run = [](run_item& self) { static_cast<trip_back&>(self).of->give_back(); };
    own_.post_remote(back_);
  }
  [[nodiscard]] std::span<std::byte> room() override { return {}; }
  void send_home(received request, home_address to) override {
    bytes_ = request.bytes;
    to_ = to;
    run = [](run_item& self) {
      auto& me = static_cast<traveller&>(self);
      me.to_.sink->take_from({.storage = {}, .bytes = me.bytes_, .place = &me});
    };
    to.at->post_remote(*this);
  }

private:
  // The two trips back may end in any order.
  struct trip_back : run_item {
    traveller* of = nullptr;
  };
  void give_back() {
    storage_ = {};
    is_back_ = true;
    if (counted_ != nullptr && counted_->count-- == request_queue::storage_away_max)
      counted_->less.wake_all();
    if (has_ended_)
      delete this;
  }
  void end() {
    has_ended_ = true;
    if (is_back_) {
      delete this;
    } else if (!has_let_go_) {
      give_back();
    }
  }

  loop& own_;
  transport& through_;
  buffer storage_;
  storage_away* const counted_; // null: the storage is short
  std::span<const std::byte> bytes_;
  home_address to_;
  trip_back back_;
  bool has_let_go_ = false; // the mount's loop says so before it answers
  bool is_back_ = false;    // these two on the own loop
  bool has_ended_ = false;
};

} // namespace

result<std::unique_ptr<request_queue>> request_queue::start(setup how) {
  std::unique_ptr<request_queue> made(new request_queue(std::move(how)));
  BGFS_TRY(made->loop_, loop::create({.offload_threads = 1, .processors = {}}));
  made->loop_->set_log(made->how_.home.at->log());
  made->loop_->buffers().set_kept_bytes_max(made->how_.kept_bytes_max);
  if (made->how_.queues.empty()) {
    made->clone_ = clone_session(made->how_.fd);
    made->device_ = make_device_transport(*made->loop_, made->clone_.get());
  } else {
    made->device_ = std::make_unique<no_transport>();
  }
  home_sink& rest = *made;
  made->by_lease_ =
      std::make_unique<leased_requests>(*made->loop_, made->how_.index, *made->how_.files,
                                        made->how_.leased_memory_max, *made->device_, rest);
  try {
    made->thread_ = std::thread([queue = made.get()] { queue->work(); });
  } catch (const std::system_error& e) { // the only way std::thread has to say it
    return fail_errno(e.code().value(), "cannot start a thread for requests");
  }
  return made;
}

request_queue::~request_queue() {
  if (!thread_.joinable())
    return;
  loop_->stop();
  thread_.join();
}

void request_queue::work() {
  (void)pthread_setname_np(pthread_self(), ("queue-" + std::to_string(how_.index)).c_str());
  if (how_.processor)
    stay_on({*how_.processor});
  loop_->run();
}

task<void> request_queue::open() {
  is_open_ = true;
  co_await run_on(*loop_, open_here());
}

task<void> request_queue::open_here() {
  if (how_.queues.empty()) {
    spawn(*loop_, take_all(), &stopping_, [this](result<>) { taken_all_.set(); });
    co_return;
  }
  request_sink& here = *this;
  ring_ = std::make_unique<ring_transport>(*loop_, how_.fd, here, how_.queues, how_.depth);
  co_await ring_->open();
}

task<void> request_queue::take_all() {
  buffer reuse;
  while (!stopping_.is_requested()) {
    std::optional<received> next = co_await device_->receive(std::move(reuse));
    if (!next)
      co_return;
    take_from(*std::move(next));
    reuse = {}; // what was served at once has given it back to the pool
    while (away_.count >= storage_away_max)
      co_await away_.less.wait();
  }
}

void request_queue::take_from(received request) {
  const result<fuse_in_header> header = parse_header(request.bytes);
  if (header && !by_lease_->take(*header, request)) // else it has no number to answer to
    take_home(std::move(request));
}

void request_queue::take_home(received request) {
  if (request.place == nullptr)
    prepare_for_journey(request);
  answer_place* const place = request.place;
  place->send_home(std::move(request), how_.home);
  if (ring_ != nullptr)
    watch_for_answers();
}

// To be woken on another processor twice, there and back, is most of what a flush or an allocating
// write costs who waits for it. The way back it is looked for, turn by turn, instead of slept: who
// asked on this processor sleeps itself.
void request_queue::watch_for_answers() {
  if (std::exchange(watch_.is_posted, true))
    return;
  spins_.found(); // whatever was waited for before
  watch_.of = this;
  watch_.run = [](run_item& self) {
    request_queue& queue = *static_cast<watch&>(self).of;
    queue.watch_.is_posted = false;
    if (queue.ring_ == nullptr || queue.ring_->away() == 0) {
      queue.spins_.found();
    } else if (queue.spins_.lasts(std::chrono::steady_clock::now())) {
      queue.watch_.is_posted = true;
      queue.loop_->post(self);
    }
  };
  loop_->post(watch_);
}

// It may be long until the answer: what is short does not keep storage for the longest request.
void request_queue::prepare_for_journey(received& request) {
  storage_away* counted = &away_;
  if (is_better_copied(request.bytes.size(), request.storage.length(), 1)) {
    buffer own = loop_->buffers().allocate(request.bytes.size());
    std::ranges::copy(request.bytes, own.data());
    request.bytes = own.bytes();
    request.storage = std::move(own);
    counted = nullptr;
  }
  // Rare enough for a trip to the heap.
  request.place = new traveller(*loop_, *device_, std::move(request.storage), counted);
}

task<void> request_queue::finish() {
  co_await shielded(run_on(*loop_, finish_here()));
}

task<void> request_queue::finish_here() {
  stopping_.request();
  if (how_.queues.empty() && is_open_)
    co_await taken_all_.wait();
  while (by_lease_->running() > 0)
    co_await idle_.wait();
  if (ring_ != nullptr)
    ring_transport::close(std::move(ring_));
  co_await next_turn(); // the last answers are handed over
  co_await next_turn();
}

} // namespace bgfs
