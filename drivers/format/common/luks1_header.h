// SPDX-License-Identifier: MIT
// The header of LUKS version 1 (LUKS On-Disk Format Specification 1.2.3, section 2.1, "spec"
// below): what encrypts an image, and eight slots, each of which may hold the master key behind a
// passphrase of its own. parse_luks1 is pure and bounded, so that it can be fuzzed: everything in
// it that costs time or memory later has a limit here.
#pragma once

#include "drivers/format/common/cipher_spec.h"
#include "graph/base/byte_range.h"
#include "graph/base/endian.h"
#include "graph/base/value.h"

#include <array>
#include <span>
#include <vector>

namespace bgfs::crypt {

inline constexpr u64 luks1_header_length = 592;
inline constexpr unsigned luks1_slots = 8;
inline constexpr u64 luks1_salt_length = 32;
inline constexpr u64 luks1_digest_length = 20;
inline constexpr u32 luks1_stripes = 4000; // of slots made here; spec, section 6.1
// Key material begins at multiples of this in headers made here.
inline constexpr u64 luks1_alignment = 4096;

// Limits of what a header may ask for. Deriving keys from all of its slots takes at most this many
// iterations, some minutes; who makes a header spends seconds on each slot.
inline constexpr u64 luks1_iterations_max = 200'000'000;
inline constexpr u32 luks1_stripes_max = 16384; // 1 MiB of key material in a slot

// Spec, "partition header": one key slot.
struct luks1_slot_wire {
  be32 state;
  be32 iterations;
  std::array<std::byte, luks1_salt_length> salt;
  be32 material_sector;
  be32 stripes;
};
static_assert(sizeof(luks1_slot_wire) == 48);

struct luks1_header_wire {
  std::array<std::byte, 6> magic;
  be16 version;
  std::array<char, 32> cipher_name;
  std::array<char, 32> cipher_mode;
  std::array<char, 32> hash;
  be32 payload_sector;
  be32 key_bytes;
  std::array<std::byte, luks1_digest_length> digest;
  std::array<std::byte, luks1_salt_length> digest_salt;
  be32 digest_iterations;
  std::array<char, 40> uuid;
  std::array<luks1_slot_wire, luks1_slots> slots;
};
static_assert(sizeof(luks1_header_wire) == luks1_header_length);
inline constexpr u64 luks1_slots_at = 208;

struct luks1_slot {
  bool is_active = false;
  u32 iterations = 0; // of an active one
  std::array<std::byte, luks1_salt_length> salt{};
  u64 material_at = 0; // bytes from the beginning of the header
  u32 stripes = luks1_stripes;

  friend bool operator==(const luks1_slot&, const luks1_slot&) = default;
};

struct luks1_header {
  cipher_spec cipher;
  hash_algorithm hash = hash_algorithm::sha256;
  u64 payload_at = 0;                                  // bytes from the beginning of the header
  std::array<std::byte, luks1_digest_length> digest{}; // of the master key
  std::array<std::byte, luks1_salt_length> digest_salt{};
  u32 digest_iterations = 0;
  std::string uuid;
  std::array<luks1_slot, luks1_slots> slots;

  friend bool operator==(const luks1_header&, const luks1_header&) = default;

  [[nodiscard]] u64 material_length(const luks1_slot& slot) const {
    return cipher.key_bytes() * slot.stripes;
  }
  // Where it lies, from the beginning of the header: whole sectors, since they are encrypted.
  [[nodiscard]] byte_range place_of(const luks1_slot& slot) const {
    return {slot.material_at, align_up(material_length(slot), 512)};
  }
  [[nodiscard]] unsigned active_count() const;
};

// `bytes` holds at least luks1_header_length bytes; `area_length` is how long the place is that
// holds the header and its key material, from the same beginning.
[[nodiscard]] result<luks1_header> parse_luks1(std::span<const std::byte> bytes, u64 area_length);

[[nodiscard]] luks1_header_wire serialise_luks1(const luks1_header& h);
[[nodiscard]] luks1_slot_wire serialise_slot(const luks1_slot& slot);

// Where everything lies in a new header, without keys: all slots are inactive, and the payload
// follows the last one's key material.
[[nodiscard]] luks1_header lay_out_luks1(const cipher_spec& cipher, hash_algorithm hash);

// What it says, with the names of `qemu-img info --output=json`; no key material, no salts.
[[nodiscard]] value describe_luks1(const luks1_header& h);

} // namespace bgfs::crypt
