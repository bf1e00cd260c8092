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

// Blocks SIGTERM and SIGINT in this thread and those it starts. Call first in main.
void BlockStopSignals();
// Waits for SIGTERM or SIGINT, at most timeout_ms (-1: without end). True: one came. A second one
// while the process drains ends it at once with exit 0.
bool WaitForStopSignal(int timeout_ms);

// The process gets SIGTERM when its parent dies (Linux).
void DieWithParent();

// 128 random bits from the system as 32 hex digits.
std::string RandomId();
uint64_t RandomSeed();
// Lower-case hex SHA-256.
std::string Sha256Hex(const std::string& bytes);

// "0.1.0+<git hash>" as built.
std::string BuildVersion();

}  // namespace fathom
