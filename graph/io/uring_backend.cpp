// SPDX-License-Identifier: MIT
#include "graph/io/io_backend.h"

#include <liburing.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <cstring>

namespace bgfs {
namespace {

constexpr unsigned submission_entries = 256;
constexpr unsigned reap_batch = 64;
constexpr std::size_t command_argument_max = 80;

// The best setup first; a kernel that does not know a flag refuses all of it.
constexpr unsigned setups[] = {
    // Completions are put together by our own thread when it enters the kernel, never by
    // interrupting it. The ring belongs to the first thread that runs the loop (Linux 6.1).
    IORING_SETUP_DEFER_TASKRUN | IORING_SETUP_SINGLE_ISSUER | IORING_SETUP_R_DISABLED |
        IORING_SETUP_TASKRUN_FLAG | IORING_SETUP_SQE128,
    // The same without the promise of one thread; commands need entries of 128 bytes (Linux 5.19).
    IORING_SETUP_COOP_TASKRUN | IORING_SETUP_TASKRUN_FLAG | IORING_SETUP_SQE128,
    0U,
};

class uring_backend final : public io_backend {
public:
  explicit uring_backend(int wake_fd) : wake_fd_(wake_fd) {}
  ~uring_backend() override {
    if (is_open_)
      io_uring_queue_exit(&ring_);
  }

  result<> open() {
    int status = -EINVAL;
    for (const unsigned flags : setups) {
      if (status != -EINVAL)
        break;
      io_uring_params params{};
      params.flags = flags;
      status = io_uring_queue_init_params(submission_entries, &ring_, &params);
      has_large_entries_ = (flags & IORING_SETUP_SQE128) != 0;
      is_enabled_ = (flags & IORING_SETUP_R_DISABLED) == 0;
    }
    if (status < 0)
      return fail_errno(-status, "cannot set up io_uring");
    is_open_ = true;
    return check_operations();
  }

  void submit(io_operation& operation) override {
    io_uring_sqe* sqe = next_entry();
    prepare(*sqe, operation);
    io_uring_sqe_set_data(sqe, &operation);
  }

  void cancel(io_operation& operation) override {
    io_uring_sqe* sqe = next_entry();
    io_uring_prep_cancel(sqe, &operation, 0);
    io_uring_sqe_set_data(sqe, nullptr);
  }

  void turn(bool may_wait, std::optional<steady_time> until,
            std::vector<run_item*>& completed) override {
    if (!is_enabled_)
      enable();
    arm_wake();
    if (may_wait) {
      if (until)
        arm_timer(*until);
      io_uring_submit_and_wait(&ring_, 1);
    } else if (io_uring_sq_ready(&ring_) > 0 || needs_enter()) {
      io_uring_submit_and_get_events(&ring_);
    }
    reap(completed);
  }

  [[nodiscard]] bool takes_commands() const override { return has_large_entries_; }
  [[nodiscard]] std::string_view name() const override { return "io_uring"; }

private:
  result<> check_operations() {
    io_uring_probe* probe = io_uring_get_probe_ring(&ring_);
    if (probe == nullptr)
      return fail(error_kind::unsupported, "io_uring cannot be probed");
    bool has_all = true;
    for (const int code : {IORING_OP_READV, IORING_OP_WRITEV, IORING_OP_FSYNC, IORING_OP_FALLOCATE,
                           IORING_OP_POLL_ADD, IORING_OP_ASYNC_CANCEL, IORING_OP_READ})
      has_all = has_all && io_uring_opcode_supported(probe, code) != 0;
    io_uring_free_probe(probe);
    if (!has_all)
      return fail(error_kind::unsupported, "io_uring lacks operations that bgfs needs");
    return {};
  }

  io_uring_sqe* next_entry() {
    io_uring_sqe* sqe = io_uring_get_sqe(&ring_);
    while (sqe == nullptr) {
      if (!is_enabled_)
        enable();
      io_uring_submit(&ring_);
      sqe = io_uring_get_sqe(&ring_);
    }
    return sqe;
  }

