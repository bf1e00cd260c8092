// Finds the canonical algorithms of cuBLASLt for the published shapes and writes the table of
// kernels/cuda/linear/cublas_table.h:
//
//   cublas_table_tool [--shapes 7b,13b,33b-tp2] [--dtype bf16|f16] [--inc FILE]
//
// For each (n, k) and bucket of rows it takes the library's proposals without split-K and compares
// every output bit with ProductGeneric's at the largest, the middle and the smallest number of rows
// of the bucket. It keeps the fastest canonical algorithm that is no slower than ours. FILE gets
// the lines for kernels/cuda/linear/cublas_table.inc. Standard output gets one line of JSON for
// each bucket, with the time of the library's best proposal that may split k: the cost of being
// canonical.
#include <algorithm>
#include <cstring>
#include <string>
#include <vector>

#include "kernels/cuda/linear/cublas_lt.h"
#include "kernels/cuda/linear/product.h"
#include "tests/bench/cuda/gpu_bench.h"

namespace fathom {
namespace {

using gpu_bench::BestMicroseconds;
using gpu_bench::NewRandom;
using kernels::DType;
using kernels::cuda::CublasLt;
using kernels::cuda::LaunchContext;
using kernels::cuda::ProductArgs;

constexpr int kProposals = 16;
constexpr int kSplitProposals = 4;  // Proposals that may split k; the first ones suffice.
constexpr size_t kWorkspaceBytes = 64 << 20;
constexpr int64_t kRotateBytes = 512 << 20;  // Weights of all launches together: more than any L2.

struct Shape {
  const char* model;
  int n, k;
  bool float_out = false;
  bool bias = false;
};
constexpr Shape kShapes[] = {
    {"7b", 12288, 4096},
    {"7b", 4096, 4096},
    {"7b", 22016, 4096},
    {"7b", 4096, 11008},
    {"7b", 102400, 4096, true},
    {"13b", 15360, 5120},
    {"13b", 5120, 5120},
    {"13b", 27648, 5120},
    {"13b", 5120, 13824},
    {"13b", 32000, 5120, true},
    {"33b", 9216, 7168},
    {"33b", 7168, 7168},
    {"33b", 38400, 7168},
    {"33b", 7168, 19200},
    {"33b", 32256, 7168, true},
    {"67b", 10240, 8192},
    {"67b", 8192, 8192},
    {"67b", 44032, 8192},
    {"67b", 8192, 22016},
    {"67b", 102400, 8192, true},
    // One of two ranks.
    {"7b-tp2", 6144, 4096},
    {"7b-tp2", 4096, 2048},
    {"7b-tp2", 11008, 4096},
    {"7b-tp2", 4096, 5504},
    {"7b-tp2", 51200, 4096, true},
    {"33b-tp2", 4608, 7168},
    {"33b-tp2", 7168, 3584},
    {"33b-tp2", 19200, 7168},
    {"33b-tp2", 7168, 9600},
    {"33b-tp2", 16128, 7168, true},
    {"r1-distill-qwen-7b", 4608, 3584, false, true},
    {"r1-distill-qwen-7b", 3584, 3584},
    {"r1-distill-qwen-7b", 37888, 3584},
    {"r1-distill-qwen-7b", 3584, 18944},
    {"r1-distill-qwen-7b", 152064, 3584, true},
    {"r1-distill-llama-8b", 6144, 4096},
    {"r1-distill-llama-8b", 28672, 4096},
    {"r1-distill-llama-8b", 4096, 14336},
    {"r1-distill-llama-8b", 128256, 4096, true},
    {"coder-6.7b", 32256, 4096, true},
};
constexpr int kBuckets[] = {32, 64, 128, 256, 512, 1024, 2048, 4096};
constexpr int kHeadBuckets[] = {16, 64, 256};

__global__ void CountDifferentKernel(const uint4* a, const uint4* b, int64_t pieces,
                                     unsigned long long* different) {
  const int64_t stride = int64_t{gridDim.x} * blockDim.x;
  unsigned long long mine = 0;
  for (int64_t i = int64_t{blockIdx.x} * blockDim.x + threadIdx.x; i < pieces; i += stride) {
    const uint4 x = a[i], y = b[i];
    // Compares bits, which is stricter than ==.
    mine += x.x != y.x || x.y != y.y || x.z != y.z || x.w != y.w;
  }
  if (mine != 0) atomicAdd(different, mine);
}

class Tool {
 public:
  Tool(DType dtype, const std::vector<Shape>& shapes, std::FILE* inc) : dtype_(dtype), inc_(inc) {
    int64_t w = kRotateBytes / 2, x = 0, y_bytes = 0;
    for (const Shape& s : shapes) {
      const int64_t rows = s.float_out ? kHeadBuckets[2] : kBuckets[7];
      w = std::max(w, int64_t{s.n} * s.k);
      x = std::max(x, rows * s.k);
      y_bytes = std::max(y_bytes, rows * s.n * (s.float_out ? 4 : 2));
    }
    w_elements_ = w;
    // Not every bf16 bit pattern is a finite fp16, so each type has its own values.
    w_ = dtype == DType::kBf16 ? static_cast<void*>(NewRandom<__nv_bfloat16>(w, 0.05f, 1))
                               : static_cast<void*>(NewRandom<__half>(w, 0.05f, 1));
    x_ = dtype == DType::kBf16 ? static_cast<void*>(NewRandom<__nv_bfloat16>(x, 1.0f, 2))
                               : static_cast<void*>(NewRandom<__half>(x, 1.0f, 2));
    bias_ = NewRandom<float>(1 << 18, 1.0f, 3);
    BENCH_CUDA(cudaMalloc(&want_, static_cast<size_t>(y_bytes)));
    BENCH_CUDA(cudaMalloc(&got_, static_cast<size_t>(y_bytes)));
    BENCH_CUDA(cudaMalloc(&workspace_, kWorkspaceBytes));
    BENCH_CUDA(cudaMalloc(&different_, sizeof(unsigned long long)));
    BENCH_CUDA(cudaStreamCreate(&stream_));
    context_ = gpu_bench::MakeContext(stream_, false);
    std::string error;
    cublas_ = CublasLt::Create(workspace_, kWorkspaceBytes, &error);
    if (cublas_ == nullptr) {
      std::fprintf(stderr, "%s\n", error.c_str());
      std::exit(69);
    }
  }

