// SPDX-License-Identifier: MIT
// What can only be checked when all documents of a graph are seen together.
#include "config/graph_content.h"

#include "config/document_values.h"
#include "graph/base/text.h"

#include <algorithm>
#include <functional>

namespace bgfs {

namespace {

using content = graph_config::content;

constexpr std::size_t chain_length_max = 1000;

class linker {
public:
  explicit linker(content& c) : c_(c) {}

  std::optional<document_failure> run() {
    c_.named.clear();
    c_.separate.clear();
    c_.written.clear();
    c_.written_unchanged.clear();
    c_.iothreads.clear();
    collect_lost();
    using step = result<> (linker::*)(std::size_t);
    static constexpr step steps[] = {
        &linker::add_names,          &linker::check_references, &linker::check_circles,
        &linker::check_exports,      &linker::check_writers,    &linker::check_caches,
        &linker::check_shared_files, &linker::connect,          &linker::check_iothreads};
    for (const step s : steps) {
      for (std::size_t i = 0; i < c_.documents.size(); i++) {
        if (c_.documents[i].failure)
          continue;
        if (result<> ok = (this->*s)(i); !ok)
          return document_failure{i, std::move(ok).error()};
      }
    }
    return std::nullopt;
  }

private:
  void collect_lost() {
    for (const graph_document& d : c_.documents)
      lost_.insert(d.lost_nodes.begin(), d.lost_nodes.end());
  }

  result<> add_names(std::size_t index) {
    result<> outcome;
    for (const auto& top : c_.documents[index].nodes)
      for_each_definition(*top, [&](const node_definition& d) {
        if (d.node_name.empty() || !outcome)
          return;
        const auto [at, is_new] = c_.named.emplace(d.node_name, &d);
        if (!is_new)
          outcome = wrong(d.mark, "there are two nodes '{}'; the other is at {}", d.node_name,
                          at->second->mark.to_string());
      });
    return outcome;
  }

  [[nodiscard]] std::string hint(const std::string& name) const {
    std::vector<std::string_view> names;
    for (const auto& [known, d] : c_.named)
      names.push_back(known);
    return did_you_mean(name, names);
  }

  result<> check_references(std::size_t index) {
    for (const auto& top : c_.documents[index].nodes) {
      for (const node_reference& r : references_of(*top)) {
        const auto found = c_.named.find(r.name());
        if (found == c_.named.end() && !lost_.contains(r.name()))
          return wrong(r.child->mark, "{}: '{}' refers to node '{}', which does not exist{}",
                       r.from->describe(), r.child->slot->name, r.name(), hint(r.name()));
        if (found != c_.named.end() && found->second->parent != nullptr)
          c_.separate.insert(found->second);
      }
    }
    return {};
  }

  // A node that is reached again on the way down from itself.
  result<> check_circles(std::size_t index) {
    for (const auto& top : c_.documents[index].nodes) {
      std::vector<const node_definition*> way;
      if (const node_definition* again = find_circle(*top, way)) {
        if (is_too_deep_)
          return wrong(again->mark, "more than {} nodes are below one another here",
                       chain_length_max);
        std::string path;
        for (auto at = std::ranges::find(way, again); at != way.end(); ++at)
          path += (*at)->node_name.empty() ? std::string() : (*at)->node_name + " -> ";
        return wrong(again->mark, "{} is below itself: {}{}", again->describe(), path,
                     again->node_name);
      }
    }
    return {};
  }

  const node_definition* find_circle(const node_definition& d,
                                     std::vector<const node_definition*>& way) {
    if (std::ranges::find(way, &d) != way.end())
      return &d;
    if (checked_.contains(&d))
      return nullptr;
    if (way.size() == chain_length_max) {
      is_too_deep_ = true;
      return &d;
    }
    way.push_back(&d);
    for (const node_definition::child& child : d.children) {
      const node_definition* below = target_of(child);
      const node_definition* again = below == nullptr ? nullptr : find_circle(*below, way);
      if (again != nullptr)
        return again;
    }
    way.pop_back();
    checked_.insert(&d);
    return nullptr;
  }

  // Null: in a lost fragment.
  [[nodiscard]] const node_definition* target_of(const node_definition::child& child) const {
    if (const auto* below = std::get_if<std::unique_ptr<node_definition>>(&child.target))
      return below->get();
    const auto found = c_.named.find(std::get<std::string>(child.target));
    return found == c_.named.end() ? nullptr : found->second;
  }

