#include "worker/cuda/cuda_decoder.h"

#include <algorithm>
#include <optional>

#include "common/check.h"
#include "kernels/cuda/rows/embedding.h"
#include "kernels/cuda/rows/rmsnorm.h"
#include "kernels/rope_kv_write.h"
#include "modeling/layout/cuda_step_buffers.h"
#include "modeling/layout/device_weight_layout.h"
#include "modeling/spec/rope_spec.h"
#include "worker/cuda/cuda_check.h"
#include "worker/cuda/cuda_decoder_step.h"

namespace fathom::worker {

namespace cuda = kernels::cuda;

CudaDecoder::CudaDecoder(const CudaDecoderParts& parts)
    : parts_(parts),
      model_(*parts.model),
      buffers_(*parts.arenas),
      head_rows_(static_cast<int32_t>(HeadRows(model_.vocab_rows))) {
  PlaceKvPlanes();
  UploadRopeTables();
  if (parts.diagnose) return;  // Runs one op after the other, so that each can be checked.
  const FusedDevice device{parts.sm, parts.sms, parts.shared_bytes};
  skinny_ = PrepareSkinnyWeights(model_, *parts.weights, device);
  medium_ = PrepareMediumWeights(model_, *parts.weights);
}

CudaDecoder::~CudaDecoder() = default;

CudaDecoder::Buffers::Buffers(const DeviceArenas& arenas)
    : kv(arenas.Buffer<std::byte>("kv")),
      x(arenas.Buffer<std::byte>("x")),
      normed(arenas.Buffer<std::byte>("normed")),
      qkv(arenas.Buffer<std::byte>("qkv")),
      q(arenas.Buffer<std::byte>("q")),
      attended(arenas.Buffer<std::byte>("attended")),
      gate_up(arenas.Buffer<std::byte>("gate_up")),
      ffn(arenas.Buffer<std::byte>("ffn")),
      product(arenas.BufferIfAny<std::byte>("product")),
      norm_counters(arenas.Buffer<int32_t>("norm_counters")),
      rope_cos(arenas.Buffer<float>("rope_cos")),
      rope_sin(arenas.Buffer<float>("rope_sin")),
      logits(arenas.BufferIfAny<float>("logits")),
      partial_o(arenas.Buffer<float>("partial_o")),
      partial_ml(arenas.Buffer<float>("partial_ml")),
      arrived(arenas.Buffer<int32_t>("arrived")),
      work_counter(arenas.Buffer<int32_t>("work_counter")),
      seen(arenas.BufferIfAny<uint16_t>("seen")),
      slot_params(arenas.BufferIfAny<cuda::SamplerSlot>("slot_params")),
      bias_ids(arenas.BufferIfAny<int32_t>("bias_ids")),
      bias_values(arenas.BufferIfAny<float>("bias_values")),
      end_ids(arenas.BufferIfAny<int32_t>("end_ids")),
      slot_tokens(arenas.Buffer<int32_t>("slot_tokens")),
      slot_faults(arenas.Buffer<int32_t>("slot_faults")),
      slot_thinking(arenas.BufferIfAny<kernels::ThinkingSlot>("slot_thinking")),
      slot_samples(arenas.BufferIfAny<cuda::SlotSample>("slot_samples")),
      step_inputs(arenas.Buffer<std::byte>("step_inputs")),
      step_masks(arenas.BufferIfAny<uint32_t>("step_masks")),
      step_outputs(arenas.Buffer<cuda::SampleOut>("step_outputs")),
      gathered_outputs(arenas.BufferIfAny<cuda::SampleOut>("gathered_outputs")),
      diagnosis(arenas.Buffer<int32_t>("diagnosis")) {}

void CudaDecoder::SetComms(const DecoderComms& comms) {
  const RankPlace& place = model_.place;
  const auto fits = [](const DeviceComm* comm, int rank, int size) {
    return comm == nullptr || (comm->rank() == rank && comm->size() == size);
  };
  FATHOM_CHECK(fits(comms.layers, place.tp_rank, place.tp) &&
               fits(comms.rows, place.stage, place.stages) &&
               fits(comms.samples, place.stage, place.stages));
  comm_ = comms.layers;
  rows_comm_ = comms.rows;
  samples_comm_ = comms.samples;
}

void CudaDecoder::PlaceKvPlanes() {
  std::byte* next = buffers_.kv;
  for (const RankLayer& layer : model_.layers) {
    FATHOM_CHECK(layer.attention.planes.size() == 2 && layer.attention.head_dim == model_.rope_dim,
                 "layer {}", layer.index);
    auto& planes = kv_planes_.emplace_back();
    for (size_t i = 0; i < planes.size(); ++i) {
      planes[i] = next;
      next += parts_.plan->limits.pool_blocks *
              KvBytes({&layer.attention.planes[i], 1}, kCudaElementBytes, kCudaBlockTokens);
    }
  }
  FATHOM_CHECK(next - buffers_.kv <= parts_.arenas->Bytes("kv"));
}

void CudaDecoder::UploadRopeTables() {
  const kernels::RopeTable table = kernels::MakeRopeTable(RopeSpecOf(model_.rope, model_.rope_dim),
                                                          parts_.plan->limits.context_tokens);
  FATHOM_CUDA(cudaMemcpy(buffers_.rope_cos, table.cos.data(), table.cos.size() * sizeof(float),
                         cudaMemcpyHostToDevice));
  FATHOM_CUDA(cudaMemcpy(buffers_.rope_sin, table.sin.data(), table.sin.size() * sizeof(float),
                         cudaMemcpyHostToDevice));
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

absl::Status CudaDecoder::Enqueue(cudaStream_t stream, const CudaStepShape& shape,
                                  std::span<const cuda::PrefillChunk> chunks) {
  if (shape.rows == 0) return absl::OkStatus();
  FATHOM_CHECK((comm_ != nullptr || model_.place.tp == 1) &&
               (rows_comm_ != nullptr || model_.place.stages == 1));
  const NvtxRange range("step");
  const CudaStepLayout at = LayoutOf(shape);
  std::byte* const input = buffers_.step_inputs;
  FATHOM_CHECK(at.bytes <= parts_.arenas->Bytes("step_inputs"), "{} bytes of inputs", at.bytes);
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
  if (parts_.diagnose) {
    FATHOM_CUDA(cudaMemsetAsync(buffers_.diagnosis, 0,
                                static_cast<size_t>(shape.rows) * sizeof(int32_t), stream));
  }
  if (model_.is_first_stage()) {
    Embed(step);
  } else {
    ReceiveRows(step);
  }
  for (int32_t i = 0; i < static_cast<int32_t>(model_.layers.size()); ++i) Layer(step, i);
  const bool wanted = shape.samples > 0 || comm_ != nullptr || !model_.is_last_stage();
  if (step.pending != nullptr && wanted) AddAndNorm(step, nullptr);
  if (!model_.is_last_stage()) {
    SendRows(step);
    return step.comm;
  }
  for (int32_t begin = 0; begin < shape.samples; begin += parts_.plan->logits_rows) {
    const int32_t count = std::min(parts_.plan->logits_rows, shape.samples - begin);
    Head(step, begin, count);
    Draw(step, begin, count);
  }
  if (samples_comm_ != nullptr && shape.samples > 0) SendSamples(step);
  return step.comm;
}

void CudaDecoder::Embed(Step& step) {
  const NvtxRange range("embedding");
  Launch(cuda::Embedding(step.context, {.dtype = parts_.weights->dtype,
                                        .table = parts_.weights->embedding,
                                        .tokens = step.tokens,
                                        .slot_tokens = buffers_.slot_tokens,
                                        .faults = step.faults,
                                        .x = buffers_.x,
                                        .rows = step.shape.rows,
                                        .hidden = model_.hidden,
                                        .vocab = model_.vocab,
                                        .slots = parts_.plan->limits.slots + 1}),
         "Embedding");
  step.context.dependent = parts_.dependent_launch;
}

cuda::KvTarget CudaDecoder::KvOf(const Step& step, int32_t layer) const {
  const auto [keys, values] = kv_planes_[static_cast<size_t>(layer)];
  return {.keys = keys,
          .values = values,
          .kv_slots = step.kv_slots,
          .positions = step.positions,
          .cos = buffers_.rope_cos,
          .sin = buffers_.rope_sin,
          .faults = step.faults,
          .pool_blocks = parts_.plan->limits.pool_blocks,
          .context = parts_.plan->limits.context_tokens};
}

float* CudaDecoder::LogitsOfRank() const {
  return comm_ == nullptr ? buffers_.logits : static_cast<float*>(comm_->Rows());
}

// Writes the logits of samples [begin, begin + count) to the first rows of "logits".
void CudaDecoder::Head(Step& step, int32_t begin, int32_t count) {
  const NvtxRange range("head");
  float* const logits = LogitsOfRank();
  const auto eps = static_cast<float>(model_.rms_eps);
  const SkinnyWeights* skinny = SkinnyFor(count);
  if (skinny != nullptr && skinny->head && skinny->head->config.fuses_norm) {
    Launch(cuda::SkinnyHead(step.context, *skinny->head,
                            {buffers_.x, parts_.weights->final_norm, eps, count},
                            step.gather + begin, logits),
           "SkinnyHead");
    return;
  }
  Launch(cuda::RmsNorm(step.context, {.dtype = parts_.weights->dtype,
                                      .x = buffers_.x,
                                      .weight = parts_.weights->final_norm,
                                      .gather = step.gather + begin,
                                      .y = buffers_.normed,
                                      .eps = eps,
                                      .rows = count,
                                      .width = model_.hidden}),
         "RmsNorm");
  if (medium_ != nullptr && medium_->head.has_value() && count <= cuda::kMediumRowsMax) {
    Launch(cuda::MediumHead(step.context, *medium_->head, buffers_.normed, count, logits),
           "MediumHead");
    return;
  }
  Launch(cuda::Product(step.context, parts_.cublas,
                       {.dtype = parts_.weights->dtype,
                        .w = parts_.weights->head,
                        .x = buffers_.normed,
                        .y = logits,
                        .float_out = true,
                        .rows = count,
                        .n = head_rows_,
                        .k = model_.hidden}),
         "Product head");
}

void CudaDecoder::Draw(Step& step, int32_t begin, int32_t count) {
  const NvtxRange range("sampler");
  cuda::SamplerArgs args{.logits = {{buffers_.logits}, 0, head_rows_},
                         .rows = step.samples + begin,
                         .slots = buffers_.slot_params,
                         .bias_ids = buffers_.bias_ids,
                         .bias_values = buffers_.bias_values,
                         .end_ids = buffers_.end_ids,
                         .masks = buffers_.step_masks,
                         .seen = buffers_.seen,
                         .slot_tokens = buffers_.slot_tokens,
                         .slot_faults = buffers_.slot_faults,
                         .slot_thinking = buffers_.slot_thinking,
                         .faults = step.faults,
                         .out = buffers_.step_outputs + begin,
                         .count = count,
                         .slots_count = parts_.plan->limits.slots + 1,
                         .vocab = model_.vocab};
  if (comm_ == nullptr) {
    Launch(cuda::Sample(step.context, args), "Sample");
    return;
  }
  Communicate(step, *comm_, [&](const CommStream& on) {
    return comm_->ExchangeRows(on, count, int64_t{head_rows_} * int64_t{sizeof(float)});
  });
  args.logits = {.width = model_.vocab_rows, .stride = head_rows_};
  for (int rank = 0; rank < comm_->size(); ++rank) {
    args.logits.slices[rank] = static_cast<const float*>(comm_->RowsOf(rank));
  }
  args.first_row = comm_->rank();
  args.row_step = comm_->size();
  Launch(cuda::Sample(step.context, args), "Sample");
  Apply(step, args);
}

// Takes the samples of the rows that the other ranks have sampled.
void CudaDecoder::Apply(Step& step, const cuda::SamplerArgs& sampled) {
  Communicate(step, *comm_, [&](const CommStream& on) {
    return comm_->AllGather(on, sampled.out, buffers_.gathered_outputs,
                            sampled.count * int64_t{sizeof(cuda::SampleOut)});
  });
  cuda::ApplySamplesArgs args{.ranks = comm_->size(),
                              .rank = comm_->rank(),
                              .rows = sampled.rows,
                              .slots = sampled.slots,
                              .seen = sampled.seen,
                              .slot_tokens = sampled.slot_tokens,
                              .slot_faults = sampled.slot_faults,
                              .slot_thinking = sampled.slot_thinking,
                              .out = sampled.out,
                              .count = sampled.count,
                              .vocab = sampled.vocab};
  for (int rank = 0; rank < args.ranks; ++rank) {
    args.outs[rank] = buffers_.gathered_outputs + int64_t{rank} * sampled.count;
  }
  Launch(cuda::ApplySamples(step.context, args), "ApplySamples");
}

}  // namespace fathom::worker
