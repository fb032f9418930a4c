// SPDX-License-Identifier: MIT
#define DOCTEST_CONFIG_IMPLEMENT
#include <doctest/doctest.h>

#include <cstdio>
#include <cstdlib>
#include <random>
#include <string>

int main(int argc, char** argv) {
#ifdef BGFS_DEBUG
  // One seed for every loop of this run that a test does not give one (graph/io/loop.h).
  if (std::getenv("BGFS_SHUFFLE_SEED") == nullptr)
    setenv("BGFS_SHUFFLE_SEED", std::to_string(std::random_device{}() | 1).c_str(), 1);
  std::printf("run queues are shuffled; to repeat: BGFS_SHUFFLE_SEED=%s\n",
              std::getenv("BGFS_SHUFFLE_SEED"));
#endif
  doctest::Context context;
  context.applyCommandLine(argc, argv);
  return context.run();
}
