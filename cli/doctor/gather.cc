#include "cli/doctor/gather.h"

#include <fmt/format.h>
#include <sched.h>
#include <sys/resource.h>
#include <sys/statvfs.h>
#include <sys/timex.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdlib>
#include <cstring>
#include <ctime>
#include <filesystem>
#include <fstream>
#include <iterator>

#include "common/cpus.h"
#include "common/host_limits.h"

#ifndef FATHOM_CUDA_RUNTIME
#define FATHOM_CUDA_RUNTIME 0  // cli/CMakeLists.txt sets it in a build with CUDA.
#endif

extern char** environ;

namespace fathom::client {
namespace {

namespace fs = std::filesystem;

std::string FirstLine(const char* path) {
  std::ifstream file(path);
  std::string line;
  std::getline(file, line);
  return line;
}

std::optional<int64_t> NumberIn(const char* path) {
  std::ifstream file(path);
  int64_t number = 0;
  if (!(file >> number)) return std::nullopt;
  return number;
}

std::optional<int64_t> LimitOf(int resource, bool hard) {
  rlimit limit{};
  if (getrlimit(static_cast<__rlimit_resource>(resource), &limit) != 0) return std::nullopt;
  const rlim_t value = hard ? limit.rlim_max : limit.rlim_cur;
  if (value == RLIM_INFINITY || value > static_cast<rlim_t>(INT64_MAX)) return std::nullopt;
  return static_cast<int64_t>(value);
}

// "always [madvise] never" gives "madvise".
std::string Chosen(const std::string& line) {
  const size_t begin = line.find('['), end = line.find(']');
  if (begin == std::string::npos || end == std::string::npos || end < begin) return "";
  return line.substr(begin + 1, end - begin - 1);
}

// The bytes in MemAvailable of /proc/meminfo, which has KiB.
std::optional<int64_t> AvailableMemory() {
  std::ifstream file("/proc/meminfo");
  std::string name;
  int64_t kib = 0;
  for (std::string line; file >> name >> kib && std::getline(file, line);) {
    if (name == "MemAvailable:") return kib << 10;
  }
  return std::nullopt;
}

// Writes and removes a file in the folder. Returns the error; "": it can be written.
std::string TryToWrite(const fs::path& folder) {
  std::string name = (folder / "fathom-doctor-XXXXXX").string();
  const int fd = mkstemp(name.data());
  if (fd < 0) return std::strerror(errno);
  const bool written = write(fd, "x", 1) == 1;
  const std::string error = written ? "" : std::strerror(errno);
  close(fd);
  unlink(name.c_str());
  return error;
}

int64_t FreeBytes(const std::string& folder, int64_t* total = nullptr) {
  struct statvfs info {};
  if (statvfs(folder.c_str(), &info) != 0) return 0;
  if (total != nullptr) *total = static_cast<int64_t>(info.f_blocks * info.f_frsize);
  return static_cast<int64_t>(info.f_bavail * info.f_frsize);
}

SharedMemoryFacts GatherSharedMemory() {
  SharedMemoryFacts shm;
  std::error_code none;
  shm.exists = fs::is_directory("/dev/shm", none);
  if (!shm.exists) return shm;
  shm.error = TryToWrite("/dev/shm");
  shm.writable = shm.error.empty();
  shm.free_bytes = FreeBytes("/dev/shm", &shm.total_bytes);
  return shm;
}

ClockFacts GatherClock() {
  constexpr int kLooks = 100'000;  // A few milliseconds.
  ClockFacts clock{
      .source = FirstLine("/sys/devices/system/clocksource/clocksource0/current_clocksource")};
  timespec last{}, now{};
  clock_gettime(CLOCK_MONOTONIC, &last);
  for (int i = 0; i < kLooks && !clock.goes_backwards; ++i) {
    clock_gettime(CLOCK_MONOTONIC, &now);
    clock.goes_backwards =
        now.tv_sec < last.tv_sec || (now.tv_sec == last.tv_sec && now.tv_nsec < last.tv_nsec);
    last = now;
  }
  timex state{};  // modes = 0: only read.
  if (const int code = adjtimex(&state); code >= 0) {
    clock.synchronized = code != TIME_ERROR && (state.status & STA_UNSYNC) == 0;
  }
  return clock;
}

std::vector<std::string> Instructions() {
  std::vector<std::string> names;
#if defined(__x86_64__)
  if (__builtin_cpu_supports("avx2")) names.emplace_back("avx2");
  if (__builtin_cpu_supports("avx512f")) names.emplace_back("avx512f");
#endif
  return names;
}

// Values are left out: a proxy's may have a password.
void GatherEnvironment(DoctorFacts* facts) {
  const auto lower = [](std::string name) {
    std::ranges::transform(name, name.begin(), [](unsigned char c) { return std::tolower(c); });
    return name;
  };
  for (char** entry = environ; *entry != nullptr; ++entry) {
    const std::string text = *entry;
    const size_t equal = text.find('=');
    if (equal == std::string::npos || equal + 1 == text.size()) continue;  // Empty: unset.
    const std::string name = text.substr(0, equal), value = text.substr(equal + 1);
    const std::string low = lower(name);
    if (low == "http_proxy" || low == "https_proxy" || low == "all_proxy" || low == "grpc_proxy") {
      facts->proxies.push_back(name);
    } else if (low == "no_proxy") {
      facts->proxies_spare_this_machine |= value.find("127.0.0.1") != std::string::npos ||
                                           value.find("localhost") != std::string::npos ||
                                           value == "*";
    } else if (name.starts_with("FATHOM_")) {
      facts->fathom_variables.push_back(name);
    } else if (name.starts_with("NCCL_") && name != "NCCL_VERSION") {  // A label of images.
      facts->nccl_variables.push_back(name);
    }
  }
  for (auto* list : {&facts->proxies, &facts->fathom_variables, &facts->nccl_variables}) {
    std::sort(list->begin(), list->end());
  }
  if (const char* gpus = std::getenv("CUDA_VISIBLE_DEVICES")) facts->visible_devices = gpus;
}

}  // namespace

DoctorFacts GatherFacts(const GatherOptions& options) {
  DoctorFacts facts;
  facts.build.cuda = FATHOM_CUDA_RUNTIME > 0;
  facts.build.runtime_version = FATHOM_CUDA_RUNTIME;
  if (facts.build.cuda) {
    facts.build.native_sms = {80, 90};  // cmake/FathomTargets.cmake, "generic".
    facts.build.ptx_sm = 90;
  }
  if (options.gpu) GatherGpus(&facts);
  std::error_code none;
  facts.infiniband = fs::is_directory("/sys/class/infiniband", none) &&
                     !fs::is_empty("/sys/class/infiniband", none);
  cpu_set_t mask;
  CPU_ZERO(&mask);
  facts.cpus = sched_getaffinity(0, sizeof mask, &mask) == 0
                   ? CPU_COUNT(&mask)
                   : static_cast<int32_t>(sysconf(_SC_NPROCESSORS_ONLN));
  facts.cpu_quota = CpuQuota();
  facts.instructions = Instructions();
  facts.memory_available_bytes = AvailableMemory();
  const CgroupLimits cgroup = ReadCgroupLimits();
  facts.cgroup_memory_bytes = cgroup.memory_bytes;
  facts.cgroup_threads_left = cgroup.threads_left;
  facts.shared_memory = GatherSharedMemory();
  facts.descriptors = LimitOf(RLIMIT_NOFILE, true);
  facts.locked_memory = LimitOf(RLIMIT_MEMLOCK, true);
  facts.address_space_bytes = LimitOf(RLIMIT_AS, false);
  // The limit of processes does not bind root.
  if (geteuid() != 0) facts.processes = LimitOf(RLIMIT_NPROC, true);
  facts.ports = GatherPorts(options.host, options.ports);
  facts.clock = GatherClock();
  facts.kernel = {.somaxconn = NumberIn("/proc/sys/net/core/somaxconn"),
                  .threads_max = NumberIn("/proc/sys/kernel/threads-max"),
                  .pid_max = NumberIn("/proc/sys/kernel/pid_max"),
                  .max_map_count = NumberIn("/proc/sys/vm/max_map_count"),
                  .overcommit_memory = NumberIn("/proc/sys/vm/overcommit_memory"),
                  .huge_pages = Chosen(FirstLine("/sys/kernel/mm/transparent_hugepage/enabled"))};
  GatherEnvironment(&facts);
  facts.run_folder = options.run_folder;
  facts.run_folder_error = TryToWrite(options.run_folder);
  facts.run_folder_free_bytes = FreeBytes(options.run_folder);
  return facts;
}

}  // namespace fathom::client
