// Implements the three ways through a layer (worker/cuda/cuda_decoder.h) and their ops.
#include <fmt/format.h>

#include <utility>

#include "kernels/cuda/attention/decode_attention.h"
#include "kernels/cuda/rows/non_finite.h"
#include "kernels/cuda/rows/rmsnorm.h"
#include "kernels/cuda/rows/silu_mul.h"
#include "worker/cuda/cuda_decoder_step.h"

namespace fathom::worker {

namespace cuda = kernels::cuda;

namespace {

// The values that PlainLayer checks, in its order.
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

void CudaDecoder::Layer(Step& step, int32_t index) {
  const NvtxRange range("layer");
  const SkinnyWeights* skinny = SkinnyFor(step.shape.rows);
  if (skinny != nullptr) {
    SkinnyLayer(step, index, *skinny);
  } else if (medium_ != nullptr && step.shape.rows <= cuda::kMediumRowsMax) {
    MediumLayer(step, index);
  } else {
    PlainLayer(step, index);
  }
}

// Writes the norm of x by `weight` to "normed", unless the GEMM before has already done it.
void CudaDecoder::NormOnce(Step& step, const float* weight) {
  if (!step.normed) Norm(step, nullptr, weight);
  step.normed = false;
}

// The norm by `weight` that a GEMM with a residual applies at its end; none if the rows are too
// wide for it.
cuda::NormAfter CudaDecoder::NormAtEnd(Step& step, const float* weight) const {
  if (weight == nullptr || model_.hidden > cuda::kNormAfterWidthMax) return {};
  step.normed = true;
  return {weight, buffers_.normed, static_cast<float>(model_.rms_eps), buffers_.norm_counters};
}

// The weight of the norm after the last GEMM of layer `index`. Null after the last layer: there the
// rows with logits are gathered before the norm.
const float* CudaDecoder::NormOfNextLayer(int32_t index) const {
  const auto next = static_cast<size_t>(index) + 1;
  return next < parts_.weights->layers.size() ? parts_.weights->layers[next].attention_norm
                                              : nullptr;
}

// Fills every argument except the input rows.
template <class Args>
Args CudaDecoder::QkvArgs(const Step& step, int32_t index) const {
  Args args;
  args.bias = parts_.weights->layers[static_cast<size_t>(index)].qkv_bias;
  args.kv = KvOf(step, index);
  args.q = buffers_.q;
  const AttentionSpec& attention = PartOf(index).attention;
  args.heads = attention.heads;
  args.kv_heads = attention.kv_heads;
  args.head_dim = attention.head_dim;
  return args;
}

void CudaDecoder::SkinnyLayer(Step& step, int32_t index, const SkinnyWeights& skinny) {
  const DeviceLayer& layer = parts_.weights->layers[static_cast<size_t>(index)];
  const SkinnyWeights::Layer& w = skinny.layers[static_cast<size_t>(index)];
  const auto eps = static_cast<float>(model_.rms_eps);
  const int rows = step.shape.rows;
  // The GEMM applies the norm to its input if its configuration has room for it.
  const auto input = [&](const cuda::SkinnyWeight& weight, const float* norm) {
    if (weight.config.fuses_norm && !step.normed)
      return cuda::SkinnyInput{buffers_.x, norm, eps, rows};
    NormOnce(step, norm);
    return cuda::SkinnyInput{buffers_.normed, nullptr, eps, rows};
  };
  // Otherwise the GEMM before has applied it at its end, or the sum over the ranks has.
  const auto add = [&](const cuda::SkinnyWeight& weight, const void* from, PartialBuffer which,
                       bool norms_input, const float* norm) {
    const cuda::SkinnyInput partial{from, nullptr, 0, rows};
    if (comm_ != nullptr) {
      Launch(cuda::SkinnyPartial(step.context, weight, partial, comm_->Partial(which)),
             "SkinnyPartial");
      Sum(step, which, norm);
      return;
    }
    const auto after = norms_input ? cuda::NormAfter{} : NormAtEnd(step, norm);
    Launch(cuda::SkinnyResidual(step.context, weight, partial, buffers_.x, after),
           "SkinnyResidual");
  };
  if (w.qkv_fused) {
    auto qkv = QkvArgs<cuda::SkinnyQkvArgs>(step, index);
    qkv.input = input(w.qkv, layer.attention_norm);
    Launch(cuda::SkinnyQkv(step.context, w.qkv, qkv), "SkinnyQkv");
  } else {
    PlainQkv(step, index);
  }
  Attention(step, index);
  const bool qkv_norms = w.qkv_fused && w.qkv.config.fuses_norm;
  add(w.o, buffers_.attended, PartialBuffer::kA, w.gate_up.config.fuses_norm, layer.ffn_norm);
  Launch(
      cuda::SkinnyGateUp(step.context, w.gate_up, input(w.gate_up, layer.ffn_norm), buffers_.ffn),
      "SkinnyGateUp");
  add(w.down, buffers_.ffn, PartialBuffer::kB, qkv_norms, NormOfNextLayer(index));
}

void CudaDecoder::MediumLayer(Step& step, int32_t index) {
  const DeviceLayer& layer = parts_.weights->layers[static_cast<size_t>(index)];
  const MediumWeights::Layer& w = medium_->layers[static_cast<size_t>(index)];
  const int rows = step.shape.rows;
  const auto add = [&](const cuda::MediumWeight& weight, const void* from, PartialBuffer which,
                       const float* norm) {
    if (comm_ != nullptr) {
      Launch(cuda::MediumPartial(step.context, weight, from, rows, comm_->Partial(which)),
             "MediumPartial");
      Sum(step, which, norm);
      return;
    }
    Launch(
        cuda::MediumResidual(step.context, weight, from, rows, buffers_.x, NormAtEnd(step, norm)),
        "MediumResidual");
  };
  if (w.qkv_fused) {
    NormOnce(step, layer.attention_norm);
    auto qkv = QkvArgs<cuda::MediumQkvArgs>(step, index);
    qkv.x = buffers_.normed;
    qkv.rows = rows;
    Launch(cuda::MediumQkv(step.context, w.qkv, qkv), "MediumQkv");
  } else {
    PlainQkv(step, index);
  }
  Attention(step, index);
  add(w.o, buffers_.attended, PartialBuffer::kA, layer.ffn_norm);
  NormOnce(step, layer.ffn_norm);
  Launch(cuda::MediumGateUp(step.context, w.gate_up, buffers_.normed, rows, buffers_.ffn),
         "MediumGateUp");
  add(w.down, buffers_.ffn, PartialBuffer::kB, NormOfNextLayer(index));
}

// The parts of the fused qkv as separate ops, for models with norms per head, which the fused
// kernel does not implement.
void CudaDecoder::PlainQkv(Step& step, int32_t index) {
  const DeviceLayer& layer = parts_.weights->layers[static_cast<size_t>(index)];
  NormOnce(step, layer.attention_norm);
  Product(step, layer.qkv, layer.qkv_bias, buffers_.normed, buffers_.qkv,
          static_cast<int>(PartOf(index).attention.qkv_rows()), model_.hidden);
  RopeAndKv(step, index);
}

void CudaDecoder::RopeAndKv(Step& step, int32_t index) {
  const DeviceLayer& layer = parts_.weights->layers[static_cast<size_t>(index)];
  const AttentionSpec& attention = PartOf(index).attention;
  Launch(cuda::RopeKvWrite(step.context, {.dtype = parts_.weights->dtype,
                                          .qkv = buffers_.qkv,
                                          .q_norm = layer.q_norm,
                                          .k_norm = layer.k_norm,
                                          .eps = static_cast<float>(model_.rms_eps),
                                          .kv = KvOf(step, index),
                                          .q = buffers_.q,
                                          .rows = step.shape.rows,
                                          .heads = attention.heads,
                                          .kv_heads = attention.kv_heads,
                                          .head_dim = attention.head_dim}),
         "RopeKvWrite");
}

void CudaDecoder::PlainLayer(Step& step, int32_t index) {
  const DeviceLayer& layer = parts_.weights->layers[static_cast<size_t>(index)];
  const int rows = step.shape.rows, ffn = PartOf(index).mlp.width;
  const int q_rows = static_cast<int>(PartOf(index).attention.q_rows());
  const int qkv_rows = static_cast<int>(PartOf(index).attention.qkv_rows());
  AddAndNorm(step, layer.attention_norm);
  Check(step, index, 0, buffers_.normed, model_.hidden);
  Product(step, layer.qkv, layer.qkv_bias, buffers_.normed, buffers_.qkv, qkv_rows, model_.hidden);
  Check(step, index, 1, buffers_.qkv, qkv_rows);
  RopeAndKv(step, index);
  Check(step, index, 2, buffers_.q, q_rows);
  Attention(step, index);
  Check(step, index, 3, buffers_.attended, q_rows);
  PlainAddend(step, layer.o, buffers_.attended, q_rows, PartialBuffer::kA);
  Check(step, index, 4, step.pending, model_.hidden);
  AddAndNorm(step, layer.ffn_norm);
  Check(step, index, 5, buffers_.normed, model_.hidden);
  Product(step, layer.gate_up, nullptr, buffers_.normed, buffers_.gate_up, 2 * ffn, model_.hidden);
  Check(step, index, 6, buffers_.gate_up, 2 * ffn);
  Launch(cuda::SiluMul(step.context, {.dtype = parts_.weights->dtype,
                                      .gate_up = buffers_.gate_up,
                                      .y = buffers_.ffn,
                                      .rows = rows,
                                      .ffn = ffn}),
         "SiluMul");
  Check(step, index, 7, buffers_.ffn, ffn);
  PlainAddend(step, layer.down, buffers_.ffn, ffn, PartialBuffer::kB);
  Check(step, index, 8, step.pending, model_.hidden);
}

// The output of a GEMM that AddAndNorm adds to x; of a rank it is a partial sum.
void CudaDecoder::PlainAddend(Step& step, const void* w, const void* x, int k,
                              PartialBuffer which) {
  void* const y = comm_ == nullptr ? buffers_.product : comm_->Partial(which);
  Product(step, w, nullptr, x, y, model_.hidden, k);
  step.pending = y;
  step.pending_sum = which;
}

// Adds what is pending to x, and norms x by `weight` unless that is null.
void CudaDecoder::AddAndNorm(Step& step, const float* weight) {
  const void* const addend = std::exchange(step.pending, nullptr);
  if (addend == nullptr || comm_ == nullptr) {
    Norm(step, addend, weight);
    return;
  }
  Sum(step, step.pending_sum, weight);
  step.normed = false;  // The next op reads "normed" itself.
}

// x += the sum of the ranks' partial sums; then the norm of x by `weight` unless that is null.
void CudaDecoder::Sum(Step& step, PartialBuffer which, const float* weight) {
  Communicate(step, *comm_, [&](const CommStream& on) {
    return comm_->AllReduce(on, {.buffer = which,
                                 .rows = step.shape.rows,
                                 .x = buffers_.x,
                                 .y = weight == nullptr ? nullptr : buffers_.normed,
                                 .weight = weight,
                                 .eps = static_cast<float>(model_.rms_eps)});
  });
  step.normed = weight != nullptr;
}

void CudaDecoder::Norm(Step& step, const void* addend, const float* weight) {
  Launch(cuda::RmsNorm(step.context, {.dtype = parts_.weights->dtype,
                                      .x = buffers_.x,
                                      .addend = addend,
                                      .weight = weight,
                                      .y = weight == nullptr ? nullptr : buffers_.normed,
                                      .eps = static_cast<float>(model_.rms_eps),
                                      .rows = step.shape.rows,
                                      .width = model_.hidden}),
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
  const CudaStepShape& shape = step.shape;
  const AttentionSpec& attention = PartOf(index).attention;
  const cuda::KvTarget kv = KvOf(step, index);
  if (shape.decode_rows > 0) {
    Launch(cuda::DecodeAttention(step.context, {.dtype = parts_.weights->dtype,
                                                .q = buffers_.q,
                                                .keys = kv.keys,
                                                .values = kv.values,
                                                .block_tables = step.tables,
                                                .lengths = step.lengths,
                                                .segment_begin = step.segment_begin,
                                                .partial_o = buffers_.partial_o,
                                                .partial_ml = buffers_.partial_ml,
                                                .arrived = buffers_.arrived,
                                                .faults = step.faults,
                                                .out = buffers_.attended,
                                                .rows = shape.decode_rows,
                                                .heads = attention.heads,
                                                .kv_heads = attention.kv_heads,
                                                .head_dim = attention.head_dim,
                                                .table_stride = shape.table_stride,
                                                .max_segments = shape.segments,
                                                .pool_blocks = kv.pool_blocks,
                                                .new_tokens = 1 + parts_.plan->limits.draft_max}),
           "DecodeAttention");
  }
  if (shape.chunks == 0) return;
  Launch(cuda::PrefillAttention(step.context, {.dtype = parts_.weights->dtype,
                                               .q = buffers_.q,
                                               .keys = kv.keys,
                                               .values = kv.values,
                                               .block_tables = step.tables,
                                               .chunks = step.chunks,
                                               .device_chunks = step.device_chunks,
                                               .work_counter = buffers_.work_counter,
                                               .faults = step.faults,
                                               .out = buffers_.attended,
                                               .total_rows = shape.rows,
                                               .heads = attention.heads,
                                               .kv_heads = attention.kv_heads,
                                               .head_dim = attention.head_dim,
                                               .table_stride = shape.table_stride,
                                               .pool_blocks = kv.pool_blocks}),
         "PrefillAttention");
}

void CudaDecoder::Check(Step& step, int32_t layer, int32_t op, const void* values, int64_t width) {
  if (!parts_.diagnose) return;
  Launch(cuda::CheckRows(step.context, {.dtype = parts_.weights->dtype,
                                        .x = values,
                                        .code = 1 + PartOf(layer).index * kChecksPerLayer + op,
                                        .first_code = buffers_.diagnosis,
                                        .rows = step.shape.rows,
                                        .width = static_cast<int>(width)}),
         "CheckRows");
}

std::string DescribeCheck(int32_t code) {
  if (code < 0) {
    return fmt::format("The first non-finite value is in another stage, before layer {}",
                       -1 - code);
  }
  if (code == 0) return "The step's own layers are finite: an earlier step's values are not";
  const int32_t layer = (code - 1) / kChecksPerLayer, op = (code - 1) % kChecksPerLayer;
  return fmt::format("The first non-finite value is in layer {}, made by {}", layer, kChecks[op]);
}

}  // namespace fathom::worker
