#include "worker/cuda_memory_plan.h"

#include <algorithm>
#include <utility>

#include "common/check.h"
#include "common/status.h"
#include "worker/cuda_step_layout.h"
#include "worker/device_weight_layout.h"

namespace fathom::worker {
namespace {

constexpr int64_t kElementBytes = 2;
constexpr int64_t kWordBytes = 4;
constexpr int64_t kAlignment = 256;
constexpr int64_t kMiB = 1 << 20;
constexpr int32_t kSlotsDefault = 256;
constexpr int32_t kScoredRows = 64;  // Rows with logits that a step of few slots still has.
constexpr int32_t kStepTokensMin = 256;
constexpr int32_t kStepTokensMax = 8192;
constexpr double kChunkSeconds = 0.040;   // Inter-token time that a prompt's chunk may take.
constexpr int32_t kBiasMax = 1024;        // router/field_limits.cc
constexpr int32_t kEndsMax = 192;         // 128 of the request and the model's own.
constexpr int32_t kAdmitIds = 32 * 1024;  // kAdmitIdsMax of common/plan.h.
constexpr int64_t kCublasBytes = 32 * kMiB;
constexpr int32_t kBlocksMin = 2;  // Padding, and one for a sequence.

// The driver's own, measured on an H100 (docs/PERFORMANCE.md): context and loaded kernels.
constexpr int64_t kContextBytes = 560 * kMiB;
// What captured graphs may take; capture stops there.
constexpr int64_t kGraphBytes = 256 * kMiB;

int64_t Aligned(int64_t bytes) { return (bytes + kAlignment - 1) / kAlignment * kAlignment; }

// Sizes of one rank.
struct Shape {
  explicit Shape(const ModelConfig& config)
      : heads(config.heads),
        kv_heads(config.kv_heads),
        q(int64_t{config.heads} * config.head_dim),
        kv(int64_t{config.kv_heads} * config.head_dim) {}
  int64_t heads, kv_heads, q, kv;
};

int64_t BlockBytes(const ModelConfig& config) {
  return 2 * int64_t{config.layers} * Shape(config).kv * kCudaBlockTokens * kElementBytes;
}

// Parameters that a token's products touch.
double ProductParameters(const ModelConfig& config) {
  const Shape s(config);
  const double layer = static_cast<double>(config.hidden) *
                       static_cast<double>(2 * s.q + 2 * s.kv + 3 * int64_t{config.ffn});
  return layer * config.layers;
}

int32_t DefaultStepTokens(const ModelConfig& config, const CudaMemoryRequest& request) {
  const double seconds_each = 2.0 * ProductParameters(config) / (request.matrix_tflops * 1e12);
  const auto tokens =
      static_cast<int32_t>(std::min<double>(kChunkSeconds / seconds_each, kStepTokensMax) / 64) *
      64;
  return std::max(tokens, kStepTokensMin);
}

// Everything but the weights, kv and what the driver takes, for these limits.
std::vector<CudaBuffer> StepBuffers(const ModelConfig& config, const EngineLimits& limits,
                                    int32_t logits_rows) {
  const Shape s(config);
  const int64_t tokens = limits.step_tokens, slots = limits.slots + 1, vocab = config.vocab;
  const int64_t segments_each = (limits.context_tokens + kSegmentTokens - 1) / kSegmentTokens;
  // A sequence's last segment is not full; the others' tokens are all in the pool.
  const int64_t segments =
      std::min(int64_t{limits.pool_blocks} / kBlocksPerSegment + slots, slots * segments_each);
  const auto rows = [&](int64_t width) { return tokens * width * kElementBytes; };
  return {
      {"activations", "x", rows(config.hidden)},
      {"activations", "normed", rows(config.hidden)},
      {"activations", "qkv", rows(s.q + 2 * s.kv)},
      {"activations", "q", rows(s.q)},
      {"activations", "attended", rows(s.q)},
      {"activations", "gate_up", rows(2 * int64_t{config.ffn})},
      {"activations", "ffn", rows(config.ffn)},
      {"activations", "product", rows(config.hidden)},
      {"activations", "rope_cos",
       int64_t{limits.context_tokens} * config.head_dim / 2 * kWordBytes},
      {"activations", "rope_sin",
       int64_t{limits.context_tokens} * config.head_dim / 2 * kWordBytes},
      {"logits", "logits", int64_t{logits_rows} * vocab * kWordBytes},
      {"attention", "partial_o", segments * s.q * kWordBytes},
      {"attention", "partial_ml", segments * s.heads * 2 * kWordBytes},
      {"attention", "arrived", slots * s.kv_heads * kWordBytes},
      {"attention", "work_counter", kAlignment},
      {"sampler", "seen", slots * vocab * 2},
      {"sampler", "seen_ids", int64_t{kAdmitIds} * kWordBytes},
      {"sampler", "slot_params", slots * kSamplerSlotBytes},
      {"sampler", "bias_ids", slots * kBiasMax * kWordBytes},
      {"sampler", "bias_values", slots * kBiasMax * kWordBytes},
      {"sampler", "end_ids", slots * kEndsMax * kWordBytes},
      {"sampler", "slot_tokens", slots * kWordBytes},
      {"sampler", "slot_faults", slots * kWordBytes},
      {"sampler", "sampler_workspace", int64_t{logits_rows} * kSamplerRowBytes},
      {"inputs", "step_inputs", CudaStepBytesMax(limits)},
      {"inputs", "step_outputs", tokens * kSampleOutBytes},
      {"inputs", "diagnosis", tokens * kWordBytes},
      {"products", "cublas_workspace", kCublasBytes},
  };
}

int64_t Sum(const std::vector<CudaBuffer>& buffers, std::string_view arena = {}) {
  int64_t bytes = 0;
  for (const CudaBuffer& buffer : buffers) {
    if (arena.empty() || buffer.arena == arena) bytes += Aligned(buffer.bytes);
  }
  return bytes;
}

std::string Gib(int64_t bytes) {
  return fmt::format("{:.2f} GiB", static_cast<double>(bytes) / (1 << 30));
}

// Bytes for kv under these limits; negative: not even the rest fits.
struct Room {
  int64_t budget = 0;
  int64_t weights = 0;
  int64_t rest = 0;  // Steps, graphs and context.
  int64_t kv() const { return budget - weights - rest; }
};

class Planner {
 public:
  Planner(const ModelConfig& config, const CudaMemoryRequest& request)
      : config_(config), request_(request) {
    block_bytes_ = BlockBytes(config);
    weights_ = DeviceWeightsBytes(config, request.dtype, request.tp);
  }

