#include "modeling/layout/cuda_memory_plan.h"

#include <algorithm>
#include <cmath>
#include <optional>
#include <utility>

#include "common/check.h"
#include "common/status.h"
#include "modeling/layout/cuda_step_buffers.h"
#include "modeling/layout/cuda_step_layout.h"
#include "modeling/layout/device_weight_layout.h"
#include "modeling/layout/swap_space.h"
#include "modeling/spec/device_kinds.h"
#include "modeling/spec/rank_model.h"
#include "modeling/spec/stages.h"

namespace fathom {
namespace {

constexpr int64_t kMiB = 1 << 20;
constexpr int32_t kSlotsDefault = 256;
constexpr int32_t kSlotsDefaultMin = 8;
constexpr int32_t kBlocksPerSlotMin = 4;  // For the default number of slots.
constexpr int32_t kStepTokensMin = 256;   // For the default.
constexpr int32_t kStepTokensMax = 8192;
constexpr int32_t kStepTokensUnit = 64;
// The time between two tokens that a prefill chunk may cause.
constexpr double kStepSeconds = 0.040;
constexpr int32_t kAloneFactor = 2;  // A step without decode rows may take this many times as long.
// The share of a chunk's reading that its computing does not hide.
constexpr double kReadShare = 0.4;
// The share of the card's rate that a chunk's computing reaches.
constexpr double kMatrixShare = 0.83;
constexpr int32_t kContextAutoMin = 1024;    // A shorter context must be asked for.
constexpr int64_t kPoolBlocksMax = 1 << 24;  // The KV indices of the pool's tokens are int32.
constexpr double kUtilizationMax = 0.98;     // The largest value that a message proposes.
constexpr int32_t kRanksMax = 64;

// Memory of the driver on an H100: the CUDA context and loaded kernels.
constexpr int64_t kContextBytes = 480 * kMiB;
// The limit of captured graphs: the graph cache captures no more beyond it
// (worker/cuda/graph_cache.h).
constexpr int64_t kGraphBytes = 64 * kMiB;

double InGib(int64_t bytes) { return static_cast<double>(bytes) / (1 << 30); }
std::string Gib(int64_t bytes) { return fmt::format("{:.2f} GiB", InGib(bytes)); }

int32_t BlocksOf(int64_t tokens) {
  return static_cast<int32_t>((tokens + kCudaBlockTokens - 1) / kCudaBlockTokens);
}

// The tokens of a step with decode rows. A step reads all weights and computes 2 operations for
// each parameter and row, in one stage after the other. The shares are measured on an H100
// (docs/PERFORMANCE.md): 2,048 rows of the 7B shape take 43.8 ms and 512 rows take 11.4 ms, of
// which the GEMMs' operations take 35.4 and 8.8 ms at the rate of a hot card.
int32_t DefaultMixedTokens(int64_t parameters, int64_t weights_bytes,
                           const CudaMemoryRequest& request) {
  const double read_s = static_cast<double>(weights_bytes) / (request.read_tbs * 1e12);
  const double row_s = 2 * static_cast<double>(parameters) / (request.matrix_tflops * 1e12);
  const double rows = std::clamp((kStepSeconds - kReadShare * read_s) * kMatrixShare / row_s, 0.0,
                                 double{kStepTokensMax});
  return std::max(static_cast<int32_t>(rows) / kStepTokensUnit * kStepTokensUnit, kStepTokensMin);
}

absl::Status CheckRanks(const ModelSpec& spec, int32_t tp) {
  FATHOM_RETURN_IF_ERROR(CheckTensorParallel(spec, tp));
  return CheckDeviceWeights(RankOf(spec, {.tp = tp}));
}

// The limits are the same for every stage, since each rank executes every plan: what fits in the
// stage with the least room.
class Planner {
 public:
  Planner(const ModelSpec& spec, const CudaMemoryRequest& request)
      : spec_(spec),
        request_(request),
        budget_(static_cast<int64_t>(request.utilization *
                                     static_cast<double>(request.capacity_bytes)) -
                request.taken_bytes) {
    for (int32_t stage = 0; stage < request.stages; ++stage) {
      const RankModel rank =
          RankOf(spec, {.tp = request.tp, .stage = stage, .stages = request.stages});
      stages_.push_back({rank, KvBytes(rank, kCudaElementBytes, kCudaBlockTokens),
                         LayOutDeviceWeights(rank, request.dtype).bytes});
    }
  }

