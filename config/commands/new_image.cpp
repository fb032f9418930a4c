// SPDX-License-Identifier: MIT
#include "config/commands/new_image.h"

#include "config/image_name.h"
#include "graph/base/option_values.h"
#include "graph/base/text.h"
#include "graph/io/file.h"

#include <algorithm>
#include <unistd.h>

namespace bgfs {

namespace {

constexpr u64 length_unit = 512; // disks are made of sectors

result<const driver_type*> find_creator(const registry& drivers, const std::string& format) {
  std::vector<std::string_view> able;
  for (const driver_type* type : drivers.all())
    if (type->kind == driver_kind::format && type->create != nullptr)
      able.push_back(type->name);
  const driver_type* type = drivers.find(format);
  if (type == nullptr)
    return fail(error_kind::invalid_argument, "there is no format '{}'{}", format,
                did_you_mean(format, able));
  if (type->kind != driver_kind::format || type->create == nullptr)
    return fail(error_kind::unsupported, "driver '{}' cannot create images", format);
  return type;
}

const option* find_option(const option_schema* schema, std::string_view name) {
  if (schema == nullptr)
    return nullptr;
  const auto found = std::ranges::find(schema->options, name, &option::name);
  return found == schema->options.end() ? nullptr : &*found;
}

bool is_option_or_group(const option_schema& schema, const std::string& name) {
  return std::ranges::any_of(schema.options, [&](const option& o) {
    return o.name == name || o.name.starts_with(name + ".");
  });
}

struct named_file {
  const driver_type* protocol = nullptr;
  std::string filename; // without a protocol's prefix
};

result<named_file> find_file(const registry& drivers, const std::string& filename) {
  if (filename.starts_with("json:"))
    return fail(error_kind::unsupported, "'{}': a new image is named by its path", filename);
  BGFS_TRY(const value definition, parse_image_name(filename, drivers));
  const driver_type* protocol = drivers.find(*definition.find("driver")->as_text());
  const value* name = definition.find("filename");
  if (protocol == nullptr || name == nullptr)
    return fail(error_kind::unsupported, "'{}' is not something an image can be created in",
                filename);
  return named_file{protocol, *name->as_text()};
}

std::string take_text(value& options, std::string_view name) {
  auto* members = options.as_map();
  const auto found = std::ranges::find(*members, name, &value::map::value_type::first);
  if (found == members->end() || found->second.as_text() == nullptr)
    return {};
  std::string text = *found->second.as_text();
  members->erase(found);
  return text;
}

class preparation {
public:
  preparation(command_session& session, new_image_request request)
      : session_(session), request_(std::move(request)) {}

  task<prepared_image> run() {
    co_await read_request();
    co_await find_length();
    co_await validate();
    made_.announcement = announce();
    co_return std::move(made_);
  }

private:
  result<> read_request() {
    BGFS_TRY(format_, find_creator(session_.drivers(), request_.format));
    BGFS_TRY(const named_file file, find_file(session_.drivers(), request_.filename));
    protocol_ = file.protocol;
    made_.job.file.filename = file.filename;
    BGFS_TRY(options_, merge_option_lists(request_.option_lists));
    if (const std::string size = take_text(options_, "size"); !size.empty() && !request_.length) {
      BGFS_TRY(request_.length, parse_size(size));
    }
    read_backing(request_.backing, "backing_file");
    read_backing(request_.backing_format, "backing_fmt");
    return check_backing();
  }

  // -b and -F count more than the options of the same meaning.
  void read_backing(std::string& given, std::string_view option_name) {
    const std::string from_options = take_text(options_, option_name);
    if (given.empty())
      given = from_options;
  }

  result<> check_backing() {
    if (request_.backing.empty() && request_.backing_format.empty())
      return {};
    if (find_option(format_->create_options, "backing_file") == nullptr)
      return fail(error_kind::unsupported, "format '{}' has no backing files", format_->name);
    if (request_.backing.empty())
      return fail(error_kind::invalid_argument, "a backing format needs a backing file (-b)");
    if (request_.backing_format.empty())
      return fail(error_kind::invalid_argument,
                  "the backing file '{}' needs its format to be given, with -F{}", request_.backing,
                  detected_format());
    const driver_type* type = session_.drivers().find(request_.backing_format);
    if (type == nullptr || type->kind != driver_kind::format)
      return fail(error_kind::invalid_argument, "there is no format '{}' for the backing file{}",
                  request_.backing_format,
                  did_you_mean(request_.backing_format, session_.drivers().names()));
    made_.has_backing = true;
    options_.set("backing_file", request_.backing);
    options_.set("backing_fmt", request_.backing_format);
    return {};
  }

  [[nodiscard]] std::string backing_path() const {
    return backing_name_from(made_.job.file.filename, request_.backing);
  }

  [[nodiscard]] std::string detected_format() const {
    const auto found = probe_host_file(backing_path(), session_.drivers());
    return found && *found != nullptr ? fmt::format(" (it looks like {})", (*found)->name)
                                      : std::string();
  }

