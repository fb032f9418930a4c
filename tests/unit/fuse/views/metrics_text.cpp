// SPDX-License-Identifier: MIT
#include "fuse/views/metrics_text.h"

#include <doctest/doctest.h>

using namespace bgfs;

TEST_CASE("families, units, suffixes and the end mark") {
  metrics_text text;
  text.family("a_bytes", metric_type::counter, "Bytes.", "bytes");
  text.sample({{"x", "1"}, {"y", "2"}}, u64{18446744073709551615U});
  text.family("b", metric_type::info, "It.");
  text.sample({{"version", "1"}}, u64{1});
  text.family("c", metric_type::gauge, "Some.");
  text.sample({}, 0.5);
  CHECK(text.take() == "# TYPE a_bytes counter\n# UNIT a_bytes bytes\n# HELP a_bytes Bytes.\n"
                       "a_bytes_total{x=\"1\",y=\"2\"} 18446744073709551615\n"
                       "# TYPE b info\n# HELP b It.\nb_info{version=\"1\"} 1\n"
                       "# TYPE c gauge\n# HELP c Some.\nc 0.5\n# EOF\n");
}

TEST_CASE("the values of labels are escaped, and are UTF-8 whatever a name holds") {
  CHECK(escaped_label("plain") == "plain");
  CHECK(escaped_label("a\"b\\c\nd") == "a\\\"b\\\\c\\nd");
  CHECK(escaped_label("gr\u00fc\u00df \u20ac \U0001f600") == "gr\u00fc\u00df \u20ac \U0001f600");
  CHECK(escaped_label("\xff\xc3") == "\\\\xff\\\\xc3");            // no character, cut short
  CHECK(escaped_label("\xc0\xaf") == "\\\\xc0\\\\xaf");            // longer than need be
  CHECK(escaped_label("\xed\xa0\x80") == "\\\\xed\\\\xa0\\\\x80"); // half of a pair
  CHECK(escaped_label("\xf4\x90\x80\x80") == "\\\\xf4\\\\x90\\\\x80\\\\x80");
}
