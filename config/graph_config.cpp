// SPDX-License-Identifier: MIT
#include "config/graph_config.h"

#include "config/graph_content.h"
#include "graph/base/text.h"

#include <algorithm>
#include <filesystem>
#include <functional>

namespace bgfs {

namespace {

using content = graph_config::content;

// What needs a lost node is lost, too. Runs until nothing changes: a chain has finitely many nodes.
void spread_losses(content& c) {
  for (const graph_document& d : c.documents)
    for (const std::string& name : d.lost_nodes)
      if (!c.named.contains(name))
        c.lost_nodes.emplace(name, *d.failure);
  for (bool has_changed = true; has_changed;) {
    has_changed = false;
    for (const auto& [name, d] : c.named) {
      for (const std::string& need : c.needs_of(*d)) {
        const auto lost = c.lost_nodes.find(need);
        if (lost == c.lost_nodes.end() || c.lost_nodes.contains(name))
          continue;
        error why = lost->second;
        why.add_context(fmt::format("node '{}' needs node '{}'", name, need));
        c.lost_nodes.emplace(name, std::move(why));
        has_changed = true;
      }
    }
  }
}

// Who is connected with an export that names a thread is served by it, too.
void spread_iothread(const content& c, export_spec& root) {
  const auto top = c.named.find(root.node_name);
  if (top == c.named.end())
    return;
  if (const auto named = c.iothreads.find(top->second); named != c.iothreads.end())
    root.iothread = named->second;
}

void collect_exports(content& c) {
  std::set<std::string, std::less<>> taken;
  for (const graph_document& d : c.documents)
    for (const parsed_export& e : d.exports) {
      taken.insert(e.root.name);
      c.exports.push_back(e.root);
      spread_iothread(c, c.exports.back());
      if (const auto lost = c.lost_nodes.find(e.root.node_name); lost != c.lost_nodes.end())
        c.lost_exports.emplace(e.root.name, lost->second);
    }
  for (const graph_document& d : c.documents)
    for (const export_spec& root : d.lost_exports)
      if (taken.insert(root.name).second) {
        c.exports.push_back(root);
        c.lost_exports.emplace(root.name, *d.failure);
      }
}

// Without any `exports`, every node that no other refers to is a root.
result<> export_tops(content& c) {
  std::set<std::string, std::less<>> used;
  for (const auto& [name, d] : c.named)
    for (const node_reference& r : references_of(*d))
      used.insert(r.name());
  for (const graph_document& document : c.documents) {
    for (const auto& d : document.nodes) {
      if (used.contains(d->node_name))
        continue;
      if (result<> ok = check_root_name(d->node_name); !ok)
        return fail(error_kind::invalid_argument, "{}{}; write 'exports' with another name",
                    d->mark.prefix(), ok.error().message());
      export_spec root;
      root.name = d->node_name;
      root.node_name = d->node_name;
      root.mark = d->mark;
      c.exports.push_back(std::move(root));
      if (const auto lost = c.lost_nodes.find(d->node_name); lost != c.lost_nodes.end())
        c.lost_exports.emplace(d->node_name, lost->second);
    }
  }
  return {};
}

// What other exports write to is not written then. All stay if there is no such export.
void keep_only(content& c, std::string_view name) {
  const auto is_it = [&](const parsed_export& e) { return e.root.name == name; };
  if (std::ranges::none_of(c.documents, [&](const graph_document& d) {
        return std::ranges::any_of(d.exports, is_it);
      }))
    return;
  for (graph_document& d : c.documents)
    std::erase_if(d.exports, std::not_fn(is_it));
}

// A header of an untrusted image leads nowhere but where the command line says.
void make_resolvers(content& c) {
  reference_policy policy = c.policy;
  policy.allowed.insert(policy.allowed.end(), c.allowed_always.begin(), c.allowed_always.end());
  reference_policy strict = policy;
  strict.allowed = c.allowed_always;
  strict.how_to_allow = {"give --allow-references=", ""};
  c.trusting = std::make_unique<policy_resolver>(c.drivers, std::move(policy));
  c.distrusting = std::make_unique<policy_resolver>(c.drivers, std::move(strict));
}

} // namespace

result<graph_config> make_graph_config(std::unique_ptr<graph_config::content> c) {
  while (std::optional<document_failure> failure = link_documents(*c)) {
    graph_document& document = c->documents[failure->document];
    if (!document.is_fragment)
      return fail(std::move(failure->why));
    lose(document, std::move(failure->why));
  }
  for (const graph_document& d : c->documents)
    if (d.failure)
      c->warnings.push_back(*d.failure);
  spread_losses(*c);
  collect_exports(*c);
  const bool has_exports = std::ranges::any_of(
      c->documents, [](const graph_document& d) { return d.has_exports || d.failure; });
  if (!has_exports)
    BGFS_CHECK(export_tops(*c));
  make_resolvers(*c);
  return graph_config(std::move(c));
}

graph_config::graph_config(std::unique_ptr<content> c) : content_(std::move(c)) {
  count_reach();
}
graph_config::graph_config(graph_config&&) noexcept = default;
graph_config& graph_config::operator=(graph_config&&) noexcept = default;
graph_config::~graph_config() = default;

result<graph_config> graph_config::load(const std::string& path, const registry& drivers,
                                        const load_options& how) {
  auto c = std::make_unique<content>(drivers);
  BGFS_TRY(graph_documents documents, read_graph_documents(path, drivers));
  if (how.state != nullptr) {
    c->state = *how.state;
  } else {
    BGFS_TRY(c->state, read_graph_state(path));
  }
  BGFS_CHECK(apply_graph_state(c->state, documents, drivers));
  c->documents = std::move(documents.all);
  if (!how.only_export.empty())
    keep_only(*c, how.only_export);
  c->policy = std::move(documents.policy);
  c->secret_sources = std::move(documents.secrets);
  BGFS_TRY(c->secrets, load_secrets(c->secret_sources, how.secrets));
  c->source = c->documents.front().path;
  return make_graph_config(std::move(c));
}

result<graph_config> config_source::read(const registry& drivers, const graph_state* state) const {
  result<graph_config> config =
      is_graph ? graph_config::load(
                     image.filename, drivers,
                     {.state = state, .only_export = only_export, .secrets = secrets.get()})
               : graph_config::for_image(image, drivers);
  if (!config)
    return config;
  if (is_graph)
    config->allow_references(image.allowed_references);
  if (is_read_only)
    config->make_read_only();
  if (!only_export.empty())
    BGFS_CHECK(config->serve_only(only_export));
  if (is_writeback)
    BGFS_CHECK(config->write_back());
  return config;
}

result<> graph_config::serve_only(std::string_view name) {
  std::vector<export_spec>& all = content_->exports;
  if (std::ranges::find(all, name, &export_spec::name) == all.end()) {
    std::vector<std::string_view> names;
    for (const export_spec& e : all)
      names.push_back(e.name);
    return fail(error_kind::not_found, "'{}' has no export '{}', which 'export={}' asks for{}",
                source(), name, name, did_you_mean(name, names));
  }
  std::erase_if(all, [&](const export_spec& e) { return e.name != name; });
  return {};
}

result<> graph_config::write_back() {
  BGFS_ASSERT(content_->exports.size() == 1, "only a mount of one root is written back");
  export_spec& root = content_->exports.front();
  const auto refuse = [&](const source_mark& mark, std::string_view why) {
    return fail(error_kind::invalid_argument,
                "{}export '{}' cannot be mounted with -o writeback: {}", mark.prefix(), root.name,
                why);
  };
  if (root.passthrough == passthrough_mode::on)
    return refuse(root.passthrough_mark,
                  "the kernel either holds back what is written or passes it through; leave "
                  "'passthrough' out");
  if (root.is_writable && !root.is_growable)
    return refuse(root.mark, "it needs 'growable: true', since the kernel then takes writes past "
                             "the end without asking, and they would be lost later");
  if (root.on_truncate == truncate_policy::zero)
    return refuse(root.mark, "with 'on-truncate: zero' it would keep a length that the kernel "
                             "takes for 0");
  root.cache = cache_mode::kernel;
  root.passthrough = passthrough_mode::off;
  return {};
}

void graph_config::make_read_only() {
  content_->is_read_only = true;
  for (export_spec& root : content_->exports)
    root.is_writable = root.is_growable = false;
  count_reach();
}

void graph_config::allow_references(const std::vector<std::string>& directories) {
  for (const std::string& directory : directories)
    content_->allowed_always.push_back(std::filesystem::absolute(directory).string());
  make_resolvers(*content_);
}

void graph_config::keep_out_of(std::vector<std::string> directories) {
  content_->policy.kept_out = std::move(directories);
  make_resolvers(*content_);
}

void graph_config::replace_snapshots(
    std::map<std::string, std::vector<external_snapshot>> snapshots) {
  content_->state.snapshots = std::move(snapshots);
}

const graph_state& graph_config::state() const {
  return content_->state;
}

const std::string& graph_config::source() const {
  return content_->source;
}

const std::vector<export_spec>& graph_config::exports() const {
  return content_->exports;
}

const std::shared_ptr<const secret_store>& graph_config::secrets() const {
  return content_->secrets;
}

const std::vector<error>& graph_config::warnings() const {
  return content_->warnings;
}

const error* graph_config::failure_of(const export_spec& root) const {
  const auto found = content_->lost_exports.find(root.name);
  return found == content_->lost_exports.end() ? nullptr : &found->second;
}

namespace {

// Each by itself, since a reload may open what is inside without what is around it.
void give_secrets(node_spec& spec, const std::shared_ptr<const secret_store>& secrets) {
  spec.secrets = secrets;
  for (child_spec& c : spec.children)
    if (auto* below = std::get_if<std::unique_ptr<node_spec>>(&c.target))
      give_secrets(**below, secrets);
}

} // namespace

std::vector<std::string> graph_config::users_of(std::string_view node_name) const {
  std::vector<std::string> users;
  for (const graph_document& document : content_->documents)
    for (const auto& top : document.nodes)
      for_each_definition(*top, [&](const node_definition& d) {
        for (const node_definition::child& child : d.children) {
          const auto* const below = std::get_if<std::unique_ptr<node_definition>>(&child.target);
          if ((below == nullptr ? std::get<std::string>(child.target) : (*below)->node_name) ==
              node_name)
            users.push_back(d.describe());
        }
      });
  for (const export_spec& e : content_->exports)
    if (e.node_name == node_name)
      users.push_back(fmt::format("export '{}'", e.name));
  return users;
}

result<node_spec> graph_config::make_node_spec(std::string_view node_name) const {
  if (const auto lost = content_->lost_nodes.find(node_name); lost != content_->lost_nodes.end())
    return fail(lost->second);
  const auto found = content_->named.find(node_name);
  const bool is_inside = found != content_->named.end() && found->second->parent != nullptr &&
                         !content_->separate.contains(found->second);
  if (found == content_->named.end() || is_inside)
    return fail(error_kind::not_found, "there is no node '{}' in {} that is opened by itself",
                node_name, content_->source);
  node_spec spec = make_spec(*found->second, content_->context());
  give_secrets(spec, content_->secrets);
  return spec;
}

namespace {

// Depth first, so that what is needed stands before what needs it. The documents have no circles.
void append_order(const content& c, const std::string& name, std::vector<std::string>& order) {
  const auto found = c.named.find(name);
  if (found == c.named.end() || std::ranges::find(order, name) != order.end())
    return;
  for (const std::string& need : c.needs_of(*found->second))
    append_order(c, need, order);
  order.push_back(name);
}

} // namespace

std::vector<std::string> graph_config::opening_order(std::string_view node_name) const {
  std::vector<std::string> order;
  append_order(*content_, std::string(node_name), order);
  return order;
}

// Once for all exports: asking each export about each other takes a minute where there are
// thousands.
void graph_config::count_reach() {
  content_->reached.clear();
  for (const export_spec& root : content_->exports) {
    for (const std::string& name : opening_order(root.node_name)) {
      content::reach& of = content_->reached[name];
      of.roots++;
      of.writers += root.is_writable ? 1 : 0;
    }
  }
}

bool graph_config::is_shared(const export_spec& root) const {
  return std::ranges::any_of(opening_order(root.node_name), [&](const std::string& name) {
    const content::reach& of = content_->reached.at(name);
    return root.is_writable ? of.roots > 1 : of.writers > 0;
  });
}

namespace {

void add_host_paths(const node_definition& top, std::set<std::string>& to) {
  for_each_definition(top, [&](const node_definition& d) {
    for (const option& o : d.type->open_options->options)
      if (o.is_host_path && !d.given.text(o.name).empty())
        to.insert(std::filesystem::absolute(d.given.text(o.name)).string());
  });
}

} // namespace

std::vector<std::string> graph_config::host_paths() const {
  std::set<std::string> paths;
  for (const graph_document& document : content_->documents)
    for (const auto& top : document.nodes)
      add_host_paths(*top, paths);
  return {paths.begin(), paths.end()};
}

std::vector<std::string> graph_config::host_paths_below(std::string_view node_name) const {
  std::set<std::string> paths;
  for (const std::string& name : opening_order(node_name))
    add_host_paths(*content_->named.find(name)->second, paths);
  return {paths.begin(), paths.end()};
}

reference_resolver& graph_config::references(const export_spec& root) const {
  return root.is_untrusted ? *content_->distrusting : *content_->trusting;
}

} // namespace bgfs
