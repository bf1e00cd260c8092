#include "kernels/cuda/base/canon.cuh"
#include "kernels/cuda/sampler/sampler.h"
#include "kernels/cuda/sampler/sampler_config.h"
#include "kernels/cuda/sampler/sampler_thinking.cuh"

namespace fathom::kernels::cuda {
namespace {

constexpr int kOutWords = sizeof(SampleOut) / 4;
constexpr int kApplyThreads = 256;

// A warp copies a row.
__global__ void __launch_bounds__(kApplyThreads)
    ApplySamplesKernel(const __grid_constant__ ApplySamplesArgs a) {
  WaitForPrevious();
  LetNextStart();
  const int warps = static_cast<int>(gridDim.x) * (kApplyThreads / 32);
  const int lane = static_cast<int>(threadIdx.x) % 32;
  int row = static_cast<int>(blockIdx.x * (kApplyThreads / 32) + threadIdx.x / 32);
  for (; row < a.count; row += warps) {
    const int from = row % a.ranks;
    const SampleRow ask = a.rows[row];
    if (from == a.rank || ask.logits_row < 0) continue;
    // The loads bypass L1, which may hold the result of an earlier step.
    const auto* const words = reinterpret_cast<const uint32_t*>(a.outs[from] + row);
    for (int i = lane; i < kOutWords; i += 32) {
      reinterpret_cast<uint32_t*>(a.out + row)[i] = __ldcg(words + i);
    }
    if (lane != 0 || ask.target == kTargetDrafted) continue;
    const auto token = static_cast<int32_t>(__ldcg(words + offsetof(SampleOut, token) / 4));
    const auto fault = static_cast<int32_t>(__ldcg(words + offsetof(SampleOut, fault) / 4));
    if (fault != 0) atomicOr(a.slot_faults + ask.slot, fault);
    if (ask.target >= 0) continue;
    a.slot_tokens[ask.slot] = fault == 0 ? token : 0;
    if (fault == 0) NoteThinking(a.slot_thinking, ask, token);
    if (fault == 0 && a.slots[ask.slot].penalized != 0) {
      uint16_t* const seen = a.seen + int64_t{ask.slot} * a.vocab + token;
      *seen = SeenAgain(*seen);
    }
  }
}

}  // namespace

cudaError_t ApplySamples(const LaunchContext& context, const ApplySamplesArgs& args) {
  if (args.ranks < 1 || args.ranks > kLogitsSlicesMax || args.count < 0 || args.vocab <= 0) {
    return cudaErrorInvalidValue;
  }
  if (args.ranks == 1 || args.count == 0) return cudaSuccess;
  constexpr int kRows = kApplyThreads / 32;
  const auto blocks = static_cast<unsigned>((args.count + kRows - 1) / kRows);
  return Launch(context, dim3(blocks), dim3(kApplyThreads), 0, ApplySamplesKernel, args);
}

}  // namespace fathom::kernels::cuda
