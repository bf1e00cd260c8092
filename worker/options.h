// worker/options.h: the flags of fathom-worker, and the limits that follow from them and the model.
// Thread: main.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "common/engine_limits.h"
#include "common/group_shape.h"
#include "common/self_dial.h"
#include "common/server_process.h"
#include "common/status.h"
#include "kernels/tensor.h"
#include "modeling/config/model_config.h"
#include "modeling/layout/cuda_draft_plan.h"
#include "modeling/layout/cuda_memory_plan.h"
#include "worker/cuda/cuda_probe.h"
#include "worker/speculative_config.h"

namespace fathom::worker {

struct Options {
  std::string model;
  std::vector<std::string> schedulers = {"127.0.0.1:8003"};  // host:port each, after ParseOptions.
  std::string device = "auto";
  std::string dtype = "auto";
  std::string load_format = "auto";
  std::string hf_overrides;  // A JSON object (ReadModelConfig); empty: none.
  int32_t tp = 1;
  int32_t pp = 1;
  int32_t rank_hint = -1;     // Order among the workers of a host; -1: none.
  int32_t threads = 0;        // 0: from the number of CPUs that this process may use.
  int32_t local_workers = 0;  // Workers that share this machine; 0: those of a group.
  double gpu_memory_utilization = 0.92;
  int64_t kv_cache_bytes = 0;    // 0: on the CPU by the limits, at most kCpuKvCacheBytes; on a
                                 // GPU what is left.
  int64_t swap_bytes = 0;        // Swap space of this rank in the host's memory; 0: none.
  int32_t block_tokens = 0;      // 0: 16 on the CPU, 64 on a GPU.
  std::string context = "auto";  // Or a number of tokens.
  int32_t context_tokens = 0;  // The number in `context`; 0: the model's, or what memory can hold.
  int32_t slots = 0;           // 0: 64 on the CPU; by the memory plan on a GPU.
  int32_t step_tokens = 0;     // 0: 512 on the CPU; by the memory plan on a GPU.
  SpeculativeFlags speculative_flags;
  SpeculativeConfig speculative;  // What speculative_flags ask for, after ParseOptions.
  bool enforce_eager = false;
  bool allow_shared_device = false;
  bool diagnose_numerics = false;
  std::string nccl_interface;  // Empty: NCCL chooses.
  std::string nccl_debug = "off";
  std::string nccl_debug_file;
  std::string host_id;  // Tells this machine from others; empty: the kernel's boot id.
  int64_t drain_timeout_s = 30;
  std::string host = "127.0.0.1";
  int32_t port = 8010;
  int32_t metrics_port = 8110;
  TlsFiles cluster_tls;
  ProcessOptions process;

  GroupShape shape() const { return {tp, pp}; }
};

// Sets the defaults that depend on the device, and refuses flags that the device does not support.
// `cuda`: whether the device is a GPU.
absl::Status ResolveDevice(bool cuda, Options* options);

// The type of the computation on a GPU. INVALID_ARGUMENT for float, which its GEMMs do not support.
absl::StatusOr<kernels::DType> CudaDType(const Options& options, StoredType stored);

// The plans of this model on this GPU under these flags, for a rank in each stage.
absl::StatusOr<std::vector<CudaMemoryPlan>> PlansFor(const Options& options,
                                                     const ModelConfig& config,
                                                     kernels::DType dtype,
                                                     const DeviceFacts& device);

// The same for a model and its draft model.
absl::StatusOr<CudaPlansWithDraft> PlansWithDraftFor(const Options& options,
                                                     const ModelConfig& config,
                                                     const ModelConfig& draft, kernels::DType dtype,
                                                     const DeviceFacts& device);

// Fills `options`. Returns an exit code if the process must end; then the reason was printed.
std::optional<int> ParseOptions(int argc, char** argv, Options* options);

// The ports that a worker dials itself (common/self_dial.h).
std::vector<OwnPort> OwnPorts(const Options& options, int port, int metrics_port);

struct Sizes {
  EngineLimits limits;
  int64_t kv_cache_bytes = 0;  // The KV pool.
  int64_t draft_bytes = 0;     // All of the draft model.
  int64_t total_bytes = 0;  // The KV pool, swap space, weights, activations, and the draft model.
};

// INVALID_ARGUMENT, RESOURCE_EXHAUSTED: the flags do not fit the model; the message has numbers
// that would. `draft`: the configuration of the draft model; null: there is none. REQUIRES:
// CheckTensorParallel of the model and options.tp is OK.
absl::StatusOr<Sizes> SizesFor(const Options& options, const ModelConfig& config,
                               const ModelConfig* draft = nullptr);

// INVALID_ARGUMENT: the model of `draft` cannot propose tokens for that of `config`.
absl::Status CheckDraftModel(const ModelConfig& config, const ModelConfig& draft);

// The number of equal workers that share the CPUs of this machine and the memory of a control
// group; at least 1.
int32_t LocalWorkers(const Options& options);

// The number of threads of this rank: as the flag says, else the CPUs (UsableCpus) divided by the
// workers that share them, with one left for other processes.
int ThreadsFor(const Options& options, int cpus);

}  // namespace fathom::worker
