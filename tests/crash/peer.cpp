// SPDX-License-Identifier: MIT
#include "tests/crash/peer.h"

#include <fmt/format.h>

#include <cstdio>
#include <fstream>
#include <sys/wait.h>
#include <unistd.h>

namespace bgfs::test {

namespace fs = std::filesystem;

namespace {

constexpr const char* file_names[] = {"image.qcow2", "data"};

void write_file(const fs::path& path, std::span<const std::byte> bytes) {
  std::ofstream out(path, std::ios::binary);
  out.write(reinterpret_cast<const char*>(bytes.data()),
            static_cast<std::streamsize>(bytes.size()));
}

disk_content read_file(const fs::path& path) {
  disk_content bytes(fs::file_size(path));
  std::ifstream in(path, std::ios::binary);
  in.read(reinterpret_cast<char*>(bytes.data()), static_cast<std::streamsize>(bytes.size()));
  return bytes;
}

std::string raw_node(const fs::path& path) {
  return fmt::format(R"({{"driver":"raw","file":{{"driver":"file","filename":"{}"}}}})",
                     path.string());
}

} // namespace

void save(const fs::path& directory, const crash_history& h, const file_contents& files) {
  fs::create_directories(directory);
  for (std::size_t i = 0; i < files.size(); i++)
    write_file(directory / file_names[i], files[i]);
  if (!h.backing.empty())
    write_file(directory / "base", h.backing);
}

peer::peer(const fs::path& place) : directory_(place / fmt::format("crash-{}", getpid())) {}

peer::~peer() {
  std::error_code ignored;
  fs::remove_all(directory_, ignored);
}

peer::outcome peer::run(const std::string& verb, const state& s, const std::string& rest) const {
  const crash_shape& shape = s.history.shape;
  std::string node = fmt::format(R"({{"driver":"qcow2","file":{{"driver":"file","filename":"{}"}})",
                                 (directory_ / file_names[0]).string());
  if (shape.has_data_file)
    node += R"(,"data-file":)" + raw_node(directory_ / file_names[1]);
  if (shape.backing != 0)
    node += R"(,"backing":)" + raw_node(directory_ / "base");
  std::string secret;
  if (!shape.encryption.empty()) {
    node += fmt::format(R"(,"encrypt":{{"format":"{}","key-secret":"k"}})", shape.encryption);
    secret = fmt::format("--object 'secret,id=k,data={}'", passphrase_of(s.key));
  }
  const std::string command =
      fmt::format("qemu-img {} {} 'json:{}}}' {} 2>&1", verb, secret, node, rest);
  std::FILE* const out = popen(command.c_str(), "r");
  if (out == nullptr)
    return {-1, "qemu-img cannot be started"};
  std::string text;
  std::array<char, 4096> part;
  for (std::size_t n; (n = std::fread(part.data(), 1, part.size(), out)) > 0;)
    text.append(part.data(), n);
  const int status = pclose(out);
  return {WIFEXITED(status) ? WEXITSTATUS(status) : -1, command + "\n" + text};
}

std::string peer::objection(const state& s) const {
  save(directory_, s.history, s.files);
  const outcome checked = run(s.needs_repair ? "check -r all" : "check", s, "");
  const bool has_only_leaks = checked.status == 3 && !s.needs_repair;
  if (checked.status != 0 && !has_only_leaks)
    return fmt::format("status {} of {}", checked.status, checked.output);
  const fs::path raw = directory_ / "raw";
  const outcome converted = run("convert -O raw", s, raw.string());
  if (converted.status != 0)
    return fmt::format("status {} of {}", converted.status, converted.output);
  return is_same(read_file(raw), s.disk) ? std::string()
                                         : "the disk is another one after " + converted.output;
}

} // namespace bgfs::test
