// SPDX-License-Identifier: MIT
#include "drivers/format/raw/raw.h"

#include "graph/model/edge.h"
#include "graph/model/node.h"
#include "graph/model/permission_plan.h"

namespace bgfs {
namespace {

constexpr option option_list[] = {
    {.name = "offset",
     .type = option_type::size,
     .help = "where the disk begins in the file; a multiple of 512",
     .default_text = "0",
     .is_mutable = true,
     .is_strong = true,
     .maximum = device_length_max,
     .multiple_of = 512},
    {.name = "size",
     .type = option_type::size,
     .help = "the length of the disk, a multiple of 512; absent: to the end of the file",
     .is_mutable = true,
     .is_strong = true,
     .maximum = device_length_max,
     .multiple_of = 512},
};
constexpr option_schema raw_options{"driver 'raw'", option_list};

constexpr std::string_view preallocation_choices[] = {"off", "falloc", "full"};
constexpr option create_option_list[] = {
    {.name = "preallocation",
     .type = option_type::choice,
     .help = "reserve the space (falloc), or write zeroes to all of it (full)",
     .default_text = "off",
     .choices = preallocation_choices},
};
constexpr option_schema raw_create_options{"driver 'raw'", create_option_list};

constexpr child_slot slots[] = {{"file", role::filtered | role::primary}};

struct window {
  u64 offset = 0;
  std::optional<u64> length;
  [[nodiscard]] bool is_whole() const { return offset == 0 && !length; }
};

result<> check_zones(const window& w, const node& child);
result<window> parse_window(const options& given, const edge& below);

class raw_driver final : public driver,
                         public writable,
                         public copyable,
                         public mappable,
                         public zeroable,
                         public discardable,
                         public resizable,
                         public reopenable,
                         public transparent {
public:
  raw_driver(edge& below, window w) : below_(below), window_(w) {}

  [[nodiscard]] u64 length() const override {
    if (window_.length)
      return *window_.length;
    const u64 whole = below_.length();
    return whole > window_.offset ? whole - window_.offset : 0;
  }
  task<void> close() override { co_return; }
  void refine_limits(block_limits& limits) const override {
    limits.zones = below_.child().limits().zones;
  }
  [[nodiscard]] result<> check_zoned_child(const node& child) const override {
    return check_zones(coming(), child);
  }
  [[nodiscard]] bool grows_by_writing() const override { return !window_.length; }

  // A window is data of a larger whole: others must not move its end. But raw itself never needs
  // more than its parents do, so that many windows can share one file.
  [[nodiscard]] permissions child_permissions(const edge& child,
                                              permissions parents) const override {
    if (coming().is_whole())
      return driver::child_permissions(child, parents);
    permissions p =
        permissions_by_role(role::data | role::primary, child.parent()->is_read_only(), parents);
    p.used &= parents.used;
    return p;
  }

  [[nodiscard]] result<shown> shows() const override {
    if (!window_.is_whole())
      return fail(error_kind::unsupported, "its 'offset' and 'size' show a part of the file");
    return shown{.child = &below_};
  }

  task<void> prepare_reopen(const options& given, const node_options&) override {
    BGFS_ASSERT(!next_, "one reopen at a time");
    next_ = co_await parse_window(given, below_);
  }
  void commit_reopen() noexcept override { window_ = *std::exchange(next_, std::nullopt); }
  void abort_reopen() noexcept override { next_.reset(); }

  task<void> write(u64 offset, std::span<const std::byte> bytes, write_flags flags) override {
    return below_.child().listener() == nullptr
               ? below_.write(window_.offset + offset, bytes, flags)
               : write_told(window_.offset + offset, bytes, flags);
  }
  [[nodiscard]] write_flags supported_write_flags() const override {
    return write_flag::durable | write_flag::unchanged;
  }
  task<void> copy_from(bytes_of_file source, u64 to_offset) override {
    return below_.copy_from(source, window_.offset + to_offset);
  }
  task<extent> map(byte_range range) override { co_return at(range); }
  [[nodiscard]] std::optional<extent> try_map(byte_range range) override { return at(range); }
  task<void> write_zeroes(byte_range range, write_flags flags) override {
    return below_.write_zeroes({window_.offset + range.offset, range.length}, flags);
  }
  [[nodiscard]] write_flags supported_zero_flags() const override {
    return write_flag::durable | write_flag::may_unmap | write_flag::no_fallback;
  }
  task<void> discard(byte_range range) override {
    return below_.discard({window_.offset + range.offset, range.length});
  }
  task<void> truncate(u64 length, truncate_options options) override {
    if (window_.length)
      co_await fail(error_kind::unsupported,
                    "cannot change the length of a raw node that has a 'size'");
    if (length > device_length_max - window_.offset)
      co_await fail(error_kind::out_of_range, "the file would be longer than {} bytes",
                    device_length_max);
    co_await below_.truncate(window_.offset + length, options);
  }

private:
  task<void> write_told(u64 at, std::span<const std::byte> bytes, write_flags flags) {
    co_await below_.child().tell(debug_event::write_aio);
    co_await below_.write(at, bytes, flags);
  }
  // Permissions are planned for what comes after a reopen.
  [[nodiscard]] const window& coming() const { return next_ ? *next_ : window_; }
  [[nodiscard]] extent at(byte_range range) const {
    return {.length = range.length,
            .kind = extent_kind::data,
            .where = &below_,
            .offset = window_.offset + range.offset,
            .is_passthrough = true,
            .may_overwrite = true};
  }

  edge& below_;
  window window_;
  std::optional<window> next_; // between the preparation of a reopen and its end
};

// A part of a zoned device would be one whose zones are cut.
result<> check_zones(const window& w, const node& child) {
  const zone_model model = child.limits().zones.model;
  if (w.is_whole() || model == zone_model::none)
    return {};
  return fail(error_kind::unsupported,
              "'offset' and 'size' cannot cut a part out of {}, which is a zoned device ({}); "
              "leave them out to use all of it",
              child.describe(), to_string(model));
}

result<window> parse_window(const options& given, const edge& below) {
  const u64 file_length = below.length();
  window w{given.number("offset"), given.maybe_number("size")};
  if (w.offset > file_length)
    return fail(error_kind::invalid_argument,
                "{}'offset' is {}, past the end of the file at {} bytes",
                given.mark("offset").prefix(), w.offset, file_length);
  if (w.length && *w.length > file_length - w.offset)
    return fail(error_kind::invalid_argument,
                "{}'offset' {} and 'size' {} reach past the end of the file at {} bytes",
                given.mark("size").prefix(), w.offset, *w.length, file_length);
  BGFS_CHECK(check_zones(w, below.child()));
  return w;
}

task<std::unique_ptr<driver>> open_raw(open_request request) {
  edge& below = *request.children[0];
  const window w = co_await parse_window(request.given, below);
  co_return std::make_unique<raw_driver>(below, w);
}

std::optional<u64> length_of(std::span<const std::byte>, u64 child_length, const options& given) {
  const u64 offset = given.number("offset");
  const std::optional<u64> length = given.maybe_number("size");
  if (offset > child_length || length.value_or(0) > child_length - offset)
    return std::nullopt; // it will not open
  return length.value_or(child_length - offset);
}

task<void> create_raw(create_request request) {
  truncate_options options;
  const std::string& wanted = request.given.text("preallocation");
  if (wanted == "falloc")
    options.prealloc = preallocation::falloc;
  if (wanted == "full")
    options.prealloc = preallocation::full;
  co_await request.file->truncate(request.length, options);
}

// Nothing but the disk, in whole sectors, holes included: their place may be needed at any time.
result<measured_space> measure_raw(const measure_request& request) {
  const auto length = checked_align_up(request.length, 512);
  if (!length || *length > device_length_max)
    return fail(error_kind::invalid_argument, "a disk of {} bytes is longer than {}, the most",
                request.length, device_length_max);
  return measured_space{.data = *length, .unit = 512, .takes_all = true};
}

} // namespace

const driver_type raw_driver_type{
    .name = "raw",
    .kind = driver_kind::format,
    .summary = "the bytes of the file as they are, or a window of them",
    .children = slots,
    .open_options = &raw_options,
    .create_options = &raw_create_options,
    .supports_zoned_children = true,
    .open = open_raw,
    .create = create_raw,
    .measure = measure_raw,
    .length_of = length_of,
};

} // namespace bgfs
