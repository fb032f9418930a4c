// SPDX-License-Identifier: MIT
// .bgfs/jobs/: a directory for each job that runs, and for each that has failed until it is
// dismissed. The kernel keeps none of their names: they come and go.
#include "fuse/tree/directory_common.h"

namespace bgfs {
namespace {

class job_directory final : public directory {
public:
  job_directory(mount_state& mount, job_pointer of) : mount_(mount), job_(std::move(of)) {}
  [[nodiscard]] std::string identity() const override { return identity_of(*job_); }

  task<attributes> describe() override {
    co_await require();
    attributes a = directory_attributes(mount_, nullptr);
    a.modified = job_->made();
    co_return a;
  }
  task<std::vector<directory_entry>> list() override {
    co_await require();
    std::vector<directory_entry> entries;
    list_views(views_of_job(), entries);
    co_return entries;
  }
  task<std::unique_ptr<inode>> find(std::string name) override {
    co_await require();
    const view* const v = find_view(views_of_job(), name);
    if (v == nullptr)
      co_await no_such_name(name);
    co_return std::make_unique<view_file>(*v, view_place{.mount = mount_, .of_job = job_});
  }

private:
  [[nodiscard]] result<> require() const {
    if (job_->state() == job_state::null)
      return no_such_name(job_->id());
    return {};
  }
  mount_state& mount_;
  job_pointer job_;
};

class jobs_directory final : public directory {
public:
  explicit jobs_directory(mount_state& mount) : mount_(mount) {}

  task<attributes> describe() override {
    attributes a = directory_attributes(mount_, nullptr);
    a.link_count = 1; // says nothing of how many there are
    co_return a;
  }
  task<std::vector<directory_entry>> list() override {
    std::vector<directory_entry> entries;
    for (const job_pointer& j : mount_.jobs.list().all())
      entries.push_back({j->id(), S_IFDIR});
    co_return entries;
  }
  task<std::unique_ptr<inode>> find(std::string name) override {
    job_pointer found = co_await mount_.jobs.list().find(name);
    co_return std::make_unique<job_directory>(mount_, std::move(found));
  }

private:
  mount_state& mount_;
};

} // namespace

std::unique_ptr<inode> make_jobs_directory(mount_state& mount) {
  return std::make_unique<jobs_directory>(mount);
}

} // namespace bgfs
