// tests/kernels/cuda/reference.h: slow kernels that follow docs/NUMERICS.md ("The CUDA recipe")
// literally, with the arguments of the ops. The tests compare the bits of every faster kernel with
// theirs. They follow no launch rule except the order of the stream.
#pragma once

#include "kernels/cuda/linear/product.h"
#include "kernels/cuda/rows/rmsnorm.h"
#include "kernels/cuda/rows/rope_kv_write.h"
#include "kernels/cuda/rows/silu_mul.h"

namespace fathom::kernels::cuda {

// One thread for each row.
cudaError_t RefRmsNorm(cudaStream_t stream, const RmsNormArgs& args);
// One warp for 16 rows of x and 8 of w, by mma.sync m16n8k16, k ascending.
cudaError_t RefProduct(cudaStream_t stream, const ProductArgs& args);
// One thread for each (row, head).
cudaError_t RefRopeKvWrite(cudaStream_t stream, const RopeKvWriteArgs& args);
// One thread for each output.
cudaError_t RefSiluMul(cudaStream_t stream, const SiluMulArgs& args);

}  // namespace fathom::kernels::cuda
