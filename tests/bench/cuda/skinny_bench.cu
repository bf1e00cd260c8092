// tests/bench/cuda/skinny_bench.cu: measures GEMMs of 1, 8 and 16 rows at the shapes of published
// models: microseconds and TB/s of weights read, for each op alone and for the layers of a whole
// model (all GEMMs, without attention), with launches that overlap and with launches that do not.
// All weights are distinct, many times more than L2 holds.
//
//   skinny_bench [--sweep] [--rows N] [--model 7B|13B|33B]
//
// --sweep measures every sensible (tiles, chunk, shared memory) of each op instead of the picked
// one.
#include "kernels/cuda/linear/skinny.h"

#include <algorithm>
#include <cstring>
#include <string>
#include <vector>

#include "tests/bench/cuda/gpu_bench.h"

namespace fathom::kernels::cuda {
namespace {

using T = __nv_bfloat16;
constexpr int kContext = 64;
constexpr int64_t kWeights = int64_t{3} << 29;  // 3 GiB of bf16.
constexpr int kRepeats = 5;

struct Model {
  const char* name;
  int hidden, ffn, heads, kv_heads, vocab;
};
constexpr Model kModels[] = {{"7B", 4096, 11008, 32, 32, 102400},
                             {"13B", 5120, 13824, 40, 40, 32000},
                             {"33B", 7168, 19200, 56, 8, 32256}};
constexpr int kHeadDim = 128;

enum Op { kQkv, kO, kGateUp, kDown, kHead, kOps };
constexpr const char* kOpNames[kOps] = {"qkv", "o", "gate_up", "down", "head"};

SkinnyShape ShapeOf(const Model& m, Op op, int rows) {
  switch (op) {
    case kQkv:
      return {rows, (m.heads + 2 * m.kv_heads) * kHeadDim, m.hidden, true};
    case kO:
      return {rows, m.hidden, m.heads * kHeadDim, false};
    case kGateUp:
      return {rows, 2 * m.ffn, m.hidden, true};
    case kDown:
      return {rows, m.hidden, m.ffn, false};
    default:
      return {rows, m.vocab, m.hidden, true};
  }
}
double BytesOf(const SkinnyShape& s) { return 2.0 * s.n * s.k; }

struct Bench {
  cudaStream_t stream = nullptr;
  SkinnyDevice device;
  T* weights = nullptr;
  T *x = nullptr, *q = nullptr, *y = nullptr, *kv = nullptr;
  float *norm = nullptr, *angles = nullptr, *logits = nullptr;
  int32_t *slots = nullptr, *positions = nullptr, *faults = nullptr, *gather = nullptr;

  template <class V>
  static V* Zeros(int64_t count) {
    V* memory = nullptr;
    BENCH_CUDA(cudaMalloc(&memory, static_cast<size_t>(count) * sizeof(V)));
    BENCH_CUDA(cudaMemset(memory, 0, static_cast<size_t>(count) * sizeof(V)));
    return memory;
  }
  Bench() {
    BENCH_CUDA(cudaStreamCreate(&stream));
    const LaunchContext context = gpu_bench::MakeContext(stream, false);
    device.sm = context.sm;
    device.sms = context.sms;
    BENCH_CUDA(
        cudaDeviceGetAttribute(&device.shared_bytes, cudaDevAttrMaxSharedMemoryPerBlockOptin, 0));
    weights = gpu_bench::NewRandom<T>(kWeights, 0.02f, 1);
    x = gpu_bench::NewRandom<T>(16 * 8192, 1.0f, 2);
    q = gpu_bench::NewRandom<T>(16 * 8192, 0.1f, 5);
    y = gpu_bench::NewRandom<T>(16 * 20480, 0.1f, 6);
    kv = Zeros<T>(int64_t{2} * 40 * 64 * kHeadDim);
    norm = gpu_bench::NewRandom<float>(8192, 1.0f, 3);
    angles = gpu_bench::NewRandom<float>(kContext * kHeadDim / 2, 1.0f, 4);
    logits = Zeros<float>(int64_t{16} * 102400);
    slots = Zeros<int32_t>(16);
    positions = Zeros<int32_t>(16);
    faults = Zeros<int32_t>(16);
    gather = Zeros<int32_t>(16);
  }

