#include "common/machine.h"

#include <fmt/format.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <ctime>
#include <fstream>
#include <iterator>
#include <sstream>

namespace fathom {
namespace {

std::string ContentOf(const char* path) {
  std::ifstream file(path);
  return {std::istreambuf_iterator<char>(file), std::istreambuf_iterator<char>()};
}

}  // namespace

std::string HostName() {
  char name[256] = {};
  return gethostname(name, sizeof(name) - 1) == 0 && name[0] != '\0' ? name : "localhost";
}

std::string MachineId() {
  std::string id = ContentOf("/proc/sys/kernel/random/boot_id");
  while (!id.empty() && id.back() == '\n') id.pop_back();
  return id;
}

std::string SharedMemoryId() {
  struct stat info = {};
  if (stat("/dev/shm", &info) != 0) return "none";
  return fmt::format("{}:{}", info.st_dev, info.st_ino);
}

int64_t ProcessAgeUs() {
  // The 22nd field, after the name in brackets, is the start in clock ticks since the boot.
  const std::string stat = ContentOf("/proc/self/stat");
  const size_t name_end = stat.rfind(')');
  const int64_t ticks_a_second = sysconf(_SC_CLK_TCK);
  timespec now = {};
  if (name_end == std::string::npos || ticks_a_second <= 0 ||
      clock_gettime(CLOCK_BOOTTIME, &now) != 0) {
    return 0;
  }
  std::istringstream fields(stat.substr(name_end + 1));
  std::string field;
  for (int i = 3; i < 22; ++i) fields >> field;
  int64_t started_ticks = 0;
  if (!(fields >> started_ticks)) return 0;
  const int64_t now_us = int64_t{now.tv_sec} * 1'000'000 + now.tv_nsec / 1000;
  return std::max<int64_t>(0, now_us - started_ticks * 1'000'000 / ticks_a_second);
}

}  // namespace fathom
