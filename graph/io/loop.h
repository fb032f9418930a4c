// SPDX-License-Identifier: MIT
// The event loop: one thread, a run queue, timers, and a backend that does I/O (io_uring, or epoll
// and a thread pool where io_uring is missing or forbidden). Loops are objects; several may run at
// once, each on its own thread. Only post_remote and stop may be called from another thread.
#pragma once

#include "graph/base/byte_range.h"
#include "graph/base/result.h"
#include "graph/base/trace.h"
#include "graph/io/run_item.h"

#include <atomic>
#include <chrono>
#include <memory>
#include <random>
#include <string_view>
#include <vector>

namespace bgfs {

class buffer_pool;
class io_backend;
class offload_pool;
struct io_operation;

using steady_time = std::chrono::steady_clock::time_point;

enum class io_backend_kind : u8 {
  automatic, // io_uring where the kernel allows it, else threads
  io_uring,
  threads, // epoll and a thread pool
};

struct loop_options {
  io_backend_kind backend = io_backend_kind::automatic;
  // Runs what is ready in a random order drawn from this seed; 0 keeps the order. Debug builds then
  // take the seed from BGFS_SHUFFLE_SEED, or pick one: the test program prints it, and a mount
  // shows it in .bgfs/features, so that a run can be repeated.
  u64 shuffle_seed = 0;
  unsigned offload_threads = 4;
  // All that runs here is for one caller, nobody else is held up by a short system call
  // (offload_brief).
  bool has_one_task = false;
  std::vector<unsigned> processors = {}; // of those threads; none: wherever the maker may run
};

struct timer : run_item {
  steady_time due;
  bool is_armed = false;
};

class loop {
public:
  [[nodiscard]] static result<std::unique_ptr<loop>> create(loop_options options = {});
  ~loop();
  loop(const loop&) = delete;
  loop& operator=(const loop&) = delete;

  // Runs until stop(). Returns with nothing lost: what is still queued runs at the next call.
  void run();
  // One turn: runs what is ready, submits, waits for completions if nothing is ready.
  void run_once();
  void stop(); // any thread

  void post(run_item& item);
  void post_remote(run_item& item); // any thread

  // The operation belongs to the loop until its run function is called.
  void submit(io_operation& operation);
  // Asks for an early end; the operation completes all the same, with -ECANCELED or its result.
  void cancel(io_operation& operation);

  void arm(timer& t);
  void disarm(timer& t);

  // The time, looked up once for each item that runs: good for measuring what waits, and half the
  // price for requests that pass through several nodes.
  [[nodiscard]] steady_time now() {
    if (!is_now_known_) {
      now_ = std::chrono::steady_clock::now();
      is_now_known_ = true;
    }
    return now_;
  }

  [[nodiscard]] offload_pool& offloads() { return *offloads_; }
  [[nodiscard]] buffer_pool& buffers() { return *buffers_; }
  [[nodiscard]] std::string_view backend_name() const;
  // Whether io_code::command can be submitted: its backend is io_uring with large entries.
  [[nodiscard]] bool takes_commands() const;
  [[nodiscard]] u64 shuffle_seed() const { return shuffle_seed_; }
  [[nodiscard]] bool has_one_task() const { return has_one_task_; }

  // Where what runs here traces to; off until one is set, which stays as long as the loop runs.
  [[nodiscard]] const trace_log& log() const { return *log_; }
  void set_log(const trace_log& log) { log_ = &log; }

private:
  explicit loop(loop_options options);
  void take_remote();
  void fire_timers();
  void run_ready();

  std::vector<run_item*> ready_;
  std::vector<run_item*> running_;
  std::vector<timer*> timers_; // a heap, earliest first
  steady_time now_;
  bool is_now_known_ = false;
  std::atomic<run_item*> remote_{nullptr};
  std::atomic<bool> stop_{false};
  int wake_fd_ = -1;
  const trace_log* log_ = &silent_log;
  bool has_one_task_;
  u64 shuffle_seed_;
  std::mt19937_64 shuffle_;
  std::unique_ptr<offload_pool> offloads_;
  std::unique_ptr<buffer_pool> buffers_;
  std::unique_ptr<io_backend> backend_;
};

} // namespace bgfs