  result<> check_exports(std::size_t index) {
    for (const auto& top : c_.documents[index].nodes)
      for_each_definition(*top, [&](const node_definition& d) {
        if (d.type->writes_when_read)
          mark(d, c_.written_unchanged);
      });
    for (const parsed_export& e : c_.documents[index].exports) {
      const auto [at, is_new] = roots_.emplace(e.root.name, &e.root);
      if (!is_new)
        return wrong(e.root.mark, "there are two exports '{}'; the other is at {}", e.root.name,
                     at->second->mark.to_string());
      const auto found = c_.named.find(e.root.node_name);
      if (found == c_.named.end() && !lost_.contains(e.root.node_name))
        return wrong(e.node_mark, "export '{}': there is no node '{}'{}", e.root.name,
                     e.root.node_name, hint(e.root.node_name));
      if (found == c_.named.end())
        continue;
      if (found->second->parent != nullptr)
        c_.separate.insert(found->second);
      if (e.root.is_writable)
        mark(*found->second, c_.written);
    }
    return {};
  }

  // Writing reaches everything below but what is only read through: backing nodes.
  void mark(const node_definition& d, std::set<const node_definition*>& into) {
    if (!into.insert(&d).second)
      return;
    for (const node_definition::child& child : d.children) {
      const node_definition* below = target_of(child);
      if (below != nullptr && (child.slot->roles & role::backing) == 0)
        mark(*below, into);
    }
  }

  result<> check_writers(std::size_t index) {
    for (const parsed_export& e : c_.documents[index].exports) {
      const auto found = c_.named.find(e.root.node_name);
      if (e.root.is_writable && found != c_.named.end())
        BGFS_CHECK(check_writer(e, *found->second));
    }
    return check_backings(index);
  }

  // The kernel keeps what it has read, and is told of no write that comes another way: not in time
  // to keep a reader from the old bytes.
  result<> check_caches(std::size_t index) {
    for (const parsed_export& e : c_.documents[index].exports) {
      const auto top = c_.named.find(e.root.node_name);
      if (e.root.cache != cache_mode::kernel || top == c_.named.end())
        continue;
      std::set<const node_definition*> seen;
      collect(*top->second, seen);
      for (const auto& [name, other] : roots_) {
        const auto below = c_.named.find(other->node_name);
        if (!other->is_writable || name == e.root.name || below == c_.named.end())
          continue;
        std::set<const node_definition*> written;
        mark(*below->second, written);
        if (std::ranges::any_of(written, [&](const auto* d) { return seen.contains(d); }))
          return wrong(e.cache_mark,
                       "export '{}' has 'cache: kernel', and export '{}' (see {}) writes to nodes "
                       "that both show: the kernel would go on showing what it has kept; leave "
                       "'cache' out, or make the other one read-only",
                       e.root.name, name, other->mark.to_string());
      }
    }
    return {};
  }

  void collect(const node_definition& d, std::set<const node_definition*>& into) {
    if (!into.insert(&d).second)
      return;
    for (const node_definition::child& child : d.children)
      if (const node_definition* below = target_of(child))
        collect(*below, into);
  }

  result<> check_writer(const parsed_export& e, const node_definition& d) {
    if (effective_options(d, c_.context()).is_read_only)
      return wrong(e.writable_mark, "export '{}' is writable, but {} is read-only (see {})",
                   e.root.name, d.describe(), d.mark.to_string());
    BGFS_CHECK(check_no_snapshot(e, d));
    for (const node_definition::child& child : d.children) {
      const node_definition* below = target_of(child);
      if (below != nullptr && (child.slot->roles & role::backing) == 0)
        BGFS_CHECK(check_writer(e, *below));
    }
    return {};
  }

  [[nodiscard]] result<> check_no_snapshot(const parsed_export& e, const node_definition& d) const {
    for (const auto& [root, snapshots] : c_.state.snapshots)
      for (const external_snapshot& s : snapshots)
        if (!d.node_name.empty() && s.node == d.node_name)
          return wrong(e.writable_mark,
                       "export '{0}' is writable, but {1} is snapshot '{2}' of '{3}', which must "
                       "not change; make the export read-only, or delete the snapshot first: rmdir "
                       "{3}.d/snapshots/{2}",
                       e.root.name, d.describe(), s.name, root);
    return {};
  }

  // A change of a backing node would change what every overlay shows where it holds nothing.
  result<> check_backings(std::size_t index) {
    result<> outcome;
    for (const auto& top : c_.documents[index].nodes)
      for_each_definition(*top, [&](const node_definition& d) {
        for (const node_definition::child& child : d.children) {
          const node_definition* below = target_of(child);
          if (outcome && below != nullptr && (child.slot->roles & role::backing) != 0 &&
              c_.written.contains(below))
            outcome = wrong(child.mark,
                            "{} is the backing of {} and written through a writable export, "
                            "which would change what its overlay shows; make that export "
                            "read-only, or give the overlay another backing",
                            below->describe(), d.describe());
        }
      });
    return outcome;
  }

