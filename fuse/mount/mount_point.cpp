// SPDX-License-Identifier: MIT
#define FUSE_USE_VERSION 314
#include "fuse/mount/mount_point.h"

#include "fuse/mount/small_files.h"

#include <fuse_lowlevel.h>

#include <cerrno>
#include <cstdlib>
#include <spawn.h>
#include <sys/mount.h>
#include <sys/statvfs.h>
#include <sys/wait.h>
#include <unistd.h>

#if defined(__has_feature)
#if __has_feature(address_sanitizer)
#include <sanitizer/lsan_interface.h>
#define BGFS_LEAK_CHECK 1
#endif
#endif

extern char** environ; // NOLINT(readability-redundant-declaration): POSIX leaves it to the program

namespace bgfs {
namespace {

// Blanks, tabs, newlines and backslashes are written as three octal digits there.
std::string unescaped(std::string_view text) {
  std::string out;
  const auto is_octal = [](char c) { return c >= '0' && c <= '7'; };
  for (std::size_t i = 0; i < text.size(); i++) {
    if (text[i] == '\\' && i + 3 < text.size() && is_octal(text[i + 1]) && is_octal(text[i + 2]) &&
        is_octal(text[i + 3])) {
      out += static_cast<char>((text[i + 1] - '0') * 64 + (text[i + 2] - '0') * 8 +
                               (text[i + 3] - '0'));
      i += 3;
    } else {
      out += text[i];
    }
  }
  return out;
}

std::string_view next_word(std::string_view& line) {
  const std::size_t end = line.find(' ');
  const std::string_view word = line.substr(0, end);
  line.remove_prefix(end == std::string_view::npos ? line.size() : end + 1);
  return word;
}

std::vector<std::string> split_list(std::string_view list) {
  std::vector<std::string> options;
  while (!list.empty()) {
    const std::size_t end = list.find(',');
    options.emplace_back(list.substr(0, end));
    list.remove_prefix(end == std::string_view::npos ? list.size() : end + 1);
  }
  return options;
}

std::optional<mount_entry> parse_line(std::string_view line) {
  mount_entry entry;
  next_word(line); // its number
  next_word(line); // its parent's
  entry.device = next_word(line);
  next_word(line); // the directory of the file system that is seen there
  entry.directory = unescaped(next_word(line));
  entry.options = split_list(line.substr(0, line.find(' ')));
  const std::size_t separator = line.find(" - ");
  if (separator == std::string_view::npos)
    return std::nullopt;
  line.remove_prefix(separator + 3);
  entry.type = unescaped(next_word(line));
  entry.source = unescaped(next_word(line));
  entry.super_options = split_list(next_word(line));
  return entry;
}

result<> unmount_by_helper(const std::string& directory, unmount_mode mode) {
  std::vector<std::string> words = {"fusermount3", "-u", "-q"};
  if (mode == unmount_mode::lazily)
    words.emplace_back("-z");
  words.insert(words.end(), {"--", directory});
  std::vector<char*> arguments;
  for (std::string& word : words)
    arguments.push_back(word.data());
  arguments.push_back(nullptr);
  pid_t child = 0;
  const int bad = posix_spawnp(&child, "fusermount3", nullptr, nullptr, arguments.data(), environ);
  if (bad != 0)
    return fail_errno(bad, "cannot start fusermount3");
  int status = 0;
  while (waitpid(child, &status, 0) < 0 && errno == EINTR) {
  }
  if (WIFEXITED(status) && WEXITSTATUS(status) == 0)
    return {};
  // It says why to nobody; what is still mounted there is in use.
  return fail(error_kind::busy, "fusermount3 could not unmount '{}'", directory);
}

// libfuse frees its copy of the directory's name only when it unmounts, which it must not do for
// us: it would unmount whatever is there by then.
bool mount_quietly(fuse_session* session, const std::string& directory) {
#ifdef BGFS_LEAK_CHECK
  const __lsan::ScopedDisabler one_copy;
#endif
  return fuse_session_mount(session, directory.c_str()) == 0;
}

} // namespace

std::vector<mount_entry> parse_mountinfo(std::string_view text) {
  std::vector<mount_entry> found;
  while (!text.empty()) {
    const std::size_t end = text.find('\n');
    if (auto entry = parse_line(text.substr(0, end)))
      found.push_back(*std::move(entry));
    text.remove_prefix(end == std::string_view::npos ? text.size() : end + 1);
  }
  return found;
}

std::vector<mount_entry> list_mounts() {
  return parse_mountinfo(read_small_file("/proc/self/mountinfo").value_or(""));
}

std::optional<mount_entry> mounted_on(const std::string& directory) {
  std::optional<mount_entry> last;
  for (mount_entry& entry : list_mounts())
    if (entry.directory == directory)
      last = std::move(entry);
  return last;
}

result<std::unique_ptr<mount_session>> mount_session::mount(const std::string& source,
                                                            const std::string& directory,
                                                            const mount_options& options) {
  char* joined = nullptr;
  // Escaped: a comma in the name of a file is part of the name.
  fuse_opt_add_opt_escaped(&joined, ("fsname=" + source).c_str());
  fuse_opt_add_opt(&joined, "subtype=bgfs");
  fuse_opt_add_opt(&joined, "default_permissions");
  if (geteuid() == 0 && !options.allows_others)
    fuse_opt_add_opt(&joined, "allow_other");
  if (options.is_read_only)
    fuse_opt_add_opt(&joined, "ro");
  for (const std::string& option : options.for_kernel)
    fuse_opt_add_opt_escaped(&joined, option.c_str());
  fuse_args args = FUSE_ARGS_INIT(0, nullptr);
  fuse_opt_add_arg(&args, "bgfs");
  fuse_opt_add_arg(&args, "-o");
  fuse_opt_add_arg(&args, joined);
  std::free(joined);
  const fuse_lowlevel_ops none{}; // libfuse mounts; the requests are ours
  fuse_session* const session = fuse_session_new(&args, &none, sizeof none, nullptr);
  fuse_opt_free_args(&args);
  if (session == nullptr)
    return fail(error_kind::invalid_argument, "libfuse refuses the mount options");
  if (!mount_quietly(session, directory)) {
    fuse_session_destroy(session);
    return fail(error_kind::permission,
                "cannot mount on '{}' (the reason is above); an ordinary user needs fusermount3, "
                "a /dev/fuse that others may open (mode 0666) and a directory of their own",
                directory);
  }
  return std::unique_ptr<mount_session>(new mount_session(session, directory));
}

mount_session::~mount_session() {
  fuse_session_destroy(session_);
}
int mount_session::fd() const {
  return fuse_session_fd(session_);
}

bool is_dead_mount(const std::string& directory) {
  struct statvfs space{};
  // ECONNABORTED: the connection is still being taken down, while files of it are open.
  return statvfs(directory.c_str(), &space) != 0 && (errno == ENOTCONN || errno == ECONNABORTED);
}

result<> unmount(const std::string& directory, unmount_mode mode) {
  const int flags = UMOUNT_NOFOLLOW | (mode == unmount_mode::lazily ? MNT_DETACH : 0);
  if (umount2(directory.c_str(), flags) == 0)
    return {};
  if (errno == EPERM)
    return unmount_by_helper(directory, mode);
  return fail_errno(errno, "cannot unmount '{}'", directory);
}

} // namespace bgfs
