// common/host_limits.h: the limits that the operating system sets for a process, checked at its
// start. Without this check a process that lacks descriptors, memory or threads would crash inside
// a library. With it the process ends with 71 (kExitResources) and a line that names the limit, its
// value, the needed value and how to raise it.
#pragma once

#include <cstdint>
#include <filesystem>
#include <optional>
#include <string>

#include "common/status.h"

namespace fathom {

// The least that a process needs to start and to serve a few requests; 0: not checked.
struct HostNeeds {
  int64_t descriptors = 0;
  int64_t address_space_bytes = 0;  // Virtual memory: thread stacks and arenas count in full.
  int64_t threads = 0;
  int64_t memory_bytes = 0;  // Resident.
};

// The tightest limits of a process' control groups (v1 or v2) and all their parents.
struct CgroupLimits {
  std::optional<int64_t> memory_bytes;
  std::optional<int64_t> threads_left;  // pids.max minus the number of existing tasks.
};

struct HostLimits {
  // nullopt: unlimited.
  std::optional<int64_t> descriptors;
  std::optional<int64_t> address_space_bytes;
  CgroupLimits cgroup;
};

// `root` is "/" except in tests.
CgroupLimits ReadCgroupLimits(const std::filesystem::path& root = "/");

// Raises the soft limit of descriptors to the hard limit, then reads all limits.
HostLimits TakeHostLimits();

// RESOURCE_EXHAUSTED for the first limit that is below its need. Pure.
absl::Status CheckHostLimits(const HostNeeds& needs, const HostLimits& limits);

// After this call a program that runs out of memory says so and ends with 71, and an uncaught
// exception is reported as text. `program` begins the line. Called at the start of main.
void InstallLastWords(const char* program);

}  // namespace fathom
