// Measures decode attention, including the merge of segments: TB/s of keys and values (each counted
// once) at the shapes of the table, microseconds at those of a 7B step. The launches of a graph use
// different sequences, whose pages are in random order in a pool that is many times larger than L2.
// attention_bench prints one line of JSON for each shape; `overlapped_us` is for launches as the
// engine makes them (programmatic dependent launch).
#include <algorithm>
#include <numeric>
#include <random>
#include <vector>

#include "kernels/cuda/attention/decode_attention.h"
#include "tests/bench/cuda/gpu_bench.h"

namespace fathom::gpu_bench {
namespace {

using kernels::cuda::DecodeAttentionArgs;
using kernels::cuda::kBlockTokens;
using Element = __nv_bfloat16;

constexpr int kHeadDim = 128;
constexpr int kSegmentTokens = 512;
constexpr int64_t kRotateBytes = int64_t{512} << 20;  // The least size of all launches' pages.

struct Case {
  const char* id;
  int sequences, tokens, heads, kv_heads;
  bool rate;  // The value is TB/s; false: microseconds.
};
constexpr Case kCases[] = {
    {"attn_decode_mha_tbs", 32, 4096, 32, 32, true},
    {"attn_decode_gqa_tbs", 32, 4096, 56, 8, true},
    {"attn_decode_1x290", 1, 290, 32, 32, false},
    {"attn_decode_8x290", 8, 290, 32, 32, false},
    {"attn_decode_64x290", 64, 290, 32, 32, false},
    {"attn_decode_128x290", 128, 290, 32, 32, false},
    {"attn_decode_256x290", 256, 290, 32, 32, false},
    {"attn_decode_1x256", 1, 256, 32, 32, false},
    {"attn_decode_1x4096", 1, 4096, 32, 32, false},
    {"attn_decode_256x256", 256, 256, 32, 32, false},
};

template <class T>
T* Upload(const std::vector<T>& values) {
  T* memory = nullptr;
  BENCH_CUDA(cudaMalloc(&memory, values.size() * sizeof(T)));
  BENCH_CUDA(cudaMemcpy(memory, values.data(), values.size() * sizeof(T), cudaMemcpyHostToDevice));
  return memory;
}
template <class T>
T* Zeros(int64_t count) {
  T* memory = nullptr;
  BENCH_CUDA(cudaMalloc(&memory, static_cast<size_t>(count) * sizeof(T)));
  BENCH_CUDA(cudaMemset(memory, 0, static_cast<size_t>(count) * sizeof(T)));
  return memory;
}

// The memory of a case: the pool, and as many sets of sequences as launches.
class Problem {
 public:
  explicit Problem(const Case& c) : case_(c) {
    const int pages = (c.tokens + kBlockTokens - 1) / kBlockTokens;
    const int64_t page = int64_t{c.kv_heads} * kBlockTokens * kHeadDim;
    const int64_t set_bytes = 2 * int64_t{c.sequences} * pages * page * 2;
    sets_ = static_cast<int>(std::max<int64_t>(2, (kRotateBytes + set_bytes - 1) / set_bytes));
    const int segments = (c.tokens + kSegmentTokens - 1) / kSegmentTokens;
    std::vector<int32_t> order(static_cast<size_t>(sets_) * c.sequences * pages);
    std::iota(order.begin(), order.end(), 0);
    std::mt19937_64 random(1);
    std::shuffle(order.begin(), order.end(), random);
    std::vector<int32_t> begins;
    for (int s = 0; s < c.sequences; ++s) begins.push_back(s * segments);
    const int64_t rows = int64_t{c.sequences} * c.heads;
    args_.q = Keep(NewRandom<Element>(rows * kHeadDim, 1, 1));
    args_.keys = Keep(NewRandom<Element>(static_cast<int64_t>(order.size()) * page, 1, 2));
    args_.values = Keep(NewRandom<Element>(static_cast<int64_t>(order.size()) * page, 1, 3));
    tables_ = Keep(Upload(order));
    args_.lengths = Keep(Upload(std::vector<int32_t>(c.sequences, c.tokens)));
    args_.segment_begin = Keep(Upload(begins));
    args_.partial_o = Keep(Zeros<float>(rows * segments * kHeadDim));
    args_.partial_ml = Keep(Zeros<float>(rows * segments * 2));
    args_.arrived = Keep(Zeros<int32_t>(int64_t{c.sequences} * c.kv_heads));
    args_.faults = Keep(Zeros<int32_t>(c.sequences));
    args_.out = Keep(Zeros<Element>(rows * kHeadDim));
    args_.rows = c.sequences;
    args_.heads = c.heads;
    args_.kv_heads = c.kv_heads;
    args_.head_dim = kHeadDim;
    args_.table_stride = pages;
    args_.max_segments = segments;
    args_.pool_blocks = static_cast<int>(order.size());
  }
  ~Problem() {
    for (void* memory : memory_) BENCH_CUDA(cudaFree(memory));
  }
  Problem(const Problem&) = delete;
  Problem& operator=(const Problem&) = delete;

