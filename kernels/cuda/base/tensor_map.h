// kernels/cuda/base/tensor_map.h: tensor maps for TMA, made on the host. The driver's entry point
// is found at run time: nothing links libcuda.
#pragma once

#include <cuda.h>
#include <cuda_runtime_api.h>

#include <array>
#include <cstdint>

#include "kernels/tensor.h"

namespace fathom::kernels::cuda {

// A row-major tensor of 2-byte elements in global memory, and the box that one TMA moves. Innermost
// dimension first; unused dimensions are 0. A box has the 128-byte swizzle (so box[0] is 64), and
// what lies outside the tensor is read as zero and not written.
struct TensorMapSpec {
  void* base = nullptr;  // Aligned to 16 bytes.
  DType dtype = DType::kBf16;
  std::array<uint64_t, 3> dims = {};
  std::array<uint64_t, 2> stride_bytes = {};  // Of dims[1], dims[2]; multiples of 16.
  std::array<uint32_t, 3> box = {};
  bool operator==(const TensorMapSpec&) const = default;
};

cudaError_t MakeTensorMap(const TensorMapSpec& spec, CUtensorMap* map);

// The same out of a cache of the calling thread: the planes and activations of a step are those of
// the step before. The key is all that a map contains, so an entry is never stale. The cache is
// bounded: a new map takes the place of one with the same hash.
cudaError_t CachedTensorMap(const TensorMapSpec& spec, CUtensorMap* map);

}  // namespace fathom::kernels::cuda
