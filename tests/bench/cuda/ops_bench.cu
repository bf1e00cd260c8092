// Measures the unfused CUDA ops: bytes per second of those that only move memory, and the tiles of
// ProductGeneric.
//
//   ops_bench
//
// It prints one line of JSON for each measurement. Norm, rotary embedding and silu * mul are
// measured at 1 and 2,048 rows of the 7B shape.
#include <algorithm>
#include <vector>

#include "kernels/cuda/linear/product_tile.h"
#include "kernels/cuda/rows/non_finite.h"
#include "kernels/cuda/rows/rmsnorm.h"
#include "kernels/cuda/rows/rope_kv_write.h"
#include "kernels/cuda/rows/silu_mul.h"
#include "tests/bench/cuda/gpu_bench.h"

namespace fathom {
namespace {

using gpu_bench::BestMicroseconds;
using gpu_bench::NewRandom;
using kernels::DType;
using kernels::cuda::LaunchContext;
using T = __nv_bfloat16;

constexpr int kRowsMost = 2048, kHidden = 4096, kFfn = 11008, kHeads = 32, kHeadDim = 128;
constexpr int64_t kElements = int64_t{1} << 29;  // 1 GiB, used in turn.
constexpr int kLaunches = 24;

void PrintBandwidth(const char* op, int rows, double us, double bytes) {
  std::printf("{\"id\":\"%s\",\"rows\":%d,\"value\":%.2f,\"unit\":\"us\",\"gb_per_s\":%.0f}\n", op,
              rows, us, bytes / us * 1e-3);
}

struct Memory {
  T* in = NewRandom<T>(kElements, 1.0f, 1);
  T* out = NewRandom<T>(kElements, 1.0f, 2);
  float* weight = NewRandom<float>(kHidden, 1.0f, 3);
  float* table = NewRandom<float>(int64_t{kRowsMost} * kHeadDim, 1.0f, 4);
  int32_t *slots = nullptr, *positions = nullptr, *faults = nullptr;
  uint64_t* first = nullptr;

