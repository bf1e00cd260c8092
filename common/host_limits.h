// common/host_limits.h: what the operating system lets a process have, looked at when it starts. A
// process that lacks descriptors, memory or threads would end somewhere in a library with a
// signal; here it ends with 71 (kExitResources) and a line that names the limit, what was found,
// what is needed and how to raise it.
#pragma once

#include <cstdint>
#include <filesystem>
#include <optional>
#include <string>

#include "common/status.h"

namespace fathom {

// The least that a process needs to start and to serve a little; 0: it does not matter.
struct HostNeeds {
  int64_t descriptors = 0;
  int64_t address_space_bytes = 0;  // Virtual: thread stacks and arenas count in full.
  int64_t threads = 0;
  int64_t memory_bytes = 0;  // Resident.
};

// Of the control groups that a process is in, v1 or v2, and of all their parents the tightest.
struct CgroupLimits {
  std::optional<int64_t> memory_bytes;
  std::optional<int64_t> threads_left;  // pids.max less what runs there now.
};

struct HostLimits {
  // nullopt: unlimited.
  std::optional<int64_t> descriptors;
  std::optional<int64_t> address_space_bytes;
  CgroupLimits cgroup;
};

// `root` is "/" but in tests.
CgroupLimits ReadCgroupLimits(const std::filesystem::path& root = "/");

// Raises the soft limit of descriptors to the hard one, then reads all.
HostLimits TakeHostLimits();

// RESOURCE_EXHAUSTED for the first limit that is below its need. Pure.
absl::Status CheckHostLimits(const HostNeeds& needs, const HostLimits& limits);

// From here on a program that runs out of memory says so and ends with 71, and an exception that
// nobody caught is told in words. `program` begins the line. Call at the start of main.
void InstallLastWords(const char* program);

}  // namespace fathom