  // Sets every field of `limits`.
  absl::Status Fit(EngineLimits* limits) const {
    *limits = FirstLimits();
    Shrink(limits);
    for (const Stage& stage : stages_) {
      if (KvRoom(stage, *limits) < KvMin(stage, *limits)) return DoesNotFit(stage, *limits);
    }
    // No more blocks than all slots together can use.
    const int64_t useful = int64_t{limits->slots} * BlocksOf(limits->context_tokens) + 1;
    int64_t blocks = std::min(useful, kPoolBlocksMax);
    for (const Stage& stage : stages_) {
      const int64_t kv =
          request_.kv_cache_bytes > 0 ? request_.kv_cache_bytes : KvRoom(stage, *limits);
      blocks = std::min(blocks, kv / stage.block_bytes);
    }
    if (blocks < BlocksMin(*limits)) return PoolTooSmall(*limits, blocks);
    limits->pool_blocks = static_cast<int32_t>(blocks);
    const int64_t held = (blocks - 1) * kCudaBlockTokens;
    limits->context_tokens = static_cast<int32_t>(std::min<int64_t>(limits->context_tokens, held));
    FATHOM_ASSIGN_OR_RETURN(limits->host_blocks, SwapBlocks(request_.swap_bytes, LargestBlock()));
    return absl::OkStatus();
  }

  std::vector<CudaMemoryPlan> PlansOf(const EngineLimits& limits) const {
    std::vector<CudaMemoryPlan> plans;
    for (const Stage& stage : stages_) plans.push_back(PlanOf(stage, limits));
    return plans;
  }

 private:
  // A rank of a stage.
  struct Stage {
    RankModel rank;
    int64_t block_bytes = 0;
    int64_t weights = 0;
  };

  CudaMemoryPlan PlanOf(const Stage& stage, const EngineLimits& limits) const {
    CudaMemoryPlan plan;
    plan.limits = limits;
    plan.logits_rows = CudaLogitsRows(limits);
    plan.model_context_tokens = spec_.context;
    plan.context_asked = request_.context_tokens > 0;
    plan.kv_bytes_per_block = stage.block_bytes;
    if (limits.host_blocks > 0) {
      plan.swap_bytes = (int64_t{limits.host_blocks} + 1) * stage.block_bytes;
    }
    plan.capacity_bytes = request_.capacity_bytes;
    plan.budget_bytes = budget_;
    plan.buffers = {{"weights", "weights", stage.weights}};
    for (CudaBuffer& buffer : CudaStepBuffers(stage.rank, limits)) {
      plan.buffers.push_back(std::move(buffer));
    }
    plan.buffers.push_back({"kv", "kv", limits.pool_blocks * stage.block_bytes});
    const auto add = [&](const char* name, int64_t bytes, bool ours) {
      if (bytes > 0) plan.arenas.push_back({name, bytes, ours});
    };
    for (const char* name :
         {"weights", "activations", "logits", "attention", "sampler", "inputs"}) {
      add(name, SumOf(plan.buffers, name), true);
    }
    add("peers", PeerBytes(stage.rank, limits), false);
    add("stages", StageBytes(stage.rank, limits), false);
    add("graphs", kGraphBytes, false);
    add("context", kContextBytes, false);
    add("kv", SumOf(plan.buffers, "kv"), true);
    for (const CudaArena& arena : plan.arenas) plan.total_bytes += arena.bytes;
    return plan;
  }