  // The offset of piece i of a size; the pieces do not fit into L2 together.
  static int64_t Offset(int i, int64_t elements) {
    return i % std::max<int64_t>(1, kElements / elements) * elements;
  }
};

void BenchNorm(const LaunchContext& context, const Memory& m, int rows) {
  const int64_t size = int64_t{rows} * kHidden;
  for (const bool residual : {false, true}) {
    const double us = BestMicroseconds(context.stream, kLaunches, 5, [&](int i) {
      T* x = m.in + Memory::Offset(2 * i, size);
      return kernels::cuda::RmsNorm(
          context, {DType::kBf16, x, residual ? m.in + Memory::Offset(2 * i + 1, size) : nullptr,
                    m.weight, nullptr, m.out + Memory::Offset(i, size), 1e-6f, rows, kHidden});
    });
    PrintBandwidth(residual ? "rmsnorm_residual" : "rmsnorm", rows, us,
                   2.0 * static_cast<double>(size) * (residual ? 4 : 2));
  }
}

void BenchSilu(const LaunchContext& context, const Memory& m, int rows) {
  const int64_t size = int64_t{rows} * kFfn;
  const double us = BestMicroseconds(context.stream, kLaunches, 5, [&](int i) {
    return kernels::cuda::SiluMul(context, {DType::kBf16, m.in + Memory::Offset(i, 2 * size),
                                            m.out + Memory::Offset(i, size), rows, kFfn});
  });
  PrintBandwidth("silu_mul", rows, us, 2.0 * static_cast<double>(size) * 3);
}

void BenchRope(const LaunchContext& context, const Memory& m, int rows) {
  const int64_t plane = int64_t{kRowsMost} * kHeads * kHeadDim;  // A block for each 64 rows.
  kernels::cuda::RopeKvWriteArgs args;
  args.rows = rows, args.heads = args.kv_heads = kHeads, args.head_dim = kHeadDim;
  args.kv.kv_slots = m.slots, args.kv.positions = m.positions, args.kv.faults = m.faults;
  args.kv.cos = args.kv.sin = m.table;
  args.kv.pool_blocks = kRowsMost / kernels::cuda::kBlockTokens, args.kv.context = kRowsMost;
  const double us = BestMicroseconds(context.stream, kLaunches, 5, [&](int i) {
    args.qkv = m.in + Memory::Offset(i, 3 * plane);
    args.kv.keys = m.out + Memory::Offset(3 * i, plane);
    args.kv.values = m.out + Memory::Offset(3 * i + 1, plane);
    args.q = m.out + Memory::Offset(3 * i + 2, plane);
    return kernels::cuda::RopeKvWrite(context, args);
  });
  PrintBandwidth("rope_kv_write", rows, us, 2.0 * 6 * rows * kHeads * kHeadDim);
}

void BenchScan(const LaunchContext& context, const Memory& m) {
  const double us = BestMicroseconds(context.stream, 4, 5, [&](int) {
    return kernels::cuda::ScanNonFinite(context, {DType::kBf16, m.in, kElements, 0, m.first});
  });
  PrintBandwidth("scan_non_finite", 0, us, 2.0 * kElements);
}

void BenchProduct(const LaunchContext& context, const Memory& m, int rows, int n, int k) {
  for (const kernels::cuda::ProductTile tile : kernels::cuda::kProductTiles) {
    const kernels::cuda::ProductTileShape shape = ShapeOf(tile);
    if (shape.rows > 4 * rows || rows > 16 * shape.rows) continue;  // A useless combination.
    const double us = BestMicroseconds(context.stream, 6, 5, [&](int i) {
      kernels::cuda::ProductArgs args;
      args.w = m.in + Memory::Offset(i, int64_t{n} * k);
      args.x = m.in;
      args.y = m.out;
      args.rows = rows, args.n = n, args.k = k;
      return kernels::cuda::ProductWithTile(context, args, tile);
    });
    const bool picked = tile == kernels::cuda::PickProductTile(rows, n, context.sms);
    std::printf(
        "{\"id\":\"product_generic\",\"rows\":%d,\"n\":%d,\"k\":%d,\"tile\":\"%dx%d\","
        "\"picked\":%s,\"value\":%.2f,\"unit\":\"us\",\"tflops\":%.1f,\"gb_per_s\":%.0f}\n",
        rows, n, k, shape.rows, shape.n, picked ? "true" : "false", us, 2e-6 * rows * n * k / us,
        2e-3 * n * k / us);
  }
}

int Main() {
  cudaStream_t stream = nullptr;
  BENCH_CUDA(cudaStreamCreate(&stream));
  const LaunchContext context = gpu_bench::MakeContext(stream, true);
  Memory m;
  std::vector<int32_t> rows(kRowsMost);
  for (int i = 0; i < kRowsMost; ++i) rows[i] = i;
  const size_t bytes = sizeof(int32_t) * kRowsMost;
  for (int32_t** p : {&m.slots, &m.positions, &m.faults}) {
    BENCH_CUDA(cudaMalloc(p, bytes));
    BENCH_CUDA(cudaMemcpy(*p, rows.data(), bytes, cudaMemcpyHostToDevice));
  }
  BENCH_CUDA(cudaMalloc(&m.first, sizeof(uint64_t)));
  BENCH_CUDA(cudaMemset(m.first, 0xFF, sizeof(uint64_t)));
  for (const int count : {1, 64, kRowsMost}) {
    BenchNorm(context, m, count);
    BenchSilu(context, m, count);
    BenchRope(context, m, count);
  }
  BenchScan(context, m);
  for (const int count : {1, 16, 32, 64, 128, 512, 2048}) {
    BenchProduct(context, m, count, 12288, 4096);
    BenchProduct(context, m, count, 4096, 4096);
    BenchProduct(context, m, count, 4096, 11008);
  }
  return 0;
}

}  // namespace
}  // namespace fathom

int main() { return fathom::Main(); }
