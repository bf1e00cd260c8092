#include "worker/cuda/cuda_decoder.h"

#include <fmt/format.h>
#include <nvtx3/nvToolsExt.h>

#include <algorithm>
#include <optional>

#include "common/check.h"
#include "kernels/cuda/decode_attention.h"
#include "kernels/cuda/embedding.h"
#include "kernels/cuda/non_finite.h"
#include "kernels/cuda/rmsnorm.h"
#include "kernels/cuda/silu_mul.h"
#include "kernels/rope_kv_write.h"
#include "worker/cuda/cuda_check.h"
#include "worker/rope_spec.h"

namespace fathom::worker {

namespace cuda = kernels::cuda;

namespace {

// A named range on a profiler's time line while it lives.
class Range {
 public:
  explicit Range(const char* name) { nvtxRangePushA(name); }
  ~Range() { nvtxRangePop(); }
  Range(const Range&) = delete;
  Range& operator=(const Range&) = delete;
};

// What PlainLayer checks, in its order.
constexpr const char* kChecks[] = {"the norm before attention",
                                   "the qkv product",
                                   "the rotary embedding",
                                   "attention",
                                   "the o product",
                                   "the norm before the ffn",
                                   "the gate and up product",
                                   "silu * mul",
                                   "the down product"};
constexpr int32_t kChecksPerLayer = 9;

}  // namespace

// A step under way: where its inputs and activations are.
struct CudaDecoder::Step {
  cuda::LaunchContext context;
  CudaStepShape shape;
  std::span<const cuda::PrefillChunk> chunks;
  const int32_t* tokens = nullptr;
  const int32_t* positions = nullptr;
  const int32_t* kv_slots = nullptr;
  int32_t* faults = nullptr;
  const int32_t* lengths = nullptr;
  const int32_t* segment_begin = nullptr;
  const int32_t* tables = nullptr;
  const cuda::PrefillChunk* device_chunks = nullptr;
  const int32_t* gather = nullptr;
  const cuda::SampleRow* samples = nullptr;
  std::byte* x = nullptr;
  std::byte* normed = nullptr;
  std::byte* qkv = nullptr;
  std::byte* q = nullptr;
  std::byte* attended = nullptr;
  std::byte* gate_up = nullptr;
  std::byte* ffn = nullptr;
  std::byte* product = nullptr;
  const void* pending = nullptr;  // A product that the next norm adds to x.
};

CudaDecoder::CudaDecoder(const CudaDecoderParts& parts)
    : parts_(parts),
      config_(*parts.config),
      q_width_(config_.heads * config_.head_dim),
      kv_width_(config_.kv_heads * config_.head_dim) {
  plane_bytes_ = int64_t{parts.plan->limits.pool_blocks} * kv_width_ * kCudaBlockTokens * 2;
  FATHOM_CHECK(parts.arenas->Bytes("kv") >= 2 * config_.layers * plane_bytes_);
  UploadRopeTables();
  if (parts.diagnose) return;  // One op after the other, each checked.
  const FusedDevice device{parts.sm, parts.sms, parts.shared_bytes};
  skinny_ = PrepareSkinnyWeights(config_, *parts.weights, device);
  medium_ = PrepareMediumWeights(config_, *parts.weights, device);
}

CudaDecoder::~CudaDecoder() = default;

void CudaDecoder::UploadRopeTables() {
  const kernels::RopeTable table =
      kernels::MakeRopeTable(RopeSpecOf(config_), parts_.plan->limits.context_tokens);
  FATHOM_CUDA(cudaMemcpy(parts_.arenas->Buffer<float>("rope_cos"), table.cos.data(),
                         table.cos.size() * sizeof(float), cudaMemcpyHostToDevice));
  FATHOM_CUDA(cudaMemcpy(parts_.arenas->Buffer<float>("rope_sin"), table.sin.data(),
                         table.sin.size() * sizeof(float), cudaMemcpyHostToDevice));
}

const SkinnyWeights* CudaDecoder::SkinnyFor(int32_t rows) const {
  for (const auto& skinny : skinny_) {
    if (rows <= skinny->rows) return skinny.get();
  }
  return nullptr;
}

void CudaDecoder::Launch(cudaError_t error, const char* op) const {
  if (error != cudaSuccess) CudaFailed(error, op, __FILE__, __LINE__);
}

void CudaDecoder::Enqueue(cudaStream_t stream, const CudaStepShape& shape,
                          std::span<const cuda::PrefillChunk> chunks) {
  if (shape.rows == 0) return;
  const Range range("step");
  const DeviceArenas& arenas = *parts_.arenas;
  const CudaStepLayout at = LayoutOf(shape);
  auto* const input = arenas.Buffer<std::byte>("step_inputs");
  FATHOM_CHECK(at.bytes <= arenas.Bytes("step_inputs"), "{} bytes of inputs", at.bytes);
  Step step{.context = {stream, false, parts_.sms, parts_.sm}, .shape = shape, .chunks = chunks};
  step.tokens = reinterpret_cast<const int32_t*>(input + at.tokens);
  step.positions = reinterpret_cast<const int32_t*>(input + at.positions);
  step.kv_slots = reinterpret_cast<const int32_t*>(input + at.kv_slots);
  step.faults = reinterpret_cast<int32_t*>(input + at.faults);
  step.lengths = reinterpret_cast<const int32_t*>(input + at.lengths);
  step.segment_begin = reinterpret_cast<const int32_t*>(input + at.segment_begin);
  step.tables = reinterpret_cast<const int32_t*>(input + at.tables);
  step.device_chunks = reinterpret_cast<const cuda::PrefillChunk*>(input + at.chunks);
  step.gather = reinterpret_cast<const int32_t*>(input + at.gather);
  step.samples = reinterpret_cast<const cuda::SampleRow*>(input + at.sample_rows);
  step.x = arenas.Buffer<std::byte>("x");
  step.normed = arenas.Buffer<std::byte>("normed");
  step.qkv = arenas.Buffer<std::byte>("qkv");
  step.q = arenas.Buffer<std::byte>("q");
  step.attended = arenas.Buffer<std::byte>("attended");
  step.gate_up = arenas.Buffer<std::byte>("gate_up");
  step.ffn = arenas.Buffer<std::byte>("ffn");
  step.product = arenas.Buffer<std::byte>("product");
  if (parts_.diagnose) {
    diagnosis_ = arenas.Buffer<int32_t>("diagnosis");
    FATHOM_CUDA(
        cudaMemsetAsync(diagnosis_, 0, static_cast<size_t>(shape.rows) * sizeof(int32_t), stream));
  }
  Embed(step);
  for (int32_t i = 0; i < config_.layers; ++i) Layer(step, i);
  if (step.pending != nullptr && shape.samples > 0) Norm(step, step.pending, nullptr);
  for (int32_t begin = 0; begin < shape.samples; begin += parts_.plan->logits_rows) {
    const int32_t count = std::min(parts_.plan->logits_rows, shape.samples - begin);
    Head(step, begin, count);
    Draw(step, begin, count);
  }
}

void CudaDecoder::Embed(Step& step) {
  const Range range("embedding");
  const DeviceArenas& arenas = *parts_.arenas;
  Launch(cuda::Embedding(step.context, {.dtype = parts_.weights->dtype,
                                        .table = parts_.weights->embedding,
                                        .tokens = step.tokens,
                                        .slot_tokens = arenas.Buffer<int32_t>("slot_tokens"),
                                        .faults = step.faults,
                                        .x = step.x,
                                        .rows = step.shape.rows,
                                        .hidden = config_.hidden,
                                        .vocab = config_.vocab,
                                        .slots = parts_.plan->limits.slots + 1}),
         "Embedding");
  step.context.dependent = parts_.dependent_launch;
}

void CudaDecoder::Layer(Step& step, int32_t index) {
  const Range range("layer");
  const SkinnyWeights* skinny = SkinnyFor(step.shape.rows);
  if (skinny != nullptr) {
    FusedLayer(step, index, *skinny);
  } else if (medium_ != nullptr && step.shape.rows <= cuda::kMediumRowsMax) {
    MediumLayer(step, index);
  } else {
    PlainLayer(step, index);
  }
}

cuda::KvTarget CudaDecoder::KvOf(const Step& step, int32_t layer) const {
  std::byte* const kv = parts_.arenas->Buffer<std::byte>("kv");
  return {.keys = kv + 2 * layer * plane_bytes_,
          .values = kv + (2 * layer + 1) * plane_bytes_,
          .kv_slots = step.kv_slots,
          .positions = step.positions,
          .cos = parts_.arenas->Buffer<float>("rope_cos"),
          .sin = parts_.arenas->Buffer<float>("rope_sin"),
          .faults = step.faults,
          .pool_blocks = parts_.plan->limits.pool_blocks,
          .context = parts_.plan->limits.context_tokens};
}

void CudaDecoder::FusedLayer(Step& step, int32_t index, const SkinnyWeights& skinny) {
  const DeviceLayer& layer = parts_.weights->layers[static_cast<size_t>(index)];
  const SkinnyWeights::Layer& w = skinny.layers[static_cast<size_t>(index)];
  const auto eps = static_cast<float>(config_.rms_eps);
  const int rows = step.shape.rows;
  // The norm is inside of the product where the configuration has room for it.
  const auto normed = [&](const cuda::SkinnyWeight& weight, const float* norm) {
    if (weight.config.fuses_norm) return cuda::SkinnyInput{step.x, norm, eps, rows};
    Norm(step, nullptr, norm);
    return cuda::SkinnyInput{step.normed, nullptr, eps, rows};
  };
  if (skinny.qkv_fused) {
    cuda::SkinnyQkvArgs qkv;
    qkv.input = normed(w.qkv, layer.attention_norm);
    qkv.bias = layer.qkv_bias;
    qkv.kv = KvOf(step, index);
    qkv.q = step.q;
    qkv.heads = config_.heads;
    qkv.kv_heads = config_.kv_heads;
    qkv.head_dim = config_.head_dim;
    Launch(cuda::SkinnyQkv(step.context, w.qkv, qkv), "SkinnyQkv");
  } else {
    Norm(step, nullptr, layer.attention_norm);
    Product(step, layer.qkv, layer.qkv_bias, step.normed, step.qkv, q_width_ + 2 * kv_width_,
            config_.hidden);
    RopeAndKv(step, index);
  }
  Attention(step, index);
  Launch(cuda::SkinnyResidual(step.context, w.o, {step.attended, nullptr, 0, rows}, step.x),
         "SkinnyResidual o");
  Launch(cuda::SkinnyGateUp(step.context, w.gate_up, normed(w.gate_up, layer.ffn_norm), step.ffn),
         "SkinnyGateUp");
  Launch(cuda::SkinnyResidual(step.context, w.down, {step.ffn, nullptr, 0, rows}, step.x),
         "SkinnyResidual down");
}

void CudaDecoder::MediumLayer(Step& step, int32_t index) {
  const DeviceLayer& layer = parts_.weights->layers[static_cast<size_t>(index)];
  const MediumWeights::Layer& w = medium_->layers[static_cast<size_t>(index)];
  const int rows = step.shape.rows;
  Norm(step, nullptr, layer.attention_norm);
  if (medium_->qkv_fused) {
    cuda::MediumQkvArgs qkv;
    qkv.x = step.normed;
    qkv.rows = rows;
    qkv.bias = layer.qkv_bias;
    qkv.kv = KvOf(step, index);
    qkv.q = step.q;
    qkv.heads = config_.heads;
    qkv.kv_heads = config_.kv_heads;
    qkv.head_dim = config_.head_dim;
    Launch(cuda::MediumQkv(step.context, w.qkv, qkv), "MediumQkv");
  } else {
    Product(step, layer.qkv, layer.qkv_bias, step.normed, step.qkv, q_width_ + 2 * kv_width_,
            config_.hidden);
    RopeAndKv(step, index);
  }
  Attention(step, index);
  Launch(cuda::MediumResidual(step.context, w.o, step.attended, rows, step.x), "MediumResidual o");
  Norm(step, nullptr, layer.ffn_norm);
  Launch(cuda::MediumGateUp(step.context, w.gate_up, step.normed, rows, step.ffn), "MediumGateUp");
  Launch(cuda::MediumResidual(step.context, w.down, step.ffn, rows, step.x), "MediumResidual down");
}

void CudaDecoder::RopeAndKv(Step& step, int32_t index) {
  const DeviceLayer& layer = parts_.weights->layers[static_cast<size_t>(index)];
  Launch(cuda::RopeKvWrite(step.context, {.dtype = parts_.weights->dtype,
                                          .qkv = step.qkv,
                                          .q_norm = layer.q_norm,
                                          .k_norm = layer.k_norm,
                                          .eps = static_cast<float>(config_.rms_eps),
                                          .kv = KvOf(step, index),
                                          .q = step.q,
                                          .rows = step.shape.rows,
                                          .heads = config_.heads,
                                          .kv_heads = config_.kv_heads,
                                          .head_dim = config_.head_dim}),
         "RopeKvWrite");
}

void CudaDecoder::PlainLayer(Step& step, int32_t index) {
  const DeviceLayer& layer = parts_.weights->layers[static_cast<size_t>(index)];
  const int rows = step.shape.rows;
  Norm(step, step.pending, layer.attention_norm);
  step.pending = nullptr;
  Check(step, index, 0, step.normed, config_.hidden);
  Product(step, layer.qkv, layer.qkv_bias, step.normed, step.qkv, q_width_ + 2 * kv_width_,
          config_.hidden);
  Check(step, index, 1, step.qkv, q_width_ + 2 * kv_width_);
  RopeAndKv(step, index);
  Check(step, index, 2, step.q, q_width_);
  Attention(step, index);
  Check(step, index, 3, step.attended, q_width_);
  Product(step, layer.o, nullptr, step.attended, step.product, config_.hidden, q_width_);
  Check(step, index, 4, step.product, config_.hidden);
  Norm(step, step.product, layer.ffn_norm);
  Check(step, index, 5, step.normed, config_.hidden);
  Product(step, layer.gate_up, nullptr, step.normed, step.gate_up, 2 * config_.ffn, config_.hidden);
  Check(step, index, 6, step.gate_up, 2 * config_.ffn);
  Launch(cuda::SiluMul(step.context, {.dtype = parts_.weights->dtype,
                                      .gate_up = step.gate_up,
                                      .y = step.ffn,
                                      .rows = rows,
                                      .ffn = config_.ffn}),
         "SiluMul");
  Check(step, index, 7, step.ffn, config_.ffn);
  Product(step, layer.down, nullptr, step.ffn, step.product, config_.hidden, config_.ffn);
  Check(step, index, 8, step.product, config_.hidden);
  step.pending = step.product;  // Added by the next norm.
}

void CudaDecoder::Norm(Step& step, const void* addend, const float* weight) {
  Launch(cuda::RmsNorm(step.context, {.dtype = parts_.weights->dtype,
                                      .x = step.x,
                                      .addend = addend,
                                      .weight = weight,
                                      .y = weight == nullptr ? nullptr : step.normed,
                                      .eps = static_cast<float>(config_.rms_eps),
                                      .rows = step.shape.rows,
                                      .width = config_.hidden}),
         "RmsNorm");
}

void CudaDecoder::Product(Step& step, const void* w, const float* bias, const void* x, void* y,
                          int n, int k) {
  Launch(cuda::Product(step.context, parts_.cublas,
                       {.dtype = parts_.weights->dtype,
                        .w = w,
                        .x = x,
                        .bias = bias,
                        .y = y,
                        .rows = step.shape.rows,
                        .n = n,
                        .k = k}),
         "Product");
}

void CudaDecoder::Attention(Step& step, int32_t index) {
  const DeviceArenas& arenas = *parts_.arenas;
  const CudaStepShape& shape = step.shape;
  const cuda::KvTarget kv = KvOf(step, index);
  if (shape.decode_rows > 0) {
    Launch(cuda::DecodeAttention(step.context, {.dtype = parts_.weights->dtype,
                                                .q = step.q,
                                                .keys = kv.keys,
                                                .values = kv.values,
                                                .block_tables = step.tables,
                                                .lengths = step.lengths,
                                                .segment_begin = step.segment_begin,
                                                .partial_o = arenas.Buffer<float>("partial_o"),
                                                .partial_ml = arenas.Buffer<float>("partial_ml"),
                                                .arrived = arenas.Buffer<int32_t>("arrived"),
                                                .faults = step.faults,
                                                .out = step.attended,
                                                .rows = shape.decode_rows,
                                                .heads = config_.heads,
                                                .kv_heads = config_.kv_heads,
                                                .head_dim = config_.head_dim,
                                                .table_stride = shape.table_stride,
                                                .max_segments = shape.segments,
                                                .pool_blocks = kv.pool_blocks}),
           "DecodeAttention");
  }
  if (shape.chunks == 0) return;
  Launch(
      cuda::PrefillAttention(step.context, {.dtype = parts_.weights->dtype,
                                            .q = step.q,
                                            .keys = kv.keys,
                                            .values = kv.values,
                                            .block_tables = step.tables,
                                            .chunks = step.chunks,
                                            .device_chunks = step.device_chunks,
                                            .work_counter = arenas.Buffer<int32_t>("work_counter"),
                                            .faults = step.faults,
                                            .out = step.attended,
                                            .total_rows = shape.rows,
                                            .heads = config_.heads,
                                            .kv_heads = config_.kv_heads,
                                            .head_dim = config_.head_dim,
                                            .table_stride = shape.table_stride,
                                            .pool_blocks = kv.pool_blocks}),
      "PrefillAttention");
}

// Logits of samples [begin, begin + count), into the first rows of "logits".
void CudaDecoder::Head(Step& step, int32_t begin, int32_t count) {
  const Range range("head");
  auto* const logits = parts_.arenas->Buffer<float>("logits");
  const auto eps = static_cast<float>(config_.rms_eps);
  const SkinnyWeights* skinny = SkinnyFor(count);
  if (skinny != nullptr && skinny->head && skinny->head->config.fuses_norm) {
    Launch(cuda::SkinnyHead(step.context, *skinny->head,
                            {step.x, parts_.weights->final_norm, eps, count}, step.gather + begin,
                            logits),
           "SkinnyHead");
    return;
  }
  Launch(cuda::RmsNorm(step.context, {.dtype = parts_.weights->dtype,
                                      .x = step.x,
                                      .weight = parts_.weights->final_norm,
                                      .gather = step.gather + begin,
                                      .y = step.normed,
                                      .eps = eps,
                                      .rows = count,
                                      .width = config_.hidden}),
         "RmsNorm");
  if (medium_ != nullptr && medium_->head.has_value() && count <= cuda::kMediumRowsMax) {
    Launch(cuda::MediumHead(step.context, *medium_->head, step.normed, count, logits),
           "MediumHead");
    return;
  }
  Launch(cuda::Product(step.context, parts_.cublas,
                       {.dtype = parts_.weights->dtype,
                        .w = parts_.weights->head,
                        .x = step.normed,
                        .y = logits,
                        .float_out = true,
                        .rows = count,
                        .n = config_.vocab,
                        .k = config_.hidden}),
         "Product head");
}

void CudaDecoder::Draw(Step& step, int32_t begin, int32_t count) {
  const Range range("sampler");
  const DeviceArenas& arenas = *parts_.arenas;
  Launch(cuda::Sample(step.context, {.logits = arenas.Buffer<float>("logits"),
                                     .rows = step.samples + begin,
                                     .slots = arenas.Buffer<cuda::SamplerSlot>("slot_params"),
                                     .bias_ids = arenas.Buffer<int32_t>("bias_ids"),
                                     .bias_values = arenas.Buffer<float>("bias_values"),
                                     .end_ids = arenas.Buffer<int32_t>("end_ids"),
                                     .seen = arenas.Buffer<uint16_t>("seen"),
                                     .slot_tokens = arenas.Buffer<int32_t>("slot_tokens"),
                                     .slot_faults = arenas.Buffer<int32_t>("slot_faults"),
                                     .faults = step.faults,
                                     .out = arenas.Buffer<cuda::SampleOut>("step_outputs") + begin,
                                     .count = count,
                                     .slots_count = parts_.plan->limits.slots + 1,
                                     .vocab = config_.vocab}),
         "Sample");
}

void CudaDecoder::Check(Step& step, int32_t layer, int32_t op, const void* values, int64_t width) {
  if (!parts_.diagnose) return;
  Launch(cuda::CheckRows(step.context, {.dtype = parts_.weights->dtype,
                                        .x = values,
                                        .code = 1 + layer * kChecksPerLayer + op,
                                        .first_code = diagnosis_,
                                        .rows = step.shape.rows,
                                        .width = static_cast<int>(width)}),
         "CheckRows");
}

std::string DescribeCheck(int32_t code) {
  if (code <= 0) return "The step's own layers are finite: an earlier step's values are not";
  const int32_t layer = (code - 1) / kChecksPerLayer, op = (code - 1) % kChecksPerLayer;
  return fmt::format("The first non-finite value is in layer {}, made by {}", layer, kChecks[op]);
}

}  // namespace fathom::worker
