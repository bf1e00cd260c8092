// Measures what canonical arithmetic costs in GEMMs: for the 7B shape, for steps of 1, 8, 64, 128
// and 256 rows and a prompt of 2,048. Each GEMM runs as in the decoder (fused up to 16 and up to
// 128 rows; above that cuBLASLt's compared algorithms or our own kernel) and is compared with the
// fastest of 16 proposals of cuBLASLt that may split k and have 64 MiB of workspace. If ours is
// fused, the other side computes only the GEMM. The norm, rotary embedding, KV write, silu * mul
// and residual that it would still need are not counted, which is in its favour.
//
// The output is one line of JSON for each GEMM: ours_us is for launches as the engine makes them
// (programmatic dependent launch), alone_us for launches one after the other. The weights of the
// launches together are larger than any L2. Ours and the best proposal are timed alternately, and
// the least time counts. tests/gpu/gpu_rows.py (canonical_costs) makes the table rows.
#include <algorithm>
#include <limits>
#include <numeric>
#include <string>
#include <vector>

#include "kernels/cuda/linear/cublas_lt.h"
#include "kernels/cuda/linear/medium.h"
#include "kernels/cuda/linear/product.h"
#include "kernels/cuda/linear/skinny.h"
#include "tests/bench/cuda/gpu_bench.h"

namespace fathom::gpu_bench {
namespace {

namespace cuda = kernels::cuda;
using Element = __nv_bfloat16;
using kernels::DType;

constexpr int kHidden = 4096, kFfn = 11008, kHeads = 32, kHeadDim = 128, kVocab = 102400;
constexpr int kRowsMax = 2048, kFusedRowsMax = cuda::kMediumRowsMax;
constexpr int kContext = 512;
constexpr int kProposals = 16;
constexpr int kRounds = 3;
constexpr size_t kWorkspaceBytes = 64 << 20;
constexpr int64_t kWeights = int64_t{512} << 20;  // Elements: 1 GiB.

struct Step {
  const char* name;
  int rows, samples;
};
constexpr Step kSteps[] = {{"decode", 1, 1},     {"decode", 8, 8},     {"decode", 64, 64},
                           {"decode", 128, 128}, {"decode", 256, 256}, {"prefill", 2048, 1}};

enum class Op { kQkv, kO, kGateUp, kDown, kHead };
struct Shape {
  const char* name;
  Op op;
  int n, k;
};
constexpr Shape kShapes[] = {{"qkv", Op::kQkv, 3 * kHidden, kHidden},
                             {"o", Op::kO, kHidden, kHidden},
                             {"gate_up", Op::kGateUp, 2 * kFfn, kHidden},
                             {"down", Op::kDown, kHidden, kFfn},
                             {"head", Op::kHead, kVocab, kHidden}};

cuda::MediumOp MediumOpOf(Op op) {
  if (op == Op::kQkv) return cuda::MediumOp::kQkv;
  if (op == Op::kGateUp) return cuda::MediumOp::kGateUp;
  return op == Op::kHead ? cuda::MediumOp::kHead : cuda::MediumOp::kResidual;
}

template <class T>
T* Upload(const std::vector<T>& values) {
  T* memory = nullptr;
  BENCH_CUDA(cudaMalloc(&memory, values.size() * sizeof(T)));
  BENCH_CUDA(cudaMemcpy(memory, values.data(), values.size() * sizeof(T), cudaMemcpyHostToDevice));
  return memory;
}

class Bench {
 public:
  Bench() {
    BENCH_CUDA(cudaStreamCreate(&stream_));
    const cuda::LaunchContext context = MakeContext(stream_, false);
    skinny_.sm = context.sm;
    skinny_.sms = context.sms;
    BENCH_CUDA(
        cudaDeviceGetAttribute(&skinny_.shared_bytes, cudaDevAttrMaxSharedMemoryPerBlockOptin, 0));
    BENCH_CUDA(cuda::QueryMediumDevice(&medium_));
    weights_ = NewRandom<Element>(kWeights, 0.02f, 1);
    x_ = NewRandom<Element>(int64_t{kRowsMax} * kFfn, 1.0f, 2);
    norm_ = NewRandom<float>(kHidden, 1.0f, 3);
    // The size of the widest output: [2048][gate and up], [256][vocabulary] fp32.
    BENCH_CUDA(cudaMalloc(&y_, int64_t{256} * kVocab * sizeof(float)));
    BENCH_CUDA(cudaMemset(y_, 0, int64_t{256} * kVocab * sizeof(float)));
    const int64_t plane = int64_t{kFusedRowsMax} * kHeads * cuda::kBlockTokens * kHeadDim;
    kv_.keys = NewRandom<Element>(plane, 1.0f, 4);
    kv_.values = NewRandom<Element>(plane, 1.0f, 5);
    kv_.cos = NewRandom<float>(kContext * kHeadDim / 2, 1.0f, 6);
    kv_.sin = NewRandom<float>(kContext * kHeadDim / 2, 1.0f, 7);
    std::vector<int32_t> slots(kFusedRowsMax), ids(kFusedRowsMax);
    std::iota(ids.begin(), ids.end(), 0);
    // Each row has its own block, as in decoding.
    for (const int i : ids) slots[i] = i * cuda::kBlockTokens + 289 % cuda::kBlockTokens;
    kv_.kv_slots = Upload(slots);
    kv_.positions = Upload(std::vector<int32_t>(kFusedRowsMax, 289));
    kv_.faults = Upload(std::vector<int32_t>(kFusedRowsMax));
    kv_.pool_blocks = kFusedRowsMax;
    kv_.context = kContext;
    gather_ = Upload(ids);
    void* workspace = nullptr;
    BENCH_CUDA(cudaMalloc(&workspace, kWorkspaceBytes));
    std::string error;
    cublas_ = cuda::CublasLt::Create(workspace, kWorkspaceBytes, &error);
    if (cublas_ == nullptr) {
      std::fprintf(stderr, "%s\n", error.c_str());
      std::exit(69);
    }
  }

