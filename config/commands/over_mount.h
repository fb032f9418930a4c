// SPDX-License-Identifier: MIT
// The image commands where the image is the raw file of a mount: they act through its control
// directory, since the image itself is locked by the mount, and print what they would print of an
// image.
#pragma once

#include "config/commands/image_session.h"
#include "config/mounted_root.h"

namespace bgfs {

// The root that an operand means; nullopt: it is no raw file of a mount, or -f or --image-opts ask
// to look at its bytes as an image.
[[nodiscard]] std::optional<result<mounted_root>> find_mounted_root(const image_choice& choice);

// Each returns the exit status of the command. A root that cannot be commanded is told first.
enum class snapshot_action : u8 { list, create, apply, remove, rename };
struct asked_snapshot_action {
  snapshot_action what = snapshot_action::list;
  std::string which = {};    // a name; where there has to be one already, perhaps an id
  std::string new_name = {}; // rename
};
int snapshot_over_mount(const command_call& call, const result<mounted_root>& root,
                        const asked_snapshot_action& action);
// Of all roots of the mount on `directory` at once; there is no `apply` and no `rename`.
int group_snapshot_over_mount(const command_call& call, const std::string& directory,
                              const asked_snapshot_action& action);

enum class bitmap_action : u8 { add, remove, remove_all, clear, enable, disable, merge };

struct asked_action {
  bitmap_action what;
  std::string source = {}; // merge
};

struct mounted_bitmap_change {
  std::vector<asked_action> actions; // in the order given
  std::string bitmap;
  u64 granularity = 0;     // 0: the default
  std::string source_file; // -b
};
// One action after the other; what was done before one fails stays done, and is said.
int bitmap_over_mount(const command_call& call, const result<mounted_root>& root,
                      const mounted_bitmap_change& wanted);

struct mounted_info_request {
  bool is_json = false;
  bool is_chain = false;
  bool has_limits = false;
};
int info_over_mount(const command_call& call, const result<mounted_root>& root,
                    const mounted_info_request& wanted);

int map_over_mount(const command_call& call, const result<mounted_root>& root, bool is_json,
                   bool is_of_a_part);

// What scripts know the outcomes of checks by.
namespace check_status {
inline constexpr int sound = 0;
inline constexpr int failed = 1;
inline constexpr int corrupt = 2;
inline constexpr int leaks = 3;
inline constexpr int unsupported = 63;
[[nodiscard]] int of(const check_result& found);
} // namespace check_status

struct mounted_check_request {
  check_mode mode = check_mode::report;
  bool is_json = false;
  bool is_quiet = false;
};
int check_over_mount(const command_call& call, const result<mounted_root>& root,
                     const mounted_check_request& wanted);

// `bytes_per_second` 0: as fast as it goes.
int commit_over_mount(const command_call& call, const result<mounted_root>& root,
                      u64 bytes_per_second, bool is_quiet);

} // namespace bgfs
