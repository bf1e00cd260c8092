#include "worker/cuda/device_weights.h"

#include <cuda_runtime_api.h>

#include <algorithm>
#include <string>

#include "common/check.h"
#include "common/cpus.h"
#include "common/status.h"
#include "kernels/cuda/rows/dummy_weights.h"
#include "kernels/cuda/rows/non_finite.h"
#include "modeling/checkpoint/weight_convert.h"
#include "modeling/checkpoint/weight_pieces.h"
#include "worker/cuda/cuda_check.h"
#include "worker/cuda/weight_loader.h"

namespace fathom::worker {
namespace {

namespace cuda = kernels::cuda;
using kernels::DType;

constexpr int kReadersMax = 16;

// The stream for the kernels of this load.
class KernelStream {
 public:
  KernelStream() {
    int device = 0, major = 0, minor = 0;
    FATHOM_CUDA(cudaGetDevice(&device));
    FATHOM_CUDA(cudaDeviceGetAttribute(&major, cudaDevAttrComputeCapabilityMajor, device));
    FATHOM_CUDA(cudaDeviceGetAttribute(&minor, cudaDevAttrComputeCapabilityMinor, device));
    FATHOM_CUDA(cudaDeviceGetAttribute(&context_.sms, cudaDevAttrMultiProcessorCount, device));
    context_.sm = major * 10 + minor;
    FATHOM_CUDA(cudaStreamCreateWithFlags(&context_.stream, cudaStreamNonBlocking));
  }
  ~KernelStream() { FATHOM_CUDA(cudaStreamDestroy(context_.stream)); }
  KernelStream(const KernelStream&) = delete;
  KernelStream& operator=(const KernelStream&) = delete;
  const cuda::LaunchContext& context() const { return context_; }
  void Wait() const { FATHOM_CUDA(cudaStreamSynchronize(context_.stream)); }