  EngineLimits FirstLimits() const {
    EngineLimits limits;
    limits.block_tokens = kCudaBlockTokens;
    limits.vocab = spec_.vocab;
    limits.draft_max = request_.draft_max;
    limits.context_tokens = request_.context_tokens > 0 ? request_.context_tokens : spec_.context;
    limits.step_tokens = request_.step_tokens;
    if (request_.step_tokens == 0) {
      int64_t parameters = 0, weights = 0;
      for (const Stage& stage : stages_) {
        parameters += LayerMatrixElements(stage.rank);
        weights += stage.weights;
      }
      limits.mixed_step_tokens = DefaultMixedTokens(parameters, weights, request_);
      limits.step_tokens = std::min(limits.mixed_step_tokens * kAloneFactor, kStepTokensMax);
    }
    limits.slots =
        request_.slots > 0 ? request_.slots : std::min(kSlotsDefault, limits.step_tokens);
    limits.step_tokens = std::max(limits.step_tokens, limits.slots);
    if (request_.step_tokens > 0) limits.mixed_step_tokens = limits.step_tokens;
    limits.mixed_step_tokens = std::max(limits.mixed_step_tokens, limits.slots);
    return limits;
  }

  // Reduces the defaults if the pool is small: fewer sequences, then a smaller step.
  void Shrink(EngineLimits* limits) const {
    if (request_.slots == 0) {
      const int64_t slots = std::max<int64_t>(BlocksThatFit(*limits), 0) / kBlocksPerSlotMin /
                            kSlotsDefaultMin * kSlotsDefaultMin;
      limits->slots = static_cast<int32_t>(
          std::min<int64_t>(std::max<int64_t>(slots, kSlotsDefaultMin), limits->slots));
    }
    if (request_.step_tokens == 0 && !Fits(*limits)) {
      limits->step_tokens = std::max(kStepTokensMin, limits->slots);
      limits->mixed_step_tokens = std::min(limits->mixed_step_tokens, limits->step_tokens);
    }
  }

  // Bytes of everything except weights and KV.
  static int64_t Rest(const Stage& stage, const EngineLimits& limits) {
    return SumOf(CudaStepBuffers(stage.rank, limits)) + PeerBytes(stage.rank, limits) +
           StageBytes(stage.rank, limits) + kGraphBytes + kContextBytes;
  }

  // Bytes that are left for KV under these limits; negative: even the rest does not fit. The
  // attention workspace grows with the pool, so it is computed for the pool that would fit without
  // a workspace.
  int64_t KvRoom(const Stage& stage, EngineLimits limits) const {
    limits.pool_blocks = 0;
    const int64_t pool = request_.kv_cache_bytes > 0
                             ? request_.kv_cache_bytes
                             : budget_ - stage.weights - Rest(stage, limits);
    limits.pool_blocks =
        static_cast<int32_t>(std::clamp<int64_t>(pool / stage.block_bytes, 0, kPoolBlocksMax));
    return budget_ - stage.weights - Rest(stage, limits);
  }
  // The least bytes for KV of a stage, and the least blocks that fit in one.
  int64_t LeastRoom(const EngineLimits& limits) const {
    int64_t least = KvRoom(stages_.front(), limits);
    for (const Stage& stage : stages_) least = std::min(least, KvRoom(stage, limits));
    return least;
  }
  int64_t BlocksThatFit(const EngineLimits& limits) const {
    int64_t least = KvRoom(stages_.front(), limits) / stages_.front().block_bytes;
    for (const Stage& stage : stages_) {
      least = std::min(least, KvRoom(stage, limits) / stage.block_bytes);
    }
    return least;
  }
  // Of the stage with the most layers.
  int64_t LargestBlock() const {
    int64_t most = 0;
    for (const Stage& stage : stages_) most = std::max(most, stage.block_bytes);
    return most;
  }

