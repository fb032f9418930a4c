// SPDX-License-Identifier: MIT
#include "fuse/tree/overlay_files.h"

#include "fuse/tree/mount_state.h"
#include "graph/io/offload.h"
#include "graph/jobs/create.h"
#include "graph/model/naming.h"

#include <cerrno>
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

namespace bgfs {
namespace {

constexpr unsigned names_tried_max = 1'000'000;

struct reserved_file {
  std::string path;
  int problem = 0; // errno
};

// The name is ours when this returns. As readable as the image below: it holds the same disk.
reserved_file reserve(std::string path, const std::string& below) {
  struct stat like{};
  const bool is_known =
      !below.empty() && ::stat(below.c_str(), &like) == 0 && S_ISREG(like.st_mode);
  const descriptor fd(
      ::open(path.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0600));
  if (!fd.is_open())
    return {std::move(path), errno};
  if (is_known && (::fchown(fd.get(), like.st_uid, like.st_gid) == 0 || like.st_uid == ::geteuid()))
    (void)::fchmod(fd.get(), like.st_mode & 07777);
  return {std::move(path), 0};
}

bool is_free(const graph_config& config, const std::string& node_name) {
  const result<node_spec> known = config.make_node_spec(node_name);
  return !known && known.error().kind() == error_kind::not_found;
}

result<options> empty_options(const option_schema* schema) {
  const std::array schemas = {schema};
  return validate_options(schemas, value::map());
}

result<new_image> describe_image(const registry& drivers, const std::string& path, u64 length,
                                 const image_reference& below) {
  new_image what;
  what.format = drivers.find("qcow2");
  what.file.protocol = drivers.find("file");
  if (what.format == nullptr || what.file.protocol == nullptr)
    return fail(
        error_kind::unsupported,
        "external snapshots need the drivers 'qcow2' and 'file', and this program was built "
        "without one of them");
  value given = value::map();
  given.set("backing_file", below.filename);
  given.set("backing_fmt", below.format);
  const std::array format_schemas = {what.format->create_options};
  BGFS_TRY(what.format_options, validate_options(format_schemas, given));
  BGFS_TRY(what.file.protocol_options, empty_options(what.file.protocol->create_options));
  what.file.filename = path;
  value place = value::map();
  place.set("filename", path);
  const std::array place_schemas = {what.file.protocol->open_options, &generic_node_schema};
  BGFS_TRY(what.file.open_options, validate_options(place_schemas, place));
  what.length = length;
  return what;
}

task<void> write_image(mount_state& mount, const std::string& path, u64 length,
                       const image_reference& below) {
  graph scratch(mount.home, mount.nodes.drivers(), nullptr);
  new_image what = co_await describe_image(mount.nodes.drivers(), path, length, below);
  const result<> written = co_await as_result(create_image(scratch, std::move(what)));
  (void)co_await as_result(scratch.close_all());
  co_await written;
}

// With the options of what it is put over.
value define(const std::string& node_name, const std::string& path, const node& below) {
  const node_options& like = below.generic();
  value file = value::map();
  file.set("driver", "file");
  file.set("filename", path);
  value cache = value::map();
  cache.set("direct", like.cache_direct);
  cache.set("no-flush", like.cache_no_flush);
  value v = value::map();
  v.set("node-name", node_name);
  v.set("driver", "qcow2");
  v.set("discard", like.discard == discard_mode::unmap ? "unmap" : "ignore");
  v.set("detect-zeroes", like.detect_zeroes == detect_zeroes_mode::off  ? "off"
                         : like.detect_zeroes == detect_zeroes_mode::on ? "on"
                                                                        : "unmap");
  v.set("cache", std::move(cache));
  v.set("file", std::move(file));
  v.set("backing", below.name());
  return v;
}

// The directory too: an entry that is lost would leave a state that names no file.
result<> make_durable(const std::string& path) {
  const std::string directory = path.substr(0, path.rfind('/') + 1);
  for (const std::string& what : {path, directory}) {
    const descriptor fd(::open(what.c_str(), O_RDONLY | O_CLOEXEC));
    if (!fd.is_open() || ::fsync(fd.get()) != 0)
      return fail_errno(errno, "cannot make '{}' durable", what);
  }
  return {};
}

task<overlay_file> reserve_names(mount_state& mount, const exported_root& root, const node& below,
                                 std::size_t nth) {
  const std::string like = below.host_path();
  for (unsigned n = 1; n < names_tried_max; n++) {
    std::string node_name = fmt::format("overlay-{}", n);
    if (!is_free(mount.config(), node_name) || nth-- > 0)
      continue;
    std::string path =
        fmt::format("{}/{}.{}.qcow2", root.spec().snapshots_directory, root.name(), node_name);
    reserved_file file = co_await offload([&] { return reserve(path, like); });
    if (file.problem == EEXIST) {
      nth = 0;
      continue;
    }
    if (file.problem != 0)
      co_return fail(error::from_errno(
          file.problem, fmt::format("cannot make the overlay '{}' ('snapshots: directory' of the "
                                    "export says where)",
                                    path)));
    co_return overlay_file{.node_name = std::move(node_name),
                           .path = std::move(file.path),
                           .below = below.name(),
                           .definition = {}};
  }
  co_return fail(error_kind::no_space, "'{}' is full of overlays", root.spec().snapshots_directory);
}

} // namespace

task<overlay_file> make_overlay_file(mount_state& mount, const exported_root& root, node& below,
                                     u64 length, std::size_t nth) {
  if (length % 512 != 0)
    co_return fail(error_kind::unsupported,
                   "the disk of '{}' has {} bytes, which are no whole sectors of 512 bytes; an "
                   "overlay cannot have that length",
                   root.name(), length);
  overlay_file made = co_await reserve_names(mount, root, below, nth);
  made.length = length;
  made.definition = define(made.node_name, made.path, below);
  const image_reference reference = reference_to(below);
  result<> written = co_await as_result(write_image(mount, made.path, length, reference));
  if (written)
    written = co_await offload([&made] { return make_durable(made.path); });
  if (!written) {
    remove_overlay_files(std::span(&made, 1));
    co_return fail(std::move(written).error());
  }
  co_return made;
}

void remove_overlay_files(std::span<const overlay_file> files) {
  for (const overlay_file& f : files)
    (void)::unlink(f.path.c_str());
}

} // namespace bgfs
