// SPDX-License-Identifier: MIT
// The keys behind a LUKS header: opening a slot with a passphrase, making a header, filling and
// erasing slots. What is CPU work runs on the offload pool.
//
// Order of writes. A slot is filled in three steps, each durable before the next: its key material;
// its entry, still inactive; the word that makes it active, which lies within one sector although
// an entry may not. If we stop in between, the slot is inactive or works. Erasing destroys the key
// material first, so that nothing that can still be opened is left behind a slot that says it is
// inactive.
#pragma once

#include "drivers/format/common/luks1_header.h"
#include "graph/io/secret_bytes.h"
#include "graph/io/task.h"

namespace bgfs::crypt {

// The place that holds a header with its key material; offsets are bytes from its beginning.
struct luks1_area {
  virtual ~luks1_area() = default;
  virtual task<void> read(u64 offset, std::span<std::byte> bytes) = 0;
  virtual task<void> write(u64 offset, std::span<const std::byte> bytes) = 0;
  virtual task<void> flush() = 0;
};

struct opened_slot {
  unsigned index = 0;
  secret_bytes master_key;
};

// Tries the active slots in order. Fails with error_kind::permission if the passphrase opens none
// of them.
task<opened_slot> open_luks1(luks1_area& area, const luks1_header& h,
                             std::span<const std::byte> passphrase);

// How much work a passphrase is made to be. The master key's digest takes an eighth of it.
inline constexpr u64 iteration_time_ms_default = 2000;

// A new master key behind the passphrase in slot 0. Writes the header last, and flushes.
task<luks1_header> create_luks1(luks1_area& area, luks1_header layout,
                                std::span<const std::byte> passphrase, u64 iteration_time_ms);

// Puts the master key behind another passphrase, in a slot that is inactive; `h` follows.
task<void> fill_slot(luks1_area& area, luks1_header& h, unsigned index, const secret_bytes& key,
                     std::span<const std::byte> passphrase, u64 iteration_time_ms);
// Nothing opens it afterwards; `h` follows. Whether it is the last one is the caller's affair.
task<void> erase_slot(luks1_area& area, luks1_header& h, unsigned index);

// Whether the passphrase opens this slot.
task<bool> opens_slot(luks1_area& area, const luks1_header& h, unsigned index,
                      std::span<const std::byte> passphrase);

} // namespace bgfs::crypt
