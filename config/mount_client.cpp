// SPDX-License-Identifier: MIT
#include "config/mount_client.h"

#include "config/whole_file.h"

#include <array>
#include <cerrno>
#include <cstdlib>
#include <fcntl.h>
#include <unistd.h>

namespace bgfs {
namespace {

std::unexpected<error> no_mount(const std::string& directory, int os_error) {
  if (os_error == ENOTCONN || os_error == ECONNABORTED)
    return fail(error_kind::not_found, "the process that served '{}' has died; mount it again",
                directory);
  if (os_error == ENOENT || os_error == ENOTDIR)
    return fail(error_kind::not_found, "'{}' is no mount of bgfs", directory);
  return fail_errno(os_error, "cannot look into '{}'", directory);
}

// The sentence of a refusal can be read where it happened; "" if there is none.
std::string sentence_of(int fd) {
  std::array<char, 8192> text{};
  const ssize_t length = ::pread(fd, text.data(), text.size(), 0);
  std::string sentence(text.data(), length > 0 ? static_cast<std::size_t>(length) : 0);
  while (!sentence.empty() && sentence.back() == '\n')
    sentence.pop_back();
  return sentence;
}

} // namespace

result<mount_client> mount_client::find(const std::string& given) {
  char* const real = ::realpath(given.c_str(), nullptr);
  if (real == nullptr)
    return no_mount(given, errno);
  mount_client found{std::string(real)};
  std::free(real);
  const result<std::string> version = read_whole_file(found.path(".bgfs/version"));
  if (!version)
    return no_mount(given, version.error().os_error());
  if (!version->starts_with("bgfs "))
    return no_mount(given, ENOENT);
  return found;
}

result<std::string> mount_client::read(const std::string& name) const {
  return read_whole_file(path(name));
}

result<> mount_client::command(const std::string& name, const std::string& text) const {
  const std::string where = path(name);
  const int fd = ::open(where.c_str(), O_RDWR | O_CLOEXEC);
  if (fd < 0)
    return fail_errno(errno, "cannot open '{}'", where);
  ssize_t written = 0;
  do {
    written = ::write(fd, text.data(), text.size());
  } while (written < 0 && errno == EINTR);
  const int os_error = errno;
  const std::string sentence = written < 0 ? sentence_of(fd) : std::string();
  ::close(fd);
  if (written >= 0)
    return {};
  if (sentence.empty())
    return fail_errno(os_error, "cannot write to '{}'", where);
  error why = error::from_errno(os_error, sentence);
  return fail(error{why.kind(), sentence, os_error});
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