  absl::StatusOr<CudaMemoryPlan> Plan() {
    FATHOM_RETURN_IF_ERROR(CheckRequest());
    EngineLimits limits = FirstLimits();
    FATHOM_RETURN_IF_ERROR(Fit(&limits));
    CudaMemoryPlan plan;
    plan.limits = limits;
    plan.logits_rows = LogitsRowsOf(limits);
    plan.kv_bytes_per_block = block_bytes_;
    plan.buffers = {{"weights", "weights", weights_}};
    for (CudaBuffer& buffer : StepBuffers(config_, limits, plan.logits_rows)) {
      plan.buffers.push_back(std::move(buffer));
    }
    plan.buffers.push_back({"kv", "kv", int64_t{limits.pool_blocks} * block_bytes_});
    for (const char* name :
         {"weights", "activations", "logits", "attention", "sampler", "inputs", "products"}) {
      plan.arenas.push_back({name, Sum(plan.buffers, name), true});
    }
    plan.arenas.push_back({"graphs", kGraphBytes, false});
    plan.arenas.push_back({"context", kContextBytes, false});
    plan.arenas.push_back({"kv", Sum(plan.buffers, "kv"), true});
    for (const CudaArena& arena : plan.arenas) plan.total_bytes += arena.bytes;
    return plan;
  }

