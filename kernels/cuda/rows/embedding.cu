#include "kernels/cuda/rows/embedding.h"

#include "kernels/cuda/base/canon.cuh"
#include "kernels/cuda/rows/row_ops_config.h"

namespace fathom::kernels::cuda {
namespace {

constexpr int kThreads = kRowOpThreads;

// A thread block copies one row, 16 bytes per thread at a time.
__global__ void EmbeddingKernel(const EmbeddingArgs a, int row_pieces) {
  WaitForPrevious();
  LetNextStart();
  const int row = blockIdx.x;
  int32_t token = a.tokens[row];
  if (token < 0) {
    const int32_t slot = -1 - token;
    token = !kRowFaults || slot < a.slots ? a.slot_tokens[slot] : -1;
  }
  const bool valid = !kRowFaults || (token >= 0 && token < a.vocab);
  if (!valid && threadIdx.x == 0) atomicOr(a.faults + row, kFaultTokenRange);
  const auto* from = static_cast<const uint4*>(a.table) + int64_t{valid ? token : 0} * row_pieces;
  auto* to = static_cast<uint4*>(a.x) + int64_t{row} * row_pieces;
  for (int i = threadIdx.x; i < row_pieces; i += kThreads) {
    to[i] = valid ? from[i] : make_uint4(0, 0, 0, 0);
  }
}

}  // namespace

cudaError_t Embedding(const LaunchContext& context, const EmbeddingArgs& args) {
  const auto config = EmbeddingPickConfig(args.rows, args.hidden);
  if (!config || !IsDeviceType(args.dtype)) return cudaErrorInvalidValue;
  if (args.rows == 0) return cudaSuccess;
  return Launch(context, dim3(config->blocks_x), dim3(config->threads), 0, EmbeddingKernel, args,
                args.hidden / 8);
}

}  // namespace fathom::kernels::cuda