  double Microseconds(cudaStream_t stream, bool dependent) const {
    const auto context = MakeContext(stream, dependent);
    const int launches = sets_ * ((7 + sets_) / sets_);  // At least 8; each set equally often.
    return BestMicroseconds(stream, launches, 20, [&](int i) {
      DecodeAttentionArgs args = args_;
      args.block_tables = tables_ + int64_t{i % sets_} * args.rows * args.table_stride;
      return kernels::cuda::DecodeAttention(context, args);
    });
  }

  // If a row faults, the measurement is meaningless.
  bool Faulted() const {
    std::vector<int32_t> faults(static_cast<size_t>(case_.sequences));
    BENCH_CUDA(cudaMemcpy(faults.data(), args_.faults, faults.size() * 4, cudaMemcpyDeviceToHost));
    return std::any_of(faults.begin(), faults.end(), [](int32_t fault) { return fault != 0; });
  }

 private:
  template <class T>
  T* Keep(T* memory) {
    memory_.push_back(memory);
    return memory;
  }

  const Case case_;
  int sets_ = 0;
  DecodeAttentionArgs args_;
  const int32_t* tables_ = nullptr;
  std::vector<void*> memory_;
};

void Run(cudaStream_t stream, const Case& c) {
  const Problem problem(c);
  const double bytes = 2.0 * 2 * kHeadDim * c.kv_heads * c.tokens * c.sequences;
  const double us = problem.Microseconds(stream, false);
  const double overlapped_us = problem.Microseconds(stream, true);
  if (us < 0 || overlapped_us < 0 || problem.Faulted()) {
    std::fprintf(stderr, "%s: refused, or its rows faulted\n", c.id);
    std::exit(70);
  }
  std::printf(
      "{\"id\": \"%s\", \"value\": %.4f, \"unit\": \"%s\", \"us\": %.2f, "
      "\"overlapped_us\": %.2f, \"tb_s\": %.3f, \"overlapped_tb_s\": %.3f, "
      "\"sequences\": %d, \"tokens\": %d, \"heads\": %d, \"kv_heads\": %d}\n",
      c.id, c.rate ? bytes / us * 1e-6 : us, c.rate ? "TB/s" : "us", us, overlapped_us,
      bytes / us * 1e-6, bytes / overlapped_us * 1e-6, c.sequences, c.tokens, c.heads, c.kv_heads);
  std::fflush(stdout);
}

}  // namespace
}  // namespace fathom::gpu_bench

int main() {
  cudaStream_t stream;
  BENCH_CUDA(cudaStreamCreate(&stream));
  for (const fathom::gpu_bench::Case& c : fathom::gpu_bench::kCases) {
    fathom::gpu_bench::Run(stream, c);
  }
  return 0;
}
