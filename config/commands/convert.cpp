// SPDX-License-Identifier: MIT
// bgfs convert: copy images, one behind the other, into a new image, an existing one, or a stream.
#include "config/commands/convert.h"
#include "config/commands/convert_bitmaps.h"

#include "graph/base/text.h"
#include "graph/io/file.h"
#include "graph/jobs/copy.h"

#include <sys/stat.h>
#include <unistd.h>

namespace bgfs {

namespace {

// Everything that is open while a conversion runs, given up in the opposite order.
class open_sources {
public:
  std::vector<std::unique_ptr<open_image>> images;

  task<void> release() {
    std::optional<error> first;
    while (!images.empty()) {
      result<> closed = co_await as_result(images.back()->release());
      if (!closed && !first)
        first = std::move(closed).error();
      images.pop_back();
    }
    if (first)
      co_await fail(*std::move(first));
  }
};

task<void> open_all(command_session& session, const convert_options& options, open_sources& into) {
  for (const std::string& name : options.sources) {
    image_choice choice = options.source;
    choice.name = name;
    into.images.push_back(co_await open(session.nodes(), choice));
  }
}

task<std::unique_ptr<open_sources>> open_sources_of(command_session& session,
                                                    const convert_options& options) {
  auto made = std::make_unique<open_sources>();
  result<> opened = co_await as_result(open_all(session, options, *made));
  if (opened)
    co_return made;
  result<> closed = co_await as_result(made->release());
  (void)closed; // the first error is the one to report
  co_return fail(std::move(opened).error());
}

u64 total_length(const open_sources& sources) {
  u64 total = 0;
  for (const auto& image : sources.images)
    total += image->top().length(); // each is below 2^63, and all of them are open
  return total;
}

// The secrets that an image was made with are those that open it: name=value,...
std::string key_options(const new_image& made) {
  std::string list;
  for (const option& o : made.format->create_options->options) {
    if (!o.name.ends_with("key-secret") || !made.format_options.is_set(o.name))
      continue;
    list += fmt::format("{}{}={}", list.empty() ? "" : ",", o.name,
                        quote_option_value(made.format_options.text(o.name)));
  }
  return list;
}

class conversion {
public:
  conversion(command_session& session, const convert_options& options, open_sources& sources)
      : session_(session), options_(options), sources_(sources),
        progress_(options.progress, "convert", "bytes", session.signals()) {}

  task<void> run() {
    total_ = total_length(sources_);
    if (total_ > device_length_max)
      co_await fail(error_kind::out_of_range, "the sources have {} bytes in all; {} is the most",
                    total_, device_length_max);
    if (options_.copies_bitmaps)
      bitmaps_ =
          co_await choose_bitmaps(source_image(), options_.skips_broken_bitmaps, options_.warn);
    if (options_.is_stream) {
      co_await to_stream();
    } else {
      co_await to_image();
    }
    progress_.end();
  }

private:
  task<void> to_stream() {
    stream_copy_target target(STDOUT_FILENO, "standard output");
    co_await copy_disks(session_.home(), make_plan(target));
  }

  task<void> to_image() {
    if (!options_.is_existing) {
      co_await check_not_a_source(options_.target.name);
      co_await create();
    }
    result<> copied = co_await as_result(copy_to_image());
    if (copied)
      co_return;
    // An image that is incomplete and was not there before is of no use to anybody.
    if (is_new_file_ && ::unlink(target_path_.c_str()) == 0)
      copied.error().add_context(fmt::format("'{}' was removed again", options_.target.name));
    else if (has_begun_)
      copied.error().add_context(fmt::format("'{}' is incomplete", options_.target.name));
    for (const std::string& part : new_parts_)
      (void)::unlink(part.c_str());
    co_await fail(std::move(copied).error());
  }

  result<> check_not_a_source(const std::string& path) const {
    // Sources and all that lies below them.
    for (const auto& n : session_.nodes().nodes())
      if (is_same_file(n->host_path(), path))
        return fail(error_kind::invalid_argument,
                    "'{}' is needed to read the source: creating it anew would destroy it", path);
    return {};
  }

  // Files beside the target: the user named them, so no policy about headers is asked.
  result<> check_parts(std::span<const new_file> parts) {
    for (const new_file& part : parts) {
      BGFS_CHECK(check_not_a_source(part.filename));
      if (!part.is_kept && ::access(part.filename.c_str(), F_OK) != 0)
        new_parts_.push_back(part.filename);
      target_options_ +=
          fmt::format("{0}{1}.driver={2},{1}.filename={3}", target_options_.empty() ? "" : ",",
                      part.slot, part.protocol->name, quote_option_value(part.filename));
    }
    return {};
  }

  // What was asked for by a letter or name, and not every format has. Nothing was made yet.
  result<> check_takes(const new_image& image) const {
    const auto takes = [&image](std::string_view option, std::string_view what,
                                auto asks) -> result<> {
      if (asks == nullptr)
        return fail(error_kind::unsupported, "'{}': the format '{}' has no {}", option,
                    image.format->name, what);
      return context(asks(image.format_options), "'{}'", option);
    };
    if (options_.is_compressed)
      BGFS_CHECK(takes("-c", "compressed clusters", image.format->takes_compressed));
    if (options_.copies_bitmaps)
      BGFS_CHECK(takes("--bitmaps", "bitmaps", image.format->takes_bitmaps));
    return {};
  }

