// worker/cuda/cuda_probe.h: finds out whether there is a GPU that this build can use, and its
// facts. The header includes no CUDA header, so that a build without CUDA can have the same
// function, which returns an error. Thread: main.
#pragma once

#include <cstdint>
#include <string>

#include "absl/status/statusor.h"

namespace fathom::worker {

struct DeviceFacts {
  std::string name;
  std::string uuid;  // As nvidia-smi prints it: "GPU-...".
  int sm = 0;        // Compute capability: 80, 90.
  int sms = 0;
  int64_t capacity_bytes = 0;
  int64_t taken_bytes = 0;  // Memory of other processes, before this one allocates any.
  int driver_version = 0;   // 13000: CUDA 13.0.
  int runtime_version = 0;
};

// The first visible device (CUDA_VISIBLE_DEVICES). FAILED_PRECONDITION, with a message that says
// what to do: there is no driver, the driver is too old for this build, there is no device, or its
// compute capability is too low.
absl::StatusOr<DeviceFacts> ProbeCudaDevice();

}  // namespace fathom::worker