  // The padding block, and the blocks of one sequence.
  int32_t BlocksMin(const EngineLimits& limits) const {
    return 1 + BlocksOf(request_.context_tokens > 0
                            ? limits.context_tokens
                            : std::min(limits.context_tokens, kContextAutoMin));
  }
  int64_t KvMin(const Stage& stage, const EngineLimits& limits) const {
    return request_.kv_cache_bytes > 0 ? request_.kv_cache_bytes
                                       : BlocksMin(limits) * stage.block_bytes;
  }
  bool Fits(const EngineLimits& limits) const {
    return std::all_of(stages_.begin(), stages_.end(), [&](const Stage& stage) {
      return KvRoom(stage, limits) >= KvMin(stage, limits);
    });
  }

  // The tokens that the blocks hold, as a value for --max-model-len; nullopt: none.
  static std::optional<int64_t> ContextOf(int64_t blocks) {
    if (blocks < 2) return std::nullopt;
    return (blocks - 1) * kCudaBlockTokens;
  }

  absl::Status PoolTooSmall(const EngineLimits& limits, int64_t blocks) const {
    const auto context = ContextOf(blocks);
    return Exhausted(
        "--kv-cache-memory {} holds {} blocks of {} tokens ({} bytes each), one of them padding; a "
        "sequence of {} tokens needs {}: give {} bytes or more{}",
        request_.kv_cache_bytes, blocks, kCudaBlockTokens, LargestBlock(),
        (BlocksMin(limits) - 1) * kCudaBlockTokens, BlocksMin(limits) - 1,
        BlocksMin(limits) * LargestBlock(),
        context ? fmt::format(", or --max-model-len {}", *context) : std::string());
  }

  absl::Status DoesNotFit(const Stage& stage, const EngineLimits& limits) const {
    const int64_t kv = KvMin(stage, limits);
    const int64_t rest = budget_ - stage.weights - KvRoom(stage, limits);
    const int64_t needed = stage.weights + rest + kv;
    std::string ways;
    for (const std::string& way : WaysOut(limits, needed)) {
      ways += (ways.empty() ? "" : "; or ") + way;
    }
    if (ways.empty()) ways = "a device with more memory, or a smaller model";
    return Exhausted(
        "{}{} may be used ({} of {}{}), and {} are needed: weights {} + a step's buffers, graphs "
        "and context {} + KV {} ({} blocks of {} tokens); {} too much. What would fit: {}",
        stages_.size() > 1 ? fmt::format("stage {}: ", stage.rank.place.stage) : std::string(),
        Gib(budget_), request_.utilization, Gib(request_.capacity_bytes),
        request_.taken_bytes > 0
            ? fmt::format(", less {} of other processes", Gib(request_.taken_bytes))
            : std::string(),
        Gib(needed), Gib(stage.weights), Gib(rest), Gib(kv), kv / stage.block_bytes,
        kCudaBlockTokens, Gib(needed - budget_), ways);
  }

  // A value for --kv-cache-memory; 0: it was not set, or none fits. Less KV may raise the defaults
  // of other limits, whose buffers take from the room again.
  int64_t KvCacheThatFits(EngineLimits limits) const {
    if (request_.kv_cache_bytes == 0) return 0;
    CudaMemoryRequest request = request_;
    for (int64_t room = LeastRoom(limits); room >= BlocksMin(limits) * LargestBlock();) {
      request.kv_cache_bytes = room;
      const Planner planner(spec_, request);
      limits = planner.FirstLimits();
      planner.Shrink(&limits);
      if (planner.Fits(limits)) return room;
      room = std::min(room - 1, planner.LeastRoom(limits));
    }
    return 0;
  }