  void Run(const Step& step, const Shape& s) {
    const int rows = s.op == Op::kHead ? step.samples : step.rows;
    const std::string how = Prepare(s, rows);
    const auto ours = [&](bool dependent) {
      const auto context = MakeContext(stream_, dependent);
      return Time(s, rows, 5, [&](int set) { return Ours(context, s, rows, set); });
    };
    const Other other = FindOther(s, rows);
    const double none = std::numeric_limits<double>::infinity();
    double ours_us = none, alone_us = none, other_us = none;
    for (int round = 0; round < kRounds; ++round) {
      ours_us = Least(ours_us, ours(true));
      other_us = Least(other_us, TimeAlgo(s, rows, 5, other.candidate.algo));
      alone_us = Least(alone_us, ours(false));
    }
    std::printf(
        "{\"id\": \"canonical\", \"step\": \"%s\", \"rows\": %d, \"op\": \"%s\", "
        "\"value\": %.2f, \"unit\": \"%%\", \"ours_us\": %.2f, \"alone_us\": %.2f, "
        "\"other_us\": %.2f, \"op_rows\": %d, \"how\": \"%s\", \"other_split_k\": %d, "
        "\"other_reduction\": %d, \"other_workspace\": %zu, \"proposals\": %d}\n",
        step.name, step.rows, s.name, (ours_us / other_us - 1) * 100, ours_us, alone_us, other_us,
        rows, how.c_str(), other.candidate.split_k, other.candidate.reduction,
        other.candidate.workspace_bytes, other.proposals);
    std::fflush(stdout);
  }

 private:
  struct Other {
    cuda::CublasLt::Candidate candidate;
    int proposals = 0;
  };

  // A refused launch ends the program, because a sum without it would be wrong.
  static double Least(double before, double us) {
    if (us < 0) {
      std::fprintf(stderr, "a launch was refused\n");
      std::exit(70);
    }
    return std::min(before, us);
  }
  static int Sets(const Shape& s) { return static_cast<int>(kWeights / (int64_t{s.n} * s.k)); }
  const Element* Weights(const Shape& s, int set) const {
    return weights_ + int64_t{set} * s.n * s.k;
  }

  // Makes the tensor maps of each set, as the worker does after loading. Returns which kernel the
  // rows use.
  std::string Prepare(const Shape& s, int rows) {
    skinny_weights_.clear();
    medium_weights_.clear();
    const int bucket = rows <= 1 ? 1 : rows <= 8 ? 8 : cuda::kSkinnyRowsMax;
    const bool normed = s.op != Op::kO && s.op != Op::kDown;
    const auto config = cuda::SkinnyPickConfig({bucket, s.n, s.k, normed}, skinny_);
    if (rows <= bucket && config && (s.op != Op::kHead || config->fuses_norm)) {
      for (int set = 0; set < Sets(s); ++set) {
        BENCH_CUDA(cuda::PrepareSkinny(*config, DType::kBf16, Weights(s, set), s.n, s.k,
                                       &skinny_weights_.emplace_back()));
      }
      return "skinny " + ToString(*config);
    }
    if (rows > kFusedRowsMax) return "plain";
    for (int set = 0; set < Sets(s); ++set) {
      if (cuda::PrepareMedium(MediumOpOf(s.op), medium_, DType::kBf16, Weights(s, set), s.n, s.k,
                              &medium_weights_.emplace_back()) != cudaSuccess) {
        medium_weights_.clear();
        return "plain";
      }
    }
    return "medium " + ToString(medium_weights_[0].ConfigFor(rows));
  }

