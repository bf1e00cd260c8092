#include "worker/cpu/model_host.h"

#include <algorithm>

#include "kernels/cpu/thread_pool.h"
#include "modeling/checkpoint/checkpoint.h"
#include "worker/comm/epoch_comm.h"
#include "worker/cpu/cpu_device.h"
#include "worker/cpu/decoder.h"
#include "worker/cpu/kv_cache.h"

namespace fathom::worker {

struct ModelHost::Loaded {
  Loaded(int rank, int tp, const Clock* clock, Progress* progress)
      : comm(rank, tp, clock, progress) {}
  EpochComm comm;
  std::unique_ptr<Decoder> decoder;
  std::unique_ptr<CpuDevice> device;
};

int32_t LogitsRows(const EngineLimits& limits) {
  constexpr int32_t kScoredRows = 64;
  return std::min(limits.step_tokens, std::max(limits.slots, kScoredRows));
}

ModelHost::ModelHost(const ModelSpec& spec, const Checkpoint* checkpoint,
                     const ModelHostOptions& options, const Clock* clock, Progress* progress)
    : spec_(spec), checkpoint_(checkpoint), options_(options), clock_(clock), progress_(progress) {}

ModelHost::~ModelHost() = default;

absl::StatusOr<Device*> ModelHost::ForRank(int rank) {
  const RankModel model = RankOf(spec_, {.tp = options_.tp, .tp_rank = rank});
  if (!pool_) pool_ = std::make_unique<kernels::ThreadPool>(options_.threads);
  if (!kv_) {
    FATHOM_ASSIGN_OR_RETURN(kv_, KvCache::Allocate(KvShapeOf(model, options_.limits.block_tokens,
                                                             options_.limits.pool_blocks)));
  }
  if (!loaded_ || loaded_->comm.rank() != rank) {
    loaded_.reset();  // Frees the old share before the new one is loaded.
    auto loaded = std::make_unique<Loaded>(rank, options_.tp, clock_, progress_);
    const DecoderLimits limits{options_.limits.step_tokens, options_.logits_rows,
                               options_.limits.context_tokens};
    FATHOM_ASSIGN_OR_RETURN(loaded->decoder,
                            Decoder::Load(model, *checkpoint_, limits, kv_.get(), &loaded->comm,
                                          pool_.get(), &progress_->op));
    loaded->device =
        std::make_unique<CpuDevice>(CpuDeviceParts{.decoder = loaded->decoder.get(),
                                                   .kv = kv_.get(),
                                                   .comm = &loaded->comm,
                                                   .clock = clock_,
                                                   .limits = options_.limits,
                                                   .logits_rows = options_.logits_rows});
    loaded_ = std::move(loaded);
  }
  return loaded_->device.get();
}

int64_t ModelHost::weights_bytes() const {
  return loaded_ ? static_cast<int64_t>(loaded_->decoder->weight_bytes()) : 0;
}

}  // namespace fathom::worker
