// cli/doctor/gather.h: reads the facts that `fathom doctor` judges, from the system. Nothing is
// changed, and every step is bounded: the driver gets driver_timeout_s. Thread: the calling one,
// and one for the driver.
#pragma once

#include <cstdint>
#include <string>
#include <utility>
#include <vector>

#include "cli/doctor/facts.h"

namespace fathom::client {

// A port that a process of the cluster would listen on, with the flag that chooses it.
struct WantedPort {
  int32_t port = 0;  // 0: any free one, so it is not looked at.
  std::string flag;
};

struct GatherOptions {
  std::string host = "127.0.0.1";  // Of the ports.
  std::vector<WantedPort> ports;
  std::string run_folder;
  bool gpu = true;  // Whether the driver is asked.
  int32_t driver_timeout_s = 6;
};

DoctorFacts GatherFacts(const GatherOptions& options);

// The parts of it: the NVIDIA driver and NCCL through dlopen; ports and who listens on them.
// If the driver does not answer in time, a thread stays in it: then the program must
// end by _exit.
void GatherGpus(int32_t timeout_s, DoctorFacts* facts);
std::vector<PortFacts> GatherPorts(const std::string& host, const std::vector<WantedPort>& wanted);

}  // namespace fathom::client
