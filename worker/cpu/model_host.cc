#include "worker/cpu/model_host.h"

#include <algorithm>

#include "common/check.h"
#include "kernels/cpu/thread_pool.h"
#include "modeling/checkpoint/checkpoint.h"
#include "worker/comm/epoch_comm.h"
#include "worker/cpu/cpu_device.h"
#include "worker/cpu/decoder.h"
#include "worker/cpu/kv_cache.h"
#include "worker/cpu/stage_stream.h"
#include "worker/engine/draft_model.h"

namespace fathom::worker {

struct ModelHost::Loaded {
  Loaded(const RankPlace& at, const Clock* clock, Progress* progress)
      : place(at), comm(at.tp_rank, at.tp, clock, progress, at.stage, at.stages) {}
  const RankPlace place;
  EpochComm comm;
  std::unique_ptr<Decoder> decoder;
  std::unique_ptr<CpuDevice> device;
};

// The draft model is on one rank, whatever the group's shape.
struct ModelHost::DraftHost {
  DraftHost(const Clock* clock, Progress* progress) : comm(0, 1, clock, progress) {
    comm.SetTarget(&single);
  }
  SingleRankComm single;
  EpochComm comm;
  std::unique_ptr<KvCache> kv;
  std::unique_ptr<Decoder> decoder;
  std::unique_ptr<CpuDevice> device;
  std::unique_ptr<DraftModel> model;
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
  if (options_.draft != nullptr && !draft_) {
    FATHOM_RETURN_IF_ERROR(LoadDraft());
  }
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
    Proposer* const proposer = draft_ ? draft_->model.get() : options_.proposer;
    loaded->device = std::make_unique<CpuDevice>(CpuDeviceParts{.decoder = loaded->decoder.get(),
                                                                .kv = kv_.get(),
                                                                .comm = &loaded->comm,
                                                                .clock = clock_,
                                                                .limits = options_.limits,
                                                                .logits_rows = options_.logits_rows,
                                                                .swap_space = swap_space_.get(),
                                                                .proposer = proposer,
                                                                .grammars = options_.grammars});
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

absl::Status ModelHost::LoadDraft() {
  EngineLimits limits = options_.limits;
  limits.context_tokens = std::min(limits.context_tokens, options_.draft->context);
  limits.draft_max = 0;
  FATHOM_CHECK(options_.draft->vocab == limits.vocab, "a draft model of {} tokens, a model of {}",
               options_.draft->vocab, limits.vocab);
  const RankModel model = RankOf(*options_.draft, {});
  auto draft = std::make_unique<DraftHost>(clock_, progress_);
  FATHOM_ASSIGN_OR_RETURN(
      draft->kv, KvCache::Allocate(KvShapeOf(model, limits.block_tokens, limits.pool_blocks)));
  FATHOM_ASSIGN_OR_RETURN(
      draft->decoder,
      Decoder::Load(model, *options_.draft_checkpoint,
                    {limits.step_tokens, options_.logits_rows, limits.context_tokens},
                    draft->kv.get(), &draft->comm, pool_.get(), progress_));
  draft->device = std::make_unique<CpuDevice>(CpuDeviceParts{.decoder = draft->decoder.get(),
                                                             .kv = draft->kv.get(),
                                                             .comm = &draft->comm,
                                                             .clock = clock_,
                                                             .limits = limits,
                                                             .logits_rows = options_.logits_rows});
  draft->model = std::make_unique<DraftModel>(draft->device.get(), limits);
  draft_ = std::move(draft);
  return absl::OkStatus();
}

int64_t ModelHost::draft_bytes() const {
  if (!draft_) return 0;
  return static_cast<int64_t>(draft_->decoder->weight_bytes()) + BytesOf(draft_->kv.get());
}

}  // namespace fathom::worker
