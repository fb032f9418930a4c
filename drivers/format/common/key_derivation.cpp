// SPDX-License-Identifier: MIT
#include "drivers/format/common/key_derivation.h"

#include "graph/base/assert.h"
#include "graph/base/endian.h"

#include <openssl/evp.h>
#include <openssl/rand.h>

#include <algorithm>
#include <ctime>
#include <memory>

namespace bgfs::crypt {

namespace {

constexpr u32 iterations_min = 1000; // what the LUKS specification recommends at least

template<auto Free>
struct freer {
  template<class T>
  void operator()(T* p) const {
    Free(p);
  }
};
using md_ptr = std::unique_ptr<EVP_MD, freer<EVP_MD_free>>;
using md_context_ptr = std::unique_ptr<EVP_MD_CTX, freer<EVP_MD_CTX_free>>;

const unsigned char* raw(std::span<const std::byte> bytes) {
  return reinterpret_cast<const unsigned char*>(bytes.data()); // the library's byte type
}

unsigned char* raw(std::span<std::byte> bytes) {
  return reinterpret_cast<unsigned char*>(bytes.data());
}

result<md_ptr> fetch(hash_algorithm hash) {
  const std::string name(to_string(hash));
  md_ptr found(EVP_MD_fetch(nullptr, name.c_str(), nullptr));
  if (found == nullptr)
    return fail(error_kind::unsupported, "the crypto library of this system does not offer '{}'",
                name);
  return found;
}

std::unexpected<error> library_failure(std::string_view what) {
  return fail(error_kind::io, "the crypto library failed: {}", what);
}

// A hash that is computed many times over short inputs.
class hasher {
public:
  static result<hasher> create(hash_algorithm hash) {
    BGFS_TRY(md_ptr kind, fetch(hash));
    md_context_ptr context(EVP_MD_CTX_new());
    if (context == nullptr)
      return library_failure("no memory for a hash");
    return hasher(std::move(kind), std::move(context), digest_length(hash));
  }
  // Of both, one behind the other.
  result<> run(std::span<const std::byte> a, std::span<const std::byte> b,
               std::span<std::byte> out) {
    if (EVP_DigestInit_ex(context_.get(), kind_.get(), nullptr) != 1 ||
        EVP_DigestUpdate(context_.get(), a.data(), a.size()) != 1 ||
        EVP_DigestUpdate(context_.get(), b.data(), b.size()) != 1 ||
        EVP_DigestFinal_ex(context_.get(), raw(out), nullptr) != 1)
      return library_failure("a hash could not be computed");
    return {};
  }
  [[nodiscard]] u64 length() const { return length_; }

private:
  hasher(md_ptr kind, md_context_ptr context, u64 length)
      : kind_(std::move(kind)), context_(std::move(context)), length_(length) {}
  md_ptr kind_;
  md_context_ptr context_;
  u64 length_;
};

// The diffusion of the splitter: each piece as long as a digest is replaced by the hash of its
// number and itself; of the last, as much as fits.
result<> diffuse(hasher& h, std::span<std::byte> block) {
  std::array<std::byte, EVP_MAX_MD_SIZE> out{};
  const u64 step = h.length();
  for (u64 i = 0; i * step < block.size(); i++) {
    const auto piece = block.subspan(i * step, std::min<u64>(step, block.size() - i * step));
    std::array<std::byte, 4> number{};
    store(std::span<std::byte>(number), be32(static_cast<u32>(i)));
    BGFS_CHECK(h.run(number, piece, std::span(out).first(step)));
    std::ranges::copy(std::span(out).first(piece.size()), piece.begin());
  }
  wipe(std::span<std::byte>(out));
  return {};
}

void add(std::span<std::byte> to, std::span<const std::byte> what) {
  for (std::size_t i = 0; i < to.size(); i++)
    to[i] ^= what[i];
}

u64 processor_time_ns() {
  timespec now{};
  (void)::clock_gettime(CLOCK_THREAD_CPUTIME_ID, &now);
  return static_cast<u64>(now.tv_sec) * 1'000'000'000 + static_cast<u64>(now.tv_nsec);
}

} // namespace

result<> pbkdf2(hash_algorithm hash, std::span<const std::byte> passphrase,
                std::span<const std::byte> salt, u32 iterations, std::span<std::byte> out) {
  BGFS_ASSERT(iterations >= 1 && iterations <= 0x7fffffff, "iterations are bounded by who calls");
  BGFS_TRY(const md_ptr kind, fetch(hash));
  const auto* words = reinterpret_cast<const char*>(passphrase.data()); // the library's text type
  if (PKCS5_PBKDF2_HMAC(words, static_cast<int>(passphrase.size()), raw(salt),
                        static_cast<int>(salt.size()), static_cast<int>(iterations), kind.get(),
                        static_cast<int>(out.size()), raw(out)) != 1)
    return library_failure("a key could not be derived");
  return {};
}

result<u32> measure_iterations(hash_algorithm hash, u64 key_bytes, u64 milliseconds) {
  constexpr u64 enough_ns = 20'000'000;
  constexpr u64 longest = 0x7fffffff;
  const std::array<std::byte, 32> nothing{};
  secret_bytes out(key_bytes);
  u64 taken = 0;
  u64 tried = 4096;
  for (;; tried *= 2) {
    const u64 before = processor_time_ns();
    BGFS_CHECK(pbkdf2(hash, nothing, nothing, static_cast<u32>(tried), out.bytes()));
    taken = processor_time_ns() - before;
    if (taken >= enough_ns || tried >= longest / 2)
      break;
  }
  const double rate = static_cast<double>(tried) / static_cast<double>(std::max<u64>(taken, 1));
  const double wanted = rate * 1e6 * static_cast<double>(milliseconds);
  return static_cast<u32>(std::clamp(wanted, double{iterations_min}, static_cast<double>(longest)));
}

result<> af_split(hash_algorithm hash, std::span<const std::byte> key, u32 stripes,
                  std::span<std::byte> split) {
  BGFS_ASSERT(stripes >= 1 && split.size() == key.size() * stripes, "a stripe is as long as a key");
  BGFS_TRY(hasher h, hasher::create(hash));
  const auto all_but_last = split.first(split.size() - key.size());
  BGFS_CHECK(fill_random(all_but_last));
  secret_bytes sum(key.size());
  for (u64 at = 0; at < all_but_last.size(); at += key.size()) {
    add(sum.bytes(), split.subspan(at, key.size()));
    BGFS_CHECK(diffuse(h, sum.bytes()));
  }
  add(sum.bytes(), key);
  std::ranges::copy(sum.bytes(), split.last(key.size()).begin());
  return {};
}

result<secret_bytes> af_merge(hash_algorithm hash, std::span<const std::byte> split, u32 stripes) {
  BGFS_ASSERT(stripes >= 1 && split.size() % stripes == 0, "a stripe is as long as a key");
  BGFS_TRY(hasher h, hasher::create(hash));
  const u64 length = split.size() / stripes;
  secret_bytes sum(length);
  for (u64 at = 0; at + length < split.size(); at += length) {
    add(sum.bytes(), split.subspan(at, length));
    BGFS_CHECK(diffuse(h, sum.bytes()));
  }
  add(sum.bytes(), split.last(length));
  return sum;
}

result<> digest(hash_algorithm hash, std::span<const std::byte> bytes, std::span<std::byte> out) {
  BGFS_ASSERT(out.size() == digest_length(hash), "a digest fills its place");
  BGFS_TRY(hasher h, hasher::create(hash));
  return h.run(bytes, {}, out);
}

result<> fill_random(std::span<std::byte> bytes) {
  if (!bytes.empty() && RAND_priv_bytes(raw(bytes), static_cast<int>(bytes.size())) != 1)
    return library_failure("there are no random numbers");
  return {};
}

} // namespace bgfs::crypt