  // A copy of the op's weights for each `copy`, each in its own memory as far as there is room.
  SkinnyWeight Prepare(const SkinnyConfig& config, const SkinnyShape& s, int64_t at) const {
    SkinnyWeight weight;
    BENCH_CUDA(PrepareSkinny(config, DType::kBf16, weights + at, s.n, s.k, &weight));
    return weight;
  }

  cudaError_t Run(const LaunchContext& context, const Model& m, Op op, const SkinnyWeight& w,
                  int rows) const {
    const SkinnyInput normed{x, w.config.fuses_norm ? norm : nullptr, 1e-6f, rows};
    switch (op) {
      case kQkv: {
        SkinnyQkvArgs args;
        args.input = normed;
        // All rows write the same token, because only the reading of weights is measured.
        args.kv = {
            kv,      kv + int64_t{40} * 64 * kHeadDim, slots, positions, angles, angles, faults, 1,
            kContext};
        args.q = q;
        args.heads = m.heads;
        args.kv_heads = m.kv_heads;
        args.head_dim = kHeadDim;
        return SkinnyQkv(context, w, args);
      }
      case kO:
        return SkinnyResidual(context, w, {q, nullptr, 0, rows}, x);
      case kGateUp:
        return SkinnyGateUp(context, w, normed, y);
      case kDown:
        return SkinnyResidual(context, w, {y, nullptr, 0, rows}, x);
      default:
        return SkinnyHead(context, w, normed, w.config.fuses_norm ? gather : nullptr, logits);
    }
  }

  // Microseconds of one launch.
  double OpUs(const Model& m, Op op, const SkinnyShape& s, const SkinnyConfig& config,
              bool dependent) const {
    const int64_t size = int64_t{s.n} * s.k;
    const int64_t copies = std::min<int64_t>(24, kWeights / size);
    std::vector<SkinnyWeight> all;
    for (int64_t i = 0; i < copies; ++i) all.push_back(Prepare(config, s, i * size));
    const LaunchContext context = gpu_bench::MakeContext(stream, dependent);
    const int launches = static_cast<int>(std::max<int64_t>(copies, 6));
    return gpu_bench::BestMicroseconds(stream, launches, kRepeats, [&](int i) {
      return Run(context, m, op, all[static_cast<size_t>(i % copies)], s.rows);
    });
  }

