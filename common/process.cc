#include "common/process.h"

#include <fmt/format.h>
#include <openssl/evp.h>
#include <openssl/rand.h>
#include <signal.h>
#include <sys/prctl.h>
#include <time.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <csignal>
#include <cstdio>
#include <cstring>

#include "common/build_version.h"
#include "common/check.h"

namespace fathom {
namespace {

template <class Bytes>
std::string Hex(const Bytes& bytes, size_t count) {
  std::string text;
  for (size_t i = 0; i < count; ++i) text += fmt::format("{:02x}", bytes[i]);
  return text;
}

void ExitAtOnce(int) { _exit(0); }

}  // namespace

void PrintListening(const std::string& role,
                    const std::vector<std::pair<std::string, int64_t>>& ports) {
  std::string line = fmt::format(R"({{"role":"{}","pid":{})", role, getpid());
  for (const auto& [name, port] : ports) line += fmt::format(R"(,"{}":{})", name, port);
  fmt::print("{}}}\n", line);
  std::fflush(stdout);
}

void BlockStopSignals() {
  sigset_t set;
  sigemptyset(&set);
  sigaddset(&set, SIGTERM);
  sigaddset(&set, SIGINT);
  FATHOM_CHECK(pthread_sigmask(SIG_BLOCK, &set, nullptr) == 0);
  signal(SIGPIPE, SIG_IGN);
}

bool WaitForStopSignal(int timeout_ms) {
  sigset_t set;
  sigemptyset(&set);
  sigaddset(&set, SIGTERM);
  sigaddset(&set, SIGINT);
  const timespec timeout{timeout_ms / 1000, (timeout_ms % 1000) * 1'000'000L};
  int got = 0;
  do {
    got = timeout_ms < 0 ? sigwaitinfo(&set, nullptr) : sigtimedwait(&set, nullptr, &timeout);
  } while (got < 0 && errno == EINTR);
  if (got < 0) return false;
  // From here on a second signal ends the process at once.
  struct sigaction action {};
  action.sa_handler = ExitAtOnce;
  sigaction(SIGTERM, &action, nullptr);
  sigaction(SIGINT, &action, nullptr);
  pthread_sigmask(SIG_UNBLOCK, &set, nullptr);
  return true;
}

void DieWithParent() {
  const pid_t parent = getppid();
  prctl(PR_SET_PDEATHSIG, SIGTERM);
  if (getppid() != parent || parent == 1) raise(SIGTERM);  // It died before we asked.
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

}  // namespace fathom