  static task<u64> length_of(open_image& image) { co_return image.top().length(); }

  task<void> find_length() {
    if (made_.has_backing && !request_.is_backing_unchecked) {
      // Only its length is asked for, which it tells while others use it, too.
      const image_choice backing{.name = backing_path(),
                                 .format = request_.backing_format,
                                 .is_force_shared = true,
                                 .needs_backing = false,
                                 .is_info_only = true};
      const u64 length = co_await context(
          with(open(session_.nodes(), backing), [](open_image& image) { return length_of(image); }),
          "the backing file of '{}'", request_.filename);
      if (!request_.length)
        request_.length = length;
    }
    if (!request_.length)
      co_await fail(error_kind::invalid_argument, "'{}': a new image needs a size",
                    request_.filename);
    const auto rounded = checked_align_up(*request_.length, length_unit);
    if (!rounded || *rounded > device_length_max)
      co_await fail(error_kind::invalid_argument, "{} bytes are too many: an image has {} at most",
                    *request_.length, device_length_max);
    made_.job.length = *rounded;
  }

  // Options both know (preallocation) are the format's: it asks the protocol as it needs.
  result<> validate() {
    new_image& job = made_.job;
    job.format = format_;
    job.file.protocol = protocol_;
    job.secrets = session_.secrets();
    std::vector<const option_schema*> all = {format_->create_options};
    if (protocol_->create_options != nullptr)
      all.push_back(protocol_->create_options);
    BGFS_CHECK(without_value(validate_options(all, options_)));
    BGFS_TRY(job.format_options, validate_part(format_->create_options, options_));
    if (protocol_->create_options != nullptr) {
      BGFS_TRY(job.file.protocol_options,
               validate_part(protocol_->create_options, protocol_part()));
    }
    BGFS_CHECK(name_place(job.file));
    return add_parts();
  }

  [[nodiscard]] static result<> name_place(new_file& file) {
    value place = value::map();
    place.set("filename", file.filename);
    const std::array<const option_schema*, 2> schemas = {file.protocol->open_options,
                                                         &generic_node_schema};
    BGFS_TRY(file.open_options, validate_options(schemas, place));
    return {};
  }

  // Files beside the image; their names are relative to it, as when it is opened.
  result<> add_parts() {
    if (format_->created_parts == nullptr)
      return {};
    BGFS_TRY(const std::vector<new_part> parts, format_->created_parts(made_.job.format_options));
    for (const new_part& part : parts) {
      BGFS_TRY(const named_file named, find_file(session_.drivers(), part.filename));
      new_file file{.slot = part.slot,
                    .protocol = named.protocol,
                    .filename = combine_paths(made_.job.file.filename, named.filename),
                    .is_kept = part.is_kept};
      BGFS_CHECK(check_part(part, file.filename));
      if (file.protocol->create_options != nullptr) {
        BGFS_TRY(file.protocol_options,
                 validate_part(file.protocol->create_options, value(value::map())));
      }
      BGFS_CHECK(name_place(file));
      made_.job.parts.push_back(std::move(file));
    }
    return {};
  }

  result<> check_part(const new_part& part, const std::string& path) const {
    const auto is_taken = [&](const std::string& other) {
      return path == other || is_same_file(path, other);
    };
    if (is_taken(made_.job.file.filename) ||
        (made_.has_backing && !request_.backing.starts_with("json:") && is_taken(backing_path())))
      return fail(error_kind::invalid_argument,
                  "'{}' would be the {} of '{}' and is the image itself or its backing file; "
                  "nothing was written",
                  path, part.slot, request_.filename);
    if (part.is_kept && ::access(path.c_str(), F_OK) != 0)
      return fail_errno(errno, "'{}' is to be kept as the {} of '{}'", path, part.slot,
                        request_.filename);
    return {};
  }

  [[nodiscard]] static result<> without_value(const result<options>& r) {
    if (!r)
      return fail(r.error());
    return {};
  }

  [[nodiscard]] value protocol_part() const {
    value part = value::map();
    for (const auto& [name, v] : *options_.as_map())
      if (!is_option_or_group(*format_->create_options, name))
        part.set(name, v);
    return part;
  }

  [[nodiscard]] static result<options> validate_part(const option_schema* schema,
                                                     const value& given) {
    value part = value::map();
    for (const auto& [name, v] : *given.as_map()) {
      if (is_option_or_group(*schema, name))
        part.set(name, v);
    }
    const std::array<const option_schema*, 1> schemas = {schema};
    return validate_options(schemas, part);
  }

