// worker/cuda/cuda_decoder_step.h: what cuda_decoder.cc and cuda_layers.cc share of a step. Private
// to the decoder. Thread: the engine thread.
#pragma once

#include <nvtx3/nvToolsExt.h>

#include "worker/cuda/cuda_decoder.h"

namespace fathom::worker {

// A step under way: its launches' context, and where its inputs are on the device.
struct CudaDecoder::Step {
  kernels::cuda::LaunchContext context;
  CudaStepShape shape;
  std::span<const kernels::cuda::PrefillChunk> chunks;
  const int32_t* tokens = nullptr;
  const int32_t* positions = nullptr;
  const int32_t* kv_slots = nullptr;
  int32_t* faults = nullptr;
  const int32_t* lengths = nullptr;
  const int32_t* segment_begin = nullptr;
  const int32_t* tables = nullptr;
  const kernels::cuda::PrefillChunk* device_chunks = nullptr;
  const int32_t* gather = nullptr;
  const kernels::cuda::SampleRow* samples = nullptr;
  const void* pending = nullptr;  // A product that the next norm adds to x.
  bool normed = false;            // x is normed already, by the product that wrote it.
};

// A named range on a profiler's time line while it lives.
class NvtxRange {
 public:
  explicit NvtxRange(const char* name) { nvtxRangePushA(name); }
  ~NvtxRange() { nvtxRangePop(); }
  NvtxRange(const NvtxRange&) = delete;
  NvtxRange& operator=(const NvtxRange&) = delete;
};

}  // namespace fathom::worker
