// SPDX-License-Identifier: MIT
#include "config/mounted_root.h"

#include "config/mount_client.h"

#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <linux/magic.h>
#include <memory>
#include <mntent.h>
#include <sys/stat.h>
#include <sys/vfs.h>
#include <sys/xattr.h>

namespace bgfs {
namespace {

namespace fs = std::filesystem;

bool lies_on_fuse(const std::string& path) {
  struct stat status{};
  struct statfs space{};
  return ::stat(path.c_str(), &status) == 0 && S_ISREG(status.st_mode) &&
         ::statfs(path.c_str(), &space) == 0 && space.f_type == FUSE_SUPER_MAGIC;
}

bool has_attribute(const std::string& path, const char* name) {
  return ::getxattr(path.c_str(), name, nullptr, 0) >= 0;
}

std::string real_path(const std::string& path) {
  const std::unique_ptr<char, decltype(&std::free)> real(::realpath(path.c_str(), nullptr),
                                                         &std::free);
  return real != nullptr ? real.get() : std::string();
}

// Nothing is as long as a map, so a directory is better than attributes.
std::optional<control_tree> directory_beside(const std::string& real) {
  const fs::path file(real);
  const result<mount_client> mount = mount_client::find(file.parent_path().string());
  const std::string directory = real + ".d";
  if (!mount || !fs::is_directory(directory))
    return std::nullopt;
  return control_tree::below(directory);
}

std::vector<std::string> roots_of(const std::string& mount_point) {
  std::vector<std::string> files;
  const result<mount_client> mount = mount_client::find(mount_point);
  const result<std::string> names =
      mount ? mount->read(".bgfs/exports") : result<std::string>(std::string());
  for (std::size_t at = 0; names && at < names->size(); at = names->find('\n', at) + 1)
    files.push_back(mount->disk(names->substr(at, names->find('\n', at) - at)));
  return files;
}

} // namespace

std::optional<result<mounted_root>> mounted_root::find(const std::string& path) {
  if (!lies_on_fuse(path) || !has_attribute(path, "user.bgfs.node-name"))
    return std::nullopt;
  if (std::optional<control_tree> beside = directory_beside(real_path(path)))
    return mounted_root(*std::move(beside), path);
  if (!has_attribute(path, "user.bgfs.help"))
    return fail(error_kind::unsupported,
                "'{}' is the raw file of a mount whose export has 'control: none', so that it "
                "cannot be commanded; with -f FORMAT its bytes are looked at as an image",
                path);
  return mounted_root(control_tree::attributes_of(path), path);
}

result<control_place> find_control_place(const std::string& given) {
  if (const auto root = mounted_root::find(given)) {
    BGFS_TRY(const mounted_root found, *root);
    return control_place{found.control(), ""};
  }
  BGFS_TRY(const mount_client mount, mount_client::find(given));
  return control_place{control_tree::below(mount.directory()), ".bgfs/"};
}

std::optional<std::string> raw_file_of(const std::string& image) {
  const std::string real = real_path(image);
  const std::unique_ptr<FILE, int (*)(FILE*)> mounts(::setmntent("/proc/self/mounts", "r"),
                                                     &::endmntent);
  if (real.empty() || mounts == nullptr)
    return std::nullopt;
  while (const mntent* const entry = ::getmntent(mounts.get())) {
    if (std::string_view(entry->mnt_type) != "fuse.bgfs")
      continue;
    for (const std::string& file : roots_of(entry->mnt_dir)) {
      const result<std::string> shown = control_tree::attributes_of(file).read("filename");
      if (shown && *shown == real + "\n")
        return file;
    }
  }
  return std::nullopt;
}

} // namespace bgfs
