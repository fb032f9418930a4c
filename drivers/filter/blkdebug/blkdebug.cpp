// SPDX-License-Identifier: MIT
#include "drivers/filter/blkdebug/blkdebug.h"

#include "drivers/filter/blkdebug/rule_options.h"
#include "drivers/filter/blkdebug/suspensions.h"
#include "graph/io/offload.h"
#include "graph/io/sleep.h"
#include "graph/model/graph.h"
#include "graph/model/naming.h"
#include "graph/model/permission_plan.h"

#include <bit>
#include <filesystem>

namespace bgfs {
namespace {

using namespace blkdebug;

// Requests are split in whole blocks below this.
constexpr u64 limit_max = (u64{1} << 31) - 1;

constexpr std::string_view permission_names[] = {"consistent-read", "write", "write-unchanged",
                                                 "resize"};

constexpr option option_list[] = {
    {.name = "config",
     .help =
         "a file of rules, sections [inject-error] and [set-state]; they come before the others",
     .is_strong = true,
     .is_host_path = true},
    {.name = "inject-error",
     .type = option_type::groups,
     .help = "which requests fail, or wait",
     .is_strong = true,
     .members = &inject_options},
    {.name = "set-state",
     .type = option_type::groups,
     .help = "which events change the state, which is 1 at first",
     .is_strong = true,
     .members = &state_options},
    {.name = "align",
     .type = option_type::size,
     .help = "requests are whole blocks of this length, a power of two; absent: as the child's",
     .is_strong = true,
     .maximum = alignment_max},
    {.name = "max-transfer",
     .type = option_type::size,
     .help = "no read or write is longer; whole blocks; absent: as the child's",
     .is_strong = true,
     .maximum = limit_max},
    {.name = "opt-write-zero",
     .type = option_type::size,
     .help = "zero writes are cut where multiples of it end; whole blocks",
     .is_strong = true,
     .maximum = limit_max},
    {.name = "max-write-zero",
     .type = option_type::size,
     .help = "no zero write is longer; whole blocks",
     .is_strong = true,
     .maximum = limit_max},
    {.name = "opt-discard",
     .type = option_type::size,
     .help = "discards are cut where multiples of it end; whole blocks",
     .is_strong = true,
     .maximum = limit_max},
    {.name = "max-discard",
     .type = option_type::size,
     .help = "no discard is longer; whole blocks",
     .is_strong = true,
     .maximum = limit_max},
    {.name = "take-child-perms",
     .type = option_type::choices,
     .help = "permissions on the child beside those that its users need",
     .choices = permission_names},
    {.name = "unshare-child-perms",
     .type = option_type::choices,
     .help = "permissions on the child that others may not have",
     .choices = permission_names},
};
constexpr option_schema blkdebug_options{"driver 'blkdebug'", option_list};

constexpr child_slot slots[] = {{"image", role::filtered | role::primary}};

permission_set permissions_of(std::span<const std::string> names) {
  permission_set all = 0;
  for (const std::string& name : names)
    for (std::size_t i = 0; i < std::size(permission_names); i++)
      if (permission_names[i] == name)
        all |= static_cast<permission_set>(1u << i); // in the order of the bits
  return all;
}

class blkdebug_driver final : public driver,
                              public readable,
                              public writable,
                              public mappable,
                              public zeroable,
                              public discardable,
                              public compressible,
                              public flushable,
                              public reopenable,
                              public debuggable {
public:
  blkdebug_driver(const open_request& request, rule_list rules)
      : self_(request.self), below_(*request.children[0]), given_(request.given),
        rules_(std::move(rules)), stops_([this](suspensions::change what, const auto& at) {
          emit(what == suspensions::change::suspended ? "BLKDEBUG_SUSPENDED" : "BLKDEBUG_RESUMED",
               at);
        }) {
    rules_.process(debug_event::none);
  }

  [[nodiscard]] u64 length() const override { return below_.length(); }
  task<void> close() override { co_return; }

  void refine_limits(block_limits& limits) const override {
    limits.request_alignment =
        std::max(limits.request_alignment, static_cast<u32>(given_.number("align")));
    const auto set = [this](auto& limit, std::string_view name) {
      if (const u64 wanted = given_.number(name); wanted != 0)
        limit = static_cast<std::remove_reference_t<decltype(limit)>>(wanted);
    };
    set(limits.max_transfer, "max-transfer");
    set(limits.write_zeroes_alignment, "opt-write-zero");
    set(limits.max_write_zeroes, "max-write-zero");
    set(limits.discard_alignment, "opt-discard");
    set(limits.max_discard, "max-discard");
  }
  [[nodiscard]] permissions child_permissions(const edge& child,
                                              permissions parents) const override {
    permissions p = driver::child_permissions(child, parents);
    p.used |= permissions_of(given_.texts("take-child-perms"));
    p.shared &= static_cast<permission_set>(~permissions_of(given_.texts("unshare-child-perms")));
    return p;
  }
  [[nodiscard]] std::string exact_filename() const override {
    for (const option& o : option_list)
      if (o.name != "config" && given_.is_set(o.name))
        return {};
    const std::string image = bgfs::exact_filename(below_.child());
    const std::string& config = given_.text("config");
    if (image.empty() || config.contains(':'))
      return {};
    return fmt::format("blkdebug:{}:{}",
                       config.empty() ? "" : std::filesystem::absolute(config).string(), image);
  }
  [[nodiscard]] value statistics_specific() const override {
    value v;
    v.set("driver", "blkdebug");
    v.set("injected-errors", injected_errors_);
    v.set("suspended-requests", suspended_requests_);
    return v;
  }

  // --- requests ------------------------------------------------------------------------------

  task<void> read(u64 offset, std::span<std::byte> bytes) override {
    co_await meet(request_kind::read, {offset, bytes.size()});
    co_await below_.read(offset, bytes);
  }
  task<void> write(u64 offset, std::span<const std::byte> bytes, write_flags flags) override {
    co_await meet(request_kind::write, {offset, bytes.size()});
    co_await below_.write(offset, bytes, flags);
  }
  [[nodiscard]] write_flags supported_write_flags() const override {
    return write_flag::durable | write_flag::unchanged;
  }
  task<void> write_compressed(u64 offset, std::span<const std::byte> bytes) override {
    co_await meet(request_kind::write, {offset, bytes.size()});
    co_await below_.write(offset, bytes, write_flag::compressed);
  }
  task<void> write_zeroes(byte_range range, write_flags flags) override {
    co_await meet(request_kind::write_zeroes, range);
    co_await below_.write_zeroes(range, flags);
  }
  [[nodiscard]] write_flags supported_zero_flags() const override {
    return write_flag::durable | write_flag::unchanged | write_flag::may_unmap |
           write_flag::no_fallback;
  }
  task<void> discard(byte_range range) override {
    co_await meet(request_kind::discard, range);
    co_await below_.discard(range);
  }
  task<void> write_back() override { co_return; }
  // The child is flushed after it.
  task<void> flush_to_disk() override { co_await meet(request_kind::flush, {}); }
  // Asked only for where bytes are: a filter that reads is asked to read (node::read). Never at
  // once, so that no lease passes this node.
  task<extent> map(byte_range range) override {
    co_await meet(request_kind::block_status, range);
    co_return extent{.length = range.length,
                     .kind = extent_kind::data,
                     .where = &below_,
                     .offset = range.offset,
                     .is_passthrough = true};
  }
  [[nodiscard]] std::optional<extent> try_map(byte_range) override { return std::nullopt; }

  // Other rules are another node: only what every node has may change.
  task<void> prepare_reopen(const options& given, const node_options&) override {
    co_await check_only_mutable_change(blkdebug_options, given_, given);
  }
  void commit_reopen() noexcept override {}
  void abort_reopen() noexcept override {}

  // --- events --------------------------------------------------------------------------------

  task<void> happened(debug_event event) override {
    rules_.process(event);
    if (stops_.has_breakpoint(event))
      co_await stops_.pass(event);
  }
  void set_breakpoint(debug_breakpoint wanted) override { stops_.set(std::move(wanted)); }
  bool remove_breakpoint(std::string_view tag) override { return stops_.remove(tag); }
  bool resume(std::string_view tag) override { return stops_.resume(tag); }
  [[nodiscard]] bool is_suspended(std::string_view tag) const override {
    return stops_.is_suspended(tag);
  }
  [[nodiscard]] std::shared_ptr<const void> let_all_pass() override {
    return stops_.let_all_pass();
  }
  [[nodiscard]] u64 state() const override { return rules_.state(); }
  [[nodiscard]] std::vector<std::string> describe_rules() const override {
    return rules_.describe();
  }
  [[nodiscard]] std::vector<debug_breakpoint> breakpoints() const override {
    return stops_.breakpoints();
  }
  [[nodiscard]] std::vector<debug_breakpoint> suspended() const override {
    return stops_.suspended();
  }

private:
  // Waits, and fails, as the rules want it.
  task<void> meet(request_kind kind, byte_range range) {
    const std::optional<rule_engine::injection> met = rules_.take(kind, range);
    if (!met)
      co_return;
    if (met->delay_ns != 0 || !met->is_immediate)
      co_await sleep_for(std::chrono::nanoseconds(met->delay_ns));
    if (met->os_error == 0)
      co_return;
    injected_errors_++;
    co_await fail_errno(met->os_error, "a rule of node '{}' makes a {} of {} bytes at {:#x} fail",
                        self_.name(), request_kind_names[static_cast<std::size_t>(kind)],
                        range.length, range.offset);
  }

  void emit(std::string_view what, const debug_breakpoint& at) {
    if (what == "BLKDEBUG_SUSPENDED")
      suspended_requests_++;
    value data;
    data.set("node-name", self_.name());
    data.set("event", to_string(at.event));
    data.set("tag", at.tag);
    self_.owner().emit(what, std::move(data));
  }

  node& self_;
  edge& below_;
  options given_;
  rule_engine rules_;
  suspensions stops_;
  u64 injected_errors_ = 0;
  u64 suspended_requests_ = 0;
};

result<> check_limits(const options& given, const edge& below) {
  const u64 align = given.number("align");
  if (align != 0 && !std::has_single_bit(align))
    return fail(error_kind::invalid_argument,
                "{}'align' is {}, which is no power of two (512, 4096, ...)",
                given.mark("align").prefix(), align);
  const u64 block = std::max<u64>({align, below.child().limits().request_alignment, 1});
  for (const std::string_view name :
       {"max-transfer", "opt-write-zero", "max-write-zero", "opt-discard", "max-discard"})
    if (const u64 wanted = given.number(name); !is_aligned(wanted, block))
      return fail(error_kind::invalid_argument,
                  "{}'{}' is {}, which is no multiple of the {} bytes that requests are aligned to",
                  given.mark(name).prefix(), name, wanted, block);
  return {};
}

task<std::unique_ptr<driver>> open_blkdebug(open_request request) {
  co_await check_limits(request.given, *request.children[0]);
  rule_list rules;
  if (const std::string& config = request.given.text("config"); !config.empty()) {
    result<rule_list> read = co_await offload_brief([path = config] { return read_rules(path); });
    rules = co_await std::move(read);
  }
  for (const options& rule : request.given.groups("inject-error"))
    rules.injects.push_back(parse_inject(rule));
  for (const options& rule : request.given.groups("set-state"))
    rules.states.push_back(parse_state(rule));
  co_return std::make_unique<blkdebug_driver>(request, std::move(rules));
}

// "CONFIG:IMAGE"; without a file of rules ":IMAGE".
result<value> parse_blkdebug_name(std::string_view rest) {
  const auto colon = rest.find(':');
  if (colon == std::string_view::npos)
    return fail(error_kind::invalid_argument,
                "protocol 'blkdebug' takes a file of rules, or nothing, and an image: "
                "blkdebug:CONFIG:IMAGE or blkdebug::IMAGE");
  value v = value::map();
  if (colon != 0)
    v.set("config", rest.substr(0, colon));
  v.set("image", rest.substr(colon + 1));
  return v;
}

} // namespace

const driver_type blkdebug_driver_type{
    .name = "blkdebug",
    .kind = driver_kind::filter,
    .summary = "makes chosen requests fail or wait, for tests of what is above it",
    .children = slots,
    .open_options = &blkdebug_options,
    .open = open_blkdebug,
    .protocol_prefix = "blkdebug",
    .parse_name = parse_blkdebug_name,
};

} // namespace bgfs
