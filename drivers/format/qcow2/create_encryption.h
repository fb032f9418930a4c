// SPDX-License-Identifier: MIT
// The encryption of a new image: what the create options ask for.
#pragma once

#include "drivers/format/common/cipher_spec.h"
#include "drivers/format/qcow2/header.h"
#include "graph/model/secret_store.h"

namespace bgfs::qcow2 {

struct new_encryption {
  crypt::cipher_spec cipher;
  crypt::hash_algorithm hash = crypt::hash_algorithm::sha256;
  u64 iteration_time_ms = 0;
  const secret_bytes* passphrase = nullptr; // the store's
};

namespace encryption_choice {
inline constexpr std::string_view formats[] = {"luks", "aes"};
inline constexpr std::string_view ciphers[] = {"aes-128", "aes-192", "aes-256"};
inline constexpr std::string_view modes[] = {"xts", "cbc", "ctr", "ecb"};
inline constexpr std::string_view ivs[] = {"plain", "plain64", "essiv"};
inline constexpr std::string_view hashes[] = {"md5",    "sha1",   "sha224",   "sha256",
                                              "sha384", "sha512", "ripemd160"};
} // namespace encryption_choice
inline constexpr u64 iteration_time_max_ms = 60'000;

// Options of create that begin with "encrypt.", and the old name of one.
inline constexpr option encryption_options[] = {
    {.name = "encryption",
     .type = option_type::boolean,
     .help = "on: the same as encrypt.format=aes, which is not made any more"},
    {.name = "encrypt.format",
     .type = option_type::choice,
     .help = "encrypt the content: luks; aes is read, but not made any more",
     .choices = encryption_choice::formats},
    {.name = "encrypt.key-secret",
     .type = option_type::text,
     .help = "the id of the secret that is the first passphrase"},
    {.name = "encrypt.cipher-alg",
     .type = option_type::choice,
     .help = "the cipher",
     .default_text = "aes-256",
     .choices = encryption_choice::ciphers},
    {.name = "encrypt.cipher-mode",
     .type = option_type::choice,
     .help = "how the cipher is applied to a sector",
     .default_text = "xts",
     .choices = encryption_choice::modes},
    {.name = "encrypt.ivgen-alg",
     .type = option_type::choice,
     .help = "what makes the initialisation vector of a sector",
     .default_text = "plain64",
     .choices = encryption_choice::ivs},
    {.name = "encrypt.ivgen-hash-alg",
     .type = option_type::choice,
     .help = "the hash of essiv; absent: sha256",
     .choices = encryption_choice::hashes},
    {.name = "encrypt.hash-alg",
     .type = option_type::choice,
     .help = "the hash that derives keys from passphrases",
     .default_text = "sha256",
     .choices = encryption_choice::hashes},
    {.name = "encrypt.iter-time",
     .type = option_type::integer,
     .help = "milliseconds of this processor that trying a passphrase takes",
     .default_text = "2000",
     .minimum = 1,
     .maximum = iteration_time_max_ms},
};

// nullopt: none is asked for. Fails, before anything is written, for what cannot be.
[[nodiscard]] result<std::optional<new_encryption>> read_encryption(const options& given,
                                                                    const secret_store* secrets);

// The first cluster with a pointer to the LUKS header. Names of features give way where the cluster
// is full.
[[nodiscard]] result<std::vector<std::byte>> serialise_with_pointer(header h, byte_range place);

} // namespace bgfs::qcow2
