// worker/cpu/model_host.h: keeps one rank's share of a model in memory between epochs: weights, KV
// pool and threads. Thread: made by main, then the engine thread's.
#pragma once

#include <cstdint>
#include <memory>

#include "common/clock.h"
#include "common/engine_limits.h"
#include "common/status.h"
#include "modeling/spec/model_spec.h"
#include "worker/engine/device.h"
#include "worker/progress.h"

namespace fathom::kernels {
class ThreadPool;
}

namespace fathom::worker {

class Checkpoint;
class KvCache;

struct ModelHostOptions {
  int32_t tp = 1;
  EngineLimits limits;
  int32_t logits_rows = 0;  // Of one Forward.
  int threads = 1;
};

// Rows with logits of one Forward: all that decode, and prompts that are scored in pieces.
int32_t LogitsRows(const EngineLimits& limits);

class ModelHost {
 public:
  // The pointers outlive it. REQUIRES: CheckTensorParallel(spec, options.tp) is OK.
  ModelHost(const ModelSpec& spec, const Checkpoint* checkpoint, const ModelHostOptions& options,
            const Clock* clock, Progress* progress);
  ~ModelHost();

  // What rank `rank` computes with; loads it when another rank or none is there. Errors: the
  // checkpoint's, and RESOURCE_EXHAUSTED when the memory is not there.
  absl::StatusOr<Device*> ForRank(int rank);

  // Bytes of packed weights; 0 before the first load.
  int64_t weights_bytes() const;

 private:
  struct Loaded;

  const ModelSpec spec_;
  const Checkpoint* const checkpoint_;
  const ModelHostOptions options_;
  const Clock* const clock_;
  Progress* const progress_;
  std::unique_ptr<kernels::ThreadPool> pool_;
  std::unique_ptr<KvCache> kv_;
  std::unique_ptr<Loaded> loaded_;
};

}  // namespace fathom::worker
