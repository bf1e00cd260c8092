// kernels/cuda/linear/cublas_lt.h: products by cuBLASLt. The library is opened at run time, for a
// host without a GPU has none and our binaries are to start there. One owner thread. It allocates
// no device memory: the workspace is the caller's. Which algorithms are canonical: cublas_table.h.
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
  // Device memory of products of one stream at a time, and its size: canonical algorithms need
  // none, those that split k do. 256-byte aligned. Null with a reason in `error` where the library
  // or a function of it is missing; products then run our own kernel.
  static std::unique_ptr<CublasLt> Create(void* workspace, size_t workspace_bytes,
                                          std::string* error);
  ~CublasLt();
  CublasLt(const CublasLt&) = delete;
  CublasLt& operator=(const CublasLt&) = delete;

  int Version() const { return version_; }  // As 130100.

  cudaError_t Matmul(const LaunchContext& context, const ProductArgs& args, const CublasAlgo& algo);

  struct Candidate {
    CublasAlgo algo = {};
    size_t workspace_bytes = 0;
    int split_k = 1;
    int reduction = 0;  // cublasLtReductionScheme_t: 0 none.
  };
  // What the library would take, best first. Without `any`, only algorithms that need no workspace
  // and neither split k nor reduce: those can be canonical (stream-K keeps its partial sums in the
  // workspace). Their bits still have to be compared.
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
