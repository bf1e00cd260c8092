// kernels/cuda/rows/non_finite.h: finds NaN and infinite values: in the weights once after loading,
// and in activations when a numeric problem is diagnosed (it names the first op that made such a
// value).
#pragma once

#include <cstdint>

#include "kernels/cuda/base/launch.h"

namespace fathom::kernels::cuda {

// Finds the lowest index of a non-finite value among `count`, at the speed of reading memory.
// Several scans may share `first`, each with its own `base`.
struct ScanNonFiniteArgs {
  DType dtype = DType::kBf16;  // kF32 too.
  const void* data = nullptr;  // 16-byte aligned.
  int64_t count = 0;
  int64_t base = 0;           // Added to the index that is written to `first`.
  uint64_t* first = nullptr;  // Lowered to base + index; the caller sets it to kNoIndex before.
};
inline constexpr uint64_t kNoIndex = ~uint64_t{0};
cudaError_t ScanNonFinite(const LaunchContext& context, const ScanNonFiniteArgs& args);

// Marks the rows that have a non-finite value.
struct CheckRowsArgs {
  DType dtype = DType::kBf16;     // kF32 too.
  const void* x = nullptr;        // [rows][width]
  int32_t code = 0;               // Names the op that made x; not 0.
  int32_t* faults = nullptr;      // [rows]: kFaultNonFinite; or null.
  int32_t* first_code = nullptr;  // [rows]: becomes `code` where it is 0; or null.
  int rows = 0;
  int width = 0;  // A multiple of 8.
};
cudaError_t CheckRows(const LaunchContext& context, const CheckRowsArgs& args);

}  // namespace fathom::kernels::cuda
