// SPDX-License-Identifier: MIT
#include "config/whole_file.h"

#include <cerrno>
#include <cstdio>
#include <fcntl.h>
#include <filesystem>
#include <unistd.h>

namespace bgfs {
namespace {

namespace fs = std::filesystem;

result<> write_all(int fd, std::string_view text) {
  while (!text.empty()) {
    const ssize_t count = ::write(fd, text.data(), text.size());
    if (count < 0 && errno == EINTR)
      continue;
    if (count < 0)
      return fail_errno(errno, "cannot write");
    text.remove_prefix(static_cast<std::size_t>(count));
  }
  if (::fsync(fd) != 0)
    return fail_errno(errno, "cannot make it durable");
  return {};
}

// A name is durable when its directory is.
result<> sync_directory_of(const std::string& path) {
  const std::string directory = fs::path(path).parent_path().string();
  const owned_fd there(::open(directory.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
  if (!there.is_open() || ::fsync(there.get()) != 0)
    return fail_errno(errno, "cannot make the names in '{}' durable", directory);
  return {};
}

} // namespace

owned_fd::~owned_fd() {
  if (fd_ >= 0)
    ::close(fd_);
}

result<std::string> read_whole_file(const std::string& path) {
  const owned_fd fd(::open(path.c_str(), O_RDONLY | O_CLOEXEC));
  if (!fd.is_open())
    return fail_errno(errno, "cannot open '{}'", path);
  std::string text;
  std::string block(1 << 16, '\0');
  for (;;) {
    const ssize_t count = ::read(fd.get(), block.data(), block.size());
    if (count < 0 && errno == EINTR)
      continue;
    if (count < 0)
      return fail_errno(errno, "cannot read '{}'", path);
    if (count == 0)
      return text;
    text.append(block, 0, static_cast<std::size_t>(count));
    if (text.size() > whole_file_length_max)
      return fail(error_kind::invalid_argument, "'{}' is longer than {} bytes", path,
                  whole_file_length_max);
  }
}

result<> replace_file(const std::string& path, const std::string& text) {
  const fs::path place(path);
  const std::string beside =
      (place.parent_path() / ("." + place.filename().string() + ".new")).string();
  {
    const owned_fd fd(
        ::open(beside.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_NOFOLLOW | O_CLOEXEC, 0644));
    if (!fd.is_open())
      return fail_errno(errno, "cannot create '{}'", beside);
    if (result<> written = context(write_all(fd.get(), text), "'{}'", beside); !written) {
      ::unlink(beside.c_str());
      return written;
    }
  }
  result<> named = rename_file(beside, path);
  if (!named)
    ::unlink(beside.c_str());
  return named;
}

result<> rename_file(const std::string& from, const std::string& to) {
  if (::rename(from.c_str(), to.c_str()) != 0)
    return fail_errno(errno, "cannot rename '{}' to '{}'", from, to);
  return sync_directory_of(to);
}

result<> remove_file(const std::string& path) {
  if (::unlink(path.c_str()) != 0)
    return fail_errno(errno, "cannot remove '{}'", path);
  return sync_directory_of(path);
}

} // namespace bgfs
