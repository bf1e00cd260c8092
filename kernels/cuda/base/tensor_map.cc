#include "kernels/cuda/base/tensor_map.h"

#include <memory>

namespace fathom::kernels::cuda {
namespace {

using EncodeTiled = decltype(&cuTensorMapEncodeTiled);

EncodeTiled FindEncodeTiled() {
  void* function = nullptr;
  cudaDriverEntryPointQueryResult found = cudaDriverEntryPointSymbolNotFound;
  const cudaError_t error = cudaGetDriverEntryPointByVersion("cuTensorMapEncodeTiled", &function,
                                                             12000, cudaEnableDefault, &found);
  if (error != cudaSuccess || found != cudaDriverEntryPointSuccess) return nullptr;
  return reinterpret_cast<EncodeTiled>(function);
}

struct Entry {
  TensorMapSpec spec;
  CUtensorMap map;
};
// More entries than the key and value planes of the deepest model plus a step's activations.
constexpr size_t kEntries = 512;

size_t HashOf(const TensorMapSpec& spec) {
  uint64_t hash = reinterpret_cast<uint64_t>(spec.base);
  const auto mix = [&](uint64_t x) { hash = (hash ^ (hash >> 29) ^ x) * 0x9E3779B97F4A7C15u; };
  for (const uint64_t x : spec.dims) mix(x);
  for (const uint32_t x : spec.box) mix(x);
  return static_cast<size_t>(hash >> 40) % kEntries;
}

}  // namespace

cudaError_t MakeTensorMap(const TensorMapSpec& spec, CUtensorMap* map) {
  static const EncodeTiled encode = FindEncodeTiled();
  if (encode == nullptr) return cudaErrorSymbolNotFound;
  const cuuint32_t rank = spec.dims[2] == 0 ? 2 : 3;
  const CUtensorMapDataType type = spec.dtype == DType::kBf16 ? CU_TENSOR_MAP_DATA_TYPE_BFLOAT16
                                                              : CU_TENSOR_MAP_DATA_TYPE_FLOAT16;
  const cuuint64_t dims[3] = {spec.dims[0], spec.dims[1], spec.dims[2]};
  const cuuint64_t strides[2] = {spec.stride_bytes[0], spec.stride_bytes[1]};
  const cuuint32_t element_strides[3] = {1, 1, 1};
  const CUresult result =
      encode(map, type, rank, spec.base, dims, strides, spec.box.data(), element_strides,
             CU_TENSOR_MAP_INTERLEAVE_NONE, CU_TENSOR_MAP_SWIZZLE_128B,
             CU_TENSOR_MAP_L2_PROMOTION_L2_256B, CU_TENSOR_MAP_FLOAT_OOB_FILL_NONE);
  return result == CUDA_SUCCESS ? cudaSuccess : cudaErrorInvalidValue;
}

cudaError_t CachedTensorMap(const TensorMapSpec& spec, CUtensorMap* map) {
  thread_local const std::unique_ptr<Entry[]> entries(new Entry[kEntries]());
  Entry& entry = entries[HashOf(spec)];
  if (entry.spec != spec) {
    entry.spec = {};
    const cudaError_t error = MakeTensorMap(spec, &entry.map);
    if (error != cudaSuccess) return error;
    entry.spec = spec;
  }
  *map = entry.map;
  return cudaSuccess;
}

}  // namespace fathom::kernels::cuda
