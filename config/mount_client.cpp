// SPDX-License-Identifier: MIT
#include "config/mount_client.h"

#include <cerrno>
#include <cstdlib>
#include <sys/stat.h>

namespace bgfs {
namespace {

std::unexpected<error> no_mount(const std::string& place, int os_error) {
  if (os_error == ENOTCONN || os_error == ECONNABORTED)
    return fail(error_kind::not_found, "the process that served '{}' has died; mount it again",
                place);
  if (os_error == ENOENT || os_error == ENOTDIR || os_error == ENODATA || os_error == EOPNOTSUPP)
    return fail(error_kind::not_found, "'{}' is no mount of bgfs", place);
  return fail_errno(os_error, "cannot look into '{}'", place);
}

bool is_regular_file(const std::string& path) {
  struct stat status{};
  return ::stat(path.c_str(), &status) == 0 && S_ISREG(status.st_mode);
}

} // namespace

result<mount_client> mount_client::find(const std::string& given) {
  char* const real = ::realpath(given.c_str(), nullptr);
  if (real == nullptr)
    return no_mount(given, errno);
  const std::string place = real;
  std::free(real);
  mount_client found(is_regular_file(place) ? control_tree::attributes_of(place)
                                            : control_tree::below(place));
  const result<std::string> version = found.read(".bgfs/version");
  if (!version)
    return no_mount(given, version.error().os_error());
  if (!version->starts_with("bgfs "))
    return no_mount(given, ENOENT);
  return found;
}

// ".bgfs/pid" is mount/pid there, "web.d/state" is state.
std::string mount_client::name_in_tree(const std::string& name) const {
  if (!is_one_file())
    return name;
  const std::string below = name.substr(name.find('/') + 1);
  return name.starts_with(".bgfs/") ? "mount/" + below : below;
}

result<std::string> mount_client::read(const std::string& name) const {
  return tree_.read(name_in_tree(name));
}

result<> mount_client::command(const std::string& name, const std::string& text) const {
  return tree_.command(name_in_tree(name), text);
}

result<std::vector<std::string>> mount_client::list(const std::string& name) const {
  return tree_.list(name_in_tree(name));
}

std::string mount_client::last_sentence(std::string_view verb) const {
  return tree_.last_sentence(name_in_tree(".bgfs/last-error"), verb);
}

std::string mount_client::path(const std::string& name) const {
  return tree_.path(name_in_tree(name));
}

std::string mount_client::disk(const std::string& root) const {
  return is_one_file() ? directory() : directory() + "/" + root;
}

result<std::string> graph_source(const mount_client& mount) {
  constexpr std::string_view before = "# read from ";
  BGFS_TRY(const std::string text, mount.read(".bgfs/graph.yaml"));
  const std::string line = text.substr(0, text.find('\n'));
  if (!line.starts_with(before))
    return fail(error_kind::unsupported, "'{}' does not say where its graph was read from",
                mount.path(".bgfs/graph.yaml"));
  return line.substr(before.size());
}

} // namespace bgfs
