#include "common/host_limits.h"

#include <sys/resource.h>
#include <unistd.h>

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <exception>
#include <fstream>
#include <new>
#include <system_error>

#include "common/exit_codes.h"
#include "common/flag_names.h"
#include "common/output.h"
#include "common/process.h"

namespace fathom {
namespace {

namespace fs = std::filesystem;

// cgroups v1 writes "no limit" as a number near 2^63.
constexpr int64_t kUnlimited = int64_t{1} << 60;
constexpr size_t kProgramCharsMax = 64;

char last_words_program[kProgramCharsMax] = "fathom";

std::optional<int64_t> ReadNumber(const fs::path& path) {
  std::ifstream file(path);
  int64_t number = 0;
  if (!(file >> number) || number < 0 || number >= kUnlimited) return std::nullopt;  // "max".
  return number;
}

void Tighten(std::optional<int64_t> value, std::optional<int64_t>* tightest) {
  if (value) *tightest = std::min(*value, tightest->value_or(*value));
}

// Reads one control group and all its parents. In a container the path in /proc is often the
// host's. Then only the top of the mount can be read, which is the container's own group.
void ReadGroups(const fs::path& mount, fs::path group, const char* memory, CgroupLimits* limits) {
  group = group.relative_path();
  while (true) {
    const fs::path folder = mount / group;
    if (memory != nullptr) Tighten(ReadNumber(folder / memory), &limits->memory_bytes);
    const auto threads_max = ReadNumber(folder / "pids.max");
    const auto threads = ReadNumber(folder / "pids.current");
    if (threads_max && threads) {
      Tighten(std::max<int64_t>(*threads_max - *threads, 0), &limits->threads_left);
    }
    if (group.empty()) return;
    group = group.parent_path();
  }
}

std::optional<int64_t> SoftLimit(int resource) {
  rlimit limit{};
  if (getrlimit(static_cast<__rlimit_resource>(resource), &limit) != 0) return std::nullopt;
  if (limit.rlim_cur == RLIM_INFINITY) return std::nullopt;
  return static_cast<int64_t>(std::min<rlim_t>(limit.rlim_cur, kUnlimited));
}

void OutOfMemory() {
  WriteDiagnostic(last_words_program);
  WriteDiagnostic(
      ": out of memory: the system gives this process no more (ulimit -v, a cgroup's memory limit, "
      "or the machine's memory)\n");
  _exit(kExitResources);
}

void Uncaught() {
  int code = kExitInternal;
  const char* text = "an unknown exception";
  try {
    if (const std::exception_ptr now = std::current_exception()) std::rethrow_exception(now);
  } catch (const std::system_error& error) {  // A thread could not be created.
    if (error.code() == std::errc::resource_unavailable_try_again) code = kExitResources;
    text = error.what();
  } catch (const std::exception& error) {
    text = error.what();
  } catch (...) {
  }
  WriteDiagnostic(last_words_program);
  WriteDiagnostic(code == kExitResources ? ": no more threads (ulimit -u, a cgroup's pids limit): "
                                         : ": ended by an exception that nobody caught: ");
  WriteDiagnostic(text);
  WriteDiagnostic("\n");
  // Our bug: abort, so that the system writes a core file if it is set up to.
  if (code == kExitInternal) std::abort();
  _exit(code);
}

}  // namespace

CgroupLimits ReadCgroupLimits(const fs::path& root) {
  CgroupLimits limits;
  const fs::path mount = root / "sys/fs/cgroup";
  std::ifstream file(root / "proc/self/cgroup");
  for (std::string line; std::getline(file, line);) {  // "4:memory:/group", v2: "0::/group".
    const size_t first = line.find(':');
    const size_t second = first == std::string::npos ? first : line.find(':', first + 1);
    if (second == std::string::npos) continue;
    const std::string controllers = "," + line.substr(first + 1, second - first - 1) + ",";
    const std::string group = line.substr(second + 1);
    if (controllers == ",,") ReadGroups(mount, group, "memory.max", &limits);
    if (controllers.find(",memory,") != std::string::npos) {
      ReadGroups(mount / "memory", group, "memory.limit_in_bytes", &limits);
    }
    if (controllers.find(",pids,") != std::string::npos) {
      ReadGroups(mount / "pids", group, nullptr, &limits);
    }
  }
  return limits;
}

HostLimits TakeHostLimits() {
  RaiseDescriptorLimit();
  return {SoftLimit(RLIMIT_NOFILE), SoftLimit(RLIMIT_AS), ReadCgroupLimits()};
}

absl::Status CheckHostLimits(const HostNeeds& needs, const HostLimits& limits) {
  if (limits.descriptors.value_or(needs.descriptors) < needs.descriptors) {
    return Exhausted(
        "{} file descriptors are allowed (ulimit -Hn), at least {} are needed; raise the limit "
        "(LimitNOFILE= of a systemd unit, --ulimit nofile= of docker run)",
        *limits.descriptors, needs.descriptors);
  }
  if (limits.address_space_bytes.value_or(needs.address_space_bytes) < needs.address_space_bytes) {
    return Exhausted(
        "{} of address space are allowed (ulimit -v), at least {} are needed; raise the limit or "
        "set it to unlimited, and bound memory by a cgroup instead",
        FormatBytes(*limits.address_space_bytes), FormatBytes(needs.address_space_bytes));
  }
  if (limits.cgroup.threads_left.value_or(needs.threads) < needs.threads) {
    return Exhausted(
        "the cgroup's pids limit leaves room for {} threads, at least {} are needed; raise it "
        "(TasksMax= of a systemd unit, --pids-limit of docker run, podPidsLimit of a kubelet)",
        *limits.cgroup.threads_left, needs.threads);
  }
  if (limits.cgroup.memory_bytes.value_or(needs.memory_bytes) < needs.memory_bytes) {
    return Exhausted(
        "the cgroup's memory limit is {}, at least {} are needed; raise it (MemoryMax= of a "
        "systemd "
        "unit, --memory of docker run, resources.limits.memory of a pod)",
        FormatBytes(*limits.cgroup.memory_bytes), FormatBytes(needs.memory_bytes));
  }
  return absl::OkStatus();
}

void InstallLastWords(const char* program) {
  std::snprintf(last_words_program, sizeof last_words_program, "%s", program);
  std::set_new_handler(OutOfMemory);
  std::set_terminate(Uncaught);
}

}  // namespace fathom
