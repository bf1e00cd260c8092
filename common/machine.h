// common/machine.h: which machine this process runs on, in words that another process can compare
// with its own, and how long the process has run. Linux; any thread.
#pragma once

#include <cstdint>
#include <string>

namespace fathom {

// The name of the host, for people: two hosts may have one name, and the containers of one host
// have different ones. "localhost" if there is none.
std::string HostName();

// Equal for two processes exactly if one kernel runs both: its boot id. Empty if it cannot be read.
std::string MachineId();

// Equal for two processes of one machine exactly if they see the same /dev/shm: each container has
// one of its own, unless it shares the IPC namespace of another one or of the host. "none" if there
// is no /dev/shm.
std::string SharedMemoryId();

// The time since the kernel started this process, in steps of 10 ms; 0 if it cannot be read.
int64_t ProcessAgeUs();

}  // namespace fathom
