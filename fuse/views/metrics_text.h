// SPDX-License-Identifier: MIT
// OpenMetrics text (version 1.0): families of samples, in the order they are added.
#pragma once

#include "graph/base/ints.h"

#include <initializer_list>
#include <string>
#include <string_view>
#include <utility>

namespace bgfs {

enum class metric_type : u8 { counter, gauge, histogram, info, stateset };

class metrics_text {
public:
  using label = std::pair<std::string_view, std::string_view>;
  using labels = std::initializer_list<label>;

  // All samples of a family follow before the next one begins. `unit` is empty, or what the name
  // ends with; names of counters are without their _total.
  void family(std::string_view name, metric_type type, std::string_view help,
              std::string_view unit = {});
  // `suffix` is what the name of the sample has behind that of its family: "_bucket"; counters and
  // infos get theirs by themselves.
  void sample(labels of, double value, std::string_view suffix = {});
  void sample(labels of, u64 value, std::string_view suffix = {});

  // The whole, with its end mark.
  [[nodiscard]] std::string take();

private:
  void begin_sample(labels of, std::string_view suffix);
  std::string text_;
  std::string name_;
  metric_type type_ = metric_type::gauge;
};

// As a label's value stands between its quotes. Bytes that are no UTF-8 are shown as \xNN.
[[nodiscard]] std::string escaped_label(std::string_view value);

} // namespace bgfs