  cuda::ProductArgs Args(const Shape& s, int rows, int set) const {
    cuda::ProductArgs args;
    args.w = Weights(s, set);
    args.x = x_;
    args.y = y_;
    args.float_out = s.op == Op::kHead;
    args.rows = rows;
    args.n = s.n;
    args.k = s.k;
    return args;
  }

  cudaError_t Ours(const cuda::LaunchContext& context, const Shape& s, int rows, int set) const {
    if (!skinny_weights_.empty()) {
      return Skinny(context, s.op, skinny_weights_[static_cast<size_t>(set)], rows);
    }
    if (!medium_weights_.empty()) {
      return Medium(context, s.op, medium_weights_[static_cast<size_t>(set)], rows);
    }
    return cuda::Product(context, cublas_.get(), Args(s, rows, set));
  }

  cudaError_t Skinny(const cuda::LaunchContext& context, Op op, const cuda::SkinnyWeight& w,
                     int rows) const {
    const float* norm = w.config.fuses_norm ? norm_ : nullptr;
    const cuda::SkinnyInput input{x_, norm, 1e-6f, rows};
    if (op == Op::kQkv) {
      cuda::SkinnyQkvArgs args;
      args.input = input;
      args.kv = kv_;
      args.q = y_;
      args.heads = args.kv_heads = kHeads;
      args.head_dim = kHeadDim;
      return cuda::SkinnyQkv(context, w, args);
    }
    if (op == Op::kGateUp) return cuda::SkinnyGateUp(context, w, input, y_);
    if (op == Op::kHead) {
      return cuda::SkinnyHead(context, w, input, gather_, static_cast<float*>(y_));
    }
    return cuda::SkinnyResidual(context, w, {x_, nullptr, 0, rows}, y_);
  }

  cudaError_t Medium(const cuda::LaunchContext& context, Op op, const cuda::MediumWeight& w,
                     int rows) const {
    if (op == Op::kQkv) {
      cuda::MediumQkvArgs args;
      args.x = x_;
      args.rows = rows;
      args.kv = kv_;
      args.q = y_;
      args.heads = args.kv_heads = kHeads;
      args.head_dim = kHeadDim;
      return cuda::MediumQkv(context, w, args);
    }
    if (op == Op::kGateUp) return cuda::MediumGateUp(context, w, x_, rows, y_);
    if (op == Op::kHead) return cuda::MediumHead(context, w, x_, rows, static_cast<float*>(y_));
    return cuda::MediumResidual(context, w, x_, rows, y_);
  }

  // Microseconds of launch(set), using the sets in turn.
  template <class F>
  double Time(const Shape& s, int rows, int repeats, F launch) const {
    const double elements = double(s.n) * s.k;
    const double expected_us = std::max(2e-6 * rows * elements / 6e2, 2e-6 * elements / 3.0);
    const int launches = std::clamp(static_cast<int>(3000 / expected_us), 4, 64);
    return BestMicroseconds(stream_, launches, repeats, [&](int i) { return launch(i % Sets(s)); });
  }
  double TimeAlgo(const Shape& s, int rows, int repeats, const cuda::CublasAlgo& algo) const {
    const auto context = MakeContext(stream_, false);
    return Time(s, rows, repeats,
                [&](int set) { return cublas_->Matmul(context, Args(s, rows, set), algo); });
  }

  Other FindOther(const Shape& s, int rows) const {
    Other best;
    double best_us = std::numeric_limits<double>::infinity();
    for (const auto& candidate : cublas_->Candidates(Args(s, rows, 0), true, kProposals)) {
      const double us = TimeAlgo(s, rows, 2, candidate.algo);
      ++best.proposals;
      if (us > 0 && us < best_us) best_us = us, best.candidate = candidate;
    }
    return best;
  }

  cudaStream_t stream_ = nullptr;
  cuda::SkinnyDevice skinny_;
  cuda::MediumDevice medium_;
  std::unique_ptr<cuda::CublasLt> cublas_;
  Element *weights_ = nullptr, *x_ = nullptr;
  void* y_ = nullptr;
  float* norm_ = nullptr;
  int32_t* gather_ = nullptr;
  cuda::KvTarget kv_;
  std::vector<cuda::SkinnyWeight> skinny_weights_;
  std::vector<cuda::MediumWeight> medium_weights_;
};

int Main() {
  Bench bench;
  for (const Step& step : kSteps) {
    for (const Shape& shape : kShapes) bench.Run(step, shape);
  }
  return 0;
}

}  // namespace
}  // namespace fathom::gpu_bench

int main() { return fathom::gpu_bench::Main(); }
