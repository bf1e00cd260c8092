// tests/bench/cuda/gpu_bench.h: helpers for programs that measure the CUDA ops: the device, memory
// with random values, and the time of launches in a graph. A CUDA error ends the program with 70.
#pragma once

#include <cuda_bf16.h>
#include <cuda_fp16.h>
#include <cuda_runtime.h>

#include <algorithm>
#include <cstdint>
#include <cstdio>
#include <cstdlib>

#include "kernels/cuda/base/launch.h"

#define BENCH_CUDA(expression)                                                 \
  do {                                                                         \
    const cudaError_t cuda_error_ = (expression);                              \
    if (cuda_error_ != cudaSuccess) {                                          \
      std::fprintf(stderr, "%s:%d: %s: %s\n", __FILE__, __LINE__, #expression, \
                   cudaGetErrorString(cuda_error_));                           \
      std::exit(70);                                                           \
    }                                                                          \
  } while (0)

namespace fathom::gpu_bench {

inline kernels::cuda::LaunchContext MakeContext(cudaStream_t stream, bool dependent) {
  kernels::cuda::LaunchContext context;
  int major = 0, minor = 0;
  BENCH_CUDA(cudaDeviceGetAttribute(&major, cudaDevAttrComputeCapabilityMajor, 0));
  BENCH_CUDA(cudaDeviceGetAttribute(&minor, cudaDevAttrComputeCapabilityMinor, 0));
  BENCH_CUDA(cudaDeviceGetAttribute(&context.sms, cudaDevAttrMultiProcessorCount, 0));
  context.sm = major * 10 + minor;
  context.stream = stream;
  context.dependent = dependent;
  return context;
}

// About normally distributed, by index: the same values in every run.
template <class T>
__global__ void FillKernel(T* to, int64_t count, float deviation, uint64_t seed) {
  const int64_t stride = int64_t{gridDim.x} * blockDim.x;
  for (int64_t i = int64_t{blockIdx.x} * blockDim.x + threadIdx.x; i < count; i += stride) {
    uint64_t z = seed + static_cast<uint64_t>(i + 1) * 0x9E3779B97F4A7C15ull;
    z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9ull;
    z = (z ^ (z >> 27)) * 0x94D049BB133111EBull;
    z ^= z >> 31;
    int sum = 0;
    for (int part = 0; part < 4; ++part) sum += static_cast<int>((z >> (16 * part)) & 0xFFFF);
    to[i] = T((static_cast<float>(sum) * (1.0f / 65536.0f) - 2.0f) * 1.7320508f * deviation);
  }
}
template <class T>
T* NewRandom(int64_t count, float deviation, uint64_t seed) {
  T* memory = nullptr;
  BENCH_CUDA(cudaMalloc(&memory, static_cast<size_t>(count) * sizeof(T)));
  FillKernel<T><<<2048, 256>>>(memory, count, deviation, seed);
  BENCH_CUDA(cudaGetLastError());
  BENCH_CUDA(cudaDeviceSynchronize());
  return memory;
}

// Microseconds of one of the `launches` calls launch(0), launch(1), ... captured into a graph: the
// best of `repeats` runs after a warm-up run. Less than 0 if a launch is refused.
template <class F>
double BestMicroseconds(cudaStream_t stream, int launches, int repeats, F launch) {
  cudaGraph_t graph = nullptr;
  cudaGraphExec_t exec = nullptr;
  cudaError_t error = cudaSuccess;
  // A first call may load code, which is not allowed during a capture, so it is made before.
  if (launch(0) != cudaSuccess) return -1;
  BENCH_CUDA(cudaStreamSynchronize(stream));
  BENCH_CUDA(cudaStreamBeginCapture(stream, cudaStreamCaptureModeRelaxed));
  for (int i = 0; i < launches && error == cudaSuccess; ++i) error = launch(i);
  const cudaError_t ended = cudaStreamEndCapture(stream, &graph);
  if (error != cudaSuccess || ended != cudaSuccess) {
    cudaGetLastError();
    if (graph != nullptr) BENCH_CUDA(cudaGraphDestroy(graph));
    return -1;
  }
  BENCH_CUDA(cudaGraphInstantiate(&exec, graph, 0));
  cudaEvent_t begin, end;
  BENCH_CUDA(cudaEventCreate(&begin));
  BENCH_CUDA(cudaEventCreate(&end));
  float best_ms = 1e30f;
  for (int r = 0; r <= repeats; ++r) {
    BENCH_CUDA(cudaEventRecord(begin, stream));
    BENCH_CUDA(cudaGraphLaunch(exec, stream));
    BENCH_CUDA(cudaEventRecord(end, stream));
    BENCH_CUDA(cudaEventSynchronize(end));
    float ms = 0;
    BENCH_CUDA(cudaEventElapsedTime(&ms, begin, end));
    if (r > 0) best_ms = std::min(best_ms, ms);
  }
  BENCH_CUDA(cudaEventDestroy(begin));
  BENCH_CUDA(cudaEventDestroy(end));
  BENCH_CUDA(cudaGraphExecDestroy(exec));
  BENCH_CUDA(cudaGraphDestroy(graph));
  return 1e3 * best_ms / launches;
}

}  // namespace fathom::gpu_bench
