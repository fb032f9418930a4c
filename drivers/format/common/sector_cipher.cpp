// SPDX-License-Identifier: MIT
#include "drivers/format/common/sector_cipher.h"

#include "drivers/format/common/key_derivation.h"
#include "graph/base/assert.h"
#include "graph/base/checked.h"
#include "graph/base/endian.h"
#include "graph/io/offload.h"
#include "graph/io/spawn.h"

#include <openssl/evp.h>

#include <algorithm>
#include <utility>

namespace bgfs::crypt {

namespace {

constexpr u64 block_length = 16;
using block = std::array<std::byte, block_length>;

unsigned char* raw(std::byte* bytes) {
  return reinterpret_cast<unsigned char*>(bytes); // the library's byte type
}

const unsigned char* raw(const std::byte* bytes) {
  return reinterpret_cast<const unsigned char*>(bytes);
}

std::unexpected<error> library_failure(std::string_view what) {
  return fail(error_kind::io, "the crypto library failed: {}", what);
}

// One key schedule in one direction.
class schedule {
public:
  schedule() = default;
  schedule(schedule&& other) noexcept : context_(std::exchange(other.context_, nullptr)) {}
  schedule& operator=(schedule&& other) noexcept {
    std::swap(context_, other.context_);
    return *this;
  }
  ~schedule() { EVP_CIPHER_CTX_free(context_); } // which wipes it

  static result<schedule> create(const std::string& name, std::span<const std::byte> key,
                                 bool encrypts) {
    EVP_CIPHER* const kind = EVP_CIPHER_fetch(nullptr, name.c_str(), nullptr);
    if (kind == nullptr)
      return fail(error_kind::unsupported, "the crypto library of this system does not offer '{}'",
                  name);
    schedule made;
    made.context_ = EVP_CIPHER_CTX_new();
    const block no_iv{};
    const bool is_set = made.context_ != nullptr &&
                        EVP_CipherInit_ex2(made.context_, kind, raw(key.data()), raw(no_iv.data()),
                                           encrypts ? 1 : 0, nullptr) == 1 &&
                        EVP_CIPHER_CTX_set_padding(made.context_, 0) == 1;
    EVP_CIPHER_free(kind);
    if (!is_set)
      return library_failure(fmt::format("'{}' does not take this key", name));
    return made;
  }
  [[nodiscard]] result<schedule> copy() const {
    schedule made;
    made.context_ = EVP_CIPHER_CTX_new();
    if (made.context_ == nullptr || EVP_CIPHER_CTX_copy(made.context_, context_) != 1)
      return library_failure("a key schedule could not be copied");
    return made;
  }
  // With a new initialisation vector, or (null) with none.
  [[nodiscard]] bool run(const block* iv, const std::byte* from, std::byte* to, u64 length) {
    int count = 0;
    if (iv != nullptr &&
        EVP_CipherInit_ex2(context_, nullptr, nullptr, raw(iv->data()), -1, nullptr) != 1)
      return false;
    return EVP_CipherUpdate(context_, raw(to), &count, raw(from), static_cast<int>(length)) == 1 &&
           static_cast<u64>(count) == length;
  }
  [[nodiscard]] bool is_set() const { return context_ != nullptr; }

private:
  EVP_CIPHER_CTX* context_ = nullptr;
};

// Multiplies by x in the field of XTS (IEEE 1619, section 5.2): bytes in little-endian order.
void double_tweak(block& t) {
  const u64 low = load<le64>(t, 0);
  const u64 high = load<le64>(t, 8);
  const u64 carry = (high >> 63) * 0x87;
  store(std::span<std::byte>(t), le64(low << 1 ^ carry), 0);
  store(std::span<std::byte>(t), le64(high << 1 | low >> 63), 8);
}

std::string_view library_mode(cipher_mode mode) {
  switch (mode) {
  case cipher_mode::xts:
    return "XTS";
  case cipher_mode::cbc:
    return "CBC";
  case cipher_mode::ctr:
    return "CTR";
  case cipher_mode::ecb:
    return "ECB";
  }
  return "";
}

} // namespace

// What one thread needs at a time.
class sector_cipher::worker {
public:
  static result<std::unique_ptr<worker>> create(const cipher_spec& spec,
                                                std::span<const std::byte> key) {
    auto made = std::make_unique<worker>();
    made->spec_ = spec;
    // The library has no XTS of 192 bits: it is put together of single blocks.
    made->is_composed_ = spec.mode == cipher_mode::xts && spec.key_bits == 192;
    const cipher_mode mode = made->is_composed_ ? cipher_mode::ecb : spec.mode;
    const std::string name = fmt::format("AES-{}-{}", spec.key_bits, library_mode(mode));
    const auto data_key = made->is_composed_ ? key.first(key.size() / 2) : key;
    BGFS_TRY(made->encrypt_, schedule::create(name, data_key, true));
    BGFS_TRY(made->decrypt_, schedule::create(name, data_key, false));
    if (made->is_composed_) {
      BGFS_TRY(made->tweak_, schedule::create(name, key.last(key.size() / 2), true));
    }
    if (spec.iv == iv_generator::essiv) {
      secret_bytes salt(digest_length(spec.iv_hash));
      BGFS_CHECK(digest(spec.iv_hash, key, salt.bytes()));
      const std::string iv_name = fmt::format("AES-{}-ECB", salt.length() * 8);
      BGFS_TRY(made->iv_, schedule::create(iv_name, salt.bytes(), true));
    }
    return made;
  }

