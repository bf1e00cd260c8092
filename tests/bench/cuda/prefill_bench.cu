// Measures prefill attention by wgmma: one causal sequence, or several, with 128 dims, bf16, pages
// of 64 in random order. prefill_bench prints one line of JSON for each shape; `value` is for short
// bursts on a cool card (the best of three after a pause), `hot` is after 0.3 s of load.
#include <algorithm>
#include <chrono>
#include <numeric>
#include <random>
#include <thread>
#include <vector>

#include "kernels/cuda/attention/prefill_attention.h"
#include "tests/bench/cuda/gpu_bench.h"

namespace fathom::gpu_bench {
namespace {

using kernels::cuda::kBlockTokens;
using kernels::cuda::PrefillAttentionArgs;
using kernels::cuda::PrefillChunk;
using Element = __nv_bfloat16;

struct Case {
  const char* id;
  int heads, kv_heads, tokens, sequences;
};

template <class T>
T* Upload(const std::vector<T>& values) {
  T* memory = nullptr;
  BENCH_CUDA(cudaMalloc(&memory, values.size() * sizeof(T)));
  BENCH_CUDA(cudaMemcpy(memory, values.data(), values.size() * sizeof(T), cudaMemcpyHostToDevice));
  return memory;
}

// Milliseconds of a launch, averaged over `count` launches.
template <class F>
double Time(cudaStream_t stream, int count, F launch) {
  cudaEvent_t begin, end;
  BENCH_CUDA(cudaEventCreate(&begin));
  BENCH_CUDA(cudaEventCreate(&end));
  BENCH_CUDA(cudaEventRecord(begin, stream));
  for (int i = 0; i < count; ++i) BENCH_CUDA(launch());
  BENCH_CUDA(cudaEventRecord(end, stream));
  BENCH_CUDA(cudaEventSynchronize(end));
  float ms = 0;
  BENCH_CUDA(cudaEventElapsedTime(&ms, begin, end));
  BENCH_CUDA(cudaEventDestroy(begin));
  BENCH_CUDA(cudaEventDestroy(end));
  return ms / count;
}

template <class F>
double Burst(cudaStream_t stream, int launches, F launch) {
  BENCH_CUDA(cudaStreamSynchronize(stream));
  std::this_thread::sleep_for(std::chrono::milliseconds(300));
  Time(stream, 1, launch);
  double best = 1e30;
  for (int i = 0; i < 3; ++i) best = std::min(best, Time(stream, launches, launch));
  return best;
}

template <class F>
double Hot(cudaStream_t stream, F launch) {
  const double once = Time(stream, 2, launch);
  Time(stream, std::max(1, static_cast<int>(300 / once)), launch);
  return Time(stream, std::max(2, static_cast<int>(200 / once)), launch);
}

void Run(cudaStream_t stream, const Case& c) {
  const int pages = (c.tokens + kBlockTokens - 1) / kBlockTokens;
  const int rows = c.tokens * c.sequences, pool = pages * c.sequences + 5;
  std::vector<int32_t> order(pool);
  std::iota(order.begin(), order.end(), 0);
  std::mt19937_64 random(1);
  std::shuffle(order.begin(), order.end(), random);
  std::vector<PrefillChunk> chunks;
  for (int s = 0; s < c.sequences; ++s) chunks.push_back({s * c.tokens, c.tokens, 0, s});
  const int64_t plane = int64_t{pool} * c.kv_heads * kBlockTokens * 128;
  const int64_t activations = int64_t{rows} * c.heads * 128;
  auto* q = NewRandom<Element>(activations, 1, 1);
  auto* out = NewRandom<Element>(activations, 1, 2);
  auto* keys = NewRandom<Element>(plane, 1, 3);
  auto* values = NewRandom<Element>(plane, 1, 4);
  int32_t* table = Upload(order);
  int32_t* zeros = Upload(std::vector<int32_t>(2 + rows));
  PrefillChunk* device_chunks = Upload(chunks);
  PrefillAttentionArgs a;
  a.q = q;
  a.keys = keys;
  a.values = values;
  a.block_tables = table;
  a.chunks = chunks;
  a.device_chunks = device_chunks;
  a.work_counter = zeros;
  a.faults = zeros + 2;
  a.out = out;
  a.total_rows = rows;
  a.heads = c.heads;
  a.kv_heads = c.kv_heads;
  a.head_dim = 128;
  a.table_stride = pages;
  a.pool_blocks = pool;
  const auto context = MakeContext(stream, false);
  const auto launch = [&] { return PrefillAttentionWgmma(context, a); };
  const double flops = 4.0 * 128 * c.heads * c.tokens * (c.tokens / 2.0) * c.sequences;
  const double cool = Burst(stream, flops < 1e11 ? 20 : 3, launch), hot = Hot(stream, launch);
  std::printf(
      "{\"id\": \"%s\", \"value\": %.1f, \"unit\": \"TFLOP/s\", \"hot\": %.1f, "
      "\"us\": %.1f, \"heads\": %d, \"kv_heads\": %d, \"tokens\": %d, \"sequences\": %d}\n",
      c.id, flops / cool / 1e9, flops / hot / 1e9, cool * 1e3, c.heads, c.kv_heads, c.tokens,
      c.sequences);
  std::fflush(stdout);
  for (void* p : {static_cast<void*>(q), static_cast<void*>(out), static_cast<void*>(keys),
                  static_cast<void*>(values), static_cast<void*>(table), static_cast<void*>(zeros),
                  static_cast<void*>(device_chunks)}) {
    BENCH_CUDA(cudaFree(p));
  }
}

}  // namespace
}  // namespace fathom::gpu_bench

int main() {
  cudaStream_t stream;
  BENCH_CUDA(cudaStreamCreate(&stream));
  for (const fathom::gpu_bench::Case& c : {
           fathom::gpu_bench::Case{"attn_prefill_4k_tflops", 32, 32, 4096, 1},
           {"attn_prefill_16k_tflops", 32, 32, 16384, 1},
           {"attn_prefill_2k_tflops", 32, 32, 2048, 1},
           {"attn_prefill_512_tflops", 32, 32, 512, 1},
           {"attn_prefill_8x512_tflops", 32, 32, 512, 8},
           {"attn_prefill_gqa_4k_tflops", 56, 8, 4096, 1},
           {"attn_prefill_gqa_16k_tflops", 56, 8, 16384, 1},
       }) {
    fathom::gpu_bench::Run(stream, c);
  }
  return 0;
}