  // Each way changes one setting, if one setting is enough.
  std::vector<std::string> WaysOut(const EngineLimits& limits, int64_t needed) const {
    std::vector<std::string> ways;
    EngineLimits smaller = limits;
    smaller.step_tokens = SmallerStep(limits);
    if (smaller.step_tokens > 0) {
      ways.push_back(fmt::format("--max-num-batched-tokens {}", smaller.step_tokens));
    }
    smaller = limits;
    while (smaller.slots > 0 && !Fits(smaller)) --smaller.slots;
    if (smaller.slots > 0) ways.push_back(fmt::format("--max-num-seqs {}", smaller.slots));
    if (ways.empty()) {
      smaller.slots = std::min(limits.slots, kSlotsDefaultMin);
      smaller.step_tokens = SmallerStep(smaller);
      if (smaller.step_tokens > 0) {
        ways.push_back(fmt::format("--max-num-batched-tokens {} with --max-num-seqs {}",
                                   smaller.step_tokens, smaller.slots));
      }
    }
    const auto context = ContextOf(BlocksThatFit(limits));
    if (request_.kv_cache_bytes == 0 && context && *context < limits.context_tokens) {
      ways.push_back(fmt::format("--max-model-len {}", *context));
    }
    if (const int64_t kv = KvCacheThatFits(limits); kv > 0) {
      ways.push_back(fmt::format("--kv-cache-memory {}", kv));
    }
    const double share = std::ceil(100.0 * static_cast<double>(needed + request_.taken_bytes) /
                                   static_cast<double>(request_.capacity_bytes)) /
                         100.0;
    if (share <= kUtilizationMax && share > request_.utilization) {
      ways.push_back(fmt::format("--gpu-memory-utilization {:.2f}", share));
    }
    if (const int32_t ranks = MoreRanks(); ranks > 0 && request_.stages == 1) {
      ways.push_back(fmt::format("{} such GPUs with -tp {}", ranks, ranks));
    } else if (ranks > 0) {
      ways.push_back(fmt::format("{} such GPUs with -tp {} -pp {}", ranks * request_.stages, ranks,
                                 request_.stages));
    }
    return ways;
  }

  // The largest smaller multiple of 64 that fits; 0: none.
  int32_t SmallerStep(EngineLimits limits) const {
    const int32_t least = std::max(kStepTokensUnit, limits.slots);
    limits.step_tokens = (limits.step_tokens - 1) / kStepTokensUnit * kStepTokensUnit;
    while (limits.step_tokens >= least && !Fits(limits)) limits.step_tokens -= kStepTokensUnit;
    return limits.step_tokens >= least ? limits.step_tokens : 0;
  }

  // The least number of ranks of a stage above the current one with which the same request fits; 0:
  // none.
  int32_t MoreRanks() const {
    for (int32_t tp = request_.tp + 1; tp <= kRanksMax; ++tp) {
      if (!CheckRanks(spec_, tp).ok()) continue;
      CudaMemoryRequest request = request_;
      request.tp = tp;
      const Planner planner(spec_, request);
      EngineLimits limits = planner.FirstLimits();
      planner.Shrink(&limits);
      if (planner.Fits(limits)) return tp;
    }
    return 0;
  }