  void Run(const Shape& shape) {
    int rows_min = 1;
    if (shape.float_out) {
      for (const int rows_max : kHeadBuckets) RunBucket(shape, &rows_min, rows_max);
    } else {
      for (const int rows_max : kBuckets) RunBucket(shape, &rows_min, rows_max);
    }
  }

 private:
  ProductArgs Args(const Shape& s, int rows, void* y) const {
    ProductArgs args;
    args.dtype = dtype_;
    args.w = w_, args.x = x_, args.y = y;
    args.bias = s.bias ? bias_ : nullptr;
    args.float_out = s.float_out;
    args.rows = rows, args.n = s.n, args.k = s.k;
    return args;
  }

  // Whether an algorithm gives our bits at these rows; `want_` has ours.
  bool SameBits(const Shape& s, int rows, const kernels::cuda::CublasAlgo& algo) {
    const int64_t bytes = int64_t{rows} * s.n * (s.float_out ? 4 : 2);
    BENCH_CUDA(cudaMemsetAsync(got_, 0xFF, static_cast<size_t>(bytes), stream_));
    BENCH_CUDA(cudaMemsetAsync(different_, 0, sizeof(unsigned long long), stream_));
    if (cublas_->Matmul(context_, Args(s, rows, got_), algo) != cudaSuccess) return false;
    CountDifferentKernel<<<1024, 256, 0, stream_>>>(
        static_cast<const uint4*>(want_), static_cast<const uint4*>(got_), bytes / 16, different_);
    BENCH_CUDA(cudaGetLastError());
    unsigned long long different = 1;
    BENCH_CUDA(cudaMemcpyAsync(&different, different_, sizeof(different), cudaMemcpyDeviceToHost,
                               stream_));
    BENCH_CUDA(cudaStreamSynchronize(stream_));
    return different == 0;
  }

  // Calls `launch(args)` with different weights in turn.
  template <class F>
  double Time(const Shape& s, int rows, F launch) {
    const double elements = double(s.n) * s.k;
    const double expected_us = std::max(2e-6 * rows * elements / 6e2, 1e-6 * elements * 2 / 3.0);
    const int launches = std::clamp(static_cast<int>(1500 / expected_us), 2, 24);
    const int sets = static_cast<int>(std::max<int64_t>(1, w_elements_ / (int64_t{s.n} * s.k)));
    return BestMicroseconds(stream_, launches, 3, [&](int i) {
      ProductArgs args = Args(s, rows, got_);
      args.w = static_cast<const char*>(w_) + int64_t{i % sets} * s.n * s.k * 2;
      return launch(args);
    });
  }

  struct Found {
    kernels::cuda::CublasAlgo algo = {};
    double us = -1;
    int canonical = 0;
    int proposals = 0;
  };
  Found FindCanonical(const Shape& s, int rows_min, int rows_max) {
    const auto proposals = cublas_->Candidates(Args(s, rows_max, got_), false, kProposals);
    std::vector<bool> same(proposals.size(), true);
    for (const int rows : {rows_max, (rows_min + rows_max) / 2 + 1, rows_min}) {
      BENCH_CUDA(kernels::cuda::ProductGeneric(context_, Args(s, rows, want_)));
      for (size_t i = 0; i < proposals.size(); ++i) {
        same[i] = same[i] && SameBits(s, rows, proposals[i].algo);
      }
    }
    Found found;
    found.proposals = static_cast<int>(proposals.size());
    for (size_t i = 0; i < proposals.size(); ++i) {
      if (!same[i]) continue;
      ++found.canonical;
      const double us = TimeAlgo(s, rows_max, proposals[i].algo);
      if (us > 0 && (found.us < 0 || us < found.us)) found.us = us, found.algo = proposals[i].algo;
    }
    return found;
  }

