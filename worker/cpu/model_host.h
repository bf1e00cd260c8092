// worker/cpu/model_host.h: keeps the share of one rank in a model in memory between epochs:
// weights, KV pool and threads. A rank of another stage has another KV pool. Thread: main makes it;
// afterwards only the engine thread uses it.
#pragma once

#include <cstdint>
#include <memory>

#include "common/clock.h"
#include "common/engine_limits.h"
#include "common/group_shape.h"
#include "common/status.h"
#include "modeling/spec/model_spec.h"
#include "worker/comm/shm_stages.h"
#include "worker/engine/device.h"
#include "worker/progress.h"

namespace fathom::kernels {
class ThreadPool;
}

namespace fathom {
class Checkpoint;
class GrammarEngine;
struct RankModel;
}  // namespace fathom

namespace fathom::worker {

class KvCache;

struct ModelHostOptions {
  GroupShape shape;
  EngineLimits limits;
  int32_t logits_rows = 0;  // Rows with logits of one Forward.
  int threads = 1;
  // What proposes drafts: `proposer`, or a draft model, or nothing.
  Proposer* proposer = nullptr;
  const GrammarEngine* grammars = nullptr;  // Null: no guided output.
  const ModelSpec* draft = nullptr;
  const Checkpoint* draft_checkpoint = nullptr;
};

// The longest messages of a step between two stages, for rows of so many hidden values.
StageMessages MessagesOf(int32_t hidden, const EngineLimits& limits);

class ModelHost {
 public:
  // The pointers outlive it. REQUIRES: CheckTensorParallel and CheckStages are OK for the shape.
  ModelHost(const ModelSpec& spec, const Checkpoint* checkpoint, const ModelHostOptions& options,
            const Clock* clock, Progress* progress);
  ~ModelHost();

  // The device of rank `rank` of a group. Loads the weights if they are not loaded or are those of
  // another rank. Errors: those of the checkpoint, and RESOURCE_EXHAUSTED if there is not enough
  // memory.
  absl::StatusOr<Device*> ForRank(int rank);

  // The bytes of the packed weights, of the KV pool and of the swap space; 0 before the first load.
  int64_t weights_bytes() const;
  int64_t kv_bytes() const { return BytesOf(kv_.get()); }
  int64_t swap_bytes() const { return BytesOf(swap_space_.get()); }
  // Both of the draft model.
  int64_t draft_bytes() const;

 private:
  struct Loaded;
  struct DraftHost;

  // The draft model with its own KV planes. REQUIRES: its vocabulary is the model's, and the CPU
  // can compute it.
  absl::Status LoadDraft();

  static int64_t BytesOf(const KvCache* cache);
  absl::Status AllocateKv(const RankModel& model);

  const ModelSpec spec_;
  const Checkpoint* const checkpoint_;
  const ModelHostOptions options_;
  const Clock* const clock_;
  Progress* const progress_;
  std::unique_ptr<kernels::ThreadPool> pool_;
  std::unique_ptr<KvCache> kv_;
  std::unique_ptr<KvCache> swap_space_;  // Null: none.
  std::unique_ptr<DraftHost> draft_;
  std::unique_ptr<Loaded> loaded_;
};

}  // namespace fathom::worker
