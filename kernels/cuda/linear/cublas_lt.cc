#include "kernels/cuda/linear/cublas_lt.h"

#include <cublasLt.h>
#include <dlfcn.h>

#include <algorithm>
#include <cstring>

namespace fathom::kernels::cuda {
namespace {

constexpr const char* kLibraries[] = {"libcublasLt.so.13", "libcublasLt.so"};
static_assert(sizeof(cublasLtMatmulAlgo_t) == sizeof(CublasAlgo));

cudaDataType_t CudaType(DType dtype) {
  return dtype == DType::kBf16 ? CUDA_R_16BF : dtype == DType::kF16 ? CUDA_R_16F : CUDA_R_32F;
}

}  // namespace

// Only types of cublasLt.h are used; every function comes from the library that was opened.
struct CublasLt::Functions {
  decltype(&cublasLtCreate) create;
  decltype(&cublasLtDestroy) destroy;
  decltype(&cublasLtGetVersion) get_version;
  decltype(&cublasLtMatmul) matmul;
  decltype(&cublasLtMatmulAlgoGetHeuristic) heuristic;
  decltype(&cublasLtMatmulAlgoConfigGetAttribute) algo_attribute;
  decltype(&cublasLtMatmulDescCreate) desc_create;
  decltype(&cublasLtMatmulDescDestroy) desc_destroy;
  decltype(&cublasLtMatmulDescSetAttribute) desc_set;
  decltype(&cublasLtMatrixLayoutCreate) layout_create;
  decltype(&cublasLtMatrixLayoutDestroy) layout_destroy;
  decltype(&cublasLtMatmulPreferenceCreate) preference_create;
  decltype(&cublasLtMatmulPreferenceDestroy) preference_destroy;
  decltype(&cublasLtMatmulPreferenceSetAttribute) preference_set;

  // Returns false, with the name of the missing function in `error`, if the library is incomplete.
  bool Load(void* library, std::string* error) {
    bool ok = true;
    const auto load = [&](auto* function, const char* name) {
      *function = reinterpret_cast<std::remove_pointer_t<decltype(function)>>(dlsym(library, name));
      if (*function != nullptr || !ok) return;
      ok = false;
      *error = std::string("cuBLASLt has no function ") + name;
    };
    load(&create, "cublasLtCreate");
    load(&destroy, "cublasLtDestroy");
    load(&get_version, "cublasLtGetVersion");
    load(&matmul, "cublasLtMatmul");
    load(&heuristic, "cublasLtMatmulAlgoGetHeuristic");
    load(&algo_attribute, "cublasLtMatmulAlgoConfigGetAttribute");
    load(&desc_create, "cublasLtMatmulDescCreate");
    load(&desc_destroy, "cublasLtMatmulDescDestroy");
    load(&desc_set, "cublasLtMatmulDescSetAttribute");
    load(&layout_create, "cublasLtMatrixLayoutCreate");
    load(&layout_destroy, "cublasLtMatrixLayoutDestroy");
    load(&preference_create, "cublasLtMatmulPreferenceCreate");
    load(&preference_destroy, "cublasLtMatmulPreferenceDestroy");
    load(&preference_set, "cublasLtMatmulPreferenceSetAttribute");
    return ok;
  }
};

// y^T [n x rows] = W x^T in cuBLAS' column-major order. A row-major matrix is the transposed one
// there, so W is the library's A (transposed) and x its B.
struct CublasLt::Problem {
  Problem(const Functions& with, const ProductArgs& args) : f(with) {
    const cudaDataType_t in = CudaType(args.dtype), out = args.float_out ? CUDA_R_32F : in;
    const auto rows = static_cast<uint64_t>(args.rows), n = static_cast<uint64_t>(args.n);
    const auto k = static_cast<uint64_t>(args.k);
    const cublasOperation_t transposed = CUBLAS_OP_T;
    ok = f.desc_create(&desc, CUBLAS_COMPUTE_32F, CUDA_R_32F) == CUBLAS_STATUS_SUCCESS &&
         Set(CUBLASLT_MATMUL_DESC_TRANSA, transposed) &&
         f.layout_create(&w, in, k, n, args.k) == CUBLAS_STATUS_SUCCESS &&
         f.layout_create(&x, in, k, rows, args.k) == CUBLAS_STATUS_SUCCESS &&
         f.layout_create(&y, out, n, rows, args.n) == CUBLAS_STATUS_SUCCESS;
    if (!ok || args.bias == nullptr) return;
    const cublasLtEpilogue_t epilogue = CUBLASLT_EPILOGUE_BIAS;
    const int32_t bias_type = CUDA_R_32F;
    const void* bias = args.bias;
    ok = Set(CUBLASLT_MATMUL_DESC_EPILOGUE, epilogue) &&
         Set(CUBLASLT_MATMUL_DESC_BIAS_DATA_TYPE, bias_type) &&
         Set(CUBLASLT_MATMUL_DESC_BIAS_POINTER, bias);
  }
  ~Problem() {
    if (y != nullptr) f.layout_destroy(y);
    if (x != nullptr) f.layout_destroy(x);
    if (w != nullptr) f.layout_destroy(w);
    if (desc != nullptr) f.desc_destroy(desc);
  }
  Problem(const Problem&) = delete;
  Problem& operator=(const Problem&) = delete;

