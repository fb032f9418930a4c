// SPDX-License-Identifier: MIT
// Changing the key slots of an image that is encrypted with LUKS (reference section 3.7).

#include "drivers/format/common/luks1_keys.h"
#include "drivers/format/qcow2/create_encryption.h"
#include "drivers/format/qcow2/crypto_area.h"
#include "drivers/format/qcow2/image.h"
#include "graph/io/spawn.h"

#include <algorithm>

namespace bgfs::qcow2 {

task<void> image::change_keys(const amend_request& request) {
  const slot_change change{request.given, request.secrets, request.is_forced};
  const async_mutex::guard lock = co_await store_->lock().lock(); // one change at a time
  if (request.given.text("encrypt.state") == "active") {
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
