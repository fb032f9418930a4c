// SPDX-License-Identifier: MIT
// A session of `bgfs io`: the open image, the requests in flight, and the commands.
#pragma once

#include "config/commands/image_session.h"
#include "config/commands/io_text.h"

namespace bgfs {

class io_session;

// Each command takes its words without its name, prints its own results and messages, and says
// whether it succeeded.
struct io_command {
  std::string_view name;
  std::string_view short_name;
  int words_min = 0;
  int words_max = 0; // -1: any number
  bool needs_image = true;
  std::string_view usage;
  std::string_view summary;
  task<bool> (*run)(io_session& session, std::vector<std::string> words) = nullptr;
};

[[nodiscard]] std::span<const io_command> io_commands();

// Prints what breakpoints do, as it happens.
class suspension_printer final : public event_sink {
public:
  void emit(std::string_view type, value data) override;
};

class io_session {
public:
  // Buffers of requests begin `misalignment` bytes behind what is aligned.
  io_session(command_session& session, image_choice defaults, std::size_t misalignment)
      : session_(session), defaults_(std::move(defaults)), misalignment_(misalignment),
        in_flight_(session.home()) {
    session_.nodes().set_events(&printer_);
  }
  ~io_session() { session_.nodes().set_events(nullptr); }
  io_session(const io_session&) = delete;
  io_session& operator=(const io_session&) = delete;

  // Once the command is cancelled, breakpoints keep nobody: what waits at one could not end.
  void let_pass_once_cancelled(cancel_state* cancel) {
    interruption_.attach(cancel, [this] { let_pass(); });
  }

  // Runs one line. Errors have been said; nothing ends the session but `quit`.
  task<void> run_line(std::string line);
  // Waits for what is in flight and closes the image. For `with`.
  task<void> release();

  // Opens an image; the one that is open is closed first. Says what goes wrong.
  task<bool> open_image_of(image_choice choice);
  task<bool> close_image();

  [[nodiscard]] open_image& image() const { return *image_; }
  // Waits for what is in flight; breakpoints keep none of it.
  task<void> join_in_flight();
  // What commands about the image as a whole are about: not the filter of -C.
  [[nodiscard]] node& subject() {
    node& top = image_->top();
    return image_->choice().copies_on_read ? *top.skip_filters() : top;
  }
  [[nodiscard]] bool has_image() const { return image_ != nullptr; }
  [[nodiscard]] task_group& in_flight() { return in_flight_; }
  [[nodiscard]] command_session& session() { return session_; }
  [[nodiscard]] std::size_t misalignment() const { return misalignment_; }
  [[nodiscard]] const image_choice& defaults() const { return defaults_; }
  [[nodiscard]] bool has_ended() const { return has_ended_; }
  void end() { has_ended_ = true; }
  [[nodiscard]] bool has_failed() const { return has_failed_; }
  void fail_once() { has_failed_ = true; }

private:
  void let_pass() {
    if (image_ != nullptr)
      passing_.emplace(image_->top());
  }
  task<std::unique_ptr<open_image>> open_over_overlay(image_choice choice);
  command_session& session_;
  suspension_printer printer_;
  cancel_hook interruption_;
  std::optional<breakpoints_off> passing_;
  image_choice defaults_; // of `open`
  std::size_t misalignment_;
  std::unique_ptr<open_image> image_;
  task_group in_flight_;
  bool has_ended_ = false;
  bool has_failed_ = false;
};

// A message for people, on standard error.
void io_complain(std::string_view message);
// Prints what went wrong as scripts know it, and the whole story for people; returns false.
bool report_failure(std::string_view what, const error& e);
// The same, "what: why".
bool report_refusal(std::string_view what, const error& e);
// Parses the flags; what is wrong is said, with the usage.
[[nodiscard]] std::optional<io_words> take_words(std::string_view command,
                                                 const std::vector<std::string>& given,
                                                 std::string_view letters);
// A number, or nothing after saying why.
[[nodiscard]] std::optional<u64> take_number(const std::string& text);

// io_data.cpp
task<bool> io_read(io_session& session, std::vector<std::string> words);
task<bool> io_readv(io_session& session, std::vector<std::string> words);
task<bool> io_write(io_session& session, std::vector<std::string> words);
task<bool> io_writev(io_session& session, std::vector<std::string> words);
task<bool> io_aio_read(io_session& session, std::vector<std::string> words);
task<bool> io_aio_write(io_session& session, std::vector<std::string> words);
task<bool> io_aio_flush(io_session& session, std::vector<std::string> words);
task<bool> io_discard(io_session& session, std::vector<std::string> words);
task<bool> io_flush(io_session& session, std::vector<std::string> words);
// io_image.cpp
task<bool> io_truncate(io_session& session, std::vector<std::string> words);
task<bool> io_length(io_session& session, std::vector<std::string> words);
task<bool> io_map(io_session& session, std::vector<std::string> words);
task<bool> io_alloc(io_session& session, std::vector<std::string> words);
task<bool> io_info(io_session& session, std::vector<std::string> words);
task<bool> io_open(io_session& session, std::vector<std::string> words);
task<bool> io_close(io_session& session, std::vector<std::string> words);
task<bool> io_reopen(io_session& session, std::vector<std::string> words);
// io_debug.cpp
task<bool> io_break(io_session& session, std::vector<std::string> words);
task<bool> io_remove_break(io_session& session, std::vector<std::string> words);
task<bool> io_resume(io_session& session, std::vector<std::string> words);
task<bool> io_wait_break(io_session& session, std::vector<std::string> words);
// io_session.cpp
task<bool> io_sleep(io_session& session, std::vector<std::string> words);
task<bool> io_abort(io_session& session, std::vector<std::string> words);
task<bool> io_sigraise(io_session& session, std::vector<std::string> words);
task<bool> io_quit(io_session& session, std::vector<std::string> words);
task<bool> io_help(io_session& session, std::vector<std::string> words);

} // namespace bgfs
