// SPDX-License-Identifier: MIT
#include "config/commands/image_session.h"

#include "config/image_name.h"
#include "config/mounted_root.h"
#include "config/snapshot_text.h"
#include "graph/base/text.h"

#include <filesystem>
#include <sys/stat.h>

namespace bgfs {

result<host_cache> parse_host_cache(const std::string& name) {
  struct known {
    std::string_view name;
    host_cache mode;
  };
  static constexpr known modes[] = {{"writeback", host_cache::writeback},
                                    {"writethrough", host_cache::writethrough},
                                    {"none", host_cache::none},
                                    {"off", host_cache::none},
                                    {"directsync", host_cache::directsync},
                                    {"unsafe", host_cache::unsafe}};
  for (const known& k : modes)
    if (k.name == name)
      return k.mode;
  return fail(error_kind::invalid_argument,
              "'{}' is no cache mode; they are none, writeback, writethrough, directsync, unsafe",
              name);
}

namespace {

const driver_type* type_of(const value& definition, const registry& drivers) {
  const value* driver = definition.find("driver");
  const std::string* name = driver == nullptr ? nullptr : driver->as_text();
  return name == nullptr ? nullptr : drivers.find(*name);
}

bool is_filter(const driver_type* type) {
  return type != nullptr && type->kind == driver_kind::filter;
}

// The slot of a filter that holds what it filters.
std::string_view filtered_slot(const driver_type& filter) {
  for (const child_slot& slot : filter.children)
    if ((slot.roles & role::filtered) != 0)
      return slot.name;
  return {};
}

// The path of a protocol definition, if it is a file of the host, or what filters it.
std::string host_path_of(const value& definition, const registry& drivers) {
  if (const driver_type* type = type_of(definition, drivers); is_filter(type)) {
    const value* below = definition.find(filtered_slot(*type));
    return below == nullptr || below->as_map() == nullptr ? std::string()
                                                          : host_path_of(*below, drivers);
  }
  const value* driver = definition.find("driver");
  const value* filename = definition.find("filename");
  const bool is_file =
      driver == nullptr || (driver->as_text() != nullptr &&
                            (*driver->as_text() == "file" || *driver->as_text() == "host_device"));
  if (!is_file || filename == nullptr || filename->as_text() == nullptr)
    return {};
  return *filename->as_text();
}

// What nobody said is found in the image's first bytes; what is not found there is raw, but only
// for readers: writing a raw image could make it look like another format next time.
result<std::string> find_format(const image_choice& choice, const value& protocol,
                                const registry& drivers) {
  if (!choice.format.empty())
    return choice.format;
  const std::string path = host_path_of(protocol, drivers);
  if (path.empty())
    return fail(error_kind::invalid_argument,
                "the format of '{}' must be given, with -f or 'driver'", choice.name);
  BGFS_TRY(const driver_type* found, probe_host_file(path, drivers));
  if (found != nullptr)
    return std::string(found->name);
  if (choice.is_writable)
    return fail(error_kind::invalid_argument,
                "'{}' has no format that is recognised, and writing needs to know it: give -f raw "
                "if its bytes are the disk",
                choice.name);
  return std::string("raw");
}

result<value> define_unwrapped(const image_choice& choice, const registry& drivers) {
  if (!choice.is_options)
    return parse_image_name(choice.name, drivers);
  result<value> parsed = parse_option_string(choice.name);
  if (parsed && parsed->as_map()->empty())
    return fail(error_kind::invalid_argument, "no options were given for an image");
  return parsed;
}

// A definition without a driver is a file under a format that is given or found.
result<value> wrap(const image_choice& choice, value inner, const registry& drivers) {
  const value* driver = inner.find("driver");
  const std::string* name = driver == nullptr ? nullptr : driver->as_text();
  const driver_type* type = name == nullptr ? nullptr : drivers.find(*name);
  const bool is_plain = !choice.is_options && !choice.name.starts_with("json:");
  // A plain name stands for a protocol, be it with filters in front: the format is above them.
  const bool is_protocol =
      type != nullptr && (type->kind == driver_kind::protocol || (is_plain && is_filter(type)));
  if (type != nullptr && (!is_protocol || (!is_plain && choice.format.empty()))) {
    if (!choice.format.empty() && choice.format != type->name)
      return fail(error_kind::invalid_argument,
                  "the format of '{}' is given twice: as '{}' and, with -f, as '{}'", choice.name,
                  type->name, choice.format);
    return inner;
  }
  if (name != nullptr && type == nullptr)
    return inner; // define_node says what is wrong with it
  if (const value* file = inner.find("file"); name == nullptr && file != nullptr) {
    BGFS_TRY(std::string format, find_format(choice, *file, drivers));
    inner.set("driver", std::move(format));
    return inner;
  }
  if (name == nullptr)
    inner.set("driver", "file");
  BGFS_TRY(std::string format, find_format(choice, inner, drivers));
  value whole = value::map();
  whole.set("driver", std::move(format));
  whole.set("file", std::move(inner));
  return whole;
}

// Also where a part of the way is a node's name, below which nothing can be set.
bool is_there(const value& definition, std::string_view name) {
  const auto dot = name.find('.');
  const value* outer = definition.find(name.substr(0, dot));
  if (dot == std::string_view::npos || outer == nullptr || outer->as_map() == nullptr)
    return outer != nullptr;
  return is_there(*outer, name.substr(dot + 1));
}

void set_if_absent(value& definition, std::string_view name, value v) {
  if (!is_there(definition, name))
    (void)set_nested(definition, name, std::move(v)); // nothing is there that could be in the way
}

// Where an option of the protocol stands in the definition of a format over it.
std::string place_in_protocol(const value& definition, std::string_view name,
                              const registry& drivers) {
  std::string place = "file";
  const value* at = definition.find("file");
  while (at != nullptr && at->as_map() != nullptr && is_filter(type_of(*at, drivers))) {
    const std::string_view slot = filtered_slot(*type_of(*at, drivers));
    place += fmt::format(".{}", slot);
    at = at->find(slot);
  }
  return fmt::format("{}.{}", place, name);
}

void add_options(const image_choice& choice, value& definition, const driver_type& type,
                 const registry& drivers) {
  if (!choice.is_writable)
    definition.set("read-only", true);
  if (choice.is_force_shared)
    set_if_absent(definition, "force-share", true);
  if (choice.cache == host_cache::none || choice.cache == host_cache::directsync)
    set_if_absent(definition, "cache.direct", true);
  if (choice.cache == host_cache::unsafe)
    set_if_absent(definition, "cache.no-flush", true);
  if (!choice.aio.empty())
    set_if_absent(definition, place_in_protocol(definition, "aio", drivers), choice.aio);
  if (choice.discards)
    set_if_absent(definition, "discard", "unmap");
  if (!choice.needs_backing && type.supports_backing)
    definition.set("backing", value());
}

// It is gone with the command: nothing of it needs to be on disk.
value define_overlay(const image_choice& choice, value below) {
  below.set("read-only", true);
  value file = value::map();
  file.set("driver", "file");
  file.set("filename", choice.overlay_path);
  value overlay = value::map();
  overlay.set("driver", "qcow2");
  overlay.set("cache.no-flush", true);
  if (!choice.is_writable)
    overlay.set("read-only", true);
  if (choice.discards)
    overlay.set("discard", "unmap");
  overlay.set("file", std::move(file));
  overlay.set("backing", std::move(below));
  return overlay;
}

} // namespace

result<value> define_image(const image_choice& asked, const registry& drivers) {
  image_choice choice = asked;
  BGFS_TRY(const value extra, parse_option_string(choice.extra_options));
  if (const value* driver = extra.find("driver"); driver != nullptr && driver->as_text() != nullptr)
    choice.format = *driver->as_text();
  BGFS_TRY(value inner, define_unwrapped(choice, drivers));
  BGFS_TRY(value whole, wrap(choice, std::move(inner), drivers));
  const value* driver = whole.find("driver");
  const std::string* name = driver == nullptr ? nullptr : driver->as_text();
  const driver_type* type = name == nullptr ? nullptr : drivers.find(*name);
  if (type != nullptr)
    add_options(choice, whole, *type, drivers);
  for (const auto& [key, v] : *extra.as_map())
    whole.set(key, v);
  if (!choice.overlay_path.empty())
    whole = define_overlay(choice, std::move(whole));
  if (choice.copies_on_read) {
    value copying = value::map();
    copying.set("driver", "copy-on-read");
    copying.set("file", std::move(whole));
    return copying;
  }
  if (choice.snapshot.empty())
    return whole;
  BGFS_TRY(value shown, parse_snapshot(choice.snapshot));
  shown.set("driver", "internal-snapshot");
  shown.set("read-only", true);
  shown.set("file", std::move(whole));
  return shown;
}

write_flags open_image::flags_of_writes() const {
  const bool is_through =
      choice_.cache == host_cache::writethrough || choice_.cache == host_cache::directsync;
  return is_through ? write_flag::durable : write_flags{0};
}

bool open_image::is_on_device() const {
  struct stat found{};
  return ::stat(top().host_path().c_str(), &found) != 0 || !S_ISREG(found.st_mode);
}

task<void> open_image::release() {
  node& image = top();
  co_await top_->release();
  co_await owner_.close(image);
}

namespace {

task<std::unique_ptr<open_image>> open_unnamed(graph& into, image_choice choice) {
  const value definition = co_await define_image(choice, into.drivers());
  const definition_rules rules{.drivers = into.drivers(), .has_implied_drivers = true};
  const std::unique_ptr<node_definition> defined = co_await define_node(definition, rules);
  node_spec spec = make_spec(*defined, {});
  spec.is_info_only = choice.is_info_only || choice.is_for_check;
  spec.generic.is_for_check = choice.is_for_check;
  node* image = co_await into.open(std::move(spec));
  permissions wanted{permission::consistent_read, permission::all};
  if (choice.is_writable)
    wanted.used |= permission::write;
  if (choice.is_resized)
    wanted.used |= permission::resize;
  if (choice.is_writable && !choice.shares_writes)
    wanted.shared &= static_cast<permission_set>(~(permission::write | permission::resize));
  result<std::unique_ptr<root>> attached =
      co_await as_result(into.attach("this command", *image, wanted));
  if (!attached) {
    result<> closed = co_await as_result(into.close(*image));
    (void)closed; // the first error is the one to report
    co_return fail(std::move(attached).error());
  }
  co_return std::make_unique<open_image>(into, *std::move(attached), std::move(choice));
}

} // namespace

namespace {

// Who cannot have an image because a mount serves it can name its raw file.
error name_mount(error busy, const std::string& image) {
  const std::optional<std::string> raw = raw_file_of(image);
  if (!raw)
    return busy;
  return {busy.kind(),
          fmt::format("{}; a mount shows it as '{}': name that file instead", busy.message(), *raw),
          busy.os_error()};
}

} // namespace

task<std::unique_ptr<open_image>> open(graph& into, image_choice choice) {
  const std::string name = choice.name;
  const bool may_share = !choice.is_writable && !choice.is_force_shared;
  result<std::unique_ptr<open_image>> opened =
      co_await as_result(open_unnamed(into, std::move(choice)));
  if (!opened && opened.error().kind() == error_kind::busy)
    opened = fail(name_mount(std::move(opened).error(), name));
  if (!opened && opened.error().kind() == error_kind::busy && may_share)
    opened = fail(error(error_kind::busy,
                        opened.error().message() + "; to look at it all the same, "
                                                   "give -U",
                        opened.error().os_error()));
  const std::string attempt = fmt::format("cannot open '{}'", name);
  if (!opened && !opened.error().message().starts_with(attempt))
    opened.error().add_context(attempt);
  co_return opened;
}

namespace {

std::vector<std::string> absolute(std::vector<std::string> directories) {
  for (std::string& directory : directories)
    directory = std::filesystem::absolute(directory).string();
  return directories;
}

reference_policy command_policy(const allowed_references& allowed) {
  std::vector<std::string> directories = absolute(allowed.directories);
  const std::vector<std::string> raw = absolute(allowed.raw_directories);
  directories.insert(directories.end(), raw.begin(), raw.end());
  return {.allowed = std::move(directories),
          .allows_own_directory = true,
          .raw_allowed = raw,
          .is_probing = true,
          .has_working_directory = true,
          .may_name_secrets = true,
          .how_to_declare = "name the whole chain with json:{...} or in YAML",
          .how_to_allow_raw = "give --allow-raw-references="};
}

} // namespace

command_session::command_session(std::unique_ptr<loop> home, const registry& drivers,
                                 reference_policy policy, command_signals& signals)
    : drivers_(drivers), signals_(signals), policy_(std::move(policy)), resolver_(drivers, policy_),
      loop_(std::move(home)), graph_(std::make_unique<graph>(*loop_, drivers, &resolver_)) {}

command_session::~command_session() = default;

result<std::unique_ptr<command_session>>
command_session::create(const registry& drivers, const allowed_references& allowed,
                        command_signals& signals, std::shared_ptr<const secret_store> secrets) {
  BGFS_TRY(auto home, loop::create({.has_one_task = true}));
  std::unique_ptr<command_session> made(
      new command_session(std::move(home), drivers, command_policy(allowed), signals));
  made->secrets_ = std::move(secrets);
  made->graph_->set_secrets(made->secrets_);
  return made;
}

} // namespace bgfs
