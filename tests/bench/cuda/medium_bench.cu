// Measures GEMMs of up to 128 rows (kernels/cuda/linear/medium.h): microseconds of a launch in a
// graph over weights that no cache holds, one line of JSON each.
//
//   medium_bench [TILE/CLUSTER[/STAGES],...]
// It measures each shape with the picked configuration, then with each of these tiles that its op
// has, clusters, and stages of x (0: the picked number).
#include <algorithm>
#include <cstring>
#include <optional>
#include <string>
#include <vector>

#include "kernels/cuda/linear/medium.h"
#include "tests/bench/cuda/gpu_bench.h"

namespace fathom::kernels::cuda {
namespace {

using gpu_bench::BestMicroseconds;
using gpu_bench::NewRandom;

struct Shape {
  const char* name;
  MediumOp op;
  int n, k, heads, kv_heads;
};

constexpr Shape kShapes[] = {{"7b qkv", MediumOp::kQkv, 12288, 4096, 32, 32},
                             {"7b o", MediumOp::kResidual, 4096, 4096, 0, 0},
                             {"7b gate_up", MediumOp::kGateUp, 22016, 4096, 0, 0},
                             {"7b down", MediumOp::kResidual, 4096, 11008, 0, 0},
                             {"7b head", MediumOp::kHead, 102400, 4096, 0, 0},
                             {"33b qkv", MediumOp::kQkv, 9216, 7168, 56, 8},
                             {"33b o", MediumOp::kResidual, 7168, 7168, 0, 0},
                             {"33b gate_up", MediumOp::kGateUp, 38400, 7168, 0, 0},
                             {"33b down", MediumOp::kResidual, 7168, 19200, 0, 0}};
constexpr int kHeadDim = 128;
constexpr int kPoolBlocks = 256;
constexpr int kContext = 512;

// Tile 0 stands for the picked configuration.
struct Variant {
  int tile = 0, cluster = 0, x_stages = 0;
};

struct Buffers {
  void *x, *out, *keys, *values;
  int32_t *slots, *positions, *faults;
  float *cos, *sin;
};

class Bench {
 public:
  Bench() {
    cudaStream_t stream = nullptr;
    BENCH_CUDA(cudaStreamCreate(&stream));
    context_ = gpu_bench::MakeContext(stream, true);
    BENCH_CUDA(QueryMediumDevice(&device_));
    buffers_.x = NewRandom<__nv_bfloat16>(int64_t{128} * 19200, 1.0f, 1);
    BENCH_CUDA(cudaMalloc(&buffers_.out, int64_t{128} * 102400 * 4));
    BENCH_CUDA(cudaMemset(buffers_.out, 0, int64_t{128} * 102400 * 4));
    const int64_t plane = int64_t{kPoolBlocks} * 56 * 64 * kHeadDim * 2;
    BENCH_CUDA(cudaMalloc(&buffers_.keys, plane));
    BENCH_CUDA(cudaMalloc(&buffers_.values, plane));
    std::vector<int32_t> slots(128), positions(128);
    for (int i = 0; i < 128; ++i) slots[i] = (i + 1) * 64 + i % 64, positions[i] = i;
    Upload(&buffers_.slots, slots);
    Upload(&buffers_.positions, positions);
    Upload(&buffers_.faults, std::vector<int32_t>(128));
    Upload(&buffers_.cos, std::vector<float>(kContext * kHeadDim / 2, 0.5f));
    Upload(&buffers_.sin, std::vector<float>(kContext * kHeadDim / 2, 0.5f));
  }

