// worker/cuda/cuda_decoder.h: the forward pass and the sampling of a step on a GPU, as launches on
// a stream, or a stage of it: only the first stage embeds tokens, and only the last one makes
// logits and samples; another stage takes the rows of the one before (worker/cuda/cuda_stages.cc).
// It does not allocate or synchronize and does nothing that a graph cannot capture. There
// are three ways through a layer, with equal bits: fused ops that stream the weights for up to 16
// rows, others for up to 128 rows (5 kernels for each layer, 6 with norms per head), and one op
// after the other with cuBLASLt or our own GEMMs. Thread: the engine thread.
#pragma once

#include <array>
#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "kernels/cuda/attention/prefill_attention.h"
#include "kernels/cuda/base/launch.h"
#include "kernels/cuda/linear/norm_after.h"
#include "kernels/cuda/linear/product.h"
#include "kernels/cuda/rows/rope_kv_write.h"
#include "kernels/cuda/sampler/sampler.h"
#include "kernels/cuda/sampler/slot_samples.h"
#include "modeling/layout/cuda_memory_plan.h"
#include "modeling/layout/cuda_step_layout.h"
#include "modeling/spec/rank_model.h"
#include "worker/comm/device_comm.h"
#include "worker/cuda/device_arenas.h"
#include "worker/cuda/device_weights.h"
#include "worker/cuda/fused_weights.h"

namespace fathom::worker {

// What a decoder works with; all of it outlives the decoder.
struct CudaDecoderParts {
  const RankModel* model = nullptr;
  const CudaMemoryPlan* plan = nullptr;
  const DeviceArenas* arenas = nullptr;
  const DeviceWeights* weights = nullptr;
  kernels::cuda::CublasLt* cublas = nullptr;  // Null: all GEMMs are our own.
  int sm = 0;
  int sms = 0;
  int shared_bytes = 0;  // The most that one thread block may have.
  bool dependent_launch = true;
  bool diagnose = false;  // --diagnose-numerics: checks the values after every op.
};

// The comms of an epoch; null: there is one rank in the stage, or one stage. Those between stages
// have the stage as their rank.
struct DecoderComms {
  DeviceComm* layers = nullptr;
  DeviceComm* rows = nullptr;     // To the next stage.
  DeviceComm* samples = nullptr;  // From the last stage to the first one.
};

// The text for a code of CudaDecoder::diagnosis(): "first non-finite in layer 3, after attention".
std::string DescribeCheck(int32_t code);

class CudaDecoder {
 public:
  // REQUIRES: a GPU can compute the model (modeling/spec/device_kinds.h).
  explicit CudaDecoder(const CudaDecoderParts& parts);
  ~CudaDecoder();
  CudaDecoder(const CudaDecoder&) = delete;
  CudaDecoder& operator=(const CudaDecoder&) = delete;

  // Of one of several ranks: the comms of an epoch, which live until the next call; none: no step
  // follows before the next call. Graphs that were captured before are void. REQUIRES: no step is
  // in flight; the comms have the ranks and sizes of the model's place.
  void SetComms(const DecoderComms& comms);

  // Enqueues a step. Its inputs are in the buffer "step_inputs" in the layout LayoutOf(shape); its
  // samples and scores go to the buffer "step_outputs", SampleOut [shape.samples]; those of a stage
  // before the last one have only a fault. `chunks` is a copy of the prefill chunks on the host.
  // Every step with rows has a message of them between two stages, and every step with samples has
  // one from the last stage, which the first stage takes before a later step
  // (worker/cuda/sample_inbox.h).
  absl::Status Enqueue(cudaStream_t stream, const CudaStepShape& shape,
                       std::span<const kernels::cuda::PrefillChunk> chunks);

  // With diagnose: for each row of the step 0, or the code of the op that made the first non-finite
  // value.
  const int32_t* diagnosis() const { return parts_.diagnose ? buffers_.diagnosis : nullptr; }

