// SPDX-License-Identifier: MIT
// .bgfs/limits: every bound of the mount by its name, and what of the shared ones is taken. Each
// key is explained in fuse/README.md.
#include "fuse/operations/request_queue.h"
#include "fuse/operations/server.h"
#include "fuse/transport/device_transport.h"
#include "fuse/transport/ring_transport.h"
#include "fuse/views/common.h"

#include "config/export_schema.h"
#include "config/graph_document.h"
#include "config/graph_picture.h"
#include "config/yaml.h"
#include "graph/jobs/pieces.h"

namespace bgfs {
namespace {

void add_requests(std::string& text, const mount_state& mount) {
  add_line(text, "payload-budget", mount.payloads.total());
  add_line(text, "payload-held", mount.payloads.held());
  add_line(text, "payload-held-most", mount.payloads.held_max());
  add_line(text, "payload-waiting", mount.payloads.waiting());
  add_line(text, "payload-parked", mount.parked.parked());
  add_line(text, "leased-memory-max", mount.leased_memory_max() * mount.queue_count(false));
  add_line(text, "leased-memory-held", mount.leased_memory_held());
  add_line(text, "storage-away-max", request_queue::storage_away_max);
  add_line(text, "buffers-kept-max", mount.home.buffers().kept_bytes_max());
  add_line(text, "request-length-max", kernel::payload_length_max);
  add_line(text, "readahead-length-max", readahead_length_max);
  add_line(text, "background-requests-max", background_requests_max);
  add_line(text, "requests-per-turn", requests_per_turn);
  add_line(text, "requests-running", mount.requests_running);
  add_line(text, "ring-entries", mount.ring_depth * count_possible_processors());
  add_line(text, "ring-queue-depth-max", ring_transport::queue_depth_max);
  add_line(text, "queues-max", lease::queues_max);
  add_line(text, "early-interrupts-max", server::early_interrupts_max);
}

void add_kernel(std::string& text) {
  add_line(text, "attributes-kept-seconds", notifier::kept_for.count());
  add_line(text, "notifications-queued-max", notifier::queued_max);
  add_line(text, "name-length-max", kernel::name_length_max);
}

void add_views(std::string& text) {
  add_line(text, "command-length-max", command_length_max);
  add_line(text, "map-text-length-max", map_text_length_max);
  add_line(text, "gpt-entries-length-max", gpt_entries_length_max);
  add_line(text, "gpt-entry-length-max", gpt_entry_length_max);
  add_line(text, "logical-partitions-max", logical_partitions_max);
  add_line(text, "table-problems-max", table_problems_max);
  add_line(text, "partitions-looked-into-max", partitions_looked_into_max);
  add_line(text, "graph-nodes-drawn-max", drawn_nodes_max);
  add_line(text, "jobs-kept-max", job_list::kept_max);
  add_line(text, "event-lines-max", event_ring::kept_max);
  add_line(text, "log-lines-max", log_ring::kept_max);
  add_line(text, "listers-max", lister_ledger::processes_max);
  add_line(text, "listed-directories-max", lister_ledger::directories_max);
  add_line(text, "error-lines-max", error_log::kept_max);
}

void add_graph(std::string& text) {
  add_line(text, "root-name-length-max", root_name_length_max);
  add_line(text, "graph-file-length-max", yaml_length_max);
  add_line(text, "graph-file-values-max", yaml_values_max);
  add_line(text, "fragments-max", fragments_max);
  add_line(text, "copies-in-flight-max", pieces_at_once_max);
  add_line(text, "disk-length-max", device_length_max);
}

task<std::string> render(view_subject subject) {
  std::string text;
  add_requests(text, subject.mount);
  add_kernel(text);
  add_views(text);
  add_graph(text);
  co_return text;
}

} // namespace

extern constinit const view limits_view{
    .name = "limits", .summary = "every bound of the mount by its name", .render = render};

} // namespace bgfs
