// SPDX-License-Identifier: Apache-2.0
//
// How many CPUs this process may use, as containers limit it.
#include <sched.h>

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <fstream>
#include <string>
#include <thread>

#include "kernels-cpu/threads/thread_pool.h"

namespace nibble {
namespace {

int AffinityCount() {
  cpu_set_t set;
  CPU_ZERO(&set);
  if (sched_getaffinity(0, sizeof(set), &set) == 0) return std::max(1, CPU_COUNT(&set));
  return std::max(1u, std::thread::hardware_concurrency());
}

bool ReadLine(const std::string& path, std::string& line) {
  std::ifstream file(path);
  return static_cast<bool>(std::getline(file, line));
}

// Rounded up; 0 when there is no limit.
int CeilQuota(double quota, double period) {
  if (quota <= 0 || period <= 0) return 0;
  const int whole = static_cast<int>(quota / period);
  return std::max(1, whole + (quota > whole * period ? 1 : 0));
}

int Tighter(int a, int b) { return a == 0 ? b : b == 0 ? a : std::min(a, b); }

// The tightest limit from `group` up to the root of the hierarchy mounted at `mount`.
int QuotaUpwards(const std::string& mount, std::string group, bool v2) {
  int limit = 0;
  for (;;) {
    const std::string dir = mount + (group == "/" ? "" : group);
    std::string line, period;
    if (v2 && ReadLine(dir + "/cpu.max", line)) {
      double q = 0, p = 0;
      if (std::sscanf(line.c_str(), "%lf %lf", &q, &p) == 2) limit = Tighter(limit, CeilQuota(q, p));
    } else if (!v2 && ReadLine(dir + "/cpu.cfs_quota_us", line) &&
               ReadLine(dir + "/cpu.cfs_period_us", period)) {
      limit = Tighter(limit, CeilQuota(std::atof(line.c_str()), std::atof(period.c_str())));
    }
    if (group.empty() || group == "/") return limit;
    group.erase(group.rfind('/'));
  }
}

// Lines of /proc/self/cgroup are "id:controllers:path"; v2 has no controllers.
int CgroupLimit() {
  std::ifstream file("/proc/self/cgroup");
  std::string line;
  int limit = 0;
  while (std::getline(file, line)) {
    const size_t first = line.find(':'), second = line.find(':', first + 1);
    if (first == std::string::npos || second == std::string::npos) continue;
    const std::string controllers = line.substr(first + 1, second - first - 1);
    const std::string group = line.substr(second + 1);
    if (controllers.empty()) {
      limit = Tighter(limit, QuotaUpwards("/sys/fs/cgroup", group, true));
    } else if (("," + controllers + ",").find(",cpu,") != std::string::npos) {
      limit = Tighter(limit, QuotaUpwards("/sys/fs/cgroup/" + controllers, group, false));
      limit = Tighter(limit, QuotaUpwards("/sys/fs/cgroup/cpu", group, false));
    }
  }
  return limit;
}

}  // namespace

int AvailableThreads() {
  const int limit = CgroupLimit();
  const int cpus = AffinityCount();
  return limit == 0 ? cpus : std::min(cpus, limit);
}

}  // namespace nibble
