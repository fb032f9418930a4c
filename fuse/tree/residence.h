// SPDX-License-Identifier: MIT
// Where the nodes of a root live - the graph of one loop - and who is there on a visit. A reload
// may lead them to another one, when everybody has left; newcomers wait until they have arrived.
//
// Used on the loop of the mount only.
#pragma once

#include "graph/io/run_on.h"
#include "graph/model/graph.h"

namespace bgfs {

class residence {
public:
  explicit residence(graph& at) : at_(&at) {}
  ~residence() { BGFS_ASSERT(visitors_ == 0, "a root ends after its requests"); }
  residence(const residence&) = delete;
  residence& operator=(const residence&) = delete;

  [[nodiscard]] graph& nodes() const { return *at_; }
  [[nodiscard]] loop& home() const { return at_->home(); }
  // Only while nobody visits.
  void move_to(graph& other) { at_ = &other; }

  // While there is a visit the nodes stay where they are. Not before settled().
  class [[nodiscard]] visit {
  public:
    explicit visit(residence& r) : to_(r) { to_.visitors_++; }
    ~visit() {
      if (--to_.visitors_ == 0)
        to_.left_.wake_all();
    }
    visit(const visit&) = delete;
    visit& operator=(const visit&) = delete;

  private:
    residence& to_;
  };

  // Keeps visitors away.
  class [[nodiscard]] closure {
  public:
    explicit closure(residence& r) : of_(r) { of_.closures_++; }
    ~closure() {
      if (--of_.closures_ == 0)
        of_.opened_.wake_all();
    }
    closure(const closure&) = delete;
    closure& operator=(const closure&) = delete;
    // Nobody is there any more.
    task<void> wait_until_empty() { return of_.wait_until_empty(); }

  private:
    residence& of_;
  };

  [[nodiscard]] bool is_closed() const { return closures_ > 0; }
  // Waits while it is closed. It may be closed again when a task that waited goes on: look again.
  task<void> settled();

  // Runs what `make` returns, a task, on the loop where the nodes live.
  template<class Make>
  auto run(Make make) -> std::invoke_result_t<Make&> {
    while (is_closed())
      co_await settled();
    const visit here(*this);
    if ((co_await current_context()).home == &home())
      co_return co_await make();
    co_return co_await run_on(home(), make());
  }

  // Calls `what`, a plain function, there.
  template<class What>
  task<std::invoke_result_t<What&>> look(What what) {
    co_return co_await run([&what] { return call(what); });
  }

private:
  template<class What>
  static task<std::invoke_result_t<What&>> call(What& what) {
    co_return what();
  }
  task<void> wait_until_empty();
  graph* at_;
  unsigned visitors_ = 0;
  unsigned closures_ = 0;
  wait_queue left_;
  wait_queue opened_;
};

} // namespace bgfs
