// SPDX-License-Identifier: MIT
#include "fuse/operations/server.h"

#include "fuse/operations/interruption.h"
#include "fuse/operations/kept_storage.h"
#include "fuse/protocol/opcode_name.h"
#include "fuse/transport/backing.h"
#include "fuse/tree/passing.h"
#include "graph/io/processors.h"
#include "graph/io/sleep.h"

#include <algorithm>
#include <cerrno>

namespace bgfs {

// A request that is being served; lives in the frame of its task.
struct server::pending {
  u64 unique = 0;
  u32 pid = 0;
  cancel_state cancel;
  pending* previous = nullptr;
  pending* next = nullptr;
};

// The outermost coroutine of a request: starts at once, on the stack of whoever took the request,
// and frees itself at its end.
struct server::serving {
  struct promise_type : promise_base, pending {
    promise_type(server& s, const fuse_in_header& header, const request_body&, const buffer&,
                 place) {
      unique = header.unique;
      pid = header.pid;
      context = {&s.mount_.home, &cancel};
    }
    serving get_return_object() {
      self = std::coroutine_handle<promise_type>::from_promise(*this);
      return {this};
    }
    std::suspend_never initial_suspend() const noexcept { return {}; }
    std::suspend_never final_suspend() const noexcept { return {}; }
    void return_void() const noexcept {}
    void unhandled_exception() const noexcept { std::terminate(); }
  };
  pending* state;