  task<void> create() {
    new_image_request request = options_.new_image;
    request.filename = options_.target.name;
    request.length = total_;
    prepared_image prepared = co_await prepare_new_image(session_, std::move(request));
    co_await check_takes(prepared.job);
    has_backing_ = prepared.has_backing;
    target_path_ = prepared.job.file.filename;
    target_options_ = key_options(prepared.job);
    co_await check_parts(prepared.job.parts);
    struct stat found{};
    is_new_file_ = ::lstat(target_path_.c_str(), &found) != 0;
    co_await context(create_image(session_.nodes(), std::move(prepared.job)), "cannot create '{}'",
                     options_.target.name);
  }

  task<void> copy_to_image() {
    image_choice target = options_.target;
    target.format = options_.target.is_options ? std::string() : options_.new_image.format;
    target.is_writable = true;
    target.needs_backing = has_backing_ || options_.is_existing;
    target.discards = true;
    target.extra_options = target_options_;
    std::vector<std::string> read;
    for (const auto& n : session_.nodes().nodes())
      read.push_back(n->host_path());
    co_await with(open(session_.nodes(), target),
                  [&](open_image& to) { return copy_to_other(to, read); });
  }

  // The target is none of the files that are read, by whatever name it was opened.
  task<void> copy_to_other(open_image& to, const std::vector<std::string>& read) {
    const std::string path = to.top().host_path();
    for (const std::string& source : read)
      if (!path.empty() && is_same_file(path, source))
        co_await fail(error_kind::invalid_argument,
                      "'{}' is needed to read the source, which it would overwrite",
                      options_.target.name);
    co_await copy_to(to);
  }

  task<void> copy_to(open_image& to) {
    if (to.top().length() < total_)
      co_await fail(error_kind::out_of_range,
                    "'{}' has {} bytes, fewer than the {} bytes of the source",
                    options_.target.name, to.top().length(), total_);
    const u64 unit = options_.is_compressed ? to.top().skip_filters()->cluster_size() : 0;
    if (options_.is_compressed && unit == 0)
      co_await fail(error_kind::unsupported, "'-c': '{}' has no clusters that could be compressed",
                    options_.target.name);
    if (options_.copies_bitmaps)
      co_await check_can_hold(*to.top().skip_filters(), source_image(), bitmaps_);
    root_copy_target target(to.disk(), to.flags_of_writes(), unit);
    copy_plan plan = make_plan(target);
    plan.write_unit = std::max<u64>(unit, 1);
    const bool is_fresh = !options_.is_existing && !has_backing_ && !to.is_on_device();
    plan.target_reads_zero = options_.is_target_zero || is_fresh;
    if (node* shared = shared_base_with(to))
      plan.sources.front().shared_base = shared;
    has_begun_ = true;
    co_await copy_disks(session_.home(), std::move(plan));
    if (!bitmaps_.empty())
      co_await copy_bitmaps(source_image(), *to.top().skip_filters(), bitmaps_);
    co_await context(to.disk().flush(), "flushing '{}'", options_.target.name);
  }

  // The source's backing node, if the target stands on the same image: what the source's top layer
  // does not hold need not be copied.
  [[nodiscard]] node* shared_base_with(const open_image& to) const {
    if (sources_.images.size() != 1)
      return nullptr;
    node* below_source = sources_.images.front()->top().skip_filters()->next_in_chain();
    const edge* below_target = to.top().backing();
    if (below_source == nullptr || below_target == nullptr)
      return nullptr;
    const bool is_shared =
        is_same_file(below_source->host_path(), below_target->child().host_path());
    return is_shared ? below_source : nullptr;
  }

  [[nodiscard]] node& source_image() const {
    return *sources_.images.front()->top().skip_filters();
  }

  // Compressed clusters are packed in the order in which they come: one piece after the other they
  // take the least space, and each is compressed on all processors.
  [[nodiscard]] write_order order() const {
    if (options_.is_out_of_order)
      return write_order::any;
    return options_.is_compressed ? write_order::finished : write_order::begun;
  }

  copy_plan make_plan(copy_target& to) {
    copy_plan plan{.to = &to,
                   .parallel = options_.parallel,
                   .order = order(),
                   .zero_unit = options_.sparse_unit,
                   .offloads = options_.offloads,
                   .bytes_per_second = options_.bytes_per_second,
                   .progress = [this](u64 done, u64 total) { progress_.report(done, total); }};
    if (options_.salvages)
      plan.unreadable = [this](byte_range range, const error& why) {
        options_.warn(fmt::format("{} bytes at {:#x} of the source are zeroes now: {}",
                                  range.length, range.offset, why.message()));
      };
    for (const auto& image : sources_.images)
      plan.sources.push_back({&image->disk(), image->top().length(), nullptr});
    return plan;
  }

  command_session& session_;
  const convert_options& options_;
  open_sources& sources_;
  progress_line progress_;
  u64 total_ = 0;
  bool has_backing_ = false;
  bool is_new_file_ = false;
  bool has_begun_ = false; // something of the target may have been written
  std::string target_path_;
  std::vector<bitmap_definition> bitmaps_; // to be copied
  std::vector<std::string> new_parts_;     // files beside it that were not there
  std::string target_options_;             // what opens it: these files, and keys
};

task<void> convert_open(command_session& session, const convert_options& options,
                        open_sources& sources) {
  conversion c(session, options, sources);
  co_await c.run();
}

} // namespace

task<void> convert(command_session& session, const convert_options& options) {
  co_await with(open_sources_of(session, options),
                [&](open_sources& sources) { return convert_open(session, options, sources); });
}

} // namespace bgfs
