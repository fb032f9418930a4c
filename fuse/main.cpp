// SPDX-License-Identifier: MIT
// The only file that sees drivers: which ones this program has.
#include "config/program.h"
#include "drivers/filter/blkdebug/blkdebug.h"
#include "drivers/filter/copy_before_write/copy_before_write.h"
#include "drivers/filter/copy_on_read/copy_on_read.h"
#include "drivers/format/bitmap_view/bitmap_view.h"
#include "drivers/format/internal_snapshot/internal_snapshot.h"
#include "drivers/format/qcow2/qcow2.h"
#include "drivers/format/raw/raw.h"
#include "drivers/format/snapshot_access/snapshot_access.h"
#include "drivers/protocol/file/file.h"
#include "drivers/protocol/null/null.h"
#include "fuse/mount/fuse_mounter.h"

int main(int argc, char** argv) {
  const bgfs::registry drivers({
      &bgfs::file_driver_type,
      &bgfs::host_device_driver_type,
      &bgfs::null_co_driver_type,
      &bgfs::null_aio_driver_type,
      &bgfs::raw_driver_type,
      &bgfs::qcow2_driver_type,
      &bgfs::qcow2_increment_driver_type,
      &bgfs::internal_snapshot_driver_type,
      &bgfs::snapshot_access_driver_type,
      &bgfs::bitmap_view_driver_type,
      &bgfs::blkdebug_driver_type,
      &bgfs::copy_on_read_driver_type,
      &bgfs::copy_before_write_driver_type,
  });
  bgfs::fuse_mounter mounts;
  return bgfs::run_program(argc, argv, drivers, mounts);
}
