// kernels/cuda/linear/cublas_lt.h: GEMMs by cuBLASLt. The library is opened at run time, because a
// host without a GPU has none and our binaries must start there. One owner thread. The class
// allocates no device memory; the caller gives the workspace. cublas_table.h says which algorithms
// are canonical.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "kernels/cuda/base/launch.h"
#include "kernels/cuda/linear/cublas_table.h"
#include "kernels/cuda/linear/product.h"

namespace fathom::kernels::cuda {

class CublasLt {
 public:
  // `workspace` is device memory for GEMMs of one stream at a time, aligned to 256 bytes. Canonical
  // algorithms need none; algorithms that split k do. Returns null, with a reason in `error`, if
  // the library or a function of it is missing; ProductGeneric then computes every GEMM.
  static std::unique_ptr<CublasLt> Create(void* workspace, size_t workspace_bytes,
                                          std::string* error);
  ~CublasLt();
  CublasLt(const CublasLt&) = delete;
  CublasLt& operator=(const CublasLt&) = delete;

  int Version() const { return version_; }  // For example 130100.

  cudaError_t Matmul(const LaunchContext& context, const ProductArgs& args, const CublasAlgo& algo);

  struct Candidate {
    CublasAlgo algo = {};
    size_t workspace_bytes = 0;
    int split_k = 1;
    int reduction = 0;  // cublasLtReductionScheme_t; 0: none.
  };
  // The algorithms that the library proposes, best first. Without `any`, only algorithms that need
  // no workspace and neither split k nor reduce: only those can be canonical (stream-K keeps its
  // partial sums in the workspace). Their bits must still be compared.
  std::vector<Candidate> Candidates(const ProductArgs& args, bool any, int max);

 private:
  struct Functions;
  struct Problem;
  CublasLt() = default;

  std::unique_ptr<Functions> functions_;
  void* handle_ = nullptr;
  void* workspace_ = nullptr;
  size_t workspace_bytes_ = 0;
  int version_ = 0;
};

}  // namespace fathom::kernels::cuda
