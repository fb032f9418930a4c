// SPDX-License-Identifier: MIT
// Images whose content is encrypted (spec, "Data encryption"; reference section 3.7). The tables
// are not; a sector of 512 bytes is encrypted by itself, with an initialisation vector of its
// number: of its place on the disk with AES, of its place in the file with LUKS. So a cluster of an
// image encrypted with LUKS cannot be moved without being encrypted anew.
//
// Compressed clusters are stored as they are: whoever reads such images takes them so. No image
// made here has both.
#include "drivers/format/common/luks1_keys.h"
#include "drivers/format/qcow2/create_encryption.h"
#include "drivers/format/qcow2/crypto_area.h"
#include "drivers/format/qcow2/image.h"
#include "graph/io/buffer_pool.h"

#include <algorithm>

namespace bgfs::qcow2 {

namespace {

// AES of before LUKS: the passphrase itself is the key, cut off or filled up with zeroes.
constexpr crypt::cipher_spec legacy_aes{
    .key_bits = 128, .mode = crypt::cipher_mode::cbc, .iv = crypt::iv_generator::plain64};

// What is encrypted at once on its way to the file: the copy takes this much memory.
constexpr u64 encrypted_at_once_max = MiB;

constexpr std::string_view key_option = "encrypt.key-secret";

} // namespace

// What the header says about encryption, and the key if content will be wanted.
task<void> image::open_encryption() {
  if (header_.encryption == encryption_method::luks) {
    const byte_range place = co_await header_.crypto_header();
    std::vector<std::byte> bytes(std::min(place.length, crypt::luks1_header_length));
    co_await file_.read_structure(host_offset(place.offset), bytes, "the encryption header");
    luks_ = co_await crypt::parse_luks1(bytes, place.length);
  }
  const secret_bytes* const key = co_await find_key();
  if (key == nullptr)
    co_return;
  if (header_.encryption == encryption_method::luks) {
    co_await context(open_luks(key->bytes()), "secret '{}'", request_.given->text(key_option));
    co_return;
  }
  secret_bytes whole(legacy_aes.key_bytes());
  const auto used = key->bytes().first(std::min(key->length(), whole.length()));
  std::ranges::copy(used, whole.bytes().begin());
  cipher_ = co_await crypt::sector_cipher::create(legacy_aes, whole.bytes());
}

// Null: none is needed.
result<const secret_bytes*> image::find_key() const {
  if (request_.given == nullptr)
    return nullptr;
  const options& given = *request_.given;
  const std::string_view method = to_string(header_.encryption);
  const std::string& format = given.text("encrypt.format");
  if (!header_.is_encrypted() && (given.is_set("encrypt.format") || given.is_set(key_option)))
    return fail(error_kind::invalid_argument,
                "{}'encrypt' is given, but the image is not encrypted; leave it out",
                given.mark(format.empty() ? key_option : "encrypt.format").prefix());
  if (given.is_set("encrypt.format") && format != method)
    return fail(error_kind::invalid_argument,
                "{}'encrypt.format' is '{}', but the image says that it is encrypted with '{}'",
                given.mark("encrypt.format").prefix(), format, method);
  if (!header_.is_encrypted() || request_.is_info_only)
    return nullptr;
  if (!given.is_set(key_option))
    return fail(error_kind::permission,
                "the image is encrypted with '{0}', and its content cannot be read or written "
                "without the key: declare a secret, and give 'encrypt: {{format: {0}, key-secret: "
                "ID}}' (encrypt.key-secret=ID on a command line)",
                method);
  return find_secret(request_.secrets, given, key_option);
}

task<void> image::open_luks(std::span<const std::byte> passphrase) {
  const byte_range place = co_await header_.crypto_header();
  crypto_area area(file_, place);
  const crypt::opened_slot opened = co_await crypt::open_luks1(area, *luks_, passphrase);
  cipher_ = co_await crypt::sector_cipher::create(luks_->cipher, opened.master_key.bytes());
}

result<> image::check_has_key() const {
  if (cipher_ != nullptr)
    return {};
  return fail(error_kind::permission,
              "the image is encrypted and was opened without its key, only to be looked at");
}

u64 image::sector_of(guest_offset at, host_offset host) const {
  BGFS_ASSERT(at.is_aligned_to(crypt::sector_length), "requests are whole sectors");
  BGFS_ASSERT(host.is_aligned_to(crypt::sector_length), "clusters lie at cluster boundaries");
  const u64 place = header_.encryption == encryption_method::luks ? host.value : at.value;
  return place / crypt::sector_length;
}

// Decrypted where it was read to: nobody else sees the memory before we end.
task<void> image::read_encrypted(guest_offset at, host_offset host, std::span<std::byte> bytes) {
  co_await check_has_key();
  co_await file_.read_data(host, bytes);
  co_await cipher_->decrypt(sector_of(at, host), bytes);
}

// Encrypted beside what was given, which is not ours to change.
task<void> image::write_encrypted(guest_offset at, host_offset host,
                                  std::span<const std::byte> bytes) {
  co_await check_has_key();
  const buffer room = home_->buffers().allocate(std::min<u64>(bytes.size(), encrypted_at_once_max));
  while (!bytes.empty()) {
    const auto part = bytes.first(std::min(bytes.size(), room.length()));
    const auto encrypted = room.bytes().first(part.size());
    co_await cipher_->encrypt(sector_of(at, host), part, encrypted);
    co_await file_.write_data(host, encrypted);
    at += part.size();
    host += part.size();
    bytes = bytes.subspan(part.size());
  }
}

// A hole in the file, decrypted, would be anything: zeroes are written like other bytes.
task<void> image::write_encrypted_zeroes(guest_offset at, host_offset host, u64 length) {
  const auto zeroes = home_->buffers().zeroes();
  while (length > 0) {
    const u64 part = std::min<u64>(length, zeroes.size());
    co_await write_encrypted(at, host, zeroes.first(part));
    at += part;
    host += part;
    length -= part;
  }
}

value image::describe_encryption() const {
  if (luks_)
    return crypt::describe_luks1(*luks_);
  value v = value::map();
  v.set("format", to_string(header_.encryption));
  return v;
}

// Of an image that has no content yet. The header changes last, in its first sector: until then the
// image is an empty one that is not encrypted, with clusters that leak.
task<void> image::set_up_encryption(const new_encryption& how, u64 length) {
  BGFS_ASSERT(header_.disk_length == 0 && !header_.is_encrypted(), "there is nothing to encrypt");
  const async_mutex::guard lock = co_await store_->lock().lock();
  co_await begin_metadata_change();
  // The table has its place before the LUKS header, as in every new image; its disk has no length.
  if (const u64 entries = g().l1_entries_for(length); entries > l1_.size())
    co_await context(grow_l1(entries), "making the L1 table");
  const crypt::luks1_header layout = crypt::lay_out_luks1(how.cipher, how.hash);
  const new_clusters taken =
      co_await allocator_->allocate_exactly(divide_up(layout.payload_at, g().cluster()));
  const byte_range place{taken.run.offset(g()).value, layout.payload_at};
  file_.overlaps().add(metadata_kind::crypto_header, place);
  // Unused bytes are zero (spec), whatever the file had there.
  const std::vector<std::byte> nothing(g().cluster());
  for (u64 c = 0; c < taken.run.count; c++)
    co_await file_.write_structure(taken.run.offset(g()) + c * g().cluster(), nothing,
                                   metadata_kind::crypto_header);
  crypto_area area(file_, place);
  (void)co_await crypt::create_luks1(area, layout, how.passphrase->bytes(), how.iteration_time_ms);
  co_await store_->write_refcounts();
  co_await file_.flush(); // R1: counted before the header points to them
  header after = header_;
  after.encryption = encryption_method::luks;
  const std::vector<std::byte> first = co_await serialise_with_pointer(std::move(after), place);
  co_await file_.write_header(0, first);
  co_await file_.flush();
}

} // namespace bgfs::qcow2