 private:
  static int32_t LogitsRowsOf(const EngineLimits& limits) {
    return std::min(limits.step_tokens, std::max(limits.slots, kScoredRows));
  }

  absl::Status CheckRequest() const {
    FATHOM_RETURN_IF_ERROR(CheckDeviceWeights(config_, request_.tp));
    if (request_.block_tokens != kCudaBlockTokens) {
      return Invalid(
          "--block-size {}: on CUDA a block has {} tokens, which is what the kernels read",
          request_.block_tokens, kCudaBlockTokens);
    }
    if (!(request_.utilization > 0 && request_.utilization < 1)) {
      return Invalid(
          "--gpu-memory-utilization {}: a share of the device between 0 and 1, e.g. 0.92",
          request_.utilization);
    }
    if (request_.context_tokens > config_.context) {
      return Invalid(
          "--max-model-len {} is more than the model's context of {} (max_position_embeddings)",
          request_.context_tokens, config_.context);
    }
    if (request_.slots > 0 && request_.step_tokens > 0 && request_.step_tokens < request_.slots) {
      return Invalid(
          "--max-num-batched-tokens {} is less than --max-num-seqs {}: each running sequence takes "
          "one",
          request_.step_tokens, request_.slots);
    }
    return absl::OkStatus();
  }

  EngineLimits FirstLimits() const {
    EngineLimits limits;
    limits.block_tokens = kCudaBlockTokens;
    limits.vocab = config_.vocab;
    limits.context_tokens = request_.context_tokens > 0 ? request_.context_tokens : config_.context;
    limits.step_tokens =
        request_.step_tokens > 0 ? request_.step_tokens : DefaultStepTokens(config_, request_);
    limits.slots =
        request_.slots > 0 ? request_.slots : std::min(kSlotsDefault, limits.step_tokens);
    limits.step_tokens = std::max(limits.step_tokens, limits.slots);
    return limits;
  }

  Room RoomFor(const EngineLimits& limits) const {
    Room room;
    room.budget =
        static_cast<int64_t>(request_.utilization * static_cast<double>(request_.capacity_bytes)) -
        request_.taken_bytes;
    room.weights = Aligned(weights_);
    room.rest =
        Sum(StepBuffers(config_, limits, LogitsRowsOf(limits))) + kGraphBytes + kContextBytes;
    return room;
  }

  int32_t BlocksOf(int64_t tokens) const {
    return static_cast<int32_t>((tokens + kCudaBlockTokens - 1) / kCudaBlockTokens);
  }

  // Fills pool_blocks, and with --max-model-len auto the context that the pool can hold.
  absl::Status Fit(EngineLimits* limits) const {
    // The pool's size moves the attention's workspace a little, which moves the pool's: down only.
    limits->pool_blocks = static_cast<int32_t>(
        std::clamp<int64_t>(RoomFor(*limits).kv() / block_bytes_, kBlocksMin, 1 << 24));
    const Room room = RoomFor(*limits);
    const int64_t wanted = request_.kv_cache_bytes > 0 ? request_.kv_cache_bytes : room.kv();
    int64_t blocks = std::min<int64_t>(wanted / block_bytes_, 1 << 24);
    if (blocks < kBlocksMin || wanted > room.kv()) return DoesNotFit(*limits, room);
    // No more than every slot can use.
    const int64_t useful = int64_t{limits->slots} * BlocksOf(limits->context_tokens) + 1;
    blocks = std::min(blocks, useful);
    limits->pool_blocks = static_cast<int32_t>(blocks);
    const int64_t pool_tokens = (blocks - 1) * kCudaBlockTokens;
    if (pool_tokens >= limits->context_tokens) return absl::OkStatus();
    if (request_.context_tokens > 0) {
      return Exhausted(
          "--max-model-len {} needs {} blocks of {} tokens ({}), and {} are left for them: at most "
          "{} tokens fit; give --max-model-len {} or auto, or a larger --gpu-memory-utilization",
          limits->context_tokens, BlocksOf(limits->context_tokens) + 1, kCudaBlockTokens,
          Gib((BlocksOf(limits->context_tokens) + 1) * block_bytes_), Gib(blocks * block_bytes_),
          pool_tokens, pool_tokens);
    }
    limits->context_tokens = static_cast<int32_t>(pool_tokens);
    return absl::OkStatus();
  }

