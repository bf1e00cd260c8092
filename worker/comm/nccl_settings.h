// worker/comm/nccl_settings.h: the settings of NCCL that are flags of the worker. NCCL reads its
// environment when it is loaded and when it makes its first communicator, so they are applied at
// the start of the process. A variable that the user has set has precedence over a flag. Thread:
// main, before other threads start.
#pragma once

#include <string>
#include <vector>

#include "common/status.h"

namespace fathom::worker {

struct NcclSettings {
  std::string interface;   // The network interface that connects the hosts; empty: NCCL chooses.
  std::string debug;       // "WARN", "INFO", "TRACE"; empty: NCCL's default.
  std::string debug_file;  // What NCCL writes with `debug`; empty: fathom-nccl-PID.log.
};

// The network interfaces of this host, without duplicates.
std::vector<std::string> NetworkInterfaces();
// INVALID_ARGUMENT: the interface does not exist; the message has those that do.
absl::Status CheckNcclInterface(const std::string& name,
                                const std::vector<std::string>& interfaces);

// Sets the variables of NCCL and starts its log (worker/comm/nccl_log.h). Logs once which variables
// of the environment have precedence. INVALID_ARGUMENT: CheckNcclInterface.
absl::Status ApplyNcclSettings(const NcclSettings& settings);

}  // namespace fathom::worker
