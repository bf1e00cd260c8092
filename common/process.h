// common/process.h: what every main does the same way: signals, the one line that says where it
// listens, and following its parent to the grave.
#pragma once

#include <cstdint>
#include <string>
#include <utility>
#include <vector>

namespace fathom {

// Prints {"role":"router","pid":123,"grpc_port":8001,...} and a newline on stdout, flushed. `fathom
// serve` reads it.
void PrintListening(const std::string& role,
                    const std::vector<std::pair<std::string, int64_t>>& ports);

// Prints {"event":"phase","name":"load","us":5} and a newline on stdout: how long a part of the
// start took. `fathom serve` puts it on its timeline.
void PrintPhase(const char* name, int64_t us);

// For a program that waits for SIGTERM and SIGINT on a signalfd: blocks them in this thread and
// those it starts. Call first in main.
void BlockStopSignals();

// For all other servers, first in main: SIGTERM and SIGINT are never blocked. As long as nobody has
// called WaitForStopSignal there is nothing to drain, and one of them ends the process at once with
// exit 0, whatever it waits for: a lock, a file, weights that are being read.
void HandleStopSignals();
// Waits for SIGTERM or SIGINT, at most timeout_ms (-1: without end). True: one came, or RequestStop
// was called. A second one while the process drains ends it at once with exit 0.
// REQUIRES: HandleStopSignals was called.
bool WaitForStopSignal(int timeout_ms);
// Wakes WaitForStopSignal as a signal would.
void RequestStop();

// The process is killed when its parent dies (Linux): by SIGKILL, which nothing blocks or delays.
// Nobody would start it again, its peers end at the same moment, and its ports must be free for the
// next cluster. All of its state may be lost by design. `parent_pid` is the parent's process id as
// the parent knows it, so that a parent that died before this call is noticed too. Process 1 is a
// parent like any other: in a container `fathom serve` is process 1. REQUIRES: the parent starts
// children without a new pid namespace.
void DieWithParent(int32_t parent_pid);

// Raises the soft limit of descriptors to the hard one, at most 1,048,576. Call it before anything
// that counts descriptors.
void RaiseDescriptorLimit();

// Gives memory that is free in the allocator back to the system, when a flood has left much of it.
// Call it now and then from one thread.
class MemoryReturner {
 public:
  void Look();

 private:
  int64_t least_bytes_ = -1;  // Resident, ever.
  // Looks to be left out, and how many more each time that there was little to return.
  int skip_ = 0;
  int pause_ = 0;
};

// 128 random bits from the system as 32 hex digits.
std::string RandomId();
uint64_t RandomSeed();
// Lower-case hex SHA-256.
std::string Sha256Hex(const std::string& bytes);

// "0.1.0+<git hash>" as built.
std::string BuildVersion();

}  // namespace fathom