  static void prepare(io_uring_sqe& sqe, const io_operation& op) {
    switch (op.code) {
    case io_code::read:
      io_uring_prep_readv2(&sqe, op.fd, op.vectors, op.vector_count, op.range.offset, op.flags);
      return;
    case io_code::write:
      io_uring_prep_writev2(&sqe, op.fd, op.vectors, op.vector_count, op.range.offset, op.flags);
      return;
    case io_code::sync:
      io_uring_prep_fsync(&sqe, op.fd, 0);
      return;
    case io_code::sync_data:
      io_uring_prep_fsync(&sqe, op.fd, IORING_FSYNC_DATASYNC);
      return;
    case io_code::allocate:
      io_uring_prep_fallocate(&sqe, op.fd, op.flags, static_cast<off_t>(op.range.offset),
                              static_cast<off_t>(op.range.length));
      return;
    case io_code::command:
      io_uring_prep_rw(IORING_OP_URING_CMD, &sqe, op.fd, op.vectors, op.vector_count, 0);
      sqe.cmd_op = static_cast<u32>(op.flags);
      std::memset(sqe.cmd, 0, command_argument_max);
      std::memcpy(sqe.cmd, op.argument.data(), op.argument.size());
      return;
    case io_code::poll:
      io_uring_prep_poll_add(&sqe, op.fd, static_cast<unsigned>(op.flags));
      return;
    }
  }

  // A read of the eventfd is always in flight; its completion is the wake-up.
  void arm_wake() {
    if (is_wake_armed_)
      return;
    io_uring_sqe* sqe = next_entry();
    io_uring_prep_read(sqe, wake_fd_, &wake_count_, sizeof wake_count_, 0);
    io_uring_sqe_set_data(sqe, this);
    is_wake_armed_ = true;
  }

  bool needs_enter() const {
    return (IO_URING_READ_ONCE(*ring_.sq.kflags) & (IORING_SQ_CQ_OVERFLOW | IORING_SQ_TASKRUN)) !=
           0;
  }

  // The thread that runs the loop first is the only one that will ever submit.
  void enable() {
    // liburing 2.3 declares io_uring_enable_rings and does not export it.
    (void)syscall(SYS_io_uring_register, ring_.ring_fd, IORING_REGISTER_ENABLE_RINGS, nullptr, 0);
    // Spares the kernel to look the descriptor up in each system call; an optimisation only.
    (void)io_uring_register_ring_fd(&ring_);
    is_enabled_ = true;
  }

  // A timer of the kernel for each wait would cost more than it is worth: one is left where it is
  // as long as it fires early enough, and moved where it does not. A wait that it ends too early
  // is followed by another.
  void arm_timer(steady_time until) {
    if (timer_ && *timer_ <= until)
      return;
    const auto ns = until.time_since_epoch() / std::chrono::nanoseconds(1); // CLOCK_MONOTONIC
    timer_limit_ = {ns / 1'000'000'000, ns % 1'000'000'000};
    io_uring_sqe* sqe = next_entry();
    if (timer_) {
      // Gone already when it is too late: then its completion is on its way and ends the wait.
      io_uring_prep_timeout_update(sqe, &timer_limit_, reinterpret_cast<u64>(&timer_limit_),
                                   IORING_TIMEOUT_ABS);
      io_uring_sqe_set_data(sqe, nullptr);
    } else {
      io_uring_prep_timeout(sqe, &timer_limit_, 0, IORING_TIMEOUT_ABS);
      io_uring_sqe_set_data(sqe, &timer_limit_);
    }
    timer_ = until;
  }

  void reap(std::vector<run_item*>& completed) {
    std::array<io_uring_cqe*, reap_batch> batch;
    for (;;) {
      const unsigned count = io_uring_peek_batch_cqe(&ring_, batch.data(), reap_batch);
      for (unsigned i = 0; i < count; i++) {
        void* owner = io_uring_cqe_get_data(batch[i]);
        if (owner == this) {
          is_wake_armed_ = false;
        } else if (owner == &timer_limit_) {
          timer_.reset();
        } else if (owner != nullptr) {
          auto* op = static_cast<io_operation*>(owner);
          op->result = batch[i]->res;
          completed.push_back(op);
        }
      }
      io_uring_cq_advance(&ring_, count);
      if (count < reap_batch)
        return;
    }
  }

  io_uring ring_{};
  int wake_fd_;
  u64 wake_count_ = 0;
  bool is_wake_armed_ = false;
  std::optional<steady_time> timer_; // when the armed one fires
  __kernel_timespec timer_limit_{};
  bool is_enabled_ = false;
  bool is_open_ = false;
  bool has_large_entries_ = false;
};

} // namespace

result<std::unique_ptr<io_backend>> make_uring_backend(int wake_fd) {
  auto backend = std::make_unique<uring_backend>(wake_fd);
  BGFS_CHECK(backend->open());
  return backend;
}

} // namespace bgfs
