// SPDX-License-Identifier: MIT
// Every view there is, in the order its directory lists it.
#include "fuse/tree/view.h"

#include <array>

namespace bgfs {

extern const view info_view, info_json_view, map_view, map_json_view, map_svg_view, state_view,
    root_stats_view, root_stats_json_view, openers_view, last_error_view, size_view, ctl_view,
    root_help_view, last_check_view, last_check_json_view;
extern const view shown_info_json_view;
extern const view layer_file_view;
extern const view snapshot_hold_view;
extern const view point_state_view;
extern const view bitmap_state_view, bitmap_count_view, bitmap_granularity_view,
    bitmap_enabled_view, bitmap_persistent_view, bitmap_hold_view, bitmap_map_view,
    bitmap_map_json_view, bitmap_clear_view, bitmap_merge_view;
extern const view partitions_table_view, partitions_table_json_view;
extern const view node_driver_view, node_options_view, node_limits_view, node_permissions_view,
    node_requests_view, node_threshold_view, node_stats_view, node_stats_json_view,
    node_active_view, node_blockers_view, node_filename_view, node_definition_view;
extern const view debug_rules_view, debug_state_view, debug_breakpoints_view, debug_suspended_view,
    debug_events_view, debug_ctl_view;
extern const view graph_yaml_view, graph_json_view, graph_dot_view, graph_svg_view, version_view,
    features_view, exports_view, files_view, pid_view, outcome_fd_view, mount_help_view,
    reload_view, reload_plan_view, shutdown_view;
extern const view job_type_view, job_state_view, job_done_view, job_total_view, job_progress_view,
    job_speed_view, job_cancel_view, job_pause_view, job_resume_view, job_complete_view,
    job_dismiss_view, job_error_view;
extern const view limits_view;
extern const view events_view, events_fd_view, log_view, log_level_view, metrics_view;

namespace {

constexpr std::array root_views = {
    &info_view,    &info_json_view,  &map_view,        &map_json_view,
    &map_svg_view, &state_view,      &root_stats_view, &root_stats_json_view,
    &openers_view, &last_error_view, &last_check_view, &last_check_json_view,
    &size_view,    &ctl_view,        &root_help_view,
};
constexpr std::array shown_disk_views = {&shown_info_json_view, &map_view, &map_json_view};
constexpr std::array layer_views = {&map_svg_view, &layer_file_view};
constexpr std::array partitions_views = {&partitions_table_view, &partitions_table_json_view};
constexpr std::array snapshot_views = {&snapshot_hold_view};
constexpr std::array point_views = {&point_state_view};
constexpr std::array bitmap_views = {
    &bitmap_state_view,      &bitmap_count_view, &bitmap_granularity_view, &bitmap_enabled_view,
    &bitmap_persistent_view, &bitmap_hold_view,  &bitmap_map_view,         &bitmap_map_json_view,
    &bitmap_clear_view,      &bitmap_merge_view,
};
constexpr std::array node_views = {
    &node_driver_view,   &node_options_view,   &node_limits_view,   &node_permissions_view,
    &node_requests_view, &node_threshold_view, &node_stats_view,    &node_stats_json_view,
    &node_active_view,   &node_blockers_view,  &node_filename_view, &node_definition_view,
};
constexpr std::array debug_views = {
    &debug_rules_view,     &debug_state_view,  &debug_breakpoints_view,
    &debug_suspended_view, &debug_events_view, &debug_ctl_view,
};
constexpr std::array job_views = {
    &job_type_view,     &job_state_view,    &job_done_view,    &job_total_view,
    &job_progress_view, &job_speed_view,    &job_cancel_view,  &job_pause_view,
    &job_resume_view,   &job_complete_view, &job_dismiss_view, &job_error_view,
};
constexpr std::array mount_views = {
    &graph_yaml_view, &graph_json_view, &graph_dot_view,   &graph_svg_view, &version_view,
    &features_view,   &exports_view,    &files_view,       &pid_view,       &outcome_fd_view,
    &last_error_view, &reload_view,     &reload_plan_view, &events_view,    &events_fd_view,
    &log_view,        &log_level_view,  &metrics_view,     &limits_view,    &shutdown_view,
    &mount_help_view,
};

} // namespace

std::span<const view* const> views_of_mount() {
  return mount_views;
}
std::span<const view* const> views_of_root() {
  return root_views;
}
std::span<const view* const> views_of_shown_disk() {
  return shown_disk_views;
}
std::span<const view* const> views_of_snapshot() {
  return snapshot_views;
}
std::span<const view* const> views_of_layer() {
  return layer_views;
}
std::span<const view* const> views_of_bitmap() {
  return bitmap_views;
}
std::span<const view* const> views_of_point() {
  return point_views;
}
std::span<const view* const> views_of_node() {
  return node_views;
}
std::span<const view* const> views_of_debug() {
  return debug_views;
}
std::span<const view* const> views_of_job() {
  return job_views;
}
std::span<const view* const> views_of_partitions() {
  return partitions_views;
}

} // namespace bgfs
