// worker/cuda/cuda_probe.h: whether there is a GPU that this build can use, and what it is. No
// CUDA header here: a build without CUDA has the same function, which says so. Thread: main.
#pragma once

#include <cstdint>
#include <string>

#include "absl/status/statusor.h"

namespace fathom::worker {

struct DeviceFacts {
  std::string name;
  std::string uuid;  // As nvidia-smi prints it: GPU-...
  int sm = 0;        // Compute capability: 80, 90.
  int sms = 0;
  int64_t capacity_bytes = 0;
  int64_t taken_bytes = 0;  // By other processes, before this one has taken anything.
  int driver_version = 0;   // 13000: CUDA 13.0.
  int runtime_version = 0;
};

// The first visible device (CUDA_VISIBLE_DEVICES). FAILED_PRECONDITION, with what to do: no driver,
// one that is too old for this build, no device, or one of too small a compute capability.
absl::StatusOr<DeviceFacts> ProbeCudaDevice();

}  // namespace fathom::worker