  // Finds the promise from within its coroutine.
  struct myself {
    pending* found = nullptr;
    bool await_ready() const noexcept { return false; }
    bool await_suspend(std::coroutine_handle<promise_type> h) noexcept {
      found = &h.promise();
      return false;
    }
    pending& await_resume() const noexcept { return *found; }
  };
};

server::server(mount_state& mount, transport& requests)
    : mount_(mount), transport_(requests), operations_(mount),
      by_lease_(mount.home, 0, operations_.leased(), mount.leased_memory_max(), requests, *this),
      interruptions_(mount.home) {}

server::~server() {
  BGFS_ASSERT(pending_ == nullptr, "the server goes while requests run");
}

namespace {
// The end of the connection and a stop both end the taking of requests, never in an error.
task<void> stoppable(task<void> inner) {
  co_await std::move(inner);
}
} // namespace

task<void> server::run() {
  mount_.requests_leased = [this] {
    u64 served = by_lease_.served();
    for (const auto& q : queues_)
      served += q->served();
    return served;
  };
  mount_.leased_memory_held = [this] {
    u64 held = by_lease_.held();
    for (const auto& q : queues_)
      held += q->held();
    return held;
  };
  const task_context here = co_await current_context();
  event taken;
  spawn(*here.home, stoppable(take_all()), &stopping_, [&taken](result<>) { taken.set(); });
  co_await shielded(taken.wait());
  // Nobody can resume what a breakpoint keeps any more.
  const std::vector<breakpoints_off> passing = co_await let_requests_pass(mount_.roots);
  mount_.jobs.stop(); // nobody can look at them any more, and who waits for them is answered
  // What waits for a lock or for the end of a drain is answered before the images are closed.
  while (running_ > 0 || by_lease_.running() > 0)
    co_await idle_.wait();
  for (const auto& q : queues_)
    co_await q->finish();
  // What a queue had received when the connection ended came here until it finished.
  while (running_ > 0)
    co_await idle_.wait();
  if (ring_ != nullptr)
    ring_transport::close(std::move(ring_));
  interruptions_.request_stop();
  (void)co_await as_result(interruptions_.join());
}

task<void> server::take_all() {
  buffer reuse;
  while (!stopping_.is_requested()) {
    std::optional<received> next = co_await transport_.receive(std::move(reuse));
    if (!next)
      co_return;
    reuse = take(*std::move(next));
  }
}

void server::take_from(received request) {
  (void)take(std::move(request));
}

namespace {

// Which of the kernel's queues, one for each processor, each of ours serves: that of its processor,
// and of those that this process may not run on what falls to it.
std::vector<std::vector<u16>> deal_queues(std::size_t ours, const std::vector<unsigned>& allowed) {
  std::vector<std::vector<u16>> dealt(ours);
  for (unsigned i = 0; i < count_possible_processors(); i++) {
    const auto at = std::ranges::find(allowed, i);
    const auto whose = at != allowed.end() ? static_cast<std::size_t>(at - allowed.begin()) : i;
    dealt[whose % ours].push_back(static_cast<u16>(i));
  }
  return dealt;
}

} // namespace

result<> server::start_queues(const std::vector<std::vector<u16>>& kernel_queues) {
  const std::vector<unsigned> allowed = allowed_processors();
  const bool is_one_each = mount_.kernel.uses_uring() && allowed.size() == kernel_queues.size();
  for (std::size_t i = 1; i < kernel_queues.size(); i++) {
    request_sink& here = *this;
    BGFS_TRY(auto queue,
             request_queue::start(
                 {.index = static_cast<unsigned>(i),
                  .fd = mount_.session_fd,
                  .queues = kernel_queues[i],
                  .depth = mount_.ring_depth,
                  .leased_memory_max = mount_.leased_memory_max(),
                  .kept_bytes_max = mount_.home.buffers().kept_bytes_max() / kernel_queues.size(),
                  .processor = is_one_each ? std::optional(allowed[i]) : std::nullopt,
                  .files = &operations_.leased(),
                  .home = {&mount_.home, &here}}));
    queues_.push_back(std::move(queue));
  }
  // Anywhere else it would be woken across processors for requests of its own queue. What it hands
  // to other threads runs anywhere.
  if (is_one_each && !queues_.empty())
    stay_on({allowed.front()});
  return {};
}

// Nothing else is to be done when a ring cannot be opened after all: the kernel counts on it.
task<void> server::open_queues() {
  const bool is_ring = mount_.kernel.uses_uring();
  const std::size_t count = mount_.queue_count(is_ring);
  std::vector<std::vector<u16>> dealt(count);
  if (is_ring) {
    mount_.ring_depth = ring_transport::depth_within(mount_.payloads.total());
    dealt = deal_queues(count, allowed_processors());
  }
  result<> opened = start_queues(dealt);
  if (opened && is_ring)
    opened = co_await as_result(open_ring(std::move(dealt)));
  for (const auto& q : queues_)
    if (opened)
      opened = co_await as_result(q->open());
  if (opened) {
    mount_.transport_name = is_ring ? "uring" : "dev";
  } else {
    refusal_ = opened.error();
  }
  ready_.set();
}

task<void> server::open_ring(std::vector<std::vector<u16>> kernel_queues) {
  request_sink& here = *this;
  ring_ = std::make_unique<ring_transport>(mount_.home, mount_.session_fd, here,
                                           kernel_queues.front(), mount_.ring_depth);
  co_await ring_->open();
}

buffer server::take(received request) {
  const result<fuse_in_header> header = parse_header(request.bytes);
  if (!header)
    return std::move(request.storage); // no number to answer to
  if (by_lease_.take(*header, request))
    return std::move(request.storage);
  return take_long_way(*header, std::move(request));
}

void server::take_home(received request) {
  const result<fuse_in_header> header = parse_header(request.bytes);
  BGFS_ASSERT(header.has_value(), "it was parsed before");
  (void)take_long_way(*header, std::move(request));
}

buffer server::take_long_way(const fuse_in_header& header, received request) {
  result<request_body> body = parse_body(header, request.bytes);
  if (!body) {
    send(request.place, header.unique, fail(std::move(body).error()));
    return std::move(request.storage);
  }
  if (take_at_once(header, *body, request.place))
    return std::move(request.storage);
  mount_.requests_served++;
  trace<point::fuse_request>(mount_.home.log(), header.unique, opcode_name(header.opcode),
                             header.nodeid, header.pid);
  // Only the payload of a write refers to the storage.
  const bool keeps_storage = std::holds_alternative<ask::write>(*body);
  buffer kept = keeps_storage ? keep_payload(std::get<ask::write>(*body), request) : buffer();
  serve(*this, header, *std::move(body), std::move(kept), request.place);
  return std::move(request.storage);
}

// What a write holds as long as it runs. Empty: an entry of a ring, which is the entry's own.
buffer server::keep_payload(ask::write& what, received& request) const {
  const bool is_elsewhere = request.place != nullptr && request.storage.is_empty();
  if (is_elsewhere && !request.place->room().empty())
    return {};
  const std::size_t length = what.payload.size();
  if (!is_elsewhere && !is_better_copied(length, request.storage.length(), running_))
    return std::move(request.storage);
  buffer own = mount_.home.buffers().allocate(length);
  std::ranges::copy(what.payload, own.data());
  what.payload = own.bytes();
  if (is_elsewhere)
    request.place->let_go();
  return own;
}

// What neither suspends nor, sometimes, has an answer.
bool server::take_at_once(const fuse_in_header& header, request_body& body, place to) {
  if (const auto* what = std::get_if<ask::forget>(&body)) {
    operations_.forget(*what);
    if (to != nullptr)
      to->drop();
    return true;
  }
  if (const auto* what = std::get_if<ask::interrupt>(&body)) {
    interrupt(what->unique);
    if (to != nullptr)
      to->drop();
    return true;
  }
  if (const auto* what = std::get_if<ask::init>(&body)) {
    initialise(header, *what);
    return true;
  }
  if (const auto* what = std::get_if<ask::refused>(&body)) {
    answer(to, header.unique, what->os_error);
    return true;
  }
  if (const auto* what = std::get_if<ask::poll>(&body)) {
    const std::optional<u32> ready = operations_.poll(*what);
    const fuse_poll_out out{.revents = ready.value_or(0), .padding = 0};
    answer(to, header.unique, ready ? 0 : ENOSYS, std::as_bytes(std::span(&out, 1)));
    return true;
  }
  // What the kernel holds back may lie in what are holes here. Told this once, it calls all of a
  // file data and asks no more.
  const bool is_blind = mount_.is_writeback() && std::holds_alternative<ask::seek>(body);
  if (is_blind || std::holds_alternative<ask::unknown>(body)) {
    answer(to, header.unique, ENOSYS);
    return true;
  }
  return false;
}

server::serving server::serve(server& self, fuse_in_header header, request_body body,
                              buffer storage, place to) {
  pending& me = co_await serving::myself{};
  self.enlist(me);
  if (auto* what = std::get_if<ask::write>(&body); what != nullptr && !storage.is_empty())
    what->storage = &storage;
  {
    const result<reply> outcome = co_await as_result(self.perform(header, body, to));
    self.send(to, header.unique, outcome);
  }
  self.retire(me);
}

task<reply> server::perform(fuse_in_header header, request_body& body, place to) {
  switch (header.opcode) {
  case FUSE_READ:
    return operations_.read(std::get<ask::read>(body),
                            to != nullptr ? to->room() : std::span<std::byte>());
  case FUSE_WRITE:
    return operations_.write(header, std::get<ask::write>(body));
  case FUSE_FSYNC:
  case FUSE_FALLOCATE:
  case FUSE_LSEEK:
  case FUSE_COPY_FILE_RANGE:
  case FUSE_FLUSH:
  case FUSE_SETXATTR: // a command: it takes what it needs itself, as one that is written does
  case FUSE_REMOVEXATTR:
  case FUSE_RELEASE:
  case FUSE_RELEASEDIR:
    return perform_other(header, body);
  case FUSE_MKDIR:
  case FUSE_RMDIR:
  case FUSE_RENAME:
  case FUSE_RENAME2:
    switch (operations_.changes_graph(header)) {
    case graph_change::none:
      return perform_looking(header, body);
    case graph_change::alone:
      return perform_alone(header, body);
    case graph_change::by_itself:
      return perform_other(header, body);
    }
  default:
    return perform_looking(header, body);
  }
}

// What looks at nodes directly keeps a reload from closing them meanwhile. The others go through
// roots, which are drained.
task<reply> server::perform_looking(fuse_in_header header, request_body& body) {
  const auto guard = co_await mount_.looking.lock_shared();
  reply r = co_await perform_other(header, body);
  co_return r;
}

task<reply> server::perform_alone(fuse_in_header header, request_body& body) {
  const auto guard = co_await mount_.looking.lock();
  reply r = co_await perform_other(header, body);
  co_return r;
}

void server::initialise(const fuse_in_header& header, const ask::init& what) {
  result<negotiated> chosen = negotiate(what.in, {.transport = mount_.wanted_transport,
                                                  .may_uring = mount_.home.takes_commands(),
                                                  .is_writeback = mount_.is_writeback()});
  if (!chosen) {
    refusal_ = chosen.error();
    transport_.answer(header.unique, EPROTO, {}, {});
    ready_.set();
    return;
  }
  const fuse_init_out out = init_reply(*chosen, what.in);
  transport_.answer(header.unique, 0, std::as_bytes(std::span(&out, 1)), {});
  if (chosen->needs_another_init)
    return;
  mount_.kernel = *std::move(chosen);
  mount_.may_pass_through = probe_backing(mount_.kernel, mount_.session_fd);
  spawn(mount_.home, open_queues(), nullptr, [](result<> outcome) {
    BGFS_ASSERT(outcome.has_value(), "what goes wrong with a ring is kept as the refusal");
  });
}

task<void> server::interrupt_later(u64 unique) {
  co_await sleep_for(interruption_grace);
  for (pending* p = pending_; p != nullptr; p = p->next)
    if (p->unique == unique)
      p->cancel.request();
}

void server::interrupt(u64 unique) {
  for (pending* p = pending_; p != nullptr; p = p->next) {
    if (p->unique == unique) {
      cancel_soon(*p);
      return;
    }
  }
  // It was answered already, or is served by lease, or is still on its way through a queue.
  early_interrupts_[early_interrupt_count_++ % early_interrupts_max] = unique;
}

void server::cancel_soon(pending& p) {
  if (is_being_killed(p.pid)) {
    p.cancel.request();
  } else {
    interruptions_.spawn(interrupt_later(p.unique));
  }
}

void server::answer(place to, u64 unique, int os_error, std::span<const std::byte> head,
                    std::span<const std::byte> body) {
  if (to != nullptr) {
    to->answer(unique, os_error, head, body);
  } else {
    transport_.answer(unique, os_error, head, body);
  }
}

void server::send(place to, u64 unique, const result<reply>& outcome) {
  const int os_error = outcome ? 0 : errno_of(outcome.error());
  const auto head = outcome ? outcome->head() : std::span<const std::byte>();
  const auto body = outcome ? outcome->body() : std::span<const std::byte>();
  trace<point::fuse_reply>(mount_.home.log(), unique, os_error, head.size() + body.size());
  answer(to, unique, os_error, head, body);
}

void server::enlist(pending& p) {
  p.next = pending_;
  if (pending_ != nullptr)
    pending_->previous = &p;
  pending_ = &p;
  running_++;
  mount_.requests_running = running_;
  if (early_interrupt_count_ > 0 &&
      std::ranges::find(early_interrupts_, p.unique) != early_interrupts_.end())
    cancel_soon(p);
}

void server::retire(pending& p) {
  (p.previous != nullptr ? p.previous->next : pending_) = p.next;
  if (p.next != nullptr)
    p.next->previous = p.previous;
  mount_.requests_running = --running_;
  if (running_ == 0)
    idle_.wake_all();
}

} // namespace bgfs
