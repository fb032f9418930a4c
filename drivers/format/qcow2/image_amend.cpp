// SPDX-License-Identifier: MIT
#include "drivers/format/qcow2/image_amend.h"

#include "drivers/format/common/luks1_keys.h"
#include "drivers/format/qcow2/create_encryption.h"
#include "drivers/format/qcow2/crypto_area.h"
#include "drivers/format/qcow2/image.h"
#include "graph/io/spawn.h"

#include <algorithm>

namespace bgfs::qcow2 {

namespace {

constexpr std::string_view state_choices[] = {"active", "inactive"};

constexpr option option_list[] = {
    {.name = "encrypt.state",
     .type = option_type::choice,
     .help = "active: put new-secret into a free key slot; inactive: erase key slots",
     .choices = state_choices},
    {.name = "encrypt.new-secret",
     .help = "with active: the id of the secret that opens the image from now on, too"},
    {.name = "encrypt.old-secret", .help = "with inactive: erase the slots that this secret opens"},
    {.name = "encrypt.keyslot",
     .type = option_type::integer,
     .help = "the slot to fill or to erase; absent: with active, the first that is free",
     .maximum = crypt::luks1_slots - 1},
    {.name = "encrypt.iter-time",
     .type = option_type::integer,
     .help = "with active: milliseconds of this processor that trying the new secret takes; "
             "absent: 2000",
     .minimum = 1,
     .maximum = iteration_time_max_ms},
};

std::unexpected<error> wrong_option(const options& given, std::string_view name,
                                    std::string_view why) {
  return fail(error_kind::invalid_argument, "{}'{}' {}", given.mark(name).prefix(), name, why);
}

result<> check_combination(const options& given) {
  const bool is_active = given.text("encrypt.state") == "active";
  const auto is_set = [&](std::string_view name) { return given.is_set(name); };
  if (!is_set("encrypt.state"))
    return fail(error_kind::invalid_argument,
                "nothing to change is given; 'encrypt.state' active adds a key, inactive erases");
  if (is_active && !is_set("encrypt.new-secret"))
    return wrong_option(given, "encrypt.state", "active needs 'encrypt.new-secret'");
  if (is_active && is_set("encrypt.old-secret"))
    return wrong_option(given, "encrypt.old-secret",
                        "is for erasing; to replace a key, add the new one and erase the old one");
  if (is_active)
    return {};
  for (const std::string_view name : {"encrypt.new-secret", "encrypt.iter-time"})
    if (is_set(name))
      return wrong_option(given, name, "is for 'encrypt.state' active; erasing sets no key");
  if (!is_set("encrypt.keyslot") && !is_set("encrypt.old-secret"))
    return wrong_option(given, "encrypt.state",
                        "inactive needs to know what to erase: 'encrypt.keyslot' or "
                        "'encrypt.old-secret'");
  return {};
}

} // namespace

const option_schema amend_schema{"amending images of driver 'qcow2'", option_list};

task<void> image::amend(const options& given, const secret_store* secrets, bool is_forced) {
  co_await check_combination(given);
  if (header_.encryption != encryption_method::luks)
    co_await fail(error_kind::unsupported,
                  "the image is not encrypted with LUKS: it has no key slots to change");
  if (request_.is_read_only)
    co_await fail(error_kind::permission, "the image is open read-only: its keys cannot change");
  if (file_.is_stopped())
    co_await fail(error_kind::io, "the image takes no more writes: {}", file_.stop_reason());
  const slot_change change{given, secrets, is_forced};
  const bool is_active = given.text("encrypt.state") == "active";
  const async_mutex::guard lock = co_await store_->lock().lock(); // one change at a time
  if (is_active) {
    co_await shielded(add_key(change));
  } else {
    co_await shielded(erase_keys(change));
  }
}

// The master key is not kept: the secret that opened the image opens it again.
task<void> image::add_key(slot_change change) {
  const secret_bytes* const added =
      co_await find_secret(change.secrets, change.given, "encrypt.new-secret");
  const secret_bytes* const known =
      co_await find_secret(change.secrets, request_.self->given(), "encrypt.key-secret");
  unsigned index = 0;
  while (index < crypt::luks1_slots && luks_->slots[index].is_active)
    index++;
  if (change.given.is_set("encrypt.keyslot"))
    index = static_cast<unsigned>(change.given.number("encrypt.keyslot"));
  if (index == crypt::luks1_slots)
    co_await fail(error_kind::no_space,
                  "all {} key slots are active; erase one first, with 'encrypt.state=inactive'",
                  crypt::luks1_slots);
  if (luks_->slots[index].is_active)
    co_await fail(error_kind::invalid_argument,
                  "key slot {} is active; erase it first, or leave 'encrypt.keyslot' out to use a "
                  "free one",
                  index);
  const byte_range place = co_await header_.crypto_header();
  crypto_area area(file_, place);
  const crypt::opened_slot opened = co_await crypt::open_luks1(area, *luks_, known->bytes());
  const u64 time =
      change.given.maybe_number("encrypt.iter-time").value_or(crypt::iteration_time_ms_default);
  co_await crypt::fill_slot(area, *luks_, index, opened.master_key, added->bytes(), time);
}

// The active slots that are meant. Fails if there are none.
task<std::vector<unsigned>> image::find_erased(slot_change change) {
  std::vector<unsigned> found;
  const bool has_index = change.given.is_set("encrypt.keyslot");
  const auto index = static_cast<unsigned>(change.given.number("encrypt.keyslot"));
  if (has_index && !luks_->slots[index].is_active)
    co_await fail(error_kind::invalid_argument, "key slot {} is erased already", index);
  if (!change.given.is_set("encrypt.old-secret"))
    co_return std::vector<unsigned>{index};
  const secret_bytes* const old =
      co_await find_secret(change.secrets, change.given, "encrypt.old-secret");
  const byte_range place = co_await header_.crypto_header();
  crypto_area area(file_, place);
  for (unsigned i = 0; i < crypt::luks1_slots; i++) {
    if (!luks_->slots[i].is_active || (has_index && i != index))
      continue;
    const bool is_opened = co_await crypt::opens_slot(area, *luks_, i, old->bytes());
    if (is_opened)
      found.push_back(i);
  }
  if (found.empty())
    co_await fail(error_kind::invalid_argument, "secret '{}' opens {}: nothing was erased",
                  change.given.text("encrypt.old-secret"),
                  has_index ? fmt::format("key slot {} not", index)
                            : std::string("none of the active key slots"));
  co_return found;
}

task<void> image::erase_keys(slot_change change) {
  const std::vector<unsigned> erased = co_await find_erased(change);
  if (erased.size() == luks_->active_count() && !change.is_forced)
    co_await fail(error_kind::permission,
                  "that would erase the last key: nothing could ever decrypt the image again; add "
                  "another key first, or give --force to destroy its content so");
  const byte_range place = co_await header_.crypto_header();
  crypto_area area(file_, place);
  for (const unsigned index : erased)
    co_await crypt::erase_slot(area, *luks_, index);
}

} // namespace bgfs::qcow2
