// worker/options.h: fathom-worker's flags, and the limits that follow from them and the model.
// Thread: main.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "common/engine_limits.h"
#include "common/status.h"
#include "kernels/tensor.h"
#include "modeling/config/model_config.h"
#include "modeling/layout/cuda_memory_plan.h"
#include "worker/cuda/cuda_probe.h"

namespace fathom::worker {

struct Options {
  std::string model;
  std::vector<std::string> schedulers = {"127.0.0.1:8003"};  // host:port each, after ParseOptions.
  std::string device = "auto";
  std::string dtype = "auto";
  std::string load_format = "auto";
  std::string hf_overrides;  // A JSON object (ReadModelConfig); empty: none.
  int32_t tp = 1;
  int32_t rank_hint = -1;     // Order among the workers of a host; -1: none.
  int32_t threads = 0;        // 0: by the CPUs that this process may use.
  int32_t local_workers = 0;  // Workers that share this machine; 0: tp.
  double gpu_memory_utilization = 0.92;
  int64_t kv_cache_bytes = 0;    // 0: on the CPU by the limits, at most kKvCacheBytesDefault; on a
                                 // GPU what is left.
  int32_t block_tokens = 0;      // 0: 16 on the CPU, 64 on a GPU.
  std::string context = "auto";  // Or a number of tokens.
  int32_t context_tokens = 0;    // Of it; 0: the model's, or what memory can hold.
  int32_t slots = 0;             // 0: 64 on the CPU; by the memory plan on a GPU.
  int32_t step_tokens = 0;       // 0: 512 on the CPU; by the memory plan on a GPU.
  bool enforce_eager = false;
  bool diagnose_numerics = false;
  std::string host = "127.0.0.1";
  int32_t port = 8010;
  int32_t metrics_port = 8110;
  int32_t parent_pid = 0;  // Ends with this process; 0: with none.
  std::string log_level = "info";
};

inline constexpr int64_t kKvCacheBytesDefault = int64_t{512} << 20;
inline constexpr int32_t kCpuBlockTokens = 16;
inline constexpr int32_t kCpuSlots = 64;
inline constexpr int32_t kCpuStepTokens = 512;

// Fills in what depends on the device, and refuses what it does not do. `cuda`: the device chosen.
absl::Status ResolveDevice(bool cuda, Options* options);

// The type to compute in on a GPU. INVALID_ARGUMENT for float, which its products do not do.
absl::StatusOr<kernels::DType> CudaDType(const Options& options, StoredType stored);

// The plan of this model on this GPU under these flags.
absl::StatusOr<CudaMemoryPlan> PlanFor(const Options& options, const ModelConfig& config,
                                       kernels::DType dtype, const DeviceFacts& device);

// Fills `options`; an exit code when the process is to end. What is wrong was printed then.
std::optional<int> ParseOptions(int argc, char** argv, Options* options);

struct Sizes {
  EngineLimits limits;
  int64_t kv_cache_bytes = 0;  // Of the pool.
  int64_t total_bytes = 0;     // Of the pool, weights and activations.
};

// INVALID_ARGUMENT, RESOURCE_EXHAUSTED: the flags do not fit the model, with the numbers that
// would. REQUIRES: CheckTensorParallel of the model and options.tp is OK.
absl::StatusOr<Sizes> SizesFor(const Options& options, const ModelConfig& config);

// How many workers, all alike, share this machine's CPUs and a control group's memory; at least 1.
int32_t LocalWorkers(const Options& options);

// Threads of this rank: as asked, else the CPUs (of UsableCpus) shared by the workers that run on
// them, one left for other processes.
int ThreadsFor(const Options& options, int cpus);

}  // namespace fathom::worker
