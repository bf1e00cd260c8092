// Measures the limits of the card, from which floors are computed: the rate of a kernel that only
// reads, and of a copy. (tests/gpu/matrix_rate.py measures the rate of GEMMs.)
#include "tests/bench/cuda/gpu_bench.h"

#include <algorithm>

namespace fathom::gpu_bench {
namespace {

constexpr int64_t kBytes = int64_t{4} << 30;  // 80 times the L2.
constexpr int kThreads = 512;
constexpr int kLoads = 8;  // 16-byte loads in flight in each thread.

// Reads all data and writes nothing; the comparison keeps the compiler from removing the loads.
__global__ void __launch_bounds__(kThreads)
    ReadKernel(const uint4* from, int64_t count, unsigned* never) {
  uint4 all = {0, 0, 0, 0};
  const int64_t stride = int64_t{gridDim.x} * blockDim.x;
  int64_t i = int64_t{blockIdx.x} * blockDim.x + threadIdx.x;
  for (; i + (kLoads - 1) * stride < count; i += kLoads * stride) {
    uint4 v[kLoads];
#pragma unroll
    for (int k = 0; k < kLoads; ++k) v[k] = __ldcs(from + i + k * stride);
#pragma unroll
    for (int k = 0; k < kLoads; ++k) {
      all.x ^= v[k].x;
      all.y ^= v[k].y;
      all.z ^= v[k].z;
      all.w ^= v[k].w;
    }
  }
  if ((all.x ^ all.y ^ all.z ^ all.w) == 0x12345u) *never = 1;
}

// Milliseconds of one call: the least of five bursts.
template <class F>
double BestMs(F launch) {
  constexpr int kBurst = 4;
  cudaEvent_t begin, end;
  BENCH_CUDA(cudaEventCreate(&begin));
  BENCH_CUDA(cudaEventCreate(&end));
  launch();
  double best = 1e30;
  for (int repeat = 0; repeat < 5; ++repeat) {
    BENCH_CUDA(cudaEventRecord(begin));
    for (int i = 0; i < kBurst; ++i) launch();
    BENCH_CUDA(cudaEventRecord(end));
    BENCH_CUDA(cudaEventSynchronize(end));
    float ms = 0;
    BENCH_CUDA(cudaEventElapsedTime(&ms, begin, end));
    best = std::min(best, static_cast<double>(ms) / kBurst);
  }
  return best;
}

int Main() {
  float* from = NewRandom<float>(kBytes / 4, 1.0f, 1);
  float* to = nullptr;
  unsigned* never = nullptr;
  BENCH_CUDA(cudaMalloc(&to, kBytes));
  BENCH_CUDA(cudaMalloc(&never, sizeof *never));
  int sms = 0;
  BENCH_CUDA(cudaDeviceGetAttribute(&sms, cudaDevAttrMultiProcessorCount, 0));
  double read_ms = 1e30;
  for (const int blocks_per_sm : {1, 2, 4, 8, 16}) {
    read_ms = std::min(read_ms, BestMs([&] {
                         ReadKernel<<<sms * blocks_per_sm, kThreads>>>(
                             reinterpret_cast<const uint4*>(from), kBytes / 16, never);
                         BENCH_CUDA(cudaGetLastError());
                       }));
  }
  const double copy_ms = BestMs(
      [&] { BENCH_CUDA(cudaMemcpyAsync(to, from, kBytes, cudaMemcpyDeviceToDevice, nullptr)); });
  std::printf("{\"id\": \"read_tbs\", \"value\": %.4f, \"unit\": \"TB/s\"}\n",
              static_cast<double>(kBytes) / read_ms / 1e9);
  std::printf("{\"id\": \"copy_tbs\", \"value\": %.4f, \"unit\": \"TB/s\"}\n",
              2.0 * static_cast<double>(kBytes) / copy_ms / 1e9);
  return 0;
}

}  // namespace
}  // namespace fathom::gpu_bench

int main() { return fathom::gpu_bench::Main(); }