  template <class V>
  bool Set(cublasLtMatmulDescAttributes_t attribute, const V& value) {
    return f.desc_set(desc, attribute, &value, sizeof(value)) == CUBLAS_STATUS_SUCCESS;
  }

  const Functions& f;
  cublasLtMatmulDesc_t desc = nullptr;
  cublasLtMatrixLayout_t w = nullptr, x = nullptr, y = nullptr;
  bool ok = false;
};

std::unique_ptr<CublasLt> CublasLt::Create(void* workspace, size_t workspace_bytes,
                                           std::string* error) {
  void* library = nullptr;  // Stays open: its code must outlive every handle.
  for (const char* name : kLibraries) {
    if (library == nullptr) library = dlopen(name, RTLD_NOW | RTLD_LOCAL);
  }
  if (library == nullptr) {
    const char* reason = dlerror();
    *error = std::string("cuBLASLt was not found: ") + (reason != nullptr ? reason : "");
    return nullptr;
  }
  std::unique_ptr<CublasLt> cublas(new CublasLt);
  cublas->functions_ = std::make_unique<Functions>();
  if (!cublas->functions_->Load(library, error)) return nullptr;
  cublasLtHandle_t handle = nullptr;
  const cublasStatus_t status = cublas->functions_->create(&handle);
  if (status != CUBLAS_STATUS_SUCCESS) {
    *error = "cublasLtCreate failed with status " + std::to_string(status);
    return nullptr;
  }
  cublas->handle_ = handle;
  cublas->workspace_ = workspace;
  cublas->workspace_bytes_ = workspace_bytes;
  cublas->version_ = static_cast<int>(cublas->functions_->get_version());
  return cublas;
}

CublasLt::~CublasLt() {
  if (handle_ != nullptr) functions_->destroy(static_cast<cublasLtHandle_t>(handle_));
}

cudaError_t CublasLt::Matmul(const LaunchContext& context, const ProductArgs& args,
                             const CublasAlgo& algo) {
  if (args.rows == 0) return cudaSuccess;
  const Problem problem(*functions_, args);
  if (!problem.ok) return cudaErrorInvalidValue;
  cublasLtMatmulAlgo_t opaque;
  std::memcpy(&opaque, &algo, sizeof(opaque));
  const float one = 1.0f, zero = 0.0f;
  const cublasStatus_t status =
      functions_->matmul(static_cast<cublasLtHandle_t>(handle_), problem.desc, &one, args.w,
                         problem.w, args.x, problem.x, &zero, args.y, problem.y, args.y, problem.y,
                         &opaque, workspace_, workspace_bytes_, context.stream);
  if (status == CUBLAS_STATUS_SUCCESS) return cudaSuccess;
  return status == CUBLAS_STATUS_EXECUTION_FAILED ? cudaErrorLaunchFailure : cudaErrorInvalidValue;
}

std::vector<CublasLt::Candidate> CublasLt::Candidates(const ProductArgs& args, bool any, int max) {
  const Functions& f = *functions_;
  const Problem problem(f, args);
  cublasLtMatmulPreference_t preference = nullptr;
  if (!problem.ok || f.preference_create(&preference) != CUBLAS_STATUS_SUCCESS) return {};
  const uint64_t workspace = any ? workspace_bytes_ : 0;
  bool ok = f.preference_set(preference, CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES, &workspace,
                             sizeof(workspace)) == CUBLAS_STATUS_SUCCESS;
  if (!any) {
    const uint32_t schemes = CUBLASLT_REDUCTION_SCHEME_NONE;
    ok = ok && f.preference_set(preference, CUBLASLT_MATMUL_PREF_REDUCTION_SCHEME_MASK, &schemes,
                                sizeof(schemes)) == CUBLAS_STATUS_SUCCESS;
  }
  std::vector<cublasLtMatmulHeuristicResult_t> found(static_cast<size_t>(std::max(max, 1)));
  int count = 0;
  ok = ok && f.heuristic(static_cast<cublasLtHandle_t>(handle_), problem.desc, problem.w, problem.x,
                         problem.y, problem.y, preference, max, found.data(),
                         &count) == CUBLAS_STATUS_SUCCESS;
  f.preference_destroy(preference);
  std::vector<Candidate> candidates;
  for (int i = 0; ok && i < count; ++i) {
    if (found[i].state != CUBLAS_STATUS_SUCCESS) continue;
    Candidate candidate;
    std::memcpy(&candidate.algo, &found[i].algo, sizeof(candidate.algo));
    candidate.workspace_bytes = found[i].workspaceSize;
    int32_t split = 1;
    uint32_t reduction = 0;
    size_t written = 0;
    f.algo_attribute(&found[i].algo, CUBLASLT_ALGO_CONFIG_SPLITK_NUM, &split, sizeof(split),
                     &written);
    f.algo_attribute(&found[i].algo, CUBLASLT_ALGO_CONFIG_REDUCTION_SCHEME, &reduction,
                     sizeof(reduction), &written);
    candidate.split_k = split;
    candidate.reduction = static_cast<int>(reduction);
    const bool whole = split == 1 && reduction == 0 && candidate.workspace_bytes == 0;
    if (any || whole) candidates.push_back(candidate);
  }
  return candidates;
}

}  // namespace fathom::kernels::cuda