  [[nodiscard]] std::string announce() const {
    std::string text = fmt::format("Formatting '{}', fmt={}", request_.filename, format_->name);
    // The order and the defaults that scripts have learnt to expect of qcow2; then the rest.
    static constexpr std::string_view always[] = {"cluster_size", "extended_l2", "compression_type",
                                                  "lazy_refcounts", "refcount_bits"};
    static constexpr std::string_view order[] = {
        "cluster_size", "extended_l2",  "preallocation", "compression_type", "size",
        "compat",       "backing_file", "backing_fmt",   "lazy_refcounts",   "refcount_bits"};
    for (const option& o : format_->create_options->options)
      if (o.name.starts_with("encrypt."))
        text += announce_option(o.name, false);
    const bool has_clusters = find_option(format_->create_options, "cluster_size") != nullptr;
    for (const std::string_view name : order) {
      const bool is_always = std::ranges::find(always, name) != std::end(always);
      if (name == "size") {
        text += fmt::format(" size={}", *request_.length);
      } else if (name != "preallocation" || has_clusters) {
        text += announce_option(name, is_always);
      }
    }
    if (!has_clusters)
      text += announce_option("preallocation", false);
    for (const auto* schema : {format_->create_options, protocol_->create_options}) {
      for (const option& o : schema == nullptr ? std::span<const option>() : schema->options) {
        const bool is_repeated =
            schema != format_->create_options && find_option(format_->create_options, o.name);
        const bool is_said =
            std::ranges::find(order, o.name) != std::end(order) || o.name.starts_with("encrypt.");
        if (!is_said && !is_repeated)
          text += announce_option(o.name, false);
      }
    }
    return text + "\n";
  }

  [[nodiscard]] std::string announce_option(std::string_view name, bool is_always) const {
    const bool is_format_option = find_option(format_->create_options, name) != nullptr;
    const option* o =
        find_option(is_format_option ? format_->create_options : protocol_->create_options, name);
    const options& given =
        is_format_option ? made_.job.format_options : made_.job.file.protocol_options;
    if (o == nullptr || (!given.is_set(name) && !is_always))
      return {};
    if (o->type == option_type::boolean)
      return fmt::format(" {}={}", name, given.flag(name) ? "on" : "off");
    if (const auto number = given.maybe_number(name))
      return fmt::format(" {}={}", name, *number);
    return fmt::format(" {}={}", name, given.text(name));
  }

  command_session& session_;
  new_image_request request_;
  const driver_type* format_ = nullptr;
  const driver_type* protocol_ = nullptr;
  value options_;
  prepared_image made_;
};

} // namespace

task<prepared_image> prepare_new_image(command_session& session, new_image_request request) {
  preparation p(session, std::move(request));
  prepared_image made = co_await p.run();
  co_return made;
}

result<value> merge_option_lists(const std::vector<std::string>& lists) {
  value merged = value::map();
  for (const std::string& list : lists) {
    BGFS_TRY(const value parsed, parse_option_string(list));
    for (const auto& [name, v] : *parsed.as_map())
      merged.set(name, v);
  }
  return merged;
}

bool asks_option_help(const std::vector<std::string>& option_lists) {
  return std::ranges::any_of(option_lists, [](const std::string& list) {
    return list == "help" || list == "?" || list.ends_with(",help") || list.ends_with(",?");
  });
}

namespace {

std::string_view placeholder(const option& o) {
  switch (o.type) {
  case option_type::boolean:
    return "<bool (on/off)>";
  case option_type::integer:
    return "<num>";
  case option_type::size:
    return "<size>";
  case option_type::text:
  case option_type::choice:
    return "<str>";
  case option_type::duration:
    return "<duration>";
  case option_type::choices:
  case option_type::groups:
    return "<list>";
  }
  return "";
}

std::string describe_option(const option& o) {
  std::string choices;
  for (const std::string_view c : o.choices)
    choices += fmt::format("{}{}", choices.empty() ? "" : ", ", c);
  if (!choices.empty())
    choices = fmt::format(" (allowed values: {})", choices);
  return fmt::format("  {:<22} - {}{}\n", fmt::format("{}={}", o.name, placeholder(o)), o.help,
                     choices);
}

} // namespace

std::string describe_options(const option_schema& schema) {
  std::map<std::string, std::string> lines;
  for (const option& o : schema.options)
    lines[std::string(o.name)] = describe_option(o);
  std::string text;
  for (const auto& [name, line] : lines)
    text += line;
  return text;
}

result<std::string> describe_create_options(const registry& drivers, const std::string& format,
                                            const std::string& filename) {
  BGFS_TRY(const driver_type* type, find_creator(drivers, format));
  std::map<std::string, std::string> lines;
  lines["size"] = "  size=<size>            - Virtual disk size\n";
  if (!filename.empty()) {
    BGFS_TRY(const named_file file, find_file(drivers, filename));
    if (file.protocol->create_options != nullptr)
      for (const option& o : file.protocol->create_options->options)
        lines[std::string(o.name)] = describe_option(o);
  }
  for (const option& o : type->create_options->options)
    lines[std::string(o.name)] = describe_option(o);
  std::string text = "Supported options:\n";
  for (const auto& [name, line] : lines)
    text += line;
  return text;
}

} // namespace bgfs
