// SPDX-License-Identifier: MIT
// Which operation a request is.
#include "fuse/operations/server.h"

namespace bgfs {
namespace {

template<class... F>
struct overloaded : F... {
  using F::operator()...;
};

task<reply> done(result<reply> outcome) {
  co_return std::move(outcome);
}

task<reply> released(task<void> release) {
  co_await std::move(release);
  co_return reply();
}

} // namespace

// Not a coroutine: it only chooses which one runs.
task<reply> server::perform_other(fuse_in_header header, request_body& body) {
  operations& to = operations_;
  return std::visit(
      overloaded{
          [&](ask::lookup& what) { return to.lookup(header, std::move(what.name)); },
          [&](ask::getattr&) { return to.getattr(header); },
          [&](ask::setattr& what) { return to.setattr(header, what.in); },
          [&](ask::readlink&) { return to.readlink(header); },
          [&](ask::statfs&) { return to.statfs(header); },
          [&](ask::open& what) { return to.open(header, what.flags); },
          [&](ask::opendir&) { return to.opendir(header); },
          [&](ask::readdir& what) { return to.readdir(what); },
          [&](ask::fsync& what) { return to.fsync(what.handle); },
          [&](ask::sync_all&) { return to.sync_all(); },
          [&](ask::allocate& what) { return to.allocate(what); },
          [&](ask::seek& what) { return to.seek(what); },
          [&](ask::copy& what) { return to.copy(what); },
          [&](ask::getxattr& what) { return to.getxattr(header, std::move(what)); },
          [&](ask::listxattr& what) { return done(to.listxattr(what)); },
          [&](ask::setxattr& what) { return to.setxattr(header, std::move(what)); },
          [&](ask::removexattr& what) { return to.removexattr(header, std::move(what.name)); },
          [&](ask::make_directory& what) {
            return to.make_directory(header, std::move(what.name));
          },
          [&](ask::remove_directory& what) {
            return to.remove_directory(header, std::move(what.name));
          },
          [&](ask::rename& what) { return to.rename(header, std::move(what)); },
          [&](ask::unlink& what) { return to.unlink(header, std::move(what.name)); },
          [&](ask::make_other& what) { return to.make_other(header, std::move(what)); },
          [&](ask::release& what) { return released(to.release(what.handle)); },
          [&](ask::releasedir& what) { return released(to.release(what.handle)); },
          // Everything was written when the write was answered; closing makes nothing durable.
          [&](ask::flush&) { return done(reply()); },
          [&](auto&) { return done(reply()); },
      },
      body);
}

} // namespace bgfs
