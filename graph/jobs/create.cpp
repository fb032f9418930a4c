// SPDX-License-Identifier: MIT
#include "graph/jobs/create.h"

#include "graph/io/offload.h"
#include "graph/io/with.h"

#include <sys/stat.h>
#include <unistd.h>

namespace bgfs {

namespace {

// The protocol node with a root on it: what a format is created through.
class empty_file {
public:
  empty_file(graph& nodes, std::unique_ptr<root> attached)
      : nodes_(nodes), attached_(std::move(attached)) {}
  [[nodiscard]] edge& link() const { return attached_->as_edge(); }
  task<void> release() {
    node& file = attached_->top();
    co_await attached_->release();
    co_await nodes_.close(file);
  }

private:
  graph& nodes_;
  std::unique_ptr<root> attached_;
};

// Nobody else may look at an image that is half made.
constexpr permissions maker{permission::consistent_read | permission::write | permission::resize,
                            permission::write_unchanged};

task<std::unique_ptr<empty_file>> open_file(graph& nodes, const new_image& what) {
  node* file = co_await nodes.open(
      {.node_name = {}, .type = what.protocol, .given = what.protocol_open_options});
  result<std::unique_ptr<root>> attached =
      co_await as_result(nodes.attach("the new image", *file, maker));
  if (!attached) {
    result<> closed = co_await as_result(nodes.close(*file));
    (void)closed; // the first error is the one to report
    co_return fail(std::move(attached).error());
  }
  co_return std::make_unique<empty_file>(nodes, *std::move(attached));
}

task<void> write_format(graph& nodes, empty_file& into, const new_image& what) {
  co_await what.format->create({.home = nodes.home(),
                                .given = what.format_options,
                                .filename = what.filename,
                                .file = &into.link(),
                                .length = what.length,
                                .secrets = what.secrets.get()});
  co_await into.link().flush();
}

task<void> make(graph& nodes, const new_image& what) {
  if (what.protocol->create != nullptr)
    co_await what.protocol->create({.home = nodes.home(),
                                    .given = what.protocol_options,
                                    .filename = what.filename,
                                    .file = nullptr,
                                    .length = 0});
  co_await with(open_file(nodes, what),
                [&nodes, &what](empty_file& into) { return write_format(nodes, into, what); });
}

bool names_a_file(const new_image& what) {
  for (const option& o : what.protocol->open_options->options)
    if (o.is_host_path)
      return true;
  return false;
}

} // namespace

task<void> create_image(graph& nodes, new_image what) {
  struct stat found{};
  const bool may_remove =
      names_a_file(what) && ::lstat(what.filename.c_str(), &found) != 0 && errno == ENOENT;
  result<> made = co_await as_result(make(nodes, what));
  if (made)
    co_return;
  const std::string path = what.filename;
  if (may_remove)
    co_await offload([&path] { return ::unlink(path.c_str()); });
  co_await fail(std::move(made).error());
}

} // namespace bgfs
