// SPDX-License-Identifier: MIT
#include "drivers/filter/blkdebug/debug_rules.h"
#include "drivers/filter/blkdebug/rule_options.h"

#include "tests/unit/lib/scratch_directory.h"

#include <doctest/doctest.h>

#include <fstream>

using namespace bgfs;
using namespace bgfs::blkdebug;
using enum bgfs::debug_event;

namespace {

constexpr byte_range first_block{0, 512};

int errno_of(rule_engine& engine, request_kind kind = request_kind::read,
             byte_range range = first_block) {
  const auto met = engine.take(kind, range);
  return met ? met->os_error : 0;
}

rule_engine with(std::vector<inject_rule> injects, std::vector<state_rule> states = {}) {
  return rule_engine({std::move(injects), std::move(states)});
}

result<rule_list> parse(std::string_view text) {
  return parse_rules(text, "r.conf");
}

std::string refusal(std::string_view text) {
  const result<rule_list> parsed = parse(text);
  return parsed ? "accepted" : parsed.error().message();
}

} // namespace

TEST_CASE("blkdebug rules: an event brings its rules into force, and those of another out of it") {
  rule_engine e = with({{.event = l2_load, .os_error = 5}, {.event = write_aio, .os_error = 28}});
  CHECK(errno_of(e) == 0);
  e.process(l2_load);
  CHECK(errno_of(e) == 5);
  CHECK(errno_of(e, request_kind::flush, {}) == 5);
  e.process(l1_update); // nobody's: they stay
  CHECK(errno_of(e) == 5);
  e.process(write_aio);
  CHECK(errno_of(e) == 28);
}

TEST_CASE("blkdebug rules: of several in force the first decides, and once is once") {
  rule_engine e = with(
      {{.event = l2_load, .os_error = 28, .is_once = true}, {.event = l2_load, .os_error = 5}});
  e.process(l2_load);
  CHECK(errno_of(e) == 28);
  CHECK(errno_of(e) == 5);
  e.process(l2_load);
  CHECK(errno_of(e) == 5);
  CHECK(e.describe() == std::vector<std::string>{"inject-error event=l2_load errno=5 (in force)"});
}

TEST_CASE("blkdebug rules: a sector is touched by who has its first byte, a flush by nobody") {
  rule_engine e = with({{.event = none, .os_error = 5, .sector = 2}});
  e.process(none);
  CHECK(errno_of(e, request_kind::read, {0, 1024}) == 0);
  CHECK(errno_of(e, request_kind::read, {0, 1025}) == 5);
  CHECK(errno_of(e, request_kind::write, {1024, 1}) == 5);
  CHECK(errno_of(e, request_kind::write, {1025, 511}) == 0);
  CHECK(errno_of(e, request_kind::flush, {}) == 0);
}

TEST_CASE("blkdebug rules: a kind of request, or all that move or promise bytes") {
  for (std::size_t i = 0; i < std::size(request_kind_names); i++) {
    const auto kind = static_cast<request_kind>(i);
    rule_engine one = with({{.event = none, .os_error = 5, .kinds = bit(kind)}});
    rule_engine all = with({{.event = none, .os_error = 5}});
    one.process(none);
    all.process(none);
    for (std::size_t k = 0; k < std::size(request_kind_names); k++) {
      const auto asked = static_cast<request_kind>(k);
      CHECK(errno_of(one, asked) == (asked == kind ? 5 : 0));
      CHECK(errno_of(all, asked) == (asked == request_kind::block_status ? 0 : 5));
    }
  }
}

TEST_CASE("blkdebug rules: errno 0 fails nothing and hides what comes after it; a delay is met") {
  rule_engine e =
      with({{.event = none, .os_error = 0, .is_once = true}, {.event = none, .os_error = 5}});
  e.process(none);
  CHECK(!e.take(request_kind::read, first_block).has_value());
  CHECK(!e.take(request_kind::read, first_block).has_value());
  rule_engine slow = with({{.event = none, .delay_ns = 7, .is_once = true, .is_immediate = true}});
  slow.process(none);
  const auto met = slow.take(request_kind::read, first_block);
  REQUIRE(met.has_value());
  CHECK(met->os_error == 0);
  CHECK(met->delay_ns == 7);
  CHECK(met->is_immediate);
  CHECK(!slow.take(request_kind::read, first_block).has_value());
}

TEST_CASE("blkdebug rules: states") {
  rule_engine e =
      with({{.event = read_aio, .state = 3, .os_error = 6}}, {{read_aio, 1, 2}, {read_aio, 2, 3}});
  CHECK(e.state() == 1);
  for (const int expected : {0, 0, 6, 6}) { // the state changes after the rules of the event
    e.process(read_aio);
    CHECK(errno_of(e) == expected);
  }
  CHECK(e.state() == 3);
  rule_engine any = with({}, {{read_aio, 0, 7}, {read_aio, 1, 8}});
  any.process(read_aio);
  CHECK(any.state() == 7); // the first decides
  CHECK(any.describe() == std::vector<std::string>{"set-state event=read_aio new_state=7",
                                                   "set-state event=read_aio state=1 new_state=8"});
}

