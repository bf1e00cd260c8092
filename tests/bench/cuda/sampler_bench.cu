// sampler_bench [vocab]: microseconds of one launch of the sampler, by rows and parameters. Logits
// alternate between sets that together exceed the L2 cache, as after a GEMM that wrote many rows.
// For one row a single set is measured too, because a decode step leaves it in the cache.
#include <cuda_runtime.h>

#include <algorithm>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <vector>

#include "kernels/cuda/sampler/sampler.h"

namespace {

namespace cuda = fathom::kernels::cuda;

void Check(cudaError_t error, const char* what) {
  if (error == cudaSuccess) return;
  std::fprintf(stderr, "%s: %s\n", what, cudaGetErrorString(error));
  std::exit(1);
}
#define CHECK_CUDA(expression) Check(expression, #expression)

template <class T>
T* Allocate(int64_t count) {
  void* p = nullptr;
  CHECK_CUDA(cudaMalloc(&p, static_cast<size_t>(count) * sizeof(T)));
  CHECK_CUDA(cudaMemset(p, 0, static_cast<size_t>(count) * sizeof(T)));
  return static_cast<T*>(p);
}
template <class T>
T* Upload(const std::vector<T>& values) {
  T* p = Allocate<T>(static_cast<int64_t>(values.size()));
  CHECK_CUDA(cudaMemcpy(p, values.data(), values.size() * sizeof(T), cudaMemcpyHostToDevice));
  return p;
}

// About normally distributed with deviation 3, like the logits of a model.
__global__ void FillKernel(float* to, int64_t count) {
  const int64_t stride = int64_t{gridDim.x} * blockDim.x;
  for (int64_t i = int64_t{blockIdx.x} * blockDim.x + threadIdx.x; i < count; i += stride) {
    uint64_t z = static_cast<uint64_t>(i + 1) * 0x9E3779B97F4A7C15ull;
    z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9ull;
    z = (z ^ (z >> 27)) * 0x94D049BB133111EBull;
    z ^= z >> 31;
    float sum = 0;
    for (int part = 0; part < 4; ++part) {
      sum += static_cast<float>((z >> (16 * part)) & 0xFFFF) * (1.0f / 65536.0f);
    }
    to[i] = (sum - 2.0f) * 1.7320508f * 3.0f;
  }
}

struct Mode {
  const char* name;
  cuda::SamplerSlot slot;
  int logprobs;
};

constexpr int kRowsMax = 256;
constexpr int kLaunches = 40;

class Bench {
 public:
  explicit Bench(int vocab) : vocab_(vocab) {
    CHECK_CUDA(cudaStreamCreate(&context_.stream));
    context_.dependent = true;
    int major = 0, minor = 0;
    CHECK_CUDA(cudaDeviceGetAttribute(&major, cudaDevAttrComputeCapabilityMajor, 0));
    CHECK_CUDA(cudaDeviceGetAttribute(&minor, cudaDevAttrComputeCapabilityMinor, 0));
    CHECK_CUDA(cudaDeviceGetAttribute(&context_.sms, cudaDevAttrMultiProcessorCount, 0));
    context_.sm = major * 10 + minor;
    const int64_t logits = int64_t{2} * kRowsMax * vocab;  // Two sets of 256 rows.
    args_.vocab = vocab;
    args_.slots_count = kRowsMax;
    float* values = Allocate<float>(logits);
    FillKernel<<<1024, 256, 0, context_.stream>>>(values, logits);
    CHECK_CUDA(cudaGetLastError());
    args_.logits.slices[0] = values;
    args_.bias_ids = args_.end_ids = Allocate<int32_t>(1);
    args_.bias_values = Allocate<float>(1);
    args_.seen = Allocate<uint16_t>(int64_t{kRowsMax} * vocab);
    args_.slot_tokens = Allocate<int32_t>(kRowsMax);
    args_.slot_faults = Allocate<int32_t>(kRowsMax);
    args_.faults = Allocate<int32_t>(kRowsMax);
    args_.out = Allocate<cuda::SampleOut>(kRowsMax);
  }

