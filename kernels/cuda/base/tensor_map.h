// kernels/cuda/base/tensor_map.h: makes tensor maps for TMA on the host. The driver's entry point
// is found at run time, so nothing links libcuda.
#pragma once

#include <cuda.h>
#include <cuda_runtime_api.h>

#include <array>
#include <cstdint>

#include "kernels/tensor.h"

namespace fathom::kernels::cuda {

// A row-major tensor of 2-byte elements in global memory, and the box that one TMA copies. The
// innermost dimension comes first; an unused dimension is 0. A box has the 128-byte swizzle, so
// box[0] is 64. Elements outside the tensor are read as zero and not written.
struct TensorMapSpec {
  void* base = nullptr;  // Aligned to 16 bytes.
  DType dtype = DType::kBf16;
  std::array<uint64_t, 3> dims = {};
  std::array<uint64_t, 2> stride_bytes = {};  // For dims[1] and dims[2]; multiples of 16.
  std::array<uint32_t, 3> box = {};
  bool operator==(const TensorMapSpec&) const = default;
};

cudaError_t MakeTensorMap(const TensorMapSpec& spec, CUtensorMap* map);

// The same with a cache in the calling thread: a step uses the same planes and activations as the
// step before. The key contains everything that a map depends on, so an entry is never stale. The
// cache is bounded: a new map replaces a map with the same hash.
cudaError_t CachedTensorMap(const TensorMapSpec& spec, CUtensorMap* map);

}  // namespace fathom::kernels::cuda
