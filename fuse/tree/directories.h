// SPDX-License-Identifier: MIT
// The directories of the mount (DESIGN.md section 5).
#pragma once

#include "fuse/tree/inode.h"
#include "fuse/tree/mount_state.h"

namespace bgfs {

// The mount point: the roots, their control directories, and .bgfs, which is not listed.
[[nodiscard]] std::unique_ptr<inode> make_mount_directory(mount_state& mount);

// The raw file of a root, which is also all there is of a mount of one file.
[[nodiscard]] std::unique_ptr<inode> make_root_file(mount_state& mount, exported_root& root);
// NAME.d and .bgfs.
[[nodiscard]] std::unique_ptr<inode> make_control_directory(mount_state& mount,
                                                            exported_root& root);
[[nodiscard]] std::unique_ptr<inode> make_service_directory(mount_state& mount);

// Below NAME.d.
[[nodiscard]] std::unique_ptr<inode> make_layers_directory(mount_state& mount, exported_root& root);
[[nodiscard]] std::unique_ptr<inode> make_snapshots_directory(mount_state& mount,
                                                              exported_root& root);
[[nodiscard]] std::unique_ptr<inode> make_points_directory(mount_state& mount, exported_root& root);
[[nodiscard]] std::unique_ptr<inode>
make_group_points_directory(mount_state& mount); // .bgfs/points
[[nodiscard]] std::unique_ptr<inode> make_bitmaps_directory(mount_state& mount,
                                                            exported_root& root);
[[nodiscard]] std::unique_ptr<inode> make_nodes_directory(mount_state& mount, exported_root& root);

// In .bgfs.
[[nodiscard]] std::unique_ptr<inode> make_jobs_directory(mount_state& mount);
[[nodiscard]] std::unique_ptr<inode> make_group_snapshots_directory(mount_state& mount);
// partitions/ of the disk that `whole` shows, which is of that root.
[[nodiscard]] std::unique_ptr<inode> make_partitions_directory(mount_state& mount,
                                                               exported_root& root,
                                                               std::shared_ptr<disk_file> whole);

// Names of nodes as they stand in directories: bytes that a name cannot hold are %XX.
[[nodiscard]] std::string to_file_name(std::string_view node_name);

} // namespace bgfs
