#include "common/cpus.h"

#include <sched.h>

#include <algorithm>
#include <fstream>
#include <sstream>
#include <vector>

namespace fathom {
namespace {

// A mounted hierarchy that may limit CPUs.
struct Hierarchy {
  bool unified = false;  // cgroup2.
  std::string subtree;   // The mounted part of the hierarchy, e.g. "/" or "/docker/1f".
  std::string at;        // The mount point.
};

std::vector<std::string> Split(const std::string& text, char separator) {
  std::vector<std::string> parts;
  std::stringstream stream(text);
  for (std::string part; std::getline(stream, part, separator);) parts.push_back(part);
  return parts;
}

bool HasCpu(const std::string& controllers) {
  const std::vector<std::string> names = Split(controllers, ',');
  return std::ranges::find(names, "cpu") != names.end();
}

// Lines of mountinfo: id, parent, device, subtree, mount point, options, ..., "-", type, source,
// options of the file system.
std::vector<Hierarchy> Mounted(const std::string& root) {
  std::vector<Hierarchy> found;
  std::ifstream file(root + "/proc/self/mountinfo");
  for (std::string line; std::getline(file, line);) {
    const std::vector<std::string> words = Split(line, ' ');
    const auto dash = std::ranges::find(words, "-");
    if (words.size() < 6 || words.end() - dash < 4) continue;
    const bool unified = dash[1] == "cgroup2";
    if (unified || (dash[1] == "cgroup" && HasCpu(dash[3]))) {
      found.push_back({unified, words[3], words[4]});
    }
  }
  return found;
}

// The group of this process in the hierarchy, e.g. "/user.slice". A line is
// "number:controllers:path".
std::string GroupIn(bool unified, const std::string& root) {
  std::ifstream file(root + "/proc/self/cgroup");
  for (std::string line; std::getline(file, line);) {
    const size_t first = line.find(':'), second = line.find(':', first + 1);
    if (first == std::string::npos || second == std::string::npos) continue;
    const std::string controllers = line.substr(first + 1, second - first - 1);
    if (unified ? controllers.empty() : HasCpu(controllers)) return line.substr(second + 1);
  }
  return "/";
}

// "max 100000", "150000 100000".
std::optional<double> UnifiedQuota(const std::string& folder) {
  std::ifstream file(folder + "/cpu.max");
  double quota = 0, period = 0;
  if (!(file >> quota >> period) || quota <= 0 || period <= 0) return std::nullopt;
  return quota / period;
}

// -1: no quota.
std::optional<double> FirstVersionQuota(const std::string& folder) {
  std::ifstream quota_file(folder + "/cpu.cfs_quota_us");
  std::ifstream period_file(folder + "/cpu.cfs_period_us");
  double quota = 0, period = 0;
  if (!(quota_file >> quota) || !(period_file >> period) || quota <= 0 || period <= 0) {
    return std::nullopt;
  }
  return quota / period;
}

}  // namespace

std::optional<double> CpuQuota(const std::string& root) {
  std::optional<double> least;
  for (const Hierarchy& hierarchy : Mounted(root)) {
    std::string path = GroupIn(hierarchy.unified, root);
    // If only a part of the hierarchy is mounted, the path is made relative to that part. In a
    // container the path may be the host's; then the mount itself is the group of the container.
    if (hierarchy.subtree != "/") {
      path = path.starts_with(hierarchy.subtree) ? path.substr(hierarchy.subtree.size()) : "";
    }
    while (true) {
      while (path.ends_with('/')) path.pop_back();
      const std::string folder = root + hierarchy.at + path;
      const auto quota = hierarchy.unified ? UnifiedQuota(folder) : FirstVersionQuota(folder);
      if (quota) least = std::min(quota, least ? least : quota);
      if (path.empty()) break;
      path.resize(path.rfind('/') == std::string::npos ? 0 : path.rfind('/'));
    }
  }
  return least;
}

int UsableCpus(const std::string& root) {
  cpu_set_t mask;
  CPU_ZERO(&mask);
  // EINVAL: the host has more CPUs than the mask can hold.
  int cpus = sched_getaffinity(0, sizeof mask, &mask) == 0 ? CPU_COUNT(&mask) : CPU_SETSIZE;
  if (const auto quota = CpuQuota(root)) cpus = std::min(cpus, static_cast<int>(*quota));
  return std::max(cpus, 1);
}

}  // namespace fathom