  absl::Status DoesNotFit(const EngineLimits& limits, const Room& room) const {
    const int64_t kv_min = std::max<int64_t>(request_.kv_cache_bytes, kBlocksMin * block_bytes_);
    const int64_t short_of = kv_min - room.kv();
    std::string ways;
    const double utilization =
        static_cast<double>(room.weights + room.rest + kv_min + request_.taken_bytes) /
        static_cast<double>(request_.capacity_bytes);
    if (utilization < 0.98) {
      ways += fmt::format("; --gpu-memory-utilization {:.2f} would do", utilization + 0.005);
    }
    EngineLimits smaller = limits;
    smaller.step_tokens = kStepTokensMin;
    smaller.slots = std::min(limits.slots, 16);
    if (RoomFor(smaller).kv() >= kv_min) {
      ways += fmt::format("; --max-num-batched-tokens {} with --max-num-seqs {} would do",
                          smaller.step_tokens, smaller.slots);
    }
    if (request_.kv_cache_bytes > 0 && room.kv() >= kBlocksMin * block_bytes_) {
      ways += fmt::format("; --kv-cache-memory {} would do", room.kv());
    }
    if (ways.empty()) {
      ways = "; no setting makes it fit this device: take one with more memory, or a smaller model";
    }
    return Exhausted(
        "{} of the device ({} x {}{}) is less than weights {} + activations, workspaces, graphs "
        "and "
        "context {} + at least {} of KV blocks: {} short{}",
        Gib(room.budget), Gib(request_.capacity_bytes), request_.utilization,
        request_.taken_bytes > 0
            ? fmt::format(" - {} of other processes", Gib(request_.taken_bytes))
            : std::string(),
        Gib(room.weights), Gib(room.rest), Gib(kv_min), Gib(short_of), ways);
  }

  const ModelConfig& config_;
  const CudaMemoryRequest& request_;
  int64_t block_bytes_ = 0;
  int64_t weights_ = 0;
};

}  // namespace

int64_t CudaMemoryPlan::Bytes(std::string_view arena) const {
  for (const CudaArena& one : arenas) {
    if (one.name == arena) return one.bytes;
  }
  return 0;
}

absl::StatusOr<CudaMemoryPlan> PlanCudaMemory(const ModelConfig& config,
                                              const CudaMemoryRequest& request) {
  FATHOM_CHECK(request.capacity_bytes > 0 && request.tp > 0);
  FATHOM_RETURN_IF_ERROR(CheckTensorParallel(config, request.tp));
  return Planner(config, request).Plan();
}

std::string ToTable(const CudaMemoryPlan& plan) {
  std::string table;
  for (const CudaArena& arena : plan.arenas) {
    table += fmt::format("  {:<12} {:>14}  {:>9}{}\n", arena.name, arena.bytes, Gib(arena.bytes),
                         arena.ours ? "" : "  (the driver's, predicted)");
  }
  table +=
      fmt::format("  {:<12} {:>14}  {:>9}\n", "total", plan.total_bytes, Gib(plan.total_bytes));
  const EngineLimits& limits = plan.limits;
  table += fmt::format(
      "  {} KV blocks of {} tokens = {} tokens; context {}, {} sequences, {} tokens a step\n",
      limits.pool_blocks, limits.block_tokens,
      int64_t{limits.pool_blocks - 1} * limits.block_tokens, limits.context_tokens, limits.slots,
      limits.step_tokens);
  return table;
}

}  // namespace fathom::worker
