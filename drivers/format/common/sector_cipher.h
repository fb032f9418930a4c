// SPDX-License-Identifier: MIT
// Encrypts and decrypts runs of 512-byte sectors, each with an initialisation vector of its own
// number. The key schedule is set once for each worker; a long run is cut into pieces that the
// offload pool works on side by side.
//
// Used on one loop at a time (workers are taken and given back there), which may change while
// nothing runs.
#pragma once

#include "drivers/format/common/cipher_spec.h"
#include "graph/io/secret_bytes.h"
#include "graph/io/task.h"

#include <memory>
#include <span>
#include <vector>

namespace bgfs::crypt {

inline constexpr u64 sector_length = 512;

class sector_cipher {
public:
  // `key` is spec.key_bytes() long and not needed afterwards.
  [[nodiscard]] static result<std::unique_ptr<sector_cipher>>
  create(const cipher_spec& spec, std::span<const std::byte> key);
  ~sector_cipher();

  // Whole sectors, the first of which has this number. `from` and `to` are equally long, and the
  // same or apart.
  task<void> encrypt(u64 first_sector, std::span<const std::byte> from, std::span<std::byte> to);
  task<void> decrypt(u64 first_sector, std::span<std::byte> bytes);

  // The same on this thread and at once, for who runs on a thread of the pool already; needs the
  // cipher for itself.
  [[nodiscard]] result<> encrypt_here(u64 first_sector, std::span<const std::byte> from,
                                      std::span<std::byte> to);
  [[nodiscard]] result<> decrypt_here(u64 first_sector, std::span<std::byte> bytes);

  // Up to so many bytes are worked on by the loop itself: handing them over takes longer.
  static constexpr u64 here_max = 32 * KiB;
  // What one worker gets of a long run, and how many work on one.
  static constexpr u64 piece_length = 128 * KiB;
  static constexpr u64 pieces_max = 4;

private:
  class worker;
  enum class direction : bool { decrypt, encrypt };
  struct run {
    direction way;
    u64 first_sector;
    std::span<const std::byte> from;
    std::span<std::byte> to;
  };
  explicit sector_cipher(std::unique_ptr<worker> first);
  task<void> process(run what);
  task<void> process_piece(run what);
  result<std::unique_ptr<worker>> take();

  std::unique_ptr<worker> first_; // others are copies of it
  std::vector<std::unique_ptr<worker>> idle_;
};

} // namespace bgfs::crypt
