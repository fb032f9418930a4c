// SPDX-License-Identifier: MIT
// partitions/table, table.json: what the partition table says, what is wrong with it, and which
// FUSE file system may read what each partition holds.
#include "fuse/views/common.h"
#include "graph/base/partitions/type_name.h"
#include "graph/base/text.h"

#include <algorithm>

namespace bgfs {
namespace {

struct described_table {
  partition_set::table_pointer table;
  std::vector<const file_system*> holds; // of the first partitions
  const file_system* whole = nullptr;    // of a disk without a table
};

task<described_table> look(view_subject subject) {
  const disk_use use = co_await subject.whole->disk(subject.pid);
  raw_disk* const disk = use.disk;
  partition_set& parts = subject.root->parts.of(*disk);
  described_table d;
  d.table = co_await parts.read();
  if (d.table->kind == table_kind::none)
    d.whole = co_await parts.look_into({0, device_length_max});
  for (const partition& p : d.table->partitions) {
    if (d.holds.size() == partitions_looked_into_max)
      break;
    const file_system* found = nullptr;
    if (p.has_bytes())
      found = co_await parts.look_into(p.place);
    d.holds.push_back(found);
  }
  co_return d;
}

// Bytes that a terminal would obey are shown as in names of files.
std::string plain(std::string_view text) {
  std::string out;
  for (const char c : text) {
    const auto byte = static_cast<unsigned char>(c);
    if (byte < 0x20 || byte == 0x7f || c == '%')
      out += fmt::format("%{:02X}", byte);
    else
      out += c;
  }
  return out;
}

std::string_view dash_if_empty(std::string_view text) {
  return text.empty() ? "-" : text;
}

task<std::string> render_text(view_subject subject) {
  const described_table d = co_await look(subject);
  const partition_table& t = *d.table;
  std::string text = fmt::format("table: {}\n", to_string(t.kind));
  if (t.kind != table_kind::none)
    text += fmt::format("sector size: {}\nid: {}\n", t.sector_length, dash_if_empty(t.id));
  if (d.whole != nullptr)
    text += fmt::format("the disk itself holds: {}{}{}\n", d.whole->name,
                        d.whole->driver.empty() ? "" : ", try ", d.whole->driver);
  for (const std::string& p : t.problems)
    text += fmt::format("problem: {}\n", p);
  if (t.partitions.empty())
    co_return text;
  text += fmt::format("\n{:>6} {:>16} {:>16} {:>9}  {:<22} {:<12} {:<17} {:<36} {}\n", "number",
                      "start", "length", "size", "type", "holds", "try", "uuid", "label");
  for (std::size_t i = 0; i < t.partitions.size(); i++) {
    const partition& p = t.partitions[i];
    const file_system* const holds = i < d.holds.size() ? d.holds[i] : nullptr;
    const std::string_view name = partition_type_name(p.type);
    text += fmt::format("{:>6} {:>16} {:>16} {:>9}  {:<22} {:<12} {:<17} {:<36} {}\n", p.number,
                        p.declared.offset, p.declared.length, format_size(p.declared.length),
                        name.empty() ? std::string_view(p.type) : name,
                        holds != nullptr ? holds->name : "-",
                        dash_if_empty(holds != nullptr ? holds->driver : ""), dash_if_empty(p.uuid),
                        dash_if_empty(plain(p.label)));
  }
  co_return text;
}

value describe(const partition& p, const file_system* holds) {
  value v;
  v.set("number", p.number);
  v.set("start", p.declared.offset);
  v.set("size", p.declared.length);
  v.set("type", p.type);
  v.set("type-name", partition_type_name(p.type));
  v.set("label", p.label);
  v.set("uuid", p.uuid);
  v.set("attributes", fmt::format("{:#x}", p.attributes));
  v.set("bootable", p.is_bootable);
  v.set("file", p.has_bytes() ? value(fmt::format("{}", p.number)) : value());
  v.set("file-length", p.has_bytes() ? p.place.length : u64{0});
  v.set("holds", holds != nullptr ? value(holds->name) : value());
  v.set("fuse-driver", holds != nullptr && !holds->driver.empty() ? value(holds->driver) : value());
  return v;
}

task<std::string> render_json(view_subject subject) {
  const described_table d = co_await look(subject);
  const partition_table& t = *d.table;
  value v;
  v.set("table", to_string(t.kind));
  v.set("sector-size", t.sector_length);
  v.set("id", t.id);
  v.set("holds", d.whole != nullptr ? value(d.whole->name) : value());
  value::list problems;
  for (const std::string& p : t.problems)
    problems.emplace_back(p);
  v.set("problems", std::move(problems));
  value::list all;
  for (std::size_t i = 0; i < t.partitions.size(); i++)
    all.push_back(describe(t.partitions[i], i < d.holds.size() ? d.holds[i] : nullptr));
  v.set("partitions", std::move(all));
  co_return json_text(v);
}

} // namespace

extern constinit const view partitions_table_view{
    .name = "table",
    .summary = "the partition table for people: what is wrong with it, and for each partition its "
               "number, place, type, what it holds and which FUSE file system to try",
    .render = render_text,
    .needs_medium = false};
extern constinit const view partitions_table_json_view{.name = "table.json",
                                                       .summary =
                                                           "the partition table for programs",
                                                       .render = render_json,
                                                       .needs_medium = false};

} // namespace bgfs