  // Microseconds of the four GEMMs of a layer, in a chain of layers.
  double LayerUs(const Model& m, int rows, bool dependent, double* bytes) const {
    std::vector<SkinnyWeight> all;
    std::vector<Op> ops;
    int64_t at = 0;
    *bytes = 0;
    for (int layer = 0; layer < 8; ++layer) {
      int64_t layer_size = 0;
      for (int op = kQkv; op < kHead; ++op) {
        const SkinnyShape s = ShapeOf(m, static_cast<Op>(op), rows);
        layer_size += int64_t{s.n} * s.k;
      }
      if (at + layer_size > kWeights) break;
      for (int op = kQkv; op < kHead; ++op) {
        const SkinnyShape s = ShapeOf(m, static_cast<Op>(op), rows);
        all.push_back(Prepare(*SkinnyPickConfig(s, device), s, at));
        ops.push_back(static_cast<Op>(op));
        at += int64_t{s.n} * s.k;
        if (layer == 0) *bytes += BytesOf(s);
      }
    }
    const LaunchContext context = gpu_bench::MakeContext(stream, dependent);
    const int launches = static_cast<int>(all.size()) * 3;
    return 4 * gpu_bench::BestMicroseconds(stream, launches, kRepeats, [&](int i) {
             const size_t j = static_cast<size_t>(i) % all.size();
             return Run(context, m, ops[j], all[j], rows);
           });
  }
};

void Print(const std::string& id, double us, double bytes, bool dependent,
           const std::string& config) {
  std::printf(
      "{\"id\": \"%s\", \"value\": %.2f, \"unit\": \"us\", \"tb_s\": %.3f, \"overlap\": %s, "
      "\"config\": \"%s\"}\n",
      id.c_str(), us, bytes / us * 1e-6, dependent ? "true" : "false", config.c_str());
  std::fflush(stdout);
}

void Measure(const Bench& bench, const Model& m, int rows) {
  const std::string prefix = std::string("skinny/") + m.name + "/rows_" + std::to_string(rows);
  for (const bool dependent : {false, true}) {
    for (int op = 0; op < kOps; ++op) {
      const SkinnyShape s = ShapeOf(m, static_cast<Op>(op), rows);
      const SkinnyConfig config = *SkinnyPickConfig(s, bench.device);
      Print(prefix + "/" + kOpNames[op], bench.OpUs(m, static_cast<Op>(op), s, config, dependent),
            BytesOf(s), dependent, ToString(config));
    }
    double bytes = 0;
    const double us = bench.LayerUs(m, rows, dependent, &bytes);
    Print(prefix + "/layer", us, bytes, dependent, "picked");
  }
}

void Sweep(const Bench& bench, const Model& m, int rows) {
  for (int op = 0; op < kOps; ++op) {
    const SkinnyShape s = ShapeOf(m, static_cast<Op>(op), rows);
    const double floor_us = BytesOf(s) / 3.1e6;
    for (int tiles = 1; tiles <= kSkinnyTilesMax; ++tiles) {
      for (const int chunk : {64, 128, 256, 512}) {
        for (const int shared :
             {(bench.device.shared_bytes + 1024) / 2 - 1024, bench.device.shared_bytes}) {
          for (const bool evict_first : {false, true}) {
            auto config = SkinnyMakeConfig(s, bench.device, tiles, chunk, 0, shared);
            if (!config || config->stages > 24) continue;
            if (SkinnyPredictUs(s, bench.device, *config) > 1.15 * floor_us) continue;
            config->evict_first = evict_first;
            Print(std::string("skinny/sweep/") + m.name + "/rows_" + std::to_string(rows) + "/" +
                      kOpNames[op],
                  bench.OpUs(m, static_cast<Op>(op), s, *config, true), BytesOf(s), true,
                  ToString(*config));
          }
        }
      }
    }
  }
}

int Main(int argc, char** argv) {
  bool sweep = false;
  int only_rows = 0;
  std::string only_model;
  for (int i = 1; i < argc; ++i) {
    if (std::strcmp(argv[i], "--sweep") == 0) {
      sweep = true;
    } else if (std::strcmp(argv[i], "--rows") == 0 && i + 1 < argc) {
      only_rows = std::atoi(argv[++i]);
    } else if (std::strcmp(argv[i], "--model") == 0 && i + 1 < argc) {
      only_model = argv[++i];
    } else {
      std::fprintf(stderr, "usage: %s [--sweep] [--rows N] [--model 7B|13B|33B]\n", argv[0]);
      return 64;
    }
  }
  const Bench bench;
  for (const Model& model : kModels) {
    if (!only_model.empty() && only_model != model.name) continue;
    for (const int rows : {1, 8, 16}) {
      if (only_rows != 0 && rows != only_rows) continue;
      if (sweep) {
        Sweep(bench, model, rows);
      } else {
        Measure(bench, model, rows);
      }
    }
  }
  return 0;
}

}  // namespace
}  // namespace fathom::kernels::cuda

int main(int argc, char** argv) { return fathom::kernels::cuda::Main(argc, argv); }