  void Run(const Mode& mode, int rows, bool in_cache) {
    std::vector<cuda::SamplerSlot> slots(kRowsMax, mode.slot);
    for (size_t i = 0; i < slots.size(); ++i) slots[i].seed = 1000 + i;
    args_.slots = Upload(slots);
    args_.count = rows;
    const int sets = in_cache ? 1 : 2 * kRowsMax / rows;
    std::vector<cuda::SampleRow*> asked;
    for (int set = 0; set < std::min(sets, kLaunches); ++set) {
      std::vector<cuda::SampleRow> list;
      for (int i = 0; i < rows; ++i) list.push_back({set * rows + i, i, i, 17, -1, mode.logprobs});
      asked.push_back(Upload(list));
    }
    cudaGraph_t graph = nullptr;
    cudaGraphExec_t exec = nullptr;
    CHECK_CUDA(cudaStreamBeginCapture(context_.stream, cudaStreamCaptureModeThreadLocal));
    for (int i = 0; i < kLaunches; ++i) {
      args_.rows = asked[static_cast<size_t>(i) % asked.size()];
      CHECK_CUDA(cuda::Sample(context_, args_));
    }
    CHECK_CUDA(cudaStreamEndCapture(context_.stream, &graph));
    CHECK_CUDA(cudaGraphInstantiate(&exec, graph, 0));
    const float best_ms = BestOf5(exec);
    std::printf(
        "{\"id\":\"sampler/%s/rows%d%s\",\"value\":%.2f,\"unit\":\"us\",\"vocab\":%d,"
        "\"logits_gb_per_s\":%.0f}\n",
        mode.name, rows, in_cache ? "/in_l2" : "", best_ms * 1e3 / kLaunches, vocab_,
        4.0 * rows * vocab_ * kLaunches / (best_ms * 1e6));
    CHECK_CUDA(cudaGraphExecDestroy(exec));
    CHECK_CUDA(cudaGraphDestroy(graph));
    for (cuda::SampleRow* rows_list : asked) CHECK_CUDA(cudaFree(rows_list));
    CHECK_CUDA(cudaFree(const_cast<cuda::SamplerSlot*>(args_.slots)));
  }

 private:
  float BestOf5(cudaGraphExec_t exec) {
    cudaEvent_t begin = nullptr, end = nullptr;
    CHECK_CUDA(cudaEventCreate(&begin));
    CHECK_CUDA(cudaEventCreate(&end));
    float best = 1e30f;
    for (int i = 0; i < 6; ++i) {  // The first is a warm-up.
      CHECK_CUDA(cudaEventRecord(begin, context_.stream));
      CHECK_CUDA(cudaGraphLaunch(exec, context_.stream));
      CHECK_CUDA(cudaEventRecord(end, context_.stream));
      CHECK_CUDA(cudaEventSynchronize(end));
      float ms = 0;
      CHECK_CUDA(cudaEventElapsedTime(&ms, begin, end));
      if (i > 0) best = std::min(best, ms);
    }
    CHECK_CUDA(cudaEventDestroy(begin));
    CHECK_CUDA(cudaEventDestroy(end));
    return best;
  }

  fathom::kernels::cuda::LaunchContext context_;
  cuda::SamplerArgs args_;
  int vocab_;
};

}  // namespace

int main(int argc, char** argv) {
  Bench bench(argc > 1 ? std::atoi(argv[1]) : 102400);
  const Mode modes[] = {
      {"greedy", {.params = {.temperature = 0}}, -1},
      {"temperature", {.params = {.temperature = 0.8f}}, -1},
      {"top_k50_top_p0.9", {.params = {.temperature = 0.8f, .top_k = 50, .top_p = 0.9f}}, -1},
      {"top_p0.95", {.params = {.temperature = 1, .top_p = 0.95f}}, -1},
      {"min_p0.05", {.params = {.temperature = 1, .min_p = 0.05f}}, -1},
      {"typical_p0.9", {.params = {.temperature = 1, .typical_p = 0.9f}}, -1},
      {"greedy_penalized",
       {.params = {.temperature = 0, .repetition_penalty = 1.1f}, .penalized = 1},
       -1},
      {"greedy_logprobs5", {.params = {.temperature = 0}}, 5},
  };
  for (const Mode& mode : modes) {
    bench.Run(mode, 1, true);
    for (const int rows : {1, 8, 64, 256}) bench.Run(mode, rows, false);
  }
  return 0;
}
