// SPDX-License-Identifier: MIT
#include "drivers/filter/copy_on_read/copy_on_read.h"

#include "graph/model/graph.h"

namespace bgfs {
namespace {

constexpr option option_list[] = {
    {.name = "bottom",
     .help = "the name of the lowest node that is copied from; absent: all of the chain"},
};
constexpr option_schema copy_on_read_options{"driver 'copy-on-read'", option_list};

constexpr child_slot slots[] = {{"file", role::filtered | role::primary}};

// The part of a chain that no edit may change while a filter relies on it.
class frozen_chain {
public:
  frozen_chain() = default;
  frozen_chain(frozen_chain&&) = default;
  frozen_chain& operator=(frozen_chain&&) = delete;
  ~frozen_chain() {
    for (edge* e : edges_)
      e->thaw();
  }
  void add(edge& e) {
    e.freeze();
    edges_.push_back(&e);
  }

private:
  std::vector<edge*> edges_;
};

class copy_on_read_driver final : public driver,
                                  public readable,
                                  public prefetcher,
                                  public compressible {
public:
  copy_on_read_driver(edge& below, const node* bottom, frozen_chain chain)
      : below_(below), bottom_(bottom), chain_(std::move(chain)) {}

  [[nodiscard]] u64 length() const override { return below_.length(); }
  task<void> close() override { co_return; }

  // Copies are written also for parents that only read.
  [[nodiscard]] permissions child_permissions(const edge&, permissions parents) const override {
    using namespace permission;
    constexpr permission_set passed = consistent_read | write | resize;
    return {static_cast<permission_set>((parents.used & passed) | write_unchanged),
            static_cast<permission_set>((parents.shared & passed) | write_unchanged)};
  }

  task<void> read(u64 offset, std::span<std::byte> bytes) override {
    return serve({offset, bytes.size()}, bytes);
  }
  task<void> prefetch(byte_range range) override { return serve(range, {}); }
  task<void> write_compressed(u64 offset, std::span<const std::byte> bytes) override {
    return below_.write(offset, bytes, write_flag::compressed);
  }

private:
  struct run {
    u64 length;
    bool is_copied;
  };
  // What the child has needs no copy, and reading it no waiting for those who copy.
  task<run> find_run(byte_range range) {
    const result<block_status> own = co_await as_result(below_.child().status(range, false));
    if (!own) // it will fail again when it is copied, and say why
      co_return run{range.length, true};
    const u64 length = std::min(range.length, own->length);
    if (length == 0 || own->is_allocated)
      co_return run{length == 0 ? range.length : length, false};
    if (bottom_ == nullptr)
      co_return run{length, true};
    node* const first = below_.child().skip_filters()->next_in_chain();
    const result<block_status> above = co_await as_result(
        first->status_above({range.offset, length}, bottom_->next_in_chain(), false));
    if (!above)
      co_return run{length, true};
    if (above->length == 0) // past the end of what is below
      co_return run{length, false};
    co_return run{std::min(length, above->length), above->is_allocated};
  }

  // `into` is empty for a prefetch.
  task<void> serve(byte_range range, std::span<std::byte> into) {
    while (!range.is_empty()) {
      const run next = co_await find_run(range);
      const byte_range part{range.offset, next.length};
      const auto out = into.empty() ? into : into.first(part.length);
      if (next.is_copied) {
        co_await below_.copy_up(part, out);
      } else if (!out.empty()) {
        co_await below_.read(part.offset, out);
      }
      range = byte_range::between(part.end(), range.end());
      into = into.empty() ? into : into.subspan(part.length);
    }
  }

  edge& below_;
  const node* bottom_; // no filter; null: the whole chain. It stays below: the chain is frozen
  frozen_chain chain_;
};

edge* next_edge(const node& n) {
  return n.backing() != nullptr ? n.backing() : n.filtered_child();
}

// Finds `bottom` below `child` and freezes the way there.
result<const node*> find_bottom(const open_request& request, frozen_chain& chain) {
  const std::string& name = request.given.text("bottom");
  const std::string prefix = request.given.mark("bottom").prefix();
  const node& child = request.children[0]->child();
  const node* const bottom = request.self.owner().find(name);
  if (bottom == nullptr)
    return fail(error_kind::not_found, "{}'bottom' names '{}', which is not open", prefix, name);
  if (bottom->is_filter())
    return fail(error_kind::invalid_argument,
                "{}'bottom' names {}, which is a filter; name the image below it", prefix,
                bottom->describe());
  std::vector<edge*> way;
  const node* at = &child;
  while (at != bottom) {
    edge* const next = next_edge(*at);
    if (next == nullptr)
      return fail(error_kind::invalid_argument, "{}'bottom' names {}, which is not below {}",
                  prefix, bottom->describe(), child.describe());
    way.push_back(next);
    at = &next->child();
  }
  if (bottom == child.skip_filters())
    return fail(error_kind::invalid_argument,
                "{}'bottom' names {}, which is what is copied into; name an image below it", prefix,
                bottom->describe());
  for (edge* e : way)
    chain.add(*e);
  return bottom;
}

task<std::unique_ptr<driver>> open_copy_on_read(open_request request) {
  frozen_chain chain;
  const node* bottom = nullptr;
  if (request.given.is_set("bottom"))
    bottom = co_await find_bottom(request, chain);
  co_return std::make_unique<copy_on_read_driver>(*request.children[0], bottom, std::move(chain));
}

} // namespace

const driver_type copy_on_read_driver_type{
    .name = "copy-on-read",
    .kind = driver_kind::filter,
    .summary = "stores in its child what reads take from the child's backing chain",
    .children = slots,
    .open_options = &copy_on_read_options,
    .open = open_copy_on_read,
};

} // namespace bgfs