  // Two nodes on one file know nothing of each other: what one writes the other has not read. Locks
  // would tell at the opening, but not who is meant.
  result<> check_shared_files(std::size_t index) {
    result<> outcome;
    for (const auto& top : c_.documents[index].nodes)
      for_each_definition(*top, [&](const node_definition& d) {
        const std::string path = file_of(d);
        if (!outcome || path.empty())
          return;
        const auto [at, is_new] = files_.emplace(path, &d);
        if (!is_new && (is_written(d) || is_written(*at->second)))
          outcome = wrong(d.mark,
                          "{} opens '{}', as {} at {} does, and one of them is written; let one "
                          "refer to the other by its node-name",
                          d.describe(), path, at->second->describe(), at->second->mark.to_string());
      });
    return outcome;
  }

  [[nodiscard]] bool is_written(const node_definition& d) const {
    return c_.written.contains(&d) || c_.written_unchanged.contains(&d);
  }

  // "" if it is no file of the host, or other processes are not kept from it either.
  static std::string file_of(const node_definition& d) {
    if (d.type->kind != driver_kind::protocol)
      return {};
    for (const option& o : d.type->open_options->options) {
      if (o.name == "locking" && d.given.text("locking") == "off")
        return {};
      if (o.is_host_path)
        return d.given.text(o.name);
    }
    return {};
  }

  // Every node under the one that stands for all it is connected with.
  result<> connect(std::size_t index) {
    for (const auto& top : c_.documents[index].nodes)
      for_each_definition(*top, [&](const node_definition& d) {
        for (const node_definition::child& child : d.children)
          if (const node_definition* below = target_of(child))
            stands_for_[&representative(d)] = &representative(*below);
      });
    return {};
  }

  const node_definition& representative(const node_definition& d) {
    const node_definition* at = &d;
    for (;;) {
      const node_definition*& next = stands_for_.try_emplace(at, at).first->second;
      if (next == at)
        return *at;
      next = stands_for_.at(next); // the way is shorter the next time
      at = next;
    }
  }

  result<> check_iothreads(std::size_t index) {
    for (const parsed_export& e : c_.documents[index].exports) {
      const auto top = c_.named.find(e.root.node_name);
      if (e.root.iothread.empty() || top == c_.named.end())
        continue;
      const auto [at, is_first] = threaded_.emplace(&representative(*top->second), &e.root);
      if (at->second->iothread != e.root.iothread)
        return wrong(
            e.iothread_mark,
            "export '{}' has the iothread '{}', and export '{}', whose nodes are connected "
            "with its own, has '{}' (see {}); nodes that are connected run on one thread: "
            "give both the same, or define what they share once for each",
            e.root.name, e.root.iothread, at->second->name, at->second->iothread,
            at->second->mark.to_string());
      if (is_first)
        spread(*at->first, e.root.iothread);
    }
    return {};
  }

  void spread(const node_definition& component, const std::string& iothread) {
    for (const auto& [d, next] : stands_for_)
      if (&representative(*d) == &component)
        c_.iothreads[d] = iothread;
  }

  content& c_;
  std::map<std::string, const node_definition*> files_;
  std::map<const node_definition*, const node_definition*> stands_for_;
  std::map<const node_definition*, const export_spec*> threaded_;
  std::set<std::string, std::less<>> lost_;
  std::set<const node_definition*> checked_;
  bool is_too_deep_ = false;
  std::map<std::string, const export_spec*> roots_;
};

} // namespace

std::optional<document_failure> link_documents(graph_config::content& c) {
  return linker(c).run();
}

spec_context graph_config::content::context() const {
  return {.is_written =
              [this](const node_definition& d) {
                return written.contains(&d) || written_unchanged.contains(&d);
              },
          .is_separate = [this](const node_definition& d) { return separate.contains(&d); },
          .is_all_read_only = is_read_only};
}

std::vector<std::string> graph_config::content::needs_of(const node_definition& d) const {
  std::vector<std::string> names;
  for (const node_definition::child& child : d.children) {
    const auto* below = std::get_if<std::unique_ptr<node_definition>>(&child.target);
    if (below == nullptr) {
      names.push_back(std::get<std::string>(child.target));
    } else if (separate.contains(below->get())) {
      names.push_back((*below)->node_name);
    } else {
      const std::vector<std::string> more = needs_of(**below);
      names.insert(names.end(), more.begin(), more.end());
    }
  }
  return names;
}

} // namespace bgfs