 private:
  struct Step;
  // The buffers of the arenas. One rank alone has no gathered_outputs; several ranks have no
  // product and no logits, which lie in the memory of the comm. Only the last stage has what
  // belongs to logits and to the sampler, and no other stage has any of it.
  struct Buffers {
    explicit Buffers(const DeviceArenas& arenas);
    std::byte* kv;
    std::byte *x, *normed, *qkv, *q, *attended, *gate_up, *ffn, *product;
    int32_t* norm_counters;
    float *rope_cos, *rope_sin, *logits, *partial_o, *partial_ml;
    int32_t *arrived, *work_counter;
    uint16_t* seen;
    kernels::cuda::SamplerSlot* slot_params;
    int32_t* bias_ids;
    float* bias_values;
    int32_t *end_ids, *slot_tokens, *slot_faults;
    kernels::ThinkingSlot* slot_thinking;
    kernels::cuda::SlotSample* slot_samples;
    std::byte* step_inputs;
    const uint32_t* step_masks;
    kernels::cuda::SampleOut *step_outputs, *gathered_outputs;
    int32_t* diagnosis;
  };

  void Launch(cudaError_t error, const char* op) const;
  // Enqueues what `comm` does by `call`, unless an earlier call of the step has failed.
  template <class Call>
  void Communicate(Step& step, const DeviceComm& comm, Call call) const;
  void Embed(Step& step);
  void ReceiveRows(Step& step);
  void SendRows(Step& step);
  void SendSamples(Step& step);
  void Layer(Step& step, int32_t index);
  void SkinnyLayer(Step& step, int32_t index, const SkinnyWeights& skinny);
  void MediumLayer(Step& step, int32_t index);
  void PlainLayer(Step& step, int32_t index);
  void PlainQkv(Step& step, int32_t index);
  template <class Args>
  Args QkvArgs(const Step& step, int32_t index) const;
  void RopeAndKv(Step& step, int32_t index);
  void Attention(Step& step, int32_t index);
  void Product(Step& step, const void* w, const float* bias, const void* x, void* y, int n, int k);
  void PlainAddend(Step& step, const void* w, const void* x, int k, PartialBuffer which);
  void AddAndNorm(Step& step, const float* weight);
  void Sum(Step& step, PartialBuffer which, const float* weight);
  void Norm(Step& step, const void* addend, const float* weight);
  void NormOnce(Step& step, const float* weight);
  kernels::cuda::NormAfter NormAtEnd(Step& step, const float* weight) const;
  const RankLayer& PartOf(int32_t index) const { return model_.layers[static_cast<size_t>(index)]; }
  void PlaceKvPlanes();
  const float* NormOfNextLayer(int32_t index) const;
  void Draw(Step& step, int32_t begin, int32_t count);
  void Apply(Step& step, const kernels::cuda::SamplerArgs& sampled);
  float* LogitsOfRank() const;
  void Head(Step& step, int32_t begin, int32_t count);
  void Check(Step& step, int32_t layer, int32_t op, const void* values, int64_t width);
  kernels::cuda::KvTarget KvOf(const Step& step, int32_t layer) const;
  const SkinnyWeights* SkinnyFor(int32_t rows) const;
  void UploadRopeTables();

  const CudaDecoderParts parts_;
  const RankModel& model_;
  const Buffers buffers_;
  const int32_t
      head_rows_;  // Rows of the rank's LM head, and floats from one row of logits to the next.
  DeviceComm* comm_ = nullptr;       // Of the stage; null: one rank.
  DeviceComm* rows_comm_ = nullptr;  // Between stages; null: one stage.
  DeviceComm* samples_comm_ = nullptr;
  std::vector<std::array<std::byte*, 2>> kv_planes_;    // Keys and values of each layer.
  std::vector<std::unique_ptr<SkinnyWeights>> skinny_;  // By row bucket, ascending.
  std::unique_ptr<MediumWeights> medium_;  // Null: it cannot compute a shape of this model.
};

}  // namespace fathom::worker
