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
#include "modeling/spec/device_kinds.h"
#include "modeling/spec/rank_model.h"

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

// A step reads all weights and computes 2 operations for each parameter and row. The shares are
// measured on an H100 (docs/PERFORMANCE.md): 2,048 rows of the 7B shape take 43.8 ms and 512 rows
// take 11.4 ms, of which the GEMMs' operations take 35.4 and 8.8 ms at the rate of a hot card.
int32_t DefaultMixedTokens(const RankModel& rank, const CudaMemoryRequest& request,
                           int64_t weights_bytes) {
  const auto parameters = static_cast<double>(LayerMatrixElements(rank));
  const double read_s = static_cast<double>(weights_bytes) / (request.read_tbs * 1e12);
  const double row_s = 2 * parameters / (request.matrix_tflops * 1e12);
  const double rows = std::clamp((kStepSeconds - kReadShare * read_s) * kMatrixShare / row_s, 0.0,
                                 double{kStepTokensMax});
  return std::max(static_cast<int32_t>(rows) / kStepTokensUnit * kStepTokensUnit, kStepTokensMin);
}

absl::Status CheckRanks(const ModelSpec& spec, int32_t tp) {
  FATHOM_RETURN_IF_ERROR(CheckTensorParallel(spec, tp));
  return CheckDeviceWeights(RankOf(spec, {.tp = tp}));
}

class Planner {
 public:
  Planner(const ModelSpec& spec, const CudaMemoryRequest& request)
      : spec_(spec),
        request_(request),
        rank_(RankOf(spec, {.tp = request.tp})),
        block_bytes_(KvBytes(rank_, kCudaElementBytes, kCudaBlockTokens)),
        weights_(LayOutDeviceWeights(rank_, request.dtype).bytes),
        budget_(static_cast<int64_t>(request.utilization *
                                     static_cast<double>(request.capacity_bytes)) -
                request.taken_bytes) {}

  // Sets every field of `limits`.
  absl::Status Fit(EngineLimits* limits) const {
    *limits = FirstLimits();
    Shrink(limits);
    const int64_t room = KvRoom(*limits);
    const int32_t blocks_min = BlocksMin(*limits);
    if (room < KvMin(*limits)) return DoesNotFit(*limits);
    const int64_t kv = request_.kv_cache_bytes > 0 ? request_.kv_cache_bytes : room;
    // No more blocks than all slots together can use.
    const int64_t useful = int64_t{limits->slots} * BlocksOf(limits->context_tokens) + 1;
    const int64_t blocks = std::min({kv / block_bytes_, useful, kPoolBlocksMax});
    if (blocks < blocks_min) return PoolTooSmall(*limits, blocks);
    limits->pool_blocks = static_cast<int32_t>(blocks);
    const int64_t held = (blocks - 1) * kCudaBlockTokens;
    limits->context_tokens = static_cast<int32_t>(std::min<int64_t>(limits->context_tokens, held));
    return absl::OkStatus();
  }

  CudaMemoryPlan PlanOf(const EngineLimits& limits) const {
    CudaMemoryPlan plan;
    plan.limits = limits;
    plan.logits_rows = CudaLogitsRows(limits);
    plan.model_context_tokens = spec_.context;
    plan.context_asked = request_.context_tokens > 0;
    plan.kv_bytes_per_block = block_bytes_;
    plan.capacity_bytes = request_.capacity_bytes;
    plan.budget_bytes = budget_;
    plan.buffers = {{"weights", "weights", weights_}};
    for (CudaBuffer& buffer : CudaStepBuffers(rank_, limits)) {
      plan.buffers.push_back(std::move(buffer));
    }
    plan.buffers.push_back({"kv", "kv", limits.pool_blocks * block_bytes_});
    for (const char* name :
         {"weights", "activations", "logits", "attention", "sampler", "inputs"}) {
      const int64_t bytes = SumOf(plan.buffers, name);
      if (bytes > 0) plan.arenas.push_back({name, bytes, true});
    }
    if (const int64_t bytes = PeerBytes(limits); bytes > 0) {
      plan.arenas.push_back({"peers", bytes, false});
    }
    plan.arenas.push_back({"graphs", kGraphBytes, false});
    plan.arenas.push_back({"context", kContextBytes, false});
    plan.arenas.push_back({"kv", SumOf(plan.buffers, "kv"), true});
    for (const CudaArena& arena : plan.arenas) plan.total_bytes += arena.bytes;
    return plan;
  }

 private:
  EngineLimits FirstLimits() const {
    EngineLimits limits;
    limits.block_tokens = kCudaBlockTokens;
    limits.vocab = spec_.vocab;
    limits.context_tokens = request_.context_tokens > 0 ? request_.context_tokens : spec_.context;
    limits.step_tokens = request_.step_tokens;
    if (request_.step_tokens == 0) {
      limits.mixed_step_tokens = DefaultMixedTokens(rank_, request_, weights_);
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
      const int64_t slots = std::max<int64_t>(KvRoom(*limits), 0) / block_bytes_ /
                            kBlocksPerSlotMin / kSlotsDefaultMin * kSlotsDefaultMin;
      limits->slots = static_cast<int32_t>(
          std::min<int64_t>(std::max<int64_t>(slots, kSlotsDefaultMin), limits->slots));
    }
    if (request_.step_tokens == 0 && KvRoom(*limits) < KvMin(*limits)) {
      limits->step_tokens = std::max(kStepTokensMin, limits->slots);
      limits->mixed_step_tokens = std::min(limits->mixed_step_tokens, limits->step_tokens);
    }
  }

