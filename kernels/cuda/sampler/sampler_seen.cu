#include "kernels/cuda/base/canon.cuh"
#include "kernels/cuda/sampler/sampler.h"
#include "kernels/cuda/sampler/sampler_config.h"

namespace fathom::kernels::cuda {
namespace {

// Clearing needs its own launch, because other thread blocks may mark ids in the part that a block
// clears.
__global__ void ClearSeenKernel(const SeenArgs a) {
  WaitForPrevious();
  LetNextStart();
  uint16_t* const seen = a.seen + int64_t{a.slot} * a.vocab;
  const int stride = static_cast<int>(gridDim.x * blockDim.x);
  const int first = static_cast<int>(blockIdx.x * blockDim.x + threadIdx.x);
  for (int id = first; id < a.vocab; id += stride) seen[id] = 0;
}

__global__ void MarkSeenKernel(const SeenArgs a) {
  WaitForPrevious();
  LetNextStart();
  const int stride = static_cast<int>(gridDim.x * blockDim.x);
  const int first = static_cast<int>(blockIdx.x * blockDim.x + threadIdx.x);
  for (int i = first; i < a.count; i += stride) {
    const int32_t id = a.ids[i];
    if (id < 0 || id >= a.vocab) continue;
    auto* const at = reinterpret_cast<unsigned short*>(a.seen + int64_t{a.slot} * a.vocab + id);
    unsigned short old = *at, expected;
    do {
      expected = old;
      const uint32_t marked = i < a.prompt_tokens ? expected | kSeenBit : SeenAgain(expected);
      old = atomicCAS(at, expected, static_cast<unsigned short>(marked));
    } while (old != expected);
  }
}

}  // namespace

cudaError_t MarkSeen(const LaunchContext& context, const SeenArgs& args) {
  constexpr int kThreads = 256, kPerThread = 8;
  const auto blocks = [](int count) {
    return dim3((count + kThreads * kPerThread - 1) / (kThreads * kPerThread));
  };
  if (args.vocab <= 0 || args.count < 0) return cudaErrorInvalidValue;
  if (args.clear) {
    const cudaError_t error =
        Launch(context, blocks(args.vocab), dim3(kThreads), 0, ClearSeenKernel, args);
    if (error != cudaSuccess) return error;
  }
  if (args.count == 0) return cudaSuccess;
  return Launch(context, blocks(args.count), dim3(kThreads), 0, MarkSeenKernel, args);
}

}  // namespace fathom::kernels::cuda
