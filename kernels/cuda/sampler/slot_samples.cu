#include "kernels/cuda/sampler/slot_samples.h"

#include <algorithm>

#include "kernels/cuda/base/canon.cuh"

namespace fathom::kernels::cuda {
namespace {

constexpr int kThreads = 128;

// The loads of what earlier kernels wrote bypass L1, which may hold the values of an earlier step.

__global__ void __launch_bounds__(kThreads) PackSamplesKernel(const PackSamplesArgs a) {
  WaitForPrevious();
  LetNextStart();
  const int row = static_cast<int>(blockIdx.x) * kThreads + static_cast<int>(threadIdx.x);
  if (row >= a.count) return;
  const SampleRow ask = a.rows[row];
  SlotSample sample;
  if (ask.logits_row >= 0) {
    sample.slot = ask.slot;
    sample.fault = __ldcg(&a.outs[row].fault);
    if (ask.target < 0) sample.token = sample.fault == 0 ? __ldcg(&a.outs[row].token) : 0;
  }
  a.samples[row] = sample;
}

__global__ void __launch_bounds__(kThreads) TakeSamplesKernel(const TakeSamplesArgs a) {
  WaitForPrevious();
  LetNextStart();
  const int row = static_cast<int>(blockIdx.x) * kThreads + static_cast<int>(threadIdx.x);
  if (row >= a.count) return;
  const int32_t* const words = reinterpret_cast<const int32_t*>(a.samples + row);
  const int32_t slot = __ldcg(words), token = __ldcg(words + 1), fault = __ldcg(words + 2);
  if (slot < 1 || slot >= a.slots_count) return;
  if (static_cast<int32_t>(a.step - __ldcg(a.since + slot)) < 0) return;
  if (fault != 0) atomicOr(a.slot_faults + slot, fault);
  if (token >= 0) a.slot_tokens[slot] = token;
}

__global__ void __launch_bounds__(kThreads) StageFaultsKernel(const StageFaultsArgs a) {
  WaitForPrevious();
  LetNextStart();
  const int row = static_cast<int>(blockIdx.x) * kThreads + static_cast<int>(threadIdx.x);
  if (row < a.faults_count) a.copies[row] = __ldcg(a.faults + row);
  if (row >= a.count) return;
  const SampleRow ask = a.rows[row];
  if (ask.logits_row < 0) return;
  const int32_t fault = __ldcg(a.faults + ask.fault_row) | __ldcg(a.slot_faults + ask.slot);
  if (fault != 0) atomicOr(a.slot_faults + ask.slot, fault);
  a.out[row].token = -1;
  a.out[row].fault = fault;
  a.out[row].logprob = 0;
}

// By atomics, as all kernels change fault words: the next kernel may already do so.
__global__ void __launch_bounds__(kThreads) TakeFaultsKernel(const TakeFaultsArgs a) {
  WaitForPrevious();
  LetNextStart();
  const int row = static_cast<int>(blockIdx.x) * kThreads + static_cast<int>(threadIdx.x);
  if (row >= a.count) return;
  const int32_t fault = __ldcg(a.copies + row);
  if (fault != 0) atomicOr(a.faults + row, fault);
}

template <class Args>
cudaError_t LaunchRows(const LaunchContext& context, void (*kernel)(Args), const Args& args,
                       int count) {
  if (count < 0) return cudaErrorInvalidValue;
  if (count == 0) return cudaSuccess;
  return Launch(context, dim3((count + kThreads - 1) / kThreads), dim3(kThreads), 0, kernel, args);
}

}  // namespace

cudaError_t PackSamples(const LaunchContext& context, const PackSamplesArgs& args) {
  return LaunchRows(context, PackSamplesKernel, args, args.count);
}

cudaError_t TakeSamples(const LaunchContext& context, const TakeSamplesArgs& args) {
  return LaunchRows(context, TakeSamplesKernel, args, args.count);
}

cudaError_t StageFaults(const LaunchContext& context, const StageFaultsArgs& args) {
  if (args.count < 0 || args.faults_count < 0) return cudaErrorInvalidValue;
  return LaunchRows(context, StageFaultsKernel, args, std::max(args.count, args.faults_count));
}

cudaError_t TakeFaults(const LaunchContext& context, const TakeFaultsArgs& args) {
  return LaunchRows(context, TakeFaultsKernel, args, args.count);
}

}  // namespace fathom::kernels::cuda
