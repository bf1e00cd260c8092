// common/cpus.h: the number of CPUs that this process may use: by its affinity, and by the CPU
// quota of its control groups. A container is limited by the quota, which
// std::thread::hardware_concurrency ignores.
#pragma once

#include <optional>
#include <string>

namespace fathom {

// The least quota, in CPUs, of the process' control groups and all their parents, as far as they
// are mounted (cgroups v1 and v2); nullopt: no quota. `root` is the folder of proc and the mounts;
// it is "" except in tests.
std::optional<double> CpuQuota(const std::string& root = "");

// The CPUs of the affinity mask, at most the quota rounded down, at least 1. With one thread more
// than the quota, the kernel would stop all threads for the rest of a period.
int UsableCpus(const std::string& root = "");

}  // namespace fathom
