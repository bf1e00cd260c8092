// tests/bench/cuda/layer_bench.cu: measures a layer of decoding as the worker launches it: norms,
// GEMMs, and attention over 290 tokens for each row. Prints microseconds by rows for several ways
// to launch it, measured alternately: norms at the ends of GEMMs
// (kernels/cuda/linear/norm_after.h) or separate; the ring of o (and of qkv) with all shared memory
// of a multiprocessor or beside a thread block of attention. Launches overlap and are in one graph;
// all weights are distinct, many times more than L2 holds.
//
//   layer_bench [--model 7B|13B|33B] [--rows N,...]
#include <algorithm>
#include <cstring>
#include <iterator>
#include <limits>
#include <numeric>
#include <optional>
#include <string>
#include <vector>

#include "kernels/cuda/attention/decode_attention.h"
#include "kernels/cuda/attention/decode_attention_config.h"
#include "kernels/cuda/linear/medium.h"
#include "kernels/cuda/linear/skinny.h"
#include "kernels/cuda/rows/rmsnorm.h"
#include "tests/bench/cuda/gpu_bench.h"

namespace fathom::gpu_bench {
namespace {

namespace cuda = kernels::cuda;
using T = __nv_bfloat16;
using kernels::DType;

struct Model {
  const char* name;
  int hidden, ffn, heads, kv_heads;
};
constexpr Model kModels[] = {
    {"7B", 4096, 11008, 32, 32}, {"13B", 5120, 13824, 40, 40}, {"33B", 7168, 19200, 56, 8}};
constexpr int kHeadDim = 128, kRowsMax = 128, kLength = 290, kContext = 512;
constexpr int kBlocks = 5;  // KV blocks of a row.
constexpr int64_t kWeightBytes = int64_t{3} << 30;
constexpr int kRounds = 3;

enum Op { kQkv, kO, kGateUp, kDown, kOps };

struct Variant {
  const char* name;
  bool norm_after, o_beside, qkv_beside;
};
constexpr Variant kVariants[] = {{"norm_alone", false, true, false},
                                 {"norm_after", true, true, false},
                                 {"norm_after, o alone", true, false, false},
                                 {"norm_after, qkv too", true, true, true}};

struct Layer {
  const T* w[kOps];
  const T *keys, *values;
  std::optional<cuda::SkinnyWeight> skinny[kOps], beside[kOps];
  std::optional<cuda::MediumWeight> medium[kOps];
};

template <class V>
V* Upload(const std::vector<V>& values) {
  V* memory = nullptr;
  BENCH_CUDA(cudaMalloc(&memory, values.size() * sizeof(V)));
  BENCH_CUDA(cudaMemcpy(memory, values.data(), values.size() * sizeof(V), cudaMemcpyHostToDevice));
  return memory;
}
template <class V>
V* Zeros(int64_t count) {
  return Upload(std::vector<V>(static_cast<size_t>(count)));
}

class Bench {
 public:
  explicit Bench(const Model& model) : m_(model) {
    BENCH_CUDA(cudaStreamCreate(&stream_));
    context_ = MakeContext(stream_, true);
    int shared = 0;
    BENCH_CUDA(cudaDeviceGetAttribute(&shared, cudaDevAttrMaxSharedMemoryPerBlockOptin, 0));
    skinny_ = {context_.sm, context_.sms, shared};
    BENCH_CUDA(cuda::QueryMediumDevice(&medium_));
    n_[kQkv] = (m_.heads + 2 * m_.kv_heads) * kHeadDim, k_[kQkv] = m_.hidden;
    n_[kO] = m_.hidden, k_[kO] = m_.heads * kHeadDim;
    n_[kGateUp] = 2 * m_.ffn, k_[kGateUp] = m_.hidden;
    n_[kDown] = m_.hidden, k_[kDown] = m_.ffn;
    for (int op = 0; op < kOps; ++op) layer_bytes_ += int64_t{2} * n_[op] * k_[op];
    const int64_t plane = int64_t{kRowsMax} * kBlocks * m_.kv_heads * cuda::kBlockTokens * kHeadDim;
    for (int i = 0; i < kWeightBytes / layer_bytes_; ++i) {
      Layer& layer = layers_.emplace_back();
      for (int op = 0; op < kOps; ++op) {
        layer.w[op] = NewRandom<T>(int64_t{n_[op]} * k_[op], 0.02f, 10 * i + op);
      }
      layer.keys = NewRandom<T>(plane, 1.0f, 10 * i + 5);
      layer.values = NewRandom<T>(plane, 1.0f, 10 * i + 6);
    }
    x_ = NewRandom<T>(int64_t{kRowsMax} * m_.hidden, 1.0f, 2);
    normed_ = NewRandom<T>(int64_t{kRowsMax} * m_.hidden, 1.0f, 3);
    q_ = NewRandom<T>(int64_t{kRowsMax} * k_[kO], 1.0f, 4);
    attended_ = NewRandom<T>(int64_t{kRowsMax} * k_[kO], 1.0f, 5);
    ffn_ = NewRandom<T>(int64_t{kRowsMax} * m_.ffn, 1.0f, 6);
    norm_ = NewRandom<float>(m_.hidden, 1.0f, 7);
    angles_ = NewRandom<float>(kContext * kHeadDim / 2, 1.0f, 8);
    counters_ = Zeros<int32_t>(2);
    faults_ = Zeros<int32_t>(kRowsMax);
    arrived_ = Zeros<int32_t>(int64_t{kRowsMax} * m_.heads);
    partial_o_ = Zeros<float>(int64_t{kRowsMax} * k_[kO]);
    partial_ml_ = Zeros<float>(int64_t{kRowsMax} * m_.heads * 2);
    std::vector<int32_t> slots, tables(kRowsMax * kBlocks), segments(kRowsMax + 1);
    std::iota(tables.begin(), tables.end(), 0);
    std::iota(segments.begin(), segments.end(), 0);
    for (int row = 0; row < kRowsMax; ++row) {
      slots.push_back((row * kBlocks + (kLength - 1) / 64) * 64 + (kLength - 1) % 64);
    }
    slots_ = Upload(slots);
    tables_ = Upload(tables);
    segments_ = Upload(segments);
    positions_ = Upload(std::vector<int32_t>(kRowsMax, kLength - 1));
    lengths_ = Upload(std::vector<int32_t>(kRowsMax, kLength));
  }