 private:
  cuda::LaunchContext context_;
};

// Returns OK, or an error that names the first non-finite value.
absl::Status ScanForNonFinite(const DeviceWeightLayout& layout, const WeightPieces& pieces,
                              const std::byte* arena) {
  const KernelStream stream;
  uint64_t* first = nullptr;
  FATHOM_CUDA(cudaMalloc(reinterpret_cast<void**>(&first), sizeof(*first)));
  FATHOM_CUDA(cudaMemsetAsync(first, 0xFF, sizeof(*first), stream.context().stream));  // kNoIndex
  int64_t base = 0;  // Number of elements before the region.
  for (const WeightRegion& region : layout.regions) {
    const int64_t count = region.rows * region.cols;
    FATHOM_CUDA(cuda::ScanNonFinite(stream.context(), {.dtype = region.dtype,
                                                       .data = arena + region.offset,
                                                       .count = count,
                                                       .base = base,
                                                       .first = first}));
    base += count;
  }
  uint64_t found = cuda::kNoIndex;
  FATHOM_CUDA(cudaMemcpyAsync(&found, first, sizeof(found), cudaMemcpyDeviceToHost,
                              stream.context().stream));
  stream.Wait();
  FATHOM_CUDA(cudaFree(first));
  if (found == cuda::kNoIndex) return absl::OkStatus();
  auto index = static_cast<int64_t>(found);
  for (const WeightRegion& region : layout.regions) {
    const int64_t count = region.rows * region.cols;
    if (index < count) return pieces.NotFinite(region, index / region.cols, index % region.cols);
    index -= count;
  }
  FATHOM_CHECK(false, "element {} is in no weight", found);
  return absl::OkStatus();
}

void MakeDummies(const DeviceWeightLayout& layout, const Checkpoint& checkpoint, std::byte* arena) {
  const KernelStream stream;
  for (const WeightRegion& region : layout.regions) {
    for (const WeightPart& part : region.parts) {
      const auto dummy = checkpoint.Dummy(part.parameter.name);
      FATHOM_CHECK(dummy.has_value(), "{} is neither in a file nor random", part.parameter.name);
      FATHOM_CUDA(
          cuda::DummyWeights(stream.context(), {.stored = DTypeOfStored(checkpoint.stored_type()),
                                                .dtype = region.dtype,
                                                .out = arena + region.offset,
                                                .rows = part.slice.rows(),
                                                .cols = region.cols,
                                                .key = dummy->key,
                                                .is_ones = dummy->is_ones,
                                                .tensor_cols = part.parameter.cols(),
                                                .row_begin = part.slice.row_begin,
                                                .col_begin = part.slice.col_begin,
                                                .first_row = part.map.first_row,
                                                .pairs = part.map.pairs,
                                                .base = part.map.base}));
    }
  }
  stream.Wait();
}

// The member of a layer that points to an operand.
void SetPointer(Operand operand, const std::byte* data, DeviceLayer* layer) {
  const auto* const floats = reinterpret_cast<const float*>(data);
  switch (operand) {
    case Operand::kAttentionNorm:
      layer->attention_norm = floats;
      return;
    case Operand::kQkv:
      layer->qkv = data;
      return;
    case Operand::kQkvBias:
      layer->qkv_bias = floats;
      return;
    case Operand::kQNorm:
      layer->q_norm = floats;
      return;
    case Operand::kKNorm:
      layer->k_norm = floats;
      return;
    case Operand::kO:
      layer->o = data;
      return;
    case Operand::kFfnNorm:
      layer->ffn_norm = floats;
      return;
    case Operand::kGateUp:
      layer->gate_up = data;
      return;
    case Operand::kDown:
      layer->down = data;
      return;
    case Operand::kEmbedding:
    case Operand::kFinalNorm:
    case Operand::kHead:
      break;
  }
  FATHOM_CHECK(false, "{} is in no layer", NameOf(operand));
}

DeviceWeights PointersInto(const DeviceWeightLayout& layout, const RankModel& model, DType dtype,
                           const std::byte* arena) {
  const auto find = [&](Operand operand) -> const std::byte* {
    const WeightRegion* region = layout.Find(operand);
    return region == nullptr ? nullptr : arena + region->offset;
  };
  DeviceWeights weights;
  weights.dtype = dtype;
  weights.embedding = find(Operand::kEmbedding);
  weights.layers.resize(model.layers.size());
  const int32_t first = model.layers.front().index;
  for (const WeightRegion& region : layout.regions) {
    if (region.layer == kNoLayer) continue;
    SetPointer(region.operand, arena + region.offset,
               &weights.layers[static_cast<size_t>(region.layer - first)]);
  }
  weights.final_norm = reinterpret_cast<const float*>(find(Operand::kFinalNorm));
  weights.head = find(Operand::kHead);
  if (weights.head == nullptr && model.tied() && !model.is_first_stage()) {
    weights.head = weights.embedding;  // Only the rank's rows of it.
  } else if (weights.head == nullptr && model.tied()) {
    const int64_t row_bytes = model.hidden * static_cast<int64_t>(kernels::SizeOf(dtype));
    weights.head = static_cast<const std::byte*>(weights.embedding) +
                   int64_t{model.vocab_rows} * model.place.tp_rank * row_bytes;
  }
  return weights;
}

int ReadersFor(const LoadOptions& options) {
  if (options.readers > 0) return options.readers;
  return std::min(UsableCpus(), kReadersMax);
}

}  // namespace

absl::StatusOr<DeviceWeights> LoadDeviceWeights(const RankModel& model,
                                                const Checkpoint& checkpoint, DType dtype,
                                                void* arena, int64_t arena_bytes,
                                                LoadReport* report, const LoadOptions& options) {
  const int64_t begin = LoadTimeUs();
  FATHOM_RETURN_IF_ERROR(CheckDeviceWeights(model));
  const DeviceWeightLayout layout = LayOutDeviceWeights(model, dtype);
  FATHOM_CHECK(arena_bytes >= layout.bytes, "{} bytes for {} of weights", arena_bytes,
               layout.bytes);
  auto* const bytes = static_cast<std::byte*>(arena);
  *report = {};
  report->bytes = layout.bytes;
  if (checkpoint.Locate(layout.regions.front().parts.front().parameter.name)) {
    const WeightPieces pieces(&layout, &checkpoint, options.piece_bytes);
    report->readers = ReadersFor(options);
    CopyTimes times;
    FATHOM_RETURN_IF_ERROR(CopyPieces(pieces, bytes, report->readers, &times));
    report->pin_us = times.pin_us;
    report->read_us = times.read_us;
    report->convert_us = times.convert_us;
    report->copy_us = times.wait_us;
    const int64_t scan = LoadTimeUs();
    FATHOM_RETURN_IF_ERROR(ScanForNonFinite(layout, pieces, bytes));
    report->scan_us = LoadTimeUs() - scan;
  } else {
    MakeDummies(layout, checkpoint, bytes);
    report->scan_us = LoadTimeUs() - begin;
  }
  for (const WeightRegion& region : layout.regions) {
    if (region.padding_rows == 0) continue;
    FATHOM_CUDA(cudaMemset(bytes + region.offset + region.bytes(), 0,
                           static_cast<size_t>(region.padding_bytes())));
  }
  report->total_us = LoadTimeUs() - begin;
  return PointersInto(layout, model, dtype, bytes);
}

}  // namespace fathom::worker