  // Bytes of everything except weights and KV.
  int64_t Rest(const EngineLimits& limits) const {
    return SumOf(CudaStepBuffers(rank_, limits)) + PeerBytes(limits) + kGraphBytes + kContextBytes;
  }
  // The region that a rank of several shares with the others.
  int64_t PeerBytes(const EngineLimits& limits) const {
    return request_.tp == 1 ? 0 : LayoutOf(PeerSizesOf(rank_, limits)).bytes;
  }

  // Bytes that are left for KV under these limits; negative: even the rest does not fit. The
  // attention workspace grows with the pool, so it is computed for the pool that would fit without
  // a workspace.
  int64_t KvRoom(EngineLimits limits) const {
    limits.pool_blocks = 0;
    const int64_t pool =
        request_.kv_cache_bytes > 0 ? request_.kv_cache_bytes : budget_ - weights_ - Rest(limits);
    limits.pool_blocks =
        static_cast<int32_t>(std::clamp<int64_t>(pool / block_bytes_, 0, kPoolBlocksMax));
    return budget_ - weights_ - Rest(limits);
  }

  // The padding block, and the blocks of one sequence.
  int32_t BlocksMin(const EngineLimits& limits) const {
    return 1 + BlocksOf(request_.context_tokens > 0
                            ? limits.context_tokens
                            : std::min(limits.context_tokens, kContextAutoMin));
  }
  int64_t KvMin(const EngineLimits& limits) const {
    return request_.kv_cache_bytes > 0 ? request_.kv_cache_bytes : BlocksMin(limits) * block_bytes_;
  }
  bool Fits(const EngineLimits& limits) const { return KvRoom(limits) >= KvMin(limits); }

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
        request_.kv_cache_bytes, blocks, kCudaBlockTokens, block_bytes_,
        (BlocksMin(limits) - 1) * kCudaBlockTokens, BlocksMin(limits) - 1,
        BlocksMin(limits) * block_bytes_,
        context ? fmt::format(", or --max-model-len {}", *context) : std::string());
  }

  absl::Status DoesNotFit(const EngineLimits& limits) const {
    const int64_t kv = KvMin(limits);
    const int64_t rest = budget_ - weights_ - KvRoom(limits);
    const int64_t needed = weights_ + rest + kv;
    std::string ways;
    for (const std::string& way : WaysOut(limits, needed)) {
      ways += (ways.empty() ? "" : "; or ") + way;
    }
    if (ways.empty()) ways = "a device with more memory, or a smaller model";
    return Exhausted(
        "{} may be used ({} of {}{}), and {} are needed: weights {} + a step's buffers, graphs and "
        "context {} + KV {} ({} blocks of {} tokens); {} too much. What would fit: {}",
        Gib(budget_), request_.utilization, Gib(request_.capacity_bytes),
        request_.taken_bytes > 0
            ? fmt::format(", less {} of other processes", Gib(request_.taken_bytes))
            : std::string(),
        Gib(needed), Gib(weights_), Gib(rest), Gib(kv), kv / block_bytes_, kCudaBlockTokens,
        Gib(needed - budget_), ways);
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
    const auto context = ContextOf(KvRoom(limits) / block_bytes_);
    if (request_.kv_cache_bytes == 0 && context && *context < limits.context_tokens) {
      ways.push_back(fmt::format("--max-model-len {}", *context));
    }
    if (request_.kv_cache_bytes > 0 && KvRoom(limits) >= BlocksMin(limits) * block_bytes_) {
      ways.push_back(fmt::format("--kv-cache-memory {}", KvRoom(limits)));
    }
    const double share = std::ceil(100.0 * static_cast<double>(needed + request_.taken_bytes) /
                                   static_cast<double>(request_.capacity_bytes)) /
                         100.0;
    if (share <= kUtilizationMax && share > request_.utilization) {
      ways.push_back(fmt::format("--gpu-memory-utilization {:.2f}", share));
    }
    if (const int32_t ranks = MoreRanks()) {
      ways.push_back(fmt::format("{} such GPUs with -tp {}", ranks, ranks));
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

  // The least number of ranks above the current one with which the same request fits; 0: none.
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
  const RankModel rank_;
  const int64_t block_bytes_;
  const int64_t weights_;
  const int64_t budget_;
};

absl::Status CheckRequest(const ModelSpec& spec, const CudaMemoryRequest& request) {
  FATHOM_RETURN_IF_ERROR(CheckDeviceRuns(spec, GpuKinds()));
  FATHOM_RETURN_IF_ERROR(CheckRanks(spec, request.tp));
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

absl::StatusOr<CudaMemoryPlan> PlanCudaMemory(const ModelSpec& spec,
                                              const CudaMemoryRequest& request) {
  FATHOM_CHECK(request.capacity_bytes > 0 && request.tp > 0);
  FATHOM_RETURN_IF_ERROR(CheckRequest(spec, request));
  const Planner planner(spec, request);
  EngineLimits limits;
  FATHOM_RETURN_IF_ERROR(planner.Fit(&limits));
  return planner.PlanOf(limits);
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
  return table;
}

}  // namespace fathom
