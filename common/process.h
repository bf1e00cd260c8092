// common/process.h: what every main does: stop signals, the line that says where the process
// listens, and the end together with the parent process.
#pragma once

#include <cstdint>
#include <string>
#include <utility>
#include <vector>

namespace fathom {

// Prints {"role":"router","pid":123,"grpc_port":8001,...} and a newline on stdout, flushed. `fathom
// serve` reads this line.
void PrintListening(const std::string& role,
                    const std::vector<std::pair<std::string, int64_t>>& ports);

// Prints {"event":"phase","name":"load","us":5} and a newline on stdout: the duration of a part of
// the start. `fathom serve` shows it on its timeline. Any thread.
void PrintPhase(const char* name, int64_t us);
// The same for /metrics alone.
void RecordPhase(const char* name, int64_t us);
// The parts so far, the latest duration of each. Any thread.
std::vector<std::pair<std::string, int64_t>> RecordedPhases();

// For a program that waits for SIGTERM and SIGINT on a signalfd. Blocks them in this thread and in
// the threads that it starts. Must be called first in main.
void BlockStopSignals();

// For all other servers; must be called first in main. SIGTERM and SIGINT are never blocked. Before
// the first WaitForStopSignal there is nothing to drain, so a signal ends the process at once with
// exit 0, even while it waits for a lock or a file or reads weights.
void HandleStopSignals();
// Waits for SIGTERM or SIGINT, at most timeout_ms (-1: without limit). Returns true if a signal
// came or RequestStop was called. A second signal, while the process drains, ends it at once with
// exit 0. REQUIRES: HandleStopSignals was called.
bool WaitForStopSignal(int timeout_ms);
// Wakes WaitForStopSignal like a signal.
void RequestStop();

// The kernel sends SIGKILL to this process when its parent dies (Linux). SIGKILL is right, because
// it cannot be blocked or delayed: no supervisor would restart this process, its peers end at the
// same moment, its ports must be free for the next cluster, and by design it may lose all of its
// state. `parent_pid` is the parent's own process id; with it the call also notices a parent that
// died before the call. The parent may be process 1: in a container `fathom serve` is. REQUIRES:
// the parent starts its children in its own pid namespace.
void DieWithParent(int32_t parent_pid);

// Raises the soft limit of descriptors to the hard limit, at most 1,048,576. Must be called before
// code that derives a limit from the number of descriptors.
void RaiseDescriptorLimit();

// Returns free memory of the allocator to the system if a flood of requests left much of it. One
// thread calls Look now and then.
class MemoryReturner {
 public:
  void Look();

 private:
  int64_t least_bytes_ = -1;  // The least resident size so far.
  // The number of calls to skip, and its growth each time there was little to return.
  int skip_ = 0;
  int pause_ = 0;
};

// 128 random bits of the system as 32 hex digits.
std::string RandomId();
uint64_t RandomSeed();
// Lower-case hex SHA-256.
std::string Sha256Hex(const std::string& bytes);

// "<version>+<git hash>" of the build.
std::string BuildVersion();
// The same in its two parts.
struct BuildParts {
  std::string version, commit;
};
BuildParts OwnBuild();

}  // namespace fathom
