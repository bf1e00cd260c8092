// tests/kernels/cuda/reference.h: slow kernels that spell docs/NUMERICS.md ("The CUDA recipe") out,
// with the arguments of the ops. Their bits are what every faster kernel is compared with. They
// follow no launch rule but stream order.
#pragma once

#include "kernels/cuda/linear/product.h"
#include "kernels/cuda/rows/rmsnorm.h"
#include "kernels/cuda/rows/rope_kv_write.h"
#include "kernels/cuda/rows/silu_mul.h"

namespace fathom::kernels::cuda {

// One thread a row.
cudaError_t RefRmsNorm(cudaStream_t stream, const RmsNormArgs& args);
// One warp for 16 rows of x and 8 of w, by mma.sync m16n8k16, k ascending.
cudaError_t RefProduct(cudaStream_t stream, const ProductArgs& args);
// One thread a (row, head).
cudaError_t RefRopeKvWrite(cudaStream_t stream, const RopeKvWriteArgs& args);
// One thread an output.
cudaError_t RefSiluMul(cudaStream_t stream, const SiluMulArgs& args);

}  // namespace fathom::kernels::cuda
