// SPDX-License-Identifier: MIT
// The commands of `bgfs io` that move data.
#include "config/commands/io_session.h"

#include "graph/io/buffer_pool.h"

#include <algorithm>
#include <cstring>
#include <fcntl.h>
#include <unistd.h>

namespace bgfs {

namespace {

constexpr u8 default_pattern = 0xcd;

// What the words of a request come to.
struct io_request {
  std::string_view failure_name; // "read" of "read failed: ..."
  u64 offset = 0;
  u64 length = 0;
  bool is_quiet = false;
  bool is_for_programs = false;
  bool is_vmstate = false; // -b: of the state of a machine, not of the disk
  // reading
  bool is_dumped = false;
  std::optional<u8> expected;
  u64 expected_offset = 0; // within the request
  u64 expected_length = 0;
  // writing
  write_flags flags = 0;
  bool is_zero_write = false;
  u8 pattern = default_pattern;
  std::string source_file;
};

void report(const io_request& r, std::string_view verb,
            std::chrono::steady_clock::time_point begin) {
  if (!r.is_quiet)
    print(report_io({verb, r.offset, r.length, std::chrono::steady_clock::now() - begin},
                    r.is_for_programs));
}

// Offset and lengths; several lengths are several buffers, which are one request all the same.
bool take_place(const io_words& words, bool is_vector, io_request& r) {
  const auto offset = take_number(words.operands[0]);
  if (!offset)
    return false;
  r.offset = *offset;
  for (std::size_t i = 1; i < words.operands.size(); i++) {
    const auto length = take_number(words.operands[i]);
    if (!length)
      return false;
    const auto sum = checked_add(r.length, *length);
    const bool is_bounded = !r.is_zero_write || (r.flags & write_flag::no_fallback) == 0;
    if (!sum || (is_bounded && *sum > request_length_max)) {
      print(is_vector
                ? fmt::format("Argument '{}' exceeds maximum size {}\n", words.operands[i],
                              request_length_max)
                : fmt::format("length cannot exceed {}{}, given {}\n", request_length_max,
                              r.failure_name == "write" ? " without -n" : "", words.operands[i]));
      return false;
    }
    r.length = *sum;
  }
  return true;
}

// The sentences are those scripts know.
bool is_in_sectors(const io_request& r) {
  constexpr u64 sector_length = 512;
  for (const auto& [name, number] : {std::pair("offset", r.offset), std::pair("count", r.length)})
    if (number % sector_length != 0) {
      print(fmt::format("{} is not a sector-aligned value for '{}'\n", number, name));
      return false;
    }
  return true;
}

bool has_right_operands(std::string_view command, const io_words& words, bool is_vector) {
  const bool is_right = is_vector ? words.operands.size() >= 2 : words.operands.size() == 2;
  if (!is_right)
    for (const io_command& c : io_commands())
      if (c.name == command)
        print(fmt::format("{} {} -- {}\n", c.name, c.usage, c.summary));
  return is_right;
}

bool take_pattern(const io_words& words, std::optional<u8>& into) {
  if (!words.has('P'))
    return true;
  const result<u8> pattern = parse_pattern(words.flags.at('P'));
  if (!pattern) {
    print(pattern.error().message() + "\n");
    return false;
  }
  into = *pattern;
  return true;
}

bool take_verification(const io_words& words, io_request& r) {
  if (!take_pattern(words, r.expected))
    return false;
  r.expected_length = r.length;
  if (words.has('s')) {
    const auto begin = take_number(words.flags.at('s'));
    if (!begin)
      return false;
    r.expected_offset = *begin;
    r.expected_length = r.length > *begin ? r.length - *begin : 0;
  }
  if (words.has('l')) {
    const auto length = take_number(words.flags.at('l'));
    if (!length)
      return false;
    r.expected_length = *length;
  }
  const auto end = checked_add(r.expected_offset, r.expected_length);
  if (!end || *end > r.length || r.expected_offset > r.length) {
    print("pattern verification range exceeds end of read data\n");
    return false;
  }
  return true;
}

// -p (older scripts have it) and -r (register the buffer: those of our pool need no registration)
// are taken and change nothing that can be seen, here and for writes.
std::optional<io_request> parse_read(std::string_view command, std::string_view failure_name,
                                     const std::vector<std::string>& given, bool is_vector) {
  const auto words = take_words(command, given, is_vector ? "CqrvP:" : "bCqrvpP:s:l:");
  if (!words || !has_right_operands(command, *words, is_vector))
    return std::nullopt;
  if (!words->has('P') && (words->has('s') || words->has('l'))) {
    (void)has_right_operands(command, {}, is_vector);
    return std::nullopt;
  }
  io_request r{.failure_name = failure_name,
               .is_quiet = words->has('q'),
               .is_for_programs = words->has('C'),
               .is_vmstate = words->has('b'),
               .is_dumped = words->has('v')};
  if (!take_place(*words, is_vector, r) || !take_verification(*words, r) ||
      (r.is_vmstate && !is_in_sectors(r)))
    return std::nullopt;
  return r;
}

bool verify(const io_request& r, std::span<const std::byte> bytes) {
  if (!r.expected)
    return true;
  const auto part = bytes.subspan(r.expected_offset, r.expected_length);
  const std::byte expected{*r.expected};
  if (std::ranges::all_of(part, [&](std::byte b) { return b == expected; }))
    return true;
  print(fmt::format("Pattern verification failed at offset {}, {} bytes\n",
                    r.offset + r.expected_offset, r.expected_length));
  return false;
}

// The bytes of a request.
class request_buffer {
public:
  request_buffer() = default;
  request_buffer(io_session& session, u64 length)
      : whole_(session.session().home().buffers().allocate(length + session.misalignment())),
        bytes_(whole_.bytes().subspan(session.misalignment(), length)) {}
  [[nodiscard]] std::span<std::byte> bytes() const { return bytes_; }

private:
  buffer whole_;
  std::span<std::byte> bytes_;
};

node& image_with_vmstate(io_session& session) {
  return *session.image().top().skip_filters();
}

task<void> perform_read(io_session& session, const io_request& r, std::span<std::byte> content) {
  if (r.is_vmstate)
    co_await image_with_vmstate(session).read_vmstate(r.offset, content);
  else
    co_await session.image().disk().read(r.offset, content);
}

task<bool> read_now(io_session& session, io_request r) {
  const request_buffer content(session, r.length);
  const auto begin = std::chrono::steady_clock::now();
  result<> outcome = co_await as_result(perform_read(session, r, content.bytes()));
  if (!outcome)
    co_return report_failure(r.failure_name, outcome.error());
  const bool is_right = verify(r, content.bytes());
  if (r.is_dumped && !r.is_quiet)
    print(dump_bytes(r.offset, content.bytes()));
  report(r, "read", begin);
  co_return is_right;
}

// What contradicts itself; the sentences are those scripts know.
std::string find_contradiction(const io_words& w) {
  if (w.has('f') && (w.has('b') || w.has('c')))
    return "-f and -b or -c cannot be specified at the same time";
  if (w.has('b') && w.has('c'))
    return "-b and -c cannot be specified at the same time";
  if (w.has('b') && w.has('z'))
    return "-b and -z cannot be specified at the same time";
  if (w.has('n') && !w.has('z'))
    return "-n requires -z to be specified";
  if (w.has('u') && !w.has('z'))
    return "-u requires -z to be specified";
  const int sources =
      static_cast<int>(w.has('z')) + static_cast<int>(w.has('P')) + static_cast<int>(w.has('s'));
  if (sources > 1)
    return "Only one of -z, -P, and -s can be specified at the same time";
  return {};
}

std::optional<io_request> parse_write(std::string_view command, std::string_view failure_name,
                                      std::string_view letters,
                                      const std::vector<std::string>& given, bool is_vector) {
  const auto words = take_words(command, given, letters);
  if (!words || !has_right_operands(command, *words, is_vector))
    return std::nullopt;
  if (const std::string what = find_contradiction(*words); !what.empty()) {
    print(what + "\n");
    return std::nullopt;
  }
  io_request r{.failure_name = failure_name,
               .is_quiet = words->has('q'),
               .is_for_programs = words->has('C'),
               .is_vmstate = words->has('b'),
               .is_zero_write = words->has('z')};
  r.flags |= words->has('f') ? write_flag::durable : write_flags{0};
  r.flags |= words->has('c') ? write_flag::compressed : write_flags{0};
  r.flags |= words->has('n') ? write_flag::no_fallback : write_flags{0};
  r.flags |= words->has('u') ? write_flag::may_unmap : write_flags{0};
  std::optional<u8> pattern;
  if (!take_pattern(*words, pattern) || !take_place(*words, is_vector, r) ||
      ((words->has('b') || words->has('c')) && !is_in_sectors(r)))
    return std::nullopt;
  r.pattern = pattern.value_or(default_pattern);
  if (words->has('s'))
    r.source_file = words->flags.at('s');
  return r;
}

// Fills the buffer with the file, again and again.
result<> fill_from_file(const std::string& path, std::span<std::byte> bytes) {
  const int fd = ::open(path.c_str(), O_RDONLY | O_CLOEXEC);
  if (fd < 0)
    return fail_errno(errno, "cannot open '{}'", path);
  std::size_t count = 0;
  ssize_t last = 1;
  while (count < bytes.size() && last > 0) {
    last = ::read(fd, bytes.data() + count, bytes.size() - count);
    count += last > 0 ? static_cast<std::size_t>(last) : 0;
  }
  const int problem = last < 0 ? errno : 0;
  ::close(fd);
  if (problem != 0)
    return fail_errno(problem, "cannot read '{}'", path);
  if (count == 0 && !bytes.empty())
    return fail(error_kind::invalid_argument, "'{}' is empty", path);
  for (std::size_t at = count; at < bytes.size(); at += count)
    std::memcpy(bytes.data() + at, bytes.data(), std::min(count, bytes.size() - at));
  return {};
}

task<void> perform_write(io_session& session, const io_request& r,
                         std::span<const std::byte> content) {
  const write_flags flags = r.flags | session.image().flags_of_writes();
  if (r.is_vmstate) {
    co_await image_with_vmstate(session).write_vmstate(r.offset, content);
  } else if (r.is_zero_write) {
    co_await session.image().disk().write_zeroes({r.offset, r.length}, flags);
  } else {
    co_await session.image().disk().write(r.offset, content, flags);
  }
}

task<bool> write_now(io_session& session, io_request r) {
  request_buffer content;
  if (!r.is_zero_write) {
    content = request_buffer(session, r.length);
    std::ranges::fill(content.bytes(), std::byte{r.pattern});
  }
  if (!r.source_file.empty()) {
    if (const result<> filled = fill_from_file(r.source_file, content.bytes()); !filled) {
      io_complain(fmt::format("bgfs io: {}", filled.error().message()));
      co_return false;
    }
  }
  const auto begin = std::chrono::steady_clock::now();
  result<> outcome = co_await as_result(perform_write(session, r, content.bytes()));
  if (!outcome)
    co_return report_failure(r.failure_name, outcome.error());
  report(r, "wrote", begin);
  co_return true;
}

// Requests in the background count as successful once they were started.
task<void> read_later(io_session& session, io_request r) {
  const bool is_done = co_await read_now(session, std::move(r));
  (void)is_done;
}
task<void> write_later(io_session& session, io_request r) {
  const bool is_done = co_await write_now(session, std::move(r));
  (void)is_done;
}

} // namespace

task<bool> io_read(io_session& session, std::vector<std::string> words) {
  const auto r = parse_read("read", "read", words, false);
  if (!r)
    co_return false;
  co_return co_await read_now(session, *r);
}

task<bool> io_readv(io_session& session, std::vector<std::string> words) {
  const auto r = parse_read("readv", "readv", words, true);
  if (!r)
    co_return false;
  co_return co_await read_now(session, *r);
}

namespace {

bool may_write(io_session& session) {
  if (session.image().choice().is_writable)
    return true;
  io_complain("bgfs io: the image was opened read-only");
  return false;
}

} // namespace

task<bool> io_write(io_session& session, std::vector<std::string> words) {
  const auto r = parse_write("write", "write", "bcCfnpqruzP:s:", words, false);
  if (!r || !may_write(session))
    co_return false;
  co_return co_await write_now(session, *r);
}

task<bool> io_writev(io_session& session, std::vector<std::string> words) {
  const auto r = parse_write("writev", "writev", "CfqrP:", words, true);
  if (!r || !may_write(session))
    co_return false;
  co_return co_await write_now(session, *r);
}

task<bool> io_aio_read(io_session& session, std::vector<std::string> words) {
  auto r = parse_read("aio_read", "readv", words, true);
  if (!r)
    co_return false;
  session.in_flight().spawn(read_later(session, *std::move(r)));
  co_return true;
}

task<bool> io_aio_write(io_session& session, std::vector<std::string> words) {
  auto r = parse_write("aio_write", "aio_write", "CfqruzP:", words, true);
  if (!r || !may_write(session))
    co_return false;
  session.in_flight().spawn(write_later(session, *std::move(r)));
  co_return true;
}

task<bool> io_aio_flush(io_session& session, std::vector<std::string>) {
  co_await session.join_in_flight();
  co_return true;
}

task<bool> io_discard(io_session& session, std::vector<std::string> given) {
  const auto words = take_words("discard", given, "Cq");
  if (!words || !has_right_operands("discard", *words, false) || !may_write(session))
    co_return false;
  io_request r{
      .failure_name = "discard", .is_quiet = words->has('q'), .is_for_programs = words->has('C')};
  const auto offset = take_number(words->operands[0]);
  const auto length = offset ? take_number(words->operands[1]) : std::nullopt;
  if (!length)
    co_return false;
  r.offset = *offset;
  r.length = *length;
  const auto begin = std::chrono::steady_clock::now();
  result<> outcome = co_await as_result(session.image().disk().discard({r.offset, r.length}));
  if (!outcome)
    co_return report_failure("discard", outcome.error());
  report(r, "discard", begin);
  co_return true;
}

task<bool> io_flush(io_session& session, std::vector<std::string>) {
  result<> outcome = co_await as_result(session.image().disk().flush());
  if (!outcome)
    co_return report_failure("flush", outcome.error());
  co_return true;
}

} // namespace bgfs
