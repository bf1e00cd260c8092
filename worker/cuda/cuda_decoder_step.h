// worker/cuda/cuda_decoder_step.h: the state of a step that cuda_decoder.cc, cuda_layers.cc and
// cuda_stages.cc share. Private to the decoder. Thread: the engine thread.
#pragma once

#include <nvtx3/nvToolsExt.h>

#include "worker/cuda/cuda_decoder.h"

namespace fathom::worker {

// The step that is being queued: the context of its launches, and the addresses of its inputs on
// the device.
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
  const void* pending = nullptr;  // The output of a GEMM that the next norm must add to x.
  PartialBuffer pending_sum = PartialBuffer::kA;  // The buffer of `pending`, with several ranks.
  absl::Status comm;    // The first error of a comm; after it nothing of one is enqueued.
  bool normed = false;  // "normed" already has the norm that the next op needs.
};

template <class Call>
void CudaDecoder::Communicate(Step& step, const DeviceComm& comm, Call call) const {
  if (!step.comm.ok()) return;
  step.comm = call(CommStream{step.context.stream, step.context.dependent});
  step.context.dependent = parts_.dependent_launch && comm.chains();
}

// Shows a named range on the time line of a profiler while it lives.
class NvtxRange {
 public:
  explicit NvtxRange(const char* name) { nvtxRangePushA(name); }
  ~NvtxRange() { nvtxRangePop(); }
  NvtxRange(const NvtxRange&) = delete;
  NvtxRange& operator=(const NvtxRange&) = delete;
};

}  // namespace fathom::worker