  const ModelSpec& spec_;
  const CudaMemoryRequest& request_;
  const int64_t budget_;
  std::vector<Stage> stages_;
};

absl::Status CheckRequest(const ModelSpec& spec, const CudaMemoryRequest& request) {
  FATHOM_RETURN_IF_ERROR(CheckDeviceRuns(spec, GpuKinds()));
  FATHOM_RETURN_IF_ERROR(CheckRanks(spec, request.tp));
  FATHOM_RETURN_IF_ERROR(CheckStages(spec, request.stages));
  if (request.dtype == kernels::DType::kF32) {
    return Invalid(
        "--dtype float: a GPU computes in bfloat16 or half, whose products have canonical bits; "
        "use one of them, or --device cpu");
  }
  if (request.block_tokens != kCudaBlockTokens) {
    return Invalid("--block-size {}: on a GPU a block has {} tokens, no other number",
                   request.block_tokens, kCudaBlockTokens);
  }
  if (!(request.utilization >= 0.1 && request.utilization <= 0.99)) {
    return Invalid("--gpu-memory-utilization {}: a share of the device from 0.1 to 0.99, e.g. 0.92",
                   request.utilization);
  }
  if (request.context_tokens > spec.context) {
    return Invalid(
        "--max-model-len {} is more than the model's context of {} (max_position_embeddings)",
        request.context_tokens, spec.context);
  }
  if (request.slots > 0 && request.step_tokens > 0 && request.step_tokens < request.slots) {
    return Invalid(
        "--max-num-batched-tokens {} is less than --max-num-seqs {}: each running sequence takes "
        "one",
        request.step_tokens, request.slots);
  }
  return absl::OkStatus();
}

std::string ContextNote(const CudaMemoryPlan& plan) {
  if (plan.context_asked) return "--max-model-len";
  if (plan.limits.context_tokens == plan.model_context_tokens) return "the model's";
  return fmt::format("what the KV blocks hold; the model's is {}", plan.model_context_tokens);
}

}  // namespace

int64_t CudaMemoryPlan::Bytes(std::string_view arena) const {
  for (const CudaArena& one : arenas) {
    if (one.name == arena) return one.bytes;
  }
  return 0;
}

absl::StatusOr<std::vector<CudaMemoryPlan>> PlanCudaStages(const ModelSpec& spec,
                                                           const CudaMemoryRequest& request) {
  FATHOM_CHECK(request.capacity_bytes > 0 && request.tp > 0 && request.stages > 0);
  FATHOM_RETURN_IF_ERROR(CheckRequest(spec, request));
  const Planner planner(spec, request);
  EngineLimits limits;
  FATHOM_RETURN_IF_ERROR(planner.Fit(&limits));
  return planner.PlansOf(limits);
}

absl::StatusOr<CudaMemoryPlan> PlanCudaMemory(const ModelSpec& spec,
                                              const CudaMemoryRequest& request) {
  FATHOM_ASSIGN_OR_RETURN(const std::vector<CudaMemoryPlan> plans, PlanCudaStages(spec, request));
  return LargestOf(plans);
}

const CudaMemoryPlan& LargestOf(const std::vector<CudaMemoryPlan>& plans) {
  return *std::ranges::max_element(plans, {}, &CudaMemoryPlan::total_bytes);
}

std::string ToTable(const CudaMemoryPlan& plan) {
  std::string table;
  const auto line = [&](std::string_view name, int64_t bytes, std::string_view note) {
    table += fmt::format("  {:<12} {:>15} {:>9.2f} GiB{}\n", name, bytes, InGib(bytes), note);
  };
  for (const CudaArena& arena : plan.arenas) {
    line(arena.name, arena.bytes, arena.ours ? "" : "  the driver's, predicted");
  }
  line("total", plan.total_bytes,
       fmt::format("  of {:.2f} that may be used, of {:.2f}", InGib(plan.budget_bytes),
                   InGib(plan.capacity_bytes)));
  const EngineLimits& limits = plan.limits;
  table += fmt::format(
      "  {} KV blocks of {} tokens ({} bytes each): {} tokens, {:.1f} sequences of {} tokens\n"
      "  context {} ({}), {} sequences at once, {} tokens a step, {} where it decodes\n",
      limits.pool_blocks - 1, limits.block_tokens, plan.kv_bytes_per_block, plan.pool_tokens(),
      static_cast<double>(plan.pool_tokens()) / limits.context_tokens, limits.context_tokens,
      limits.context_tokens, ContextNote(plan), limits.slots, limits.step_tokens,
      limits.mixed_step_tokens);
  if (plan.swap_bytes > 0) {
    table += fmt::format("  swap space in the host's memory: {:.2f} GiB, {} blocks\n",
                         InGib(plan.swap_bytes), limits.host_blocks);
  }
  return table;
}

std::string ToTables(const std::vector<CudaMemoryPlan>& plans) {
  if (plans.size() == 1) return ToTable(plans.front());
  std::string tables;
  for (size_t i = 0; i < plans.size(); ++i) {
    tables += fmt::format("a rank of stage {}:\n{}", i, ToTable(plans[i]));
  }
  return tables;
}

}  // namespace fathom
