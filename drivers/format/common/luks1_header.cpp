// SPDX-License-Identifier: MIT
#include "drivers/format/common/luks1_header.h"

#include <algorithm>

namespace bgfs::crypt {

namespace {

constexpr std::array<std::byte, 6> magic = {std::byte{'L'}, std::byte{'U'},  std::byte{'K'},
                                            std::byte{'S'}, std::byte{0xba}, std::byte{0xbe}};
constexpr u32 state_active = 0x00ac71f3;
constexpr u32 state_inactive = 0x0000dead;
constexpr u64 sector = 512;

template<std::size_t Length>
std::string text_of(const std::array<char, Length>& field) {
  return {field.begin(), std::ranges::find(field, '\0')};
}

template<std::size_t Length>
void store_text(std::array<char, Length>& field, std::string_view text) {
  field.fill('\0');
  std::ranges::copy(text.substr(0, Length - 1), field.begin());
}

result<> check_iterations(const luks1_header& h) {
  u64 sum = h.digest_iterations;
  if (h.digest_iterations == 0)
    return fail(error_kind::corrupt_image,
                "the LUKS header says that the digest of its key takes 0 iterations; it is "
                "corrupt");
  for (const luks1_slot& slot : h.slots)
    sum += slot.is_active ? slot.iterations : 0;
  if (sum > luks1_iterations_max)
    return fail(error_kind::unsupported,
                "the LUKS header asks for {} iterations to try all of its keys, more than {}; it "
                "is corrupt, or made to keep whoever opens it busy",
                sum, luks1_iterations_max);
  return {};
}

result<luks1_slot> parse_slot(const luks1_slot_wire& wire, unsigned index) {
  luks1_slot slot;
  if (wire.state != state_active && wire.state != state_inactive)
    return fail(error_kind::corrupt_image,
                "key slot {} of the LUKS header is neither active ({:#010x}) nor inactive "
                "({:#010x}), but {:#010x}; it is corrupt",
                index, state_active, state_inactive, wire.state.get());
  slot.is_active = wire.state == state_active;
  slot.iterations = wire.iterations;
  slot.salt = wire.salt;
  slot.material_at = u64{wire.material_sector} * sector;
  slot.stripes = wire.stripes;
  if (slot.is_active && slot.iterations == 0)
    return fail(error_kind::corrupt_image,
                "active key slot {} of the LUKS header has 0 iterations; it is corrupt", index);
  if (slot.stripes == 0 || slot.stripes > luks1_stripes_max)
    return fail(error_kind::corrupt_image,
                "key slot {} of the LUKS header has {} stripes; possible are 1 to {}; it is "
                "corrupt",
                index, slot.stripes, luks1_stripes_max);
  return slot;
}

// Slots lie behind the header and apart, so that writing one harms nothing else.
result<> check_places(const luks1_header& h, u64 area_length) {
  for (unsigned i = 0; i < luks1_slots; i++) {
    const luks1_slot& slot = h.slots[i];
    const byte_range place = h.place_of(slot);
    if (place.offset < luks1_header_length)
      return fail(error_kind::corrupt_image,
                  "the key material of slot {} at {:#x} overlaps the LUKS header, which ends at "
                  "{:#x}; it is corrupt",
                  i, place.offset, luks1_header_length);
    if (place.end() > area_length)
      return fail(error_kind::corrupt_image,
                  "the key material of slot {} at {:#x} of {:#x} bytes reaches beyond the end of "
                  "the LUKS header area at {:#x}; it is corrupt",
                  i, place.offset, place.length, area_length);
    for (unsigned j = 0; j < i; j++) {
      const byte_range other = h.place_of(h.slots[j]);
      if (place.overlaps(other))
        return fail(error_kind::corrupt_image,
                    "the key material of slots {} at {:#x} and {} at {:#x} of the LUKS header "
                    "overlap; it is corrupt",
                    j, other.offset, i, place.offset);
    }
  }
  return {};
}

} // namespace

unsigned luks1_header::active_count() const {
  return static_cast<unsigned>(std::ranges::count(slots, true, &luks1_slot::is_active));
}

result<luks1_header> parse_luks1(std::span<const std::byte> bytes, u64 area_length) {
  if (bytes.size() < luks1_header_length || area_length < luks1_header_length)
    return fail(error_kind::corrupt_image,
                "there are {} bytes where a LUKS header has {}; it is truncated",
                std::min<u64>(bytes.size(), area_length), luks1_header_length);
  const auto wire = load<luks1_header_wire>(bytes);
  if (wire.magic != magic)
    return fail(error_kind::corrupt_image,
                "there is no LUKS header: it does not begin with 'LUKS\\xba\\xbe'");
  if (wire.version != 1)
    return fail(error_kind::unsupported,
                "the LUKS header is of version {}; only version 1 is known here",
                wire.version.get());
  luks1_header h;
  BGFS_TRY(h.cipher, context(parse_cipher(text_of(wire.cipher_name), text_of(wire.cipher_mode),
                                          wire.key_bytes),
                             "the LUKS header"));
  const std::string hash_name = text_of(wire.hash);
  const auto hash = find_hash(hash_name);
  if (!hash)
    return fail(error_kind::unsupported,
                "the LUKS header uses the hash '{}', which is not available here",
                printable(hash_name));
  h.hash = *hash;
  h.payload_at = u64{wire.payload_sector} * sector;
  h.digest = wire.digest;
  h.digest_salt = wire.digest_salt;
  h.digest_iterations = wire.digest_iterations;
  h.uuid = printable(text_of(wire.uuid)).substr(0, wire.uuid.size() - 1);
  for (unsigned i = 0; i < luks1_slots; i++) {
    BGFS_TRY(h.slots[i], parse_slot(wire.slots[i], i));
  }
  BGFS_CHECK(check_iterations(h));
  BGFS_CHECK(check_places(h, area_length));
  return h;
}

luks1_slot_wire serialise_slot(const luks1_slot& slot) {
  luks1_slot_wire wire;
  wire.state = slot.is_active ? state_active : state_inactive;
  wire.iterations = slot.iterations;
  wire.salt = slot.salt;
  wire.material_sector = static_cast<u32>(slot.material_at / sector);
  wire.stripes = slot.stripes;
  return wire;
}

luks1_header_wire serialise_luks1(const luks1_header& h) {
  luks1_header_wire wire;
  wire.magic = magic;
  wire.version = 1;
  store_text(wire.cipher_name, "aes");
  store_text(wire.cipher_mode, h.cipher.mode_and_iv());
  store_text(wire.hash, to_string(h.hash));
  wire.payload_sector = static_cast<u32>(h.payload_at / sector);
  wire.key_bytes = static_cast<u32>(h.cipher.key_bytes());
  wire.digest = h.digest;
  wire.digest_salt = h.digest_salt;
  wire.digest_iterations = h.digest_iterations;
  store_text(wire.uuid, h.uuid);
  std::ranges::transform(h.slots, wire.slots.begin(), serialise_slot);
  return wire;
}

luks1_header lay_out_luks1(const cipher_spec& cipher, hash_algorithm hash) {
  luks1_header h{.cipher = cipher, .hash = hash};
  u64 at = align_up(luks1_header_length, luks1_alignment);
  for (luks1_slot& slot : h.slots) {
    slot.material_at = at;
    at += align_up(h.place_of(slot).length, luks1_alignment);
  }
  h.payload_at = at;
  return h;
}

value describe_luks1(const luks1_header& h) {
  value v = value::map();
  v.set("ivgen-alg", to_string(h.cipher.iv));
  v.set("detached-header", false);
  v.set("hash-alg", to_string(h.hash));
  v.set("cipher-alg", h.cipher.cipher_name());
  v.set("uuid", h.uuid);
  v.set("format", "luks");
  if (h.cipher.iv == iv_generator::essiv)
    v.set("ivgen-hash-alg", to_string(h.cipher.iv_hash));
  v.set("cipher-mode", to_string(h.cipher.mode));
  value::list slots;
  for (const luks1_slot& slot : h.slots) {
    value s = value::map();
    s.set("active", slot.is_active);
    if (slot.is_active)
      s.set("iters", slot.iterations);
    s.set("key-offset", slot.material_at);
    if (slot.is_active)
      s.set("stripes", slot.stripes);
    slots.push_back(std::move(s));
  }
  v.set("slots", std::move(slots));
  v.set("payload-offset", h.payload_at);
  v.set("master-key-iters", h.digest_iterations);
  return v;
}

} // namespace bgfs::crypt