TEST_CASE("blkdebug rules: a file of them") {
  const result<rule_list> rules = parse("# two\n\n[inject-error]\n  event = \"l2_load\"\r\n"
                                        "errno=\"28\"\nsector\t=\t\"9\"\nonce = \"on\"\n"
                                        "immediately = \"on\"\niotype = \"write-zeroes\"\n"
                                        "delay_ns = \"3\"\nstate = \"4\"\n"
                                        "[set-state \"second\"]\nevent = \"none\"\n"
                                        "event = \"write_aio\"\nnew_state = \"4\"");
  REQUIRE_MESSAGE(rules.has_value(), (rules ? std::string() : rules.error().message()));
  REQUIRE(rules->injects.size() == 1);
  REQUIRE(rules->states.size() == 1);
  const rule_engine e(*rules);
  CHECK(e.describe() ==
        std::vector<std::string>{
            "inject-error event=l2_load errno=28 state=4 sector=9 delay-ns=3 once=on "
            "immediately=on iotype=write-zeroes",
            "set-state event=write_aio new_state=4"});
  CHECK(parse("")->injects.empty());
  CHECK(parse("[inject-error]\nevent = \"none\"\n")->injects[0].os_error == 5);
}

TEST_CASE("blkdebug rules: what a file may not say, and where") {
  CHECK(refusal("garbage") == "r.conf:1:1: 'garbage' stands before the first section: "
                              "[inject-error] or [set-state]");
  CHECK(refusal("\n[bogus]\n") ==
        "r.conf:2:1: there is no section 'bogus': they are [inject-error] and [set-state]");
  CHECK(refusal("[inject-error\n") == "r.conf:1:1: '[inject-error' has no ']' at its end");
  CHECK(refusal("[set-state] x\n") == "r.conf:1:1: nothing may follow '[set-state]'");
  CHECK(refusal("[set-state x]\n") ==
        "r.conf:1:1: what follows 'set-state' is a name in double quotes, not x");
  CHECK(refusal("[inject-error]\nevent = none\n") ==
        "r.conf:2:1: 'event = none' is not of the form  key = \"value\"");
  CHECK(refusal("[inject-error]\nevent\n") ==
        "r.conf:2:1: 'event' is not of the form  key = \"value\"");
  CHECK(refusal("[inject-error]\nerrno = \"5\"\n") ==
        "r.conf:1:1: a rule of 'inject-error' needs option 'event': what makes the rule come into "
        "force");
  CHECK(refusal("[inject-error]\nevent = \"l2_laod\"\n").contains("did you mean 'l2_load'?"));
  CHECK(refusal("[inject-error]\nevent = \"none\"\nerno = \"5\"\n") ==
        "r.conf:3:1: option 'erno' is not known to a rule of 'inject-error'; did you mean "
        "'errno'?");
  CHECK(refusal("[inject-error]\nevent = \"none\"\nerrno = \"-5\"\n") ==
        "r.conf:3:1: option 'errno' is a whole number, not '-5'");
  CHECK(refusal("[inject-error]\nevent = \"none\"\nerrno = \"4096\"\n") ==
        "r.conf:3:1: option 'errno' is 4096, outside its range of 0 to 4095");
  CHECK(refusal("[inject-error]\nevent = \"none\"\niotype = \"seek\"\n")
            .starts_with("r.conf:3:1: option 'iotype' is one of read, write, write-zeroes, "
                         "discard, flush, block-status, not 'seek'"));
  CHECK(refusal("[inject-error]\nevent = \"none\"\nonce = \"maybe\"\n").contains("r.conf:3:1"));
  CHECK(refusal("[inject-error]\nevent = \"none\"\nsector = \"99999999999999999999\"\n")
            .contains("option 'sector'"));
  CHECK(refusal("[inject-error]\nevent = \"none\"\ndelay-ns = \"3600000000001\"\n")
            .contains("outside its range"));
  CHECK(refusal("[set-state]\nevent = \"none\"\nerrno = \"5\"\n")
            .contains("option 'errno' is not known to a rule of 'set-state'"));
}

TEST_CASE("blkdebug rules: no bytes of a file do any harm") {
  using namespace std::string_literals;
  CHECK(refusal("\0\1\2\n"s).starts_with("r.conf:1:1: '\?\?\?' stands before"));
  CHECK(refusal(std::string(5000, '[')).size() < 200);
  CHECK(refusal("[inject-error]\n\"\"\"\n").contains("is not of the form"));
  CHECK(refusal("[inject-error]\n=\"\"\n").contains("option '' is not known"));
  CHECK(refusal("[]\n").contains("there is no section ''"));
  std::string many;
  for (std::size_t i = 0; i <= rules_count_max; i++)
    many += "[set-state]\nevent=\"none\"\n";
  CHECK(refusal(many).ends_with("there are more than 4096 rules"));
  u64 state = 1;
  for (int run = 0; run < 2000; run++) {
    std::string text = "[inject-error]\nevent = \"none\"\n[set-state \"x\"]\nevent = \"l2_load\"\n";
    for (int i = 0; i < 4; i++) {
      state = state * 6364136223846793005u + 1442695040888963407u;
      text[(state >> 33) % text.size()] = static_cast<char>(state >> 55);
    }
    (void)parse(text);
  }
}

TEST_CASE("blkdebug rules: files that cannot be read") {
  const test::scratch_directory dir;
  const std::string none_there = dir.path / "none";
  CHECK(read_rules(none_there)
            .error()
            .message()
            .starts_with("cannot open the file of rules '" + none_there + "'"));
  CHECK(read_rules(dir.path).error().message().starts_with("cannot read the file of rules '"));
  const std::string large = dir.path / "large";
  std::ofstream(large) << std::string(rules_length_max + 1, '#');
  CHECK(read_rules(large).error().message() ==
        "'" + large + "' is no file of rules: it has more than 1048576 bytes");
  const std::string good = dir.path / "good";
  std::ofstream(good) << "[set-state]\nevent = \"none\"\n";
  CHECK(read_rules(good)->states.size() == 1);
}
