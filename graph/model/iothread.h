// SPDX-License-Identifier: MIT
// A loop on a thread of its own, and the graph of the components that live on it. Nodes that are
// connected live on one loop (ARCHITECTURE.md, "Threads").
#pragma once

#include "graph/model/graph.h"

#include <thread>

namespace bgfs {

class iothread {
public:
  // `name`: of the thread, too. What runs on it traces to the log of `like`'s loop, and its graph
  // reports to the same sink, uses the same drivers and makes no name that `like` makes.
  [[nodiscard]] static result<std::unique_ptr<iothread>> start(std::string name, const graph& like);
  // Its graph is empty by then. Waits for the end of what runs: not from the thread itself.
  ~iothread();
  iothread(const iothread&) = delete;
  iothread& operator=(const iothread&) = delete;

  [[nodiscard]] const std::string& name() const { return name_; }
  [[nodiscard]] graph& nodes() { return nodes_; }

private:
  iothread(std::string name, std::unique_ptr<loop> home, const graph& like);
  std::string name_;
  std::unique_ptr<loop> home_;
  graph nodes_;
  std::thread thread_;
};

} // namespace bgfs