  void Run(const Shape& shape, const std::vector<Variant>& variants) {
    const int64_t bytes = int64_t{shape.n} * shape.k * 2;
    const int copies = static_cast<int>(std::max<int64_t>(2, (int64_t{700} << 20) / bytes));
    std::vector<__nv_bfloat16*> data;
    for (int i = 0; i < copies; ++i) {
      data.push_back(NewRandom<__nv_bfloat16>(bytes / 2, 0.02f, static_cast<uint64_t>(i) + 2));
    }
    for (const int rows : {32, 64, 128}) {
      for (const Variant& variant : variants) {
        const auto config = ConfigOf(variant, {shape.op, rows, shape.n, shape.k});
        if (!config) continue;
        std::vector<MediumWeight> weights(data.size());
        for (size_t i = 0; i < data.size(); ++i) {
          BENCH_CUDA(PrepareMediumWith(shape.op, {*config, *config}, DType::kBf16, data[i], shape.n,
                                       shape.k, &weights[i]));
        }
        const double us = BestMicroseconds(context_.stream, copies * 4, 5, [&](int i) {
          return Launch(shape, weights[static_cast<size_t>(i) % weights.size()], rows);
        });
        std::printf(
            "{\"id\":\"medium/%s/rows_%d\",\"value\":%.2f,\"unit\":\"us\",\"tb_s\":%.3f,"
            "\"config\":\"%s\"}\n",
            shape.name, rows, us, static_cast<double>(bytes) / us * 1e-6,
            ToString(weights[0].ConfigFor(rows)).c_str());
        std::fflush(stdout);
      }
    }
    for (void* one : data) BENCH_CUDA(cudaFree(one));
  }

 private:
  std::optional<MediumConfig> ConfigOf(const Variant& variant, const MediumShape& shape) const {
    if (variant.tile == 0) return MediumPickConfig(shape, device_);
    const auto tiles = MediumTiles(shape.op);
    if (std::ranges::find(tiles, variant.tile) == tiles.end()) return std::nullopt;
    const auto config = MediumWithTile(shape, device_, variant.tile, variant.cluster);
    if (!config || variant.x_stages == 0) return config;
    return MediumWithStages(*config, device_, variant.x_stages);
  }

  template <class T>
  static void Upload(T** to, const std::vector<T>& values) {
    BENCH_CUDA(cudaMalloc(to, values.size() * sizeof(T)));
    BENCH_CUDA(cudaMemcpy(*to, values.data(), values.size() * sizeof(T), cudaMemcpyHostToDevice));
  }

  cudaError_t Launch(const Shape& shape, const MediumWeight& weight, int rows) {
    switch (shape.op) {
      case MediumOp::kQkv: {
        MediumQkvArgs args;
        args.x = buffers_.x;
        args.rows = rows;
        args.kv = {buffers_.keys,      buffers_.values, buffers_.slots,
                   buffers_.positions, buffers_.cos,    buffers_.sin,
                   buffers_.faults,    kPoolBlocks,     kContext};
        args.q = buffers_.out;
        args.heads = shape.heads;
        args.kv_heads = shape.kv_heads;
        args.head_dim = kHeadDim;
        return MediumQkv(context_, weight, args);
      }
      case MediumOp::kResidual:
        return MediumResidual(context_, weight, buffers_.x, rows, buffers_.out);
      case MediumOp::kGateUp:
        return MediumGateUp(context_, weight, buffers_.x, rows, buffers_.out);
      case MediumOp::kHead:
        return MediumHead(context_, weight, buffers_.x, rows, static_cast<float*>(buffers_.out));
    }
    return cudaErrorInvalidValue;
  }

  LaunchContext context_;
  MediumDevice device_;
  Buffers buffers_ = {};
};

int Main(int argc, char** argv) {
  std::vector<Variant> variants(1);
  if (argc > 1) {
    for (char* part = std::strtok(argv[1], ","); part; part = std::strtok(nullptr, ",")) {
      Variant v;
      if (std::sscanf(part, "%d/%d/%d", &v.tile, &v.cluster, &v.x_stages) < 2) {
        std::fprintf(stderr, "medium_bench: %s is not TILE/CLUSTER[/STAGES]\n", part);
        return 64;
      }
      variants.push_back(v);
    }
  }
  Bench bench;
  for (const int cluster : {2, 4, 8}) {
    int clusters = 0;
    BENCH_CUDA(MediumClustersAtOnce(cluster, &clusters));
    std::printf("{\"id\":\"medium/clusters_of_%d\",\"value\":%d,\"unit\":\"at once\"}\n", cluster,
                clusters);
  }
  for (const Shape& shape : kShapes) bench.Run(shape, variants);
  return 0;
}

}  // namespace
}  // namespace fathom::kernels::cuda

int main(int argc, char** argv) { return fathom::kernels::cuda::Main(argc, argv); }
