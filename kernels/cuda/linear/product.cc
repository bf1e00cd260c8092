#include "kernels/cuda/linear/product.h"

#include <algorithm>

#include "kernels/cuda/linear/cublas_lt.h"
#include "kernels/cuda/linear/cublas_table.h"

namespace fathom::kernels::cuda {

cudaError_t Product(const LaunchContext& context, CublasLt* cublas, const ProductArgs& args) {
  if (cublas == nullptr) return ProductGeneric(context, args);
  const CublasShape shape = {context.sm, cublas->Version(), args.dtype,          args.n,
                             args.k,     args.float_out,    args.bias != nullptr};
  const size_t in_bytes = SizeOf(args.dtype), out_bytes = args.float_out ? 4 : in_bytes;
  // If the table has an algorithm for fewer rows only, the GEMM is computed in parts.
  ProductArgs part = args;
  while (part.rows > 0) {
    const int left = part.rows;
    const CublasChoice choice = ChooseCublas(CublasTable(), shape, left);
    if (choice.algo == nullptr) return ProductGeneric(context, part);
    part.rows = choice.rows;
    cudaError_t error = cublas->Matmul(context, part, *choice.algo);
    // cuBLASLt refused the arguments (an alignment, for example) and launched nothing.
    // ProductGeneric gives the same bits.
    if (error == cudaErrorInvalidValue) error = ProductGeneric(context, part);
    if (error != cudaSuccess) return error;
    part.x = static_cast<const char*>(part.x) + static_cast<size_t>(part.rows) * args.k * in_bytes;
    part.y = static_cast<char*>(part.y) + static_cast<size_t>(part.rows) * args.n * out_bytes;
    part.rows = left - choice.rows;
  }
  return cudaSuccess;
}

}  // namespace fathom::kernels::cuda
