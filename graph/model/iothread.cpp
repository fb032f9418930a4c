// SPDX-License-Identifier: MIT
#include "graph/model/iothread.h"

#include "graph/io/offload.h"

#include <pthread.h>
#include <system_error>

namespace bgfs {

iothread::iothread(std::string name, std::unique_ptr<loop> home, const graph& like)
    : name_(std::move(name)), home_(std::move(home)), nodes_(*home_, like) {
  home_->set_log(like.home().log());
}

result<std::unique_ptr<iothread>> iothread::start(std::string name, const graph& like) {
  BGFS_TRY(std::unique_ptr<loop> home,
           loop::create({.processors = like.home().offloads().processors()}));
  std::unique_ptr<iothread> made(new iothread(std::move(name), std::move(home), like));
  try {
    // The thread that starts it may be kept on one processor; this one is not.
    made->thread_ = std::thread([runs = made->home_.get(), &like] {
      stay_on(like.home().offloads().processors());
      runs->run();
    });
  } catch (const std::system_error& e) { // the only way std::thread has to say it
    return fail_errno(e.code().value(), "cannot start the thread '{}'", made->name_);
  }
  constexpr std::size_t kernel_name_max = 15;
  (void)pthread_setname_np(made->thread_.native_handle(),
                           made->name_.substr(0, kernel_name_max).c_str());
  return made;
}

iothread::~iothread() {
  if (!thread_.joinable())
    return;
  home_->stop();
  thread_.join();
}

} // namespace bgfs
