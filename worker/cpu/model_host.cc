#include "worker/cpu/model_host.h"

#include "kernels/cpu/thread_pool.h"
#include "modeling/checkpoint/checkpoint.h"
#include "worker/comm/epoch_comm.h"
#include "worker/cpu/cpu_device.h"
#include "worker/cpu/decoder.h"
#include "worker/cpu/kv_cache.h"
#include "worker/cpu/stage_stream.h"

namespace fathom::worker {

struct ModelHost::Loaded {
  Loaded(const RankPlace& at, const Clock* clock, Progress* progress)
      : place(at), comm(at.tp_rank, at.tp, clock, progress, at.stage, at.stages) {}
  const RankPlace place;
  EpochComm comm;
  std::unique_ptr<Decoder> decoder;
  std::unique_ptr<CpuDevice> device;
};

StageMessages MessagesOf(int32_t hidden, const EngineLimits& limits) {
  return {int64_t{limits.step_tokens} * hidden * static_cast<int64_t>(sizeof(float)),
          StageStream::SamplesBytes(limits.slots)};
}

ModelHost::ModelHost(const ModelSpec& spec, const Checkpoint* checkpoint,
                     const ModelHostOptions& options, const Clock* clock, Progress* progress)
    : spec_(spec), checkpoint_(checkpoint), options_(options), clock_(clock), progress_(progress) {}

ModelHost::~ModelHost() = default;

absl::StatusOr<Device*> ModelHost::ForRank(int rank) {
  const GroupShape& shape = options_.shape;
  const RankPlace place{shape.tp, shape.TpRankOf(rank), shape.StageOf(rank), shape.pp};
  if (!pool_) pool_ = std::make_unique<kernels::ThreadPool>(options_.threads);
  if (!loaded_ || loaded_->place != place) {
    const RankModel model = RankOf(spec_, place);
    const bool other_stage = loaded_ && loaded_->place.stage != place.stage;
    loaded_.reset();  // Frees the old share before the new one is loaded.
    if (other_stage) kv_.reset();
    if (!kv_) FATHOM_RETURN_IF_ERROR(AllocateKv(model));
    auto loaded = std::make_unique<Loaded>(place, clock_, progress_);
    const DecoderLimits limits{options_.limits.step_tokens, options_.logits_rows,
                               options_.limits.context_tokens};
    FATHOM_ASSIGN_OR_RETURN(loaded->decoder, Decoder::Load(model, *checkpoint_, limits, kv_.get(),
                                                           &loaded->comm, pool_.get(), progress_));
    loaded->device =
        std::make_unique<CpuDevice>(CpuDeviceParts{.decoder = loaded->decoder.get(),
                                                   .kv = kv_.get(),
                                                   .swap_space = swap_space_.get(),
                                                   .comm = &loaded->comm,
                                                   .clock = clock_,
                                                   .limits = options_.limits,
                                                   .logits_rows = options_.logits_rows});
    loaded_ = std::move(loaded);
  }
  return loaded_->device.get();
}

absl::Status ModelHost::AllocateKv(const RankModel& model) {
  const EngineLimits& limits = options_.limits;
  swap_space_.reset();
  FATHOM_ASSIGN_OR_RETURN(
      kv_, KvCache::Allocate(KvShapeOf(model, limits.block_tokens, limits.pool_blocks)));
  if (limits.host_blocks == 0) return absl::OkStatus();
  // Its block 0 is never used, as that of the pool.
  FATHOM_ASSIGN_OR_RETURN(swap_space_, KvCache::Allocate(KvShapeOf(model, limits.block_tokens,
                                                                   limits.host_blocks + 1)));
  return absl::OkStatus();
}

int64_t ModelHost::weights_bytes() const {
  return loaded_ ? static_cast<int64_t>(loaded_->decoder->weight_bytes()) : 0;
}

int64_t ModelHost::BytesOf(const KvCache* cache) {
  if (cache == nullptr) return 0;
  return static_cast<int64_t>(KvCache::BytesPerBlock(cache->shape())) * cache->shape().pool_blocks;
}

}  // namespace fathom::worker