  [[nodiscard]] result<std::unique_ptr<worker>> copy() const {
    auto made = std::make_unique<worker>();
    made->spec_ = spec_;
    made->is_composed_ = is_composed_;
    BGFS_TRY(made->encrypt_, encrypt_.copy());
    BGFS_TRY(made->decrypt_, decrypt_.copy());
    if (tweak_.is_set()) {
      BGFS_TRY(made->tweak_, tweak_.copy());
    }
    if (iv_.is_set()) {
      BGFS_TRY(made->iv_, iv_.copy());
    }
    return made;
  }

  [[nodiscard]] result<> process(const sector_cipher::run& what) {
    schedule& data = what.way == direction::encrypt ? encrypt_ : decrypt_;
    u64 sector = what.first_sector;
    for (u64 at = 0; at < what.from.size(); at += sector_length, sector++) {
      const std::byte* const from = what.from.data() + at;
      std::byte* const to = what.to.data() + at;
      block iv{};
      bool is_done = make_iv(sector, iv);
      if (is_composed_) {
        is_done = is_done && compose(data, iv, from, to);
      } else {
        const bool has_iv = spec_.mode != cipher_mode::ecb;
        is_done = is_done && data.run(has_iv ? &iv : nullptr, from, to, sector_length);
      }
      if (!is_done)
        return library_failure("a sector could not be encrypted or decrypted");
    }
    return {};
  }

private:
  bool make_iv(u64 sector, block& iv) {
    if (spec_.iv == iv_generator::plain)
      sector &= 0xffffffff;
    store(std::span<std::byte>(iv), le64(sector));
    return spec_.iv != iv_generator::essiv || iv_.run(nullptr, iv.data(), iv.data(), iv.size());
  }

  bool compose(schedule& data, block iv, const std::byte* from, std::byte* to) {
    std::array<std::byte, sector_length> tweaks;
    if (!tweak_.run(nullptr, iv.data(), iv.data(), iv.size()))
      return false;
    for (u64 at = 0; at < sector_length; at += block_length, double_tweak(iv))
      std::ranges::copy(iv, tweaks.begin() + static_cast<i64>(at));
    for (u64 i = 0; i < sector_length; i++)
      to[i] = from[i] ^ tweaks[i];
    if (!data.run(nullptr, to, to, sector_length))
      return false;
    for (u64 i = 0; i < sector_length; i++)
      to[i] ^= tweaks[i];
    return true;
  }

  cipher_spec spec_;
  bool is_composed_ = false;
  schedule encrypt_;
  schedule decrypt_;
  schedule tweak_;
  schedule iv_;
};

sector_cipher::sector_cipher(std::unique_ptr<worker> first) : first_(std::move(first)) {}
sector_cipher::~sector_cipher() = default;

result<std::unique_ptr<sector_cipher>> sector_cipher::create(const cipher_spec& spec,
                                                             std::span<const std::byte> key) {
  BGFS_ASSERT(key.size() == spec.key_bytes(), "the key fits the cipher");
  BGFS_CHECK(check_cipher(spec));
  BGFS_TRY(std::unique_ptr<worker> first, worker::create(spec, key));
  return std::unique_ptr<sector_cipher>(new sector_cipher(std::move(first)));
}

task<void> sector_cipher::encrypt(u64 first_sector, std::span<const std::byte> from,
                                  std::span<std::byte> to) {
  return process({direction::encrypt, first_sector, from, to});
}

task<void> sector_cipher::decrypt(u64 first_sector, std::span<std::byte> bytes) {
  return process({direction::decrypt, first_sector, bytes, bytes});
}

result<> sector_cipher::encrypt_here(u64 first_sector, std::span<const std::byte> from,
                                     std::span<std::byte> to) {
  return first_->process({direction::encrypt, first_sector, from, to});
}

result<> sector_cipher::decrypt_here(u64 first_sector, std::span<std::byte> bytes) {
  return first_->process({direction::decrypt, first_sector, bytes, bytes});
}

task<void> sector_cipher::process(run what) {
  BGFS_ASSERT(is_aligned(what.from.size(), sector_length), "only whole sectors are encrypted");
  BGFS_ASSERT(what.from.size() == what.to.size(), "a sector takes as much room as before");
  const u64 length = what.from.size();
  if (length <= here_max) { // nothing suspends: the first worker is free
    co_await first_->process(what);
    co_return;
  }
  if (length <= piece_length) {
    co_await process_piece(what);
    co_return;
  }
  const u64 step = std::max(piece_length, align_up(divide_up(length, pieces_max), sector_length));
  std::vector<task<void>> pieces;
  for (u64 at = 0; at < length; at += step) {
    const u64 part = std::min(step, length - at);
    pieces.push_back(process_piece({what.way, what.first_sector + at / sector_length,
                                    what.from.subspan(at, part), what.to.subspan(at, part)}));
  }
  co_await when_all(std::move(pieces));
}

task<void> sector_cipher::process_piece(run what) {
  std::unique_ptr<worker> mine = co_await take();
  result<> done = co_await offload([&] { return mine->process(what); });
  idle_.push_back(std::move(mine));
  co_await std::move(done);
}

result<std::unique_ptr<sector_cipher::worker>> sector_cipher::take() {
  if (idle_.empty())
    return first_->copy();
  std::unique_ptr<worker> taken = std::move(idle_.back());
  idle_.pop_back();
  return taken;
}

} // namespace bgfs::crypt
