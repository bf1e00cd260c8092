#include "common/process.h"

#include <fmt/format.h>
#include <malloc.h>
#include <openssl/evp.h>
#include <openssl/rand.h>
#include <poll.h>
#include <signal.h>
#include <sys/eventfd.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <cerrno>
#include <csignal>
#include <cstdio>
#include <cstring>
#include <map>
#include <mutex>

#include "common/build_version.h"
#include "common/check.h"
#include "common/output.h"

namespace fathom {
namespace {

template <class Bytes>
std::string Hex(const Bytes& bytes, size_t count) {
  std::string text;
  for (size_t i = 0; i < count; ++i) text += fmt::format("{:02x}", bytes[i]);
  return text;
}

// The effect of a stop signal. Handlers run in any thread.
enum class OnStop : int { kExit, kWake, kExitStopping };
std::atomic<OnStop> g_on_stop{OnStop::kExit};
static_assert(std::atomic<OnStop>::is_always_lock_free, "used in a signal handler");
std::mutex g_phases_mutex;
std::map<std::string, int64_t> g_phases;  // Guarded by g_phases_mutex.
int g_stop_fd = -1;                       // An eventfd; set before the handlers are installed.

// Returns true for the first stop after a WaitForStopSignal began.
bool TakeStop() {
  OnStop expected = OnStop::kWake;
  if (!g_on_stop.compare_exchange_strong(expected, OnStop::kExitStopping)) return false;
  const int error = errno;
  const uint64_t one = 1;
  [[maybe_unused]] const ssize_t written = write(g_stop_fd, &one, sizeof one);
  errno = error;
  return true;
}

void OnStopSignal(int) {
  if (!TakeStop()) _exit(0);
}

}  // namespace

void PrintListening(const std::string& role,
                    const std::vector<std::pair<std::string, int64_t>>& ports) {
  std::string line = fmt::format(R"({{"role":"{}","pid":{})", role, getpid());
  for (const auto& [name, port] : ports) line += fmt::format(R"(,"{}":{})", name, port);
  WriteAnnouncement(line + "}\n");
}

void RecordPhase(const char* name, int64_t us) {
  const std::lock_guard lock(g_phases_mutex);
  g_phases[name] = us;
}

void PrintPhase(const char* name, int64_t us) {
  RecordPhase(name, us);
  WriteAnnouncement(fmt::format(R"({{"event":"phase","name":"{}","us":{}}})", name, us) + '\n');
}

std::vector<std::pair<std::string, int64_t>> RecordedPhases() {
  const std::lock_guard lock(g_phases_mutex);
  return {g_phases.begin(), g_phases.end()};
}

void BlockStopSignals() {
  sigset_t set;
  sigemptyset(&set);
  sigaddset(&set, SIGTERM);
  sigaddset(&set, SIGINT);
  FATHOM_CHECK(pthread_sigmask(SIG_BLOCK, &set, nullptr) == 0);
  signal(SIGPIPE, SIG_IGN);
}

void HandleStopSignals() {
  g_stop_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
  FATHOM_CHECK(g_stop_fd >= 0, "eventfd: {}", strerror(errno));
  struct sigaction action {};
  action.sa_handler = OnStopSignal;
  action.sa_flags = SA_RESTART;
  sigaction(SIGTERM, &action, nullptr);
  sigaction(SIGINT, &action, nullptr);
  signal(SIGPIPE, SIG_IGN);
  sigset_t set;
  sigemptyset(&set);
  sigaddset(&set, SIGTERM);
  sigaddset(&set, SIGINT);
  FATHOM_CHECK(pthread_sigmask(SIG_UNBLOCK, &set, nullptr) == 0);
}

bool WaitForStopSignal(int timeout_ms) {
  FATHOM_CHECK(g_stop_fd >= 0, "HandleStopSignals was not called");
  OnStop expected = OnStop::kExit;
  g_on_stop.compare_exchange_strong(expected, OnStop::kWake);
  pollfd told{g_stop_fd, POLLIN, 0};
  int ready = 0;
  do {
    ready = poll(&told, 1, timeout_ms);
  } while (ready < 0 && errno == EINTR);
  return ready > 0;
}

void RequestStop() {
  OnStop expected = OnStop::kExit;
  g_on_stop.compare_exchange_strong(expected, OnStop::kWake);
  TakeStop();
}

void DieWithParent(int32_t parent_pid) {
  prctl(PR_SET_PDEATHSIG, SIGKILL);
  if (getppid() != parent_pid) raise(SIGKILL);  // The parent died before the prctl.
}

void RaiseDescriptorLimit() {
  constexpr rlim_t kMost = 1 << 20;
  rlimit limit{};
  if (getrlimit(RLIMIT_NOFILE, &limit) != 0) return;
  const rlim_t wanted = std::min(limit.rlim_max, kMost);
  if (limit.rlim_cur >= wanted) return;
  limit.rlim_cur = wanted;
  setrlimit(RLIMIT_NOFILE, &limit);  // If it fails, the limits of connections are lower.
}

void MemoryReturner::Look() {
  constexpr int64_t kWorthwhileBytes = 64 << 20;
  const auto resident_bytes = []() -> int64_t {
    long long pages = 0, resident = 0;
    std::FILE* file = std::fopen("/proc/self/statm", "re");
    if (file == nullptr) return 0;
    const int read = std::fscanf(file, "%lld %lld", &pages, &resident);
    std::fclose(file);
    return read == 2 ? resident * sysconf(_SC_PAGESIZE) : 0;
  };
  const int64_t now_bytes = resident_bytes();
  if (least_bytes_ < 0 || now_bytes < least_bytes_) least_bytes_ = now_bytes;
  if (now_bytes < least_bytes_ + kWorthwhileBytes) return;
  // The memory is in use.
  if (static_cast<int64_t>(mallinfo2().fordblks) < kWorthwhileBytes) return;
  if (skip_-- > 0) return;
  malloc_trim(0);
  const bool little = now_bytes - resident_bytes() < kWorthwhileBytes / 4;
  pause_ = little ? std::min(2 * pause_ + 1, 63) : 0;
  skip_ = pause_;
}

std::string RandomId() {
  std::array<unsigned char, 16> bytes{};
  FATHOM_CHECK(RAND_bytes(bytes.data(), bytes.size()) == 1);
  return Hex(bytes, bytes.size());
}

uint64_t RandomSeed() {
  uint64_t seed = 0;
  FATHOM_CHECK(RAND_bytes(reinterpret_cast<unsigned char*>(&seed), sizeof seed) == 1);
  return seed;
}

std::string Sha256Hex(const std::string& bytes) {
  std::array<unsigned char, EVP_MAX_MD_SIZE> digest{};
  unsigned int size = 0;
  FATHOM_CHECK(
      EVP_Digest(bytes.data(), bytes.size(), digest.data(), &size, EVP_sha256(), nullptr) == 1);
  return Hex(digest, size);
}

std::string BuildVersion() { return FATHOM_BUILD_VERSION; }

BuildParts OwnBuild() {
  const std::string build = BuildVersion();
  const size_t plus = std::min(build.find('+'), build.size());
  return {build.substr(0, plus), build.substr(std::min(plus + 1, build.size()))};
}

}  // namespace fathom