  void Run(int rows) {
    for (Layer& layer : layers_) Prepare(&layer, rows);
    double best[std::size(kVariants)];
    std::ranges::fill(best, std::numeric_limits<double>::infinity());
    for (int round = 0; round < kRounds; ++round) {
      for (size_t v = 0; v < std::size(kVariants); ++v) {
        const size_t count = layers_.size();
        const double us = BestMicroseconds(stream_, static_cast<int>(4 * count), 5, [&](int at) {
          return LaunchLayer(layers_[static_cast<size_t>(at) % count], rows, kVariants[v]);
        });
        if (us < 0) {
          std::fprintf(stderr, "a launch was refused\n");
          std::exit(70);
        }
        best[v] = std::min(best[v], us);
      }
    }
    for (size_t v = 0; v < std::size(kVariants); ++v) {
      std::printf(
          "{\"id\": \"layer/%s/rows_%d/%s\", \"value\": %.2f, \"unit\": \"us\", "
          "\"weights_tb_s\": %.3f}\n",
          m_.name, rows, kVariants[v].name, best[v],
          static_cast<double>(layer_bytes_) / best[v] * 1e-6);
    }
    std::fflush(stdout);
  }

 private:
  void Prepare(Layer* layer, int rows) {
    const int bucket = rows <= 1 ? 1 : rows <= 8 ? 8 : cuda::kSkinnyRowsMax;
    constexpr cuda::MediumOp kOf[kOps] = {cuda::MediumOp::kQkv, cuda::MediumOp::kResidual,
                                          cuda::MediumOp::kGateUp, cuda::MediumOp::kResidual};
    for (int op = 0; op < kOps; ++op) {
      layer->skinny[op].reset();
      layer->medium[op].reset();
      if (rows > cuda::kSkinnyRowsMax) {
        BENCH_CUDA(cuda::PrepareMedium(kOf[op], medium_, DType::kBf16, layer->w[op], n_[op], k_[op],
                                       &layer->medium[op].emplace()));
        continue;
      }
      const bool normed = op == kQkv || op == kGateUp;
      const auto prepare = [&](const cuda::SkinnyDevice& device, cuda::SkinnyWeight* weight) {
        const auto config = cuda::SkinnyPickConfig({bucket, n_[op], k_[op], normed}, device);
        BENCH_CUDA(cuda::PrepareSkinny(config.value(), DType::kBf16, layer->w[op], n_[op], k_[op],
                                       weight));
      };
      prepare(skinny_, &layer->skinny[op].emplace());
      if (op != kO && op != kQkv) continue;
      const auto attention = cuda::DecodeAttentionPickConfig(m_.heads, m_.kv_heads, kHeadDim);
      prepare(cuda::SkinnyBeside(skinny_, attention.value().shared_bytes),
              &layer->beside[op].emplace());
    }
  }

  cudaError_t Norm(int rows) const {
    return cuda::RmsNorm(context_, {.dtype = DType::kBf16,
                                    .x = x_,
                                    .weight = norm_,
                                    .y = normed_,
                                    .eps = 1e-6f,
                                    .rows = rows,
                                    .width = m_.hidden});
  }
  cuda::KvTarget Kv(const Layer& layer) const {
    return {const_cast<T*>(layer.keys),
            const_cast<T*>(layer.values),
            slots_,
            positions_,
            angles_,
            angles_,
            faults_,
            kRowsMax * kBlocks,
            kContext};
  }

