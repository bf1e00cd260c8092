// worker/cuda/cuda_backend.h: makes the device of a rank on one GPU, which the worker keeps between
// epochs. The header includes no CUDA header, so that a build without CUDA can have the same
// function, which returns an error. Thread: main or the engine thread; later only the engine uses
// the device.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>

#include "common/clock.h"
#include "common/status.h"
#include "kernels/tensor.h"
#include "modeling/checkpoint/checkpoint.h"
#include "modeling/layout/cuda_memory_plan.h"
#include "modeling/spec/rank_model.h"
#include "worker/engine/device.h"
#include "worker/progress.h"

namespace fathom::worker {

struct CudaBackendOptions {
  RankModel model;
  const Checkpoint* checkpoint = nullptr;  // The pointers outlive the device.
  const Clock* clock = nullptr;
  Progress* progress = nullptr;
  CudaMemoryPlan plan;
  kernels::DType dtype = kernels::DType::kBf16;
  bool use_graphs = true;                   // --enforce-eager: false
  bool diagnose = false;                    // --diagnose-numerics
  Proposer* proposer = nullptr;             // Null: no drafts.
  const GrammarEngine* grammars = nullptr;  // Null: no guided output.
  // Called after each part of the start: "arenas", "weights", ...
  std::function<void(const char* name, int64_t us)> phase;
  // Called by the engine thread after each capture, with the device memory of all graphs.
  std::function<void(int64_t bytes)> graphs_grew;
};

// Allocates every arena and loads the weights. Errors: RESOURCE_EXHAUSTED and the checkpoint's;
// FAILED_PRECONDITION without a usable device. A CUDA error ends the process with exit 70.
absl::StatusOr<std::unique_ptr<Device>> MakeCudaDevice(const CudaBackendOptions& options);

}  // namespace fathom::worker
