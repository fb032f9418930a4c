// SPDX-License-Identifier: MIT
#include "graph/jobs/create.h"

#include "graph/io/offload.h"
#include "graph/io/with.h"

#include <sys/stat.h>
#include <unistd.h>

namespace bgfs {

namespace {

// Protocol nodes with a root on each: what a format is created through.
class empty_files {
public:
  explicit empty_files(graph& nodes) : nodes_(nodes) {}
  [[nodiscard]] edge& main() const { return attached_.front()->as_edge(); }
  [[nodiscard]] std::vector<edge*> parts() const {
    std::vector<edge*> edges;
    for (std::size_t i = 1; i < attached_.size(); i++)
      edges.push_back(&attached_[i]->as_edge());
    return edges;
  }
  task<void> open(const new_file& what);
  task<void> flush() const {
    for (const auto& r : attached_)
      co_await r->as_edge().flush();
  }
  // All of them, whatever becomes of one.
  task<void> release();

private:
  graph& nodes_;
  std::vector<std::unique_ptr<root>> attached_;
};

// Nobody else may look at an image that is half made.
constexpr permissions maker{permission::consistent_read | permission::write | permission::resize,
                            permission::write_unchanged};

task<void> empty_files::open(const new_file& what) {
  node* file =
      co_await nodes_.open({.node_name = {}, .type = what.protocol, .given = what.open_options});
  result<std::unique_ptr<root>> attached =
      co_await as_result(nodes_.attach("the new image", *file, maker));
  if (!attached) {
    result<> closed = co_await as_result(nodes_.close(*file));
    (void)closed; // the first error is the one to report
    co_await fail(std::move(attached).error());
  }
  attached_.push_back(*std::move(attached));
}

task<void> release_one(graph& nodes, root& attached) {
  node& file = attached.top();
  co_await attached.release();
  co_await nodes.close(file);
}

task<void> empty_files::release() {
  result<> outcome;
  for (auto& r : attached_) {
    result<> released = co_await as_result(release_one(nodes_, *r));
    if (outcome)
      outcome = std::move(released);
  }
  co_await std::move(outcome);
}

task<std::unique_ptr<empty_files>> no_files(graph& nodes) {
  co_return std::make_unique<empty_files>(nodes);
}

task<void> create_file(graph& nodes, const new_file& what) {
  if (what.is_kept || what.protocol->create == nullptr)
    co_return;
  co_await what.protocol->create({.home = nodes.home(),
                                  .given = what.protocol_options,
                                  .filename = what.filename,
                                  .file = nullptr,
                                  .length = 0});
}

task<void> write_format(graph& nodes, empty_files& into, const new_image& what) {
  co_await into.open(what.file);
  for (const new_file& part : what.parts)
    co_await context(into.open(part), "'{}'", part.filename);
  const std::vector<edge*> parts = into.parts();
  co_await what.format->create({.home = nodes.home(),
                                .given = what.format_options,
                                .filename = what.file.filename,
                                .file = &into.main(),
                                .parts = parts,
                                .length = what.length,
                                .secrets = what.secrets.get()});
  co_await into.flush();
}

task<void> make(graph& nodes, const new_image& what) {
  co_await create_file(nodes, what.file);
  for (const new_file& part : what.parts)
    co_await context(create_file(nodes, part), "'{}'", part.filename);
  co_await with(no_files(nodes),
                [&nodes, &what](empty_files& into) { return write_format(nodes, into, what); });
}

bool names_a_file(const new_file& what) {
  for (const option& o : what.protocol->open_options->options)
    if (o.is_host_path)
      return true;
  return false;
}

bool is_absent(const new_file& what) {
  struct stat found{};
  return names_a_file(what) && ::lstat(what.filename.c_str(), &found) != 0 && errno == ENOENT;
}

} // namespace

task<void> create_image(graph& nodes, new_image what) {
  std::vector<std::string> to_remove;
  if (is_absent(what.file))
    to_remove.push_back(what.file.filename);
  for (const new_file& part : what.parts)
    if (is_absent(part))
      to_remove.push_back(part.filename);
  result<> made = co_await as_result(make(nodes, what));
  if (made)
    co_return;
  for (const std::string& path : to_remove)
    co_await offload([&path] { return ::unlink(path.c_str()); });
  co_await fail(std::move(made).error());
}

} // namespace bgfs