  cudaError_t LaunchLayer(const Layer& layer, int rows, const Variant& variant) const {
    const bool skinny = layer.skinny[kQkv].has_value();
    const bool inside = skinny && layer.skinny[kQkv]->config.fuses_norm;
    const bool alone = !inside && !variant.norm_after;
    const cuda::NormAfter after =
        inside || alone ? cuda::NormAfter{} : cuda::NormAfter{norm_, normed_, 1e-6f, counters_};
    const auto residual = [&](Op op, const T* x) {
      const auto& weight = op == kO && variant.o_beside ? layer.beside[op] : layer.skinny[op];
      return skinny ? cuda::SkinnyResidual(context_, *weight, {x, nullptr, 0, rows}, x_, after)
                    : cuda::MediumResidual(context_, *layer.medium[op], x, rows, x_, after);
    };
    if (alone) BENCH_CUDA(Norm(rows));
    const auto& qkv = variant.qkv_beside ? layer.beside[kQkv] : layer.skinny[kQkv];
    BENCH_CUDA(skinny ? SkinnyQkv(layer, *qkv, rows) : MediumQkv(layer, rows));
    BENCH_CUDA(Attention(layer, rows));
    BENCH_CUDA(residual(kO, attended_));
    if (alone) BENCH_CUDA(Norm(rows));
    BENCH_CUDA(skinny ? cuda::SkinnyGateUp(context_, *layer.skinny[kGateUp],
                                           Input(*layer.skinny[kGateUp], rows), ffn_)
                      : cuda::MediumGateUp(context_, *layer.medium[kGateUp], normed_, rows, ffn_));
    return residual(kDown, ffn_);
  }
  cuda::SkinnyInput Input(const cuda::SkinnyWeight& w, int rows) const {
    return w.config.fuses_norm ? cuda::SkinnyInput{x_, norm_, 1e-6f, rows}
                               : cuda::SkinnyInput{normed_, nullptr, 0, rows};
  }
  cudaError_t SkinnyQkv(const Layer& layer, const cuda::SkinnyWeight& w, int rows) const {
    cuda::SkinnyQkvArgs args;
    args.input = Input(w, rows);
    args.kv = Kv(layer);
    args.q = q_;
    args.heads = m_.heads;
    args.kv_heads = m_.kv_heads;
    args.head_dim = kHeadDim;
    return cuda::SkinnyQkv(context_, w, args);
  }
  cudaError_t MediumQkv(const Layer& layer, int rows) const {
    cuda::MediumQkvArgs args;
    args.x = normed_;
    args.rows = rows;
    args.kv = Kv(layer);
    args.q = q_;
    args.heads = m_.heads;
    args.kv_heads = m_.kv_heads;
    args.head_dim = kHeadDim;
    return cuda::MediumQkv(context_, *layer.medium[kQkv], args);
  }
  cudaError_t Attention(const Layer& layer, int rows) const {
    return cuda::DecodeAttention(context_, {.dtype = DType::kBf16,
                                            .q = q_,
                                            .keys = layer.keys,
                                            .values = layer.values,
                                            .block_tables = tables_,
                                            .lengths = lengths_,
                                            .segment_begin = segments_,
                                            .partial_o = partial_o_,
                                            .partial_ml = partial_ml_,
                                            .arrived = arrived_,
                                            .faults = faults_,
                                            .out = attended_,
                                            .rows = rows,
                                            .heads = m_.heads,
                                            .kv_heads = m_.kv_heads,
                                            .head_dim = kHeadDim,
                                            .table_stride = kBlocks,
                                            .max_segments = 1,
                                            .pool_blocks = kRowsMax * kBlocks});
  }

  const Model m_;
  cudaStream_t stream_ = nullptr;
  cuda::LaunchContext context_;
  cuda::SkinnyDevice skinny_;
  cuda::MediumDevice medium_;
  int n_[kOps], k_[kOps];
  int64_t layer_bytes_ = 0;
  std::vector<Layer> layers_;
  T *x_, *normed_, *q_, *attended_, *ffn_;
  float *norm_, *angles_, *partial_o_, *partial_ml_;
  int32_t *counters_, *faults_, *arrived_, *slots_, *tables_, *segments_, *positions_, *lengths_;
};

std::vector<int> Numbers(const char* list) {
  std::vector<int> numbers;
  for (const char* at = list; at != nullptr; at = std::strchr(at, ',')) {
    if (*at == ',') ++at;
    numbers.push_back(std::atoi(at));
  }
  return numbers;
}

int Main(int argc, char** argv) {
  std::string only_model = "7B";
  std::vector<int> rows = {1, 8, 16, 32, 64, 128};
  for (int i = 1; i + 1 < argc; i += 2) {
    if (std::strcmp(argv[i], "--model") == 0) {
      only_model = argv[i + 1];
    } else if (std::strcmp(argv[i], "--rows") == 0) {
      rows = Numbers(argv[i + 1]);
    } else {
      std::fprintf(stderr, "usage: %s [--model 7B|13B|33B] [--rows N,...]\n", argv[0]);
      return 64;
    }
  }
  for (const Model& model : kModels) {
    if (only_model != model.name) continue;
    Bench bench(model);
    for (const int one : rows) bench.Run(one);
  }
  return 0;
}

}  // namespace
}  // namespace fathom::gpu_bench

int main(int argc, char** argv) { return fathom::gpu_bench::Main(argc, argv); }