  double TimeAlgo(const Shape& s, int rows, const kernels::cuda::CublasAlgo& algo) {
    return Time(s, rows,
                [&](const ProductArgs& args) { return cublas_->Matmul(context_, args, algo); });
  }

  void RunBucket(const Shape& s, int* rows_min, int rows_max) {
    const Found found = FindCanonical(s, *rows_min, rows_max);
    double best_us = found.us;
    for (const auto& any : cublas_->Candidates(Args(s, rows_max, got_), true, kSplitProposals)) {
      const double us = TimeAlgo(s, rows_max, any.algo);
      if (us > 0 && (best_us < 0 || us < best_us)) best_us = us;
    }
    const double generic_us = Time(s, rows_max, [&](const ProductArgs& args) {
      return kernels::cuda::ProductGeneric(context_, args);
    });
    std::printf(
        "{\"id\":\"product\",\"model\":\"%s\",\"n\":%d,\"k\":%d,\"rows\":%d,"
        "\"float_out\":%s,\"bias\":%s,\"canonical_us\":%.2f,\"best_us\":%.2f,"
        "\"generic_us\":%.2f,\"canonical\":%d,\"proposals\":%d,\"unit\":\"us\"}\n",
        s.model, s.n, s.k, rows_max, s.float_out ? "true" : "false", s.bias ? "true" : "false",
        found.us, best_us, generic_us, found.canonical, found.proposals);
    std::fflush(stdout);
    if (inc_ != nullptr && found.us > 0 && found.us <= generic_us) {
      WriteLine(s, *rows_min, rows_max, found.algo);
    }
    *rows_min = rows_max + 1;
  }

  void WriteLine(const Shape& s, int rows_min, int rows_max,
                 const kernels::cuda::CublasAlgo& algo) {
    std::fprintf(inc_, "{{%d, %d, %s, %d, %d, %s, %s}, %d, %d, {", context_.sm, cublas_->Version(),
                 dtype_ == DType::kBf16 ? "kBf16" : "kF16", s.n, s.k,
                 s.float_out ? "true" : "false", s.bias ? "true" : "false", rows_min, rows_max);
    for (size_t i = 0; i < algo.size(); ++i) {
      std::fprintf(inc_, "%s0x%llx", i == 0 ? "" : ", ", static_cast<unsigned long long>(algo[i]));
    }
    std::fprintf(inc_, "}},\n");
    std::fflush(inc_);
  }

  DType dtype_;
  std::FILE* inc_;
  int64_t w_elements_ = 0;
  void *w_ = nullptr, *x_ = nullptr, *want_ = nullptr, *got_ = nullptr, *workspace_ = nullptr;
  float* bias_ = nullptr;
  unsigned long long* different_ = nullptr;
  cudaStream_t stream_ = nullptr;
  LaunchContext context_;
  std::unique_ptr<CublasLt> cublas_;
};

bool InList(const std::string& list, const std::string& name) {
  for (size_t begin = 0; begin <= list.size();) {
    const size_t end = std::min(list.find(',', begin), list.size());
    if (list.compare(begin, end - begin, name) == 0) return true;
    begin = end + 1;
  }
  return false;
}

int Main(int argc, char** argv) {
  std::string list = "7b,13b,33b", dtype = "bf16", inc_file;
  for (int i = 1; i < argc; ++i) {
    const bool has_value = i + 1 < argc;
    if (has_value && std::strcmp(argv[i], "--shapes") == 0) {
      list = argv[++i];
    } else if (has_value && std::strcmp(argv[i], "--dtype") == 0) {
      dtype = argv[++i];
    } else if (has_value && std::strcmp(argv[i], "--inc") == 0) {
      inc_file = argv[++i];
    } else {
      std::fprintf(stderr, "usage: %s [--shapes 7b,13b,33b] [--dtype bf16|f16] [--inc FILE]\n",
                   argv[0]);
      return 64;
    }
  }
  std::vector<Shape> shapes;
  for (const Shape& s : kShapes) {
    if (InList(list, s.model)) shapes.push_back(s);
  }
  if (shapes.empty() || (dtype != "bf16" && dtype != "f16")) {
    std::fprintf(stderr, "no such shapes or dtype: '%s', '%s'\n", list.c_str(), dtype.c_str());
    return 64;
  }
  std::FILE* inc = inc_file.empty() ? nullptr : std::fopen(inc_file.c_str(), "w");
  if (!inc_file.empty() && inc == nullptr) {
    std::fprintf(stderr, "%s cannot be written\n", inc_file.c_str());
    return 66;
  }
  Tool tool(dtype == "bf16" ? DType::kBf16 : DType::kF16, shapes, inc);
  for (const Shape& s : shapes) tool.Run(s);
  if (inc != nullptr) std::fclose(inc);
  return 0;
}

}  // namespace
}  // namespace fathom

int main(int argc, char** argv) { return fathom::Main(argc, argv); }
