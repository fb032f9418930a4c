// SPDX-License-Identifier: MIT
#include "config/commands/io_session.h"

#include "config/commands/new_image.h"

#include "graph/base/text.h"
#include "graph/io/file.h"
#include "graph/io/sleep.h"

#include <algorithm>
#include <csignal>
#include <cstdio>
#include <cstdlib>
#include <fcntl.h>
#include <unistd.h>

namespace bgfs {

namespace {

constexpr io_command command_table[] = {
    {"read", "r", 2, -1, true, "[-bCqv] [-P pattern [-s off] [-l len]] off len",
     "reads a number of bytes at a specified offset", io_read},
    {"readv", "rv", 2, -1, true, "[-Cqv] [-P pattern] off len [len..]",
     "reads a number of bytes at a specified offset", io_readv},
    {"write", "w", 2, -1, true, "[-bcCfnquz] [-P pattern | -s source_file] off len",
     "writes a number of bytes at a specified offset", io_write},
    {"writev", "wv", 2, -1, true, "[-Cfq] [-P pattern] off len [len..]",
     "writes a number of bytes at a specified offset", io_writev},
    {"aio_read", "", 2, -1, true, "[-Cqv] [-P pattern] off len [len..]",
     "asynchronously reads a number of bytes", io_aio_read},
    {"aio_write", "", 2, -1, true, "[-Cfquz] [-P pattern] off len [len..]",
     "asynchronously writes a number of bytes", io_aio_write},
    {"aio_flush", "", 0, 0, true, "", "completes all outstanding aio requests", io_aio_flush},
    {"discard", "d", 2, -1, true, "[-Cq] off len",
     "discards a number of bytes at a specified offset", io_discard},
    {"flush", "f", 0, 0, true, "", "flush all in-core file state to disk", io_flush},
    {"truncate", "t", 1, 3, true, "[-m prealloc_mode] off",
     "truncates the current file at the given offset", io_truncate},
    {"length", "l", 0, 0, true, "", "gets the length of the current file", io_length},
    {"map", "", 0, 0, true, "", "prints the allocated areas of a file", io_map},
    {"alloc", "a", 1, 2, true, "offset [count]", "checks if offset is allocated in the file",
     io_alloc},
    {"info", "i", 0, 0, true, "", "prints information about the current file", io_info},
    {"open", "o", 1, -1, false, "[-rsnCkU] [-t cache] [-d discard] [-o options] [path]",
     "open the file specified by path", io_open},
    {"close", "c", 0, 0, true, "", "close the current open file", io_close},
    {"reopen", "", 0, -1, true, "[(-r|-w)] [-c cache] [-o options]",
     "reopens an image with new options", io_reopen},
    {"break", "", 2, 2, true, "event tag",
     "sets a breakpoint on event and tags the stopped request as tag", io_break},
    {"remove_break", "", 1, 1, true, "tag", "remove a breakpoint by tag", io_remove_break},
    {"resume", "", 1, 1, true, "tag", "resumes the request tagged as tag", io_resume},
    {"wait_break", "", 1, 1, true, "tag", "waits for the suspension of a request", io_wait_break},
    {"sleep", "", 1, 1, false, "milliseconds", "waits for the given value in milliseconds",
     io_sleep},
    {"abort", "", 0, 0, false, "", "simulate a program crash", io_abort},
    {"sigraise", "", 1, 1, false, "signal", "raises a signal", io_sigraise},
    {"quit", "q", 0, 0, false, "", "exit the program", io_quit},
    {"help", "?", 0, 1, false, "[command]", "help for one or all commands", io_help},
};

const io_command* find_command(std::string_view name) {
  const auto found = std::ranges::find_if(command_table, [&](const io_command& c) {
    return c.name == name || (!c.short_name.empty() && c.short_name == name);
  });
  return found == std::end(command_table) ? nullptr : found;
}

std::string usage_line(const io_command& c) {
  return fmt::format("{}{}{} -- {}\n", c.name, c.usage.empty() ? "" : " ", c.usage, c.summary);
}

bool has_right_count(const io_command& c, int count) {
  if (count >= c.words_min && (c.words_max < 0 || count <= c.words_max))
    return true;
  if (c.words_max < 0) {
    io_complain(fmt::format("bad argument count {} to {}, expected at least {} arguments", count,
                            c.name, c.words_min));
  } else if (c.words_min == c.words_max) {
    io_complain(fmt::format("bad argument count {} to {}, expected {} arguments", count, c.name,
                            c.words_min));
  } else {
    io_complain(fmt::format("bad argument count {} to {}, expected between {} and {} arguments",
                            count, c.name, c.words_min, c.words_max));
  }
  return false;
}

} // namespace

std::span<const io_command> io_commands() {
  return command_table;
}

void io_complain(std::string_view message) {
  (void)std::fflush(stdout);
  fmt::print(stderr, "{}\n", message);
}

bool report_failure(std::string_view what, const error& e) {
  return report_refusal(fmt::format("{} failed", what), e);
}

bool report_refusal(std::string_view what, const error& e) {
  print(fmt::format("{}: {}\n", what, os_words(e)));
  io_complain(fmt::format("bgfs io: {}", e.message()));
  return false;
}

std::optional<io_words> take_words(std::string_view command, const std::vector<std::string>& given,
                                   std::string_view letters) {
  result<io_words> words = parse_io_words(given, letters);
  if (words)
    return *std::move(words);
  io_complain(fmt::format("{}: {}", command, words.error().message()));
  print(usage_line(*find_command(command)));
  return std::nullopt;
}

std::optional<u64> take_number(const std::string& text) {
  const result<u64> number = parse_io_number(text);
  if (number)
    return *number;
  print(number.error().message() + "\n");
  return std::nullopt;
}

task<void> io_session::run_line(std::string line) {
  std::vector<std::string> words = split_words(line);
  if (words.empty())
    co_return;
  const std::string name = words.front();
  words.erase(words.begin());
  const io_command* command = find_command(name);
  if (command == nullptr) {
    std::vector<std::string_view> names;
    for (const io_command& c : command_table)
      names.push_back(c.name);
    io_complain(fmt::format("command \"{}\" not found{}", name, did_you_mean(name, names)));
    has_failed_ = true;
    co_return;
  }
  if (command->needs_image && image_ == nullptr) {
    io_complain("no file open, try 'help open'");
    has_failed_ = true;
    co_return;
  }
  if (!has_right_count(*command, static_cast<int>(words.size()))) {
    has_failed_ = true;
    co_return;
  }
  const bool is_done = co_await command->run(*this, std::move(words));
  if (!is_done)
    has_failed_ = true;
}

namespace {

// A file that has no name any more, and so is gone with who has it open.
result<descriptor> make_nameless_file() {
  const char* const given = std::getenv("TMPDIR");
  std::string path = fmt::format("{}/bgfs-io-XXXXXX", given == nullptr ? "/var/tmp" : given);
  descriptor file(::mkostemp(path.data(), O_CLOEXEC));
  if (!file.is_open())
    return fail_errno(errno, "cannot make the temporary file '{}' (its directory is TMPDIR)", path);
  (void)::unlink(path.c_str());
  return file;
}

task<u64> length_of(graph& nodes, image_choice choice) {
  choice.is_writable = false;
  const u64 length =
      co_await with(open(nodes, std::move(choice)),
                    [](open_image& image) -> task<u64> { co_return image.top().length(); });
  co_return length;
}

} // namespace

task<std::unique_ptr<open_image>> io_session::open_over_overlay(image_choice choice) {
  const descriptor file = co_await make_nameless_file();
  choice.overlay_path = fmt::format("/proc/self/fd/{}", file.get());
  image_choice below = choice;
  below.overlay_path.clear();
  prepared_image overlay = co_await prepare_new_image(
      session_, {.filename = choice.overlay_path,
                 .format = "qcow2",
                 .length = co_await length_of(session_.nodes(), std::move(below))});
  co_await create_image(session_.nodes(), std::move(overlay.job));
  co_return co_await open(session_.nodes(), std::move(choice));
}

task<bool> io_session::open_image_of(image_choice choice) {
  if (image_ != nullptr) {
    io_complain("file open already, try 'help close'");
    co_return false;
  }
  result<std::unique_ptr<open_image>> opened =
      co_await as_result(choice.is_temporary ? open_over_overlay(std::move(choice))
                                             : open(session_.nodes(), std::move(choice)));
  if (!opened) {
    io_complain(fmt::format("bgfs io: {}", opened.error().message()));
    co_return false;
  }
  image_ = *std::move(opened);
  co_return true;
}

task<void> io_session::join_in_flight() {
  std::optional<breakpoints_off> passing;
  if (image_ != nullptr)
    passing.emplace(image_->top());
  co_await in_flight_.join();
}

task<bool> io_session::close_image() {
  result<> finished = co_await as_result(join_in_flight());
  (void)finished; // each request has reported its own failure
  if (image_ == nullptr)
    co_return true;
  passing_.reset();
  result<> closed = co_await as_result(image_->release());
  image_.reset();
  if (closed)
    co_return true;
  io_complain(fmt::format("bgfs io: closing the image: {}", closed.error().message()));
  co_return false;
}

task<void> io_session::release() {
  const bool is_closed = co_await close_image();
  if (!is_closed)
    has_failed_ = true;
}

task<bool> io_sleep(io_session&, std::vector<std::string> words) {
  const auto milliseconds = take_number(words[0]);
  if (!milliseconds)
    co_return false;
  co_await sleep_for(std::chrono::milliseconds(*milliseconds));
  co_return true;
}

// For who tests what becomes of an image then.
task<bool> io_abort(io_session&, std::vector<std::string>) {
  std::abort();
}

task<bool> io_sigraise(io_session&, std::vector<std::string> words) {
  const auto number = take_number(words[0]);
  if (!number)
    co_return false;
  (void)std::fflush(stdout);
  if (::raise(static_cast<int>(*number)) == 0)
    co_return true;
  io_complain(fmt::format("bgfs io: there is no signal {}", *number));
  co_return false;
}

task<bool> io_quit(io_session& session, std::vector<std::string>) {
  session.end();
  co_return true;
}

task<bool> io_help(io_session&, std::vector<std::string> words) {
  if (words.empty()) {
    for (const io_command& c : command_table)
      print(usage_line(c));
    print("\nUse 'help commandname' for extended help.\n");
    co_return true;
  }
  const io_command* command = find_command(words[0]);
  if (command == nullptr) {
    print(fmt::format("command {} not found\n", words[0]));
    co_return false;
  }
  print(usage_line(*command));
  co_return true;
}

} // namespace bgfs
