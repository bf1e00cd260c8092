// common/cpus.h: how many CPUs this process may use: by its affinity, and by the CPU quota of its
// control groups, which a container is limited by and std::thread::hardware_concurrency does not
// see.
#pragma once

#include <optional>
#include <string>

namespace fathom {

// The least quota, in CPUs, of the control groups that this process is in and of those around them,
// as far as they are mounted (cgroups v1 and v2); nullopt: there is none. `root` is where proc and
// the mounts are looked for: "" but in tests.
std::optional<double> CpuQuota(const std::string& root = "");

// CPUs of the affinity mask, at most the quota rounded down, at least 1. A thread beyond the quota
// would stop all of them for the rest of a period.
int UsableCpus(const std::string& root = "");

}  // namespace fathom
