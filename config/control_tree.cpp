// SPDX-License-Identifier: MIT
#include "config/control_tree.h"

#include "config/whole_file.h"

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstdio>
#include <fcntl.h>
#include <filesystem>
#include <sys/stat.h>
#include <sys/xattr.h>
#include <unistd.h>

namespace bgfs {
namespace {

namespace fs = std::filesystem;

// The sentence of a refusal can be read where it happened; "" if there is none.
std::string sentence_of(int fd) {
  std::array<char, 8192> text{};
  const ssize_t length = ::pread(fd, text.data(), text.size(), 0);
  std::string sentence(text.data(), length > 0 ? static_cast<std::size_t>(length) : 0);
  while (!sentence.empty() && sentence.back() == '\n')
    sentence.pop_back();
  return sentence;
}

std::string attribute_of(const std::string& name) {
  return "user.bgfs." + name;
}

// It may grow between the two looks.
result<std::string> read_attribute(const std::string& file, const std::string& name) {
  constexpr std::size_t length_max = 65536; // XATTR_SIZE_MAX
  std::string text(length_max, '\0');
  const ssize_t length =
      ::getxattr(file.c_str(), attribute_of(name).c_str(), text.data(), text.size());
  if (length < 0)
    return fail_errno(errno, "cannot read the attribute '{}' of '{}'", attribute_of(name), file);
  text.resize(static_cast<std::size_t>(length));
  if (!text.empty())
    text += '\n'; // which an attribute leaves out
  return text;
}

// Where what is asked by this name is logged.
std::string log_of(const std::string& name) {
  for (const std::string_view of_mount : {"mount/", ".bgfs/"})
    if (name.starts_with(of_mount))
      return std::string(of_mount) + "last-error";
  return "last-error";
}

} // namespace

control_tree control_tree::below(std::string directory) {
  return {std::move(directory), false};
}
control_tree control_tree::attributes_of(std::string file) {
  return {std::move(file), true};
}

std::string control_tree::path(const std::string& name) const {
  if (is_attributes_)
    return fmt::format("{} ({})", place_, attribute_of(name));
  return place_ + "/" + name;
}

result<std::string> control_tree::read(const std::string& name) const {
  return is_attributes_ ? read_attribute(place_, name) : read_whole_file(path(name));
}

std::unexpected<error> control_tree::refused(int os_error, const std::string& name,
                                             const std::string& sentence) const {
  if (sentence.empty() && os_error == EEXIST) // the kernel knew it without asking
    return fail(error{error_kind::invalid_argument,
                      fmt::format("'{}' is there already", path(name)), EEXIST});
  if (sentence.empty())
    return fail_errno(os_error, "cannot write to '{}'", path(name));
  const error why = error::from_errno(os_error, sentence);
  return fail(error{why.kind(), sentence, os_error});
}

result<> control_tree::set_attribute(const std::string& name, const std::string& text) const {
  if (::setxattr(place_.c_str(), attribute_of(name).c_str(), text.data(), text.size(), 0) == 0)
    return {};
  const int os_error = errno;
  return refused(os_error, name, last_sentence(log_of(name)));
}

result<> control_tree::command(const std::string& name, const std::string& text) const {
  if (is_attributes_)
    return set_attribute(name, text);
  owned_fd fd(::open(path(name).c_str(), O_RDWR | O_CLOEXEC));
  const bool may_read = fd.is_open() || errno != EACCES;
  if (!may_read) // what can only be written
    fd = owned_fd(::open(path(name).c_str(), O_WRONLY | O_CLOEXEC));
  if (!fd.is_open())
    return fail_errno(errno, "cannot open '{}'", path(name));
  ssize_t written = 0;
  do {
    written = ::write(fd.get(), text.data(), text.size());
  } while (written < 0 && errno == EINTR);
  if (written >= 0)
    return {};
  const int os_error = errno;
  return refused(os_error, name, may_read ? sentence_of(fd.get()) : last_sentence(log_of(name)));
}

result<std::vector<std::string>> control_tree::list(const std::string& name) const {
  std::vector<std::string> names;
  if (is_attributes_) {
    BGFS_TRY(std::string text, read_attribute(place_, name + "/"));
    for (std::size_t begin = 0; begin < text.size(); begin = text.find('\n', begin) + 1)
      names.push_back(text.substr(begin, text.find('\n', begin) - begin));
  } else {
    std::error_code problem;
    for (fs::directory_iterator i(path(name), problem), end; !problem && i != end;
         i.increment(problem))
      names.push_back(i->path().filename().string());
    if (problem)
      return fail_errno(problem.value(), "cannot list '{}'", path(name));
  }
  std::ranges::sort(names);
  return names;
}

result<> control_tree::check_entry_name(std::string_view kind, std::string_view name) {
  if (!name.empty() && name != "." && name != ".." && !name.contains('/'))
    return {};
  return fail(error_kind::invalid_argument,
              "'{}' is no name for a {}: a name is not empty, has no '/', and is not '.' or '..'",
              name, kind);
}

result<> control_tree::make_directory(const std::string& name) const {
  if (is_attributes_)
    return set_attribute(name, {});
  if (::mkdir(path(name).c_str(), 0777) == 0)
    return {};
  const int os_error = errno;
  return refused(os_error, name, last_sentence(log_of(name), "mkdir"));
}

result<> control_tree::remove_directory(const std::string& name) const {
  const int done = is_attributes_ ? ::removexattr(place_.c_str(), attribute_of(name).c_str())
                                  : ::rmdir(path(name).c_str());
  if (done == 0)
    return {};
  const int os_error = errno == ENODATA ? ENOENT : errno;
  return refused(os_error, name, last_sentence(log_of(name), "rmdir"));
}

result<> control_tree::rename_directory(const std::string& from, const std::string& to) const {
  if (is_attributes_)
    return fail(
        error_kind::unsupported,
        "'{}' is alone, without its control directory, so that nothing can be renamed there",
        place_);
  if (::renameat2(AT_FDCWD, path(from).c_str(), AT_FDCWD, path(to).c_str(), RENAME_NOREPLACE) == 0)
    return {};
  const int os_error = errno;
  return refused(os_error, os_error == EEXIST ? to : from, last_sentence(log_of(from), "rename"));
}

// Lines are `time pid verb errno sentence`.
std::string control_tree::last_sentence(const std::string& log, std::string_view verb) const {
  const result<std::string> text = read(log);
  if (!text)
    return {};
  const std::string mine =
      verb.empty() ? fmt::format(" {} ", ::getpid()) : fmt::format(" {} {} ", ::getpid(), verb);
  std::size_t end = text->size();
  while (end > 0) {
    const std::size_t begin = end == 1 ? 0 : text->rfind('\n', end - 2) + 1;
    std::string line = text->substr(begin, end - begin - 1);
    end = begin;
    const std::size_t at = line.find(' ');
    if (at == std::string::npos || !line.substr(at).starts_with(mine))
      continue;
    line.erase(0, at + 1);
    for (int words = 0; words < 3; words++) // pid, verb, errno
      line.erase(0, line.find(' ') + 1);
    return line;
  }
  return {};
}

} // namespace bgfs
