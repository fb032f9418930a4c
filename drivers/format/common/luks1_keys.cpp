// SPDX-License-Identifier: MIT
#include "drivers/format/common/luks1_keys.h"

#include "drivers/format/common/key_derivation.h"
#include "drivers/format/common/sector_cipher.h"
#include "graph/base/assert.h"
#include "graph/io/offload.h"

#include <algorithm>

namespace bgfs::crypt {

namespace {

using digest_bytes = std::array<std::byte, luks1_digest_length>;

result<digest_bytes> digest_of(const luks1_header& h, std::span<const std::byte> key) {
  digest_bytes made{};
  BGFS_CHECK(pbkdf2(h.hash, key, h.digest_salt, h.digest_iterations, made));
  return made;
}

// Spec, section 4.1. The key that the slot holds if the passphrase is right, else nonsense; empty
// if that shows: `material` is what lies on the disk, and is overwritten.
result<secret_bytes> recover_key(const luks1_header& h, const luks1_slot& slot,
                                 std::span<const std::byte> passphrase,
                                 std::span<std::byte> material) {
  secret_bytes slot_key(h.cipher.key_bytes());
  BGFS_CHECK(pbkdf2(h.hash, passphrase, slot.salt, slot.iterations, slot_key.bytes()));
  BGFS_TRY(const auto cipher, sector_cipher::create(h.cipher, slot_key.bytes()));
  BGFS_CHECK(cipher->decrypt_here(0, material));
  BGFS_TRY(secret_bytes candidate,
           af_merge(h.hash, material.first(h.material_length(slot)), slot.stripes));
  BGFS_TRY(const digest_bytes found, digest_of(h, candidate.bytes()));
  if (!is_equal_secretly(found, h.digest))
    return secret_bytes();
  return candidate;
}

task<secret_bytes> try_slot(luks1_area& area, const luks1_header& h, unsigned index,
                            std::span<const std::byte> passphrase) {
  const luks1_slot& slot = h.slots[index];
  secret_bytes material(h.place_of(slot).length);
  co_await context(area.read(slot.material_at, material.bytes()),
                   "reading the key material of slot {}", index);
  result<secret_bytes> key =
      co_await offload([&] { return recover_key(h, slot, passphrase, material.bytes()); });
  co_return co_await std::move(key);
}

struct sealed_slot {
  luks1_slot entry;
  secret_bytes material;
};

result<sealed_slot> seal(const luks1_header& h, const luks1_slot& place,
                         std::span<const std::byte> key, std::span<const std::byte> passphrase,
                         u64 iteration_time_ms) {
  sealed_slot made{place, secret_bytes(h.place_of(place).length)};
  made.entry.is_active = true;
  BGFS_TRY(made.entry.iterations,
           measure_iterations(h.hash, h.cipher.key_bytes(), iteration_time_ms));
  BGFS_CHECK(fill_random(made.entry.salt));
  secret_bytes slot_key(h.cipher.key_bytes());
  BGFS_CHECK(pbkdf2(h.hash, passphrase, made.entry.salt, made.entry.iterations, slot_key.bytes()));
  BGFS_CHECK(
      af_split(h.hash, key, place.stripes, made.material.bytes().first(h.material_length(place))));
  BGFS_TRY(const auto cipher, sector_cipher::create(h.cipher, slot_key.bytes()));
  BGFS_CHECK(cipher->encrypt_here(0, made.material.bytes(), made.material.bytes()));
  return made;
}

// Iterations that would not be accepted when the header is read would lock its owner out.
result<> check_iterations(const luks1_header& h) {
  u64 sum = h.digest_iterations;
  for (const luks1_slot& slot : h.slots)
    sum += slot.is_active ? slot.iterations : 0;
  if (sum <= luks1_iterations_max)
    return {};
  return fail(error_kind::invalid_argument,
              "with this iteration time all keys together would need {} iterations, more than the "
              "{} that are accepted when the image is opened; use a shorter one",
              sum, luks1_iterations_max);
}

result<std::string> make_uuid() {
  std::array<std::byte, 16> bytes{};
  BGFS_CHECK(fill_random(bytes));
  bytes[6] = (bytes[6] & std::byte{0x0f}) | std::byte{0x40}; // RFC 9562: random,
  bytes[8] = (bytes[8] & std::byte{0x3f}) | std::byte{0x80}; // of the usual variant
  std::string text;
  for (std::size_t i = 0; i < bytes.size(); i++) {
    const bool is_group = i == 4 || i == 6 || i == 8 || i == 10;
    text += fmt::format("{}{:02x}", is_group ? "-" : "", std::to_integer<unsigned>(bytes[i]));
  }
  return text;
}

// What the digest of a new master key takes.
result<> make_digest(luks1_header& h, const secret_bytes& key, u64 iteration_time_ms) {
  BGFS_TRY(h.uuid, make_uuid());
  BGFS_CHECK(fill_random(h.digest_salt));
  BGFS_TRY(h.digest_iterations,
           measure_iterations(h.hash, luks1_digest_length, iteration_time_ms / 8));
  BGFS_TRY(h.digest, digest_of(h, key.bytes()));
  return {};
}

u64 entry_at(unsigned index) {
  return luks1_slots_at + index * sizeof(luks1_slot_wire);
}

task<void> write_entry(luks1_area& area, unsigned index, luks1_slot slot) {
  const luks1_slot_wire wire = serialise_slot(slot);
  std::array<std::byte, sizeof wire> bytes;
  store(std::span<std::byte>(bytes), wire);
  co_await context(area.write(entry_at(index), bytes), "writing key slot {}", index);
  co_await area.flush();
}

} // namespace

task<opened_slot> open_luks1(luks1_area& area, const luks1_header& h,
                             std::span<const std::byte> passphrase) {
  for (unsigned i = 0; i < luks1_slots; i++) {
    if (!h.slots[i].is_active)
      continue;
    secret_bytes key = co_await try_slot(area, h, i, passphrase);
    if (key.length() != 0)
      co_return opened_slot{i, std::move(key)};
  }
  const bool ends_with_newline = !passphrase.empty() && passphrase.back() == std::byte{'\n'};
  if (h.active_count() == 0)
    co_await fail(error_kind::permission,
                  "all key slots of the LUKS header are erased: nothing can decrypt the image any "
                  "more");
  co_await fail(error_kind::permission, "the secret opens none of the {} active key slots{}",
                h.active_count(),
                ends_with_newline ? "; it ends with a line break, which is a part of it" : "");
  co_return opened_slot{};
}

task<bool> opens_slot(luks1_area& area, const luks1_header& h, unsigned index,
                      std::span<const std::byte> passphrase) {
  const secret_bytes key = co_await try_slot(area, h, index, passphrase);
  co_return key.length() != 0;
}

task<luks1_header> create_luks1(luks1_area& area, luks1_header layout,
                                std::span<const std::byte> passphrase, u64 iteration_time_ms) {
  luks1_header h = std::move(layout);
  secret_bytes key(h.cipher.key_bytes());
  co_await fill_random(key.bytes());
  result<> digested = co_await offload([&] { return make_digest(h, key, iteration_time_ms); });
  co_await std::move(digested);
  result<sealed_slot> sealed = co_await offload(
      [&] { return seal(h, h.slots[0], key.bytes(), passphrase, iteration_time_ms); });
  const sealed_slot first = co_await std::move(sealed);
  h.slots[0] = first.entry;
  co_await check_iterations(h);
  co_await context(area.write(first.entry.material_at, first.material.bytes()),
                   "writing the key material of slot 0");
  co_await area.flush();
  const luks1_header_wire wire = serialise_luks1(h);
  std::array<std::byte, sizeof wire> bytes;
  store(std::span<std::byte>(bytes), wire);
  co_await context(area.write(0, bytes), "writing the LUKS header");
  co_await area.flush();
  co_return h;
}

task<void> fill_slot(luks1_area& area, luks1_header& h, unsigned index, const secret_bytes& key,
                     std::span<const std::byte> passphrase, u64 iteration_time_ms) {
  BGFS_ASSERT(!h.slots[index].is_active, "only an inactive slot is filled");
  luks1_slot place = h.slots[index];
  place.stripes = std::min(place.stripes, luks1_stripes);
  result<sealed_slot> sealed =
      co_await offload([&] { return seal(h, place, key.bytes(), passphrase, iteration_time_ms); });
  const sealed_slot made = co_await std::move(sealed);
  luks1_header after = h;
  after.slots[index] = made.entry;
  co_await check_iterations(after);
  co_await context(area.write(made.entry.material_at, made.material.bytes()),
                   "writing the key material of slot {}", index);
  co_await area.flush();
  luks1_slot entry = made.entry;
  entry.is_active = false;
  co_await write_entry(area, index, entry);
  std::array<std::byte, sizeof(be32)> word;
  store(std::span<std::byte>(word), serialise_slot(made.entry).state);
  co_await context(area.write(entry_at(index), word), "activating key slot {}", index);
  co_await area.flush();
  h.slots[index] = made.entry;
}

// Once is what disks of today need; what a file system or a flash disk keeps elsewhere no
// overwriting reaches.
task<void> erase_slot(luks1_area& area, luks1_header& h, unsigned index) {
  luks1_slot entry = h.slots[index];
  std::vector<std::byte> noise(h.place_of(entry).length);
  co_await fill_random(noise);
  co_await context(area.write(entry.material_at, noise), "erasing the key material of slot {}",
                   index);
  co_await area.flush();
  entry.is_active = false;
  entry.iterations = 0;
  entry.salt.fill(std::byte{0});
  co_await write_entry(area, index, entry);
  h.slots[index] = entry;
}

} // namespace bgfs::crypt
