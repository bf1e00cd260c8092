// kernels/cuda/rows/non_finite.h: where NaN or an infinity is. Of weights once, after loading; of
// activations when numbers are diagnosed, so that the first op that made one is named.
#pragma once

#include <cstdint>

#include "kernels/cuda/base/launch.h"

namespace fathom::kernels::cuda {

// The lowest index of a non-finite value among `count`, at the speed of reading them. Several scans
// may share `first` with a `base` each.
struct ScanNonFiniteArgs {
  DType dtype = DType::kBf16;  // kF32 too.
  const void* data = nullptr;  // 16-byte aligned.
  int64_t count = 0;
  int64_t base = 0;           // Added to the index that is reported.
  uint64_t* first = nullptr;  // Lowered to base + index; the caller sets it to kNoIndex.
};
inline constexpr uint64_t kNoIndex = ~uint64_t{0};
cudaError_t ScanNonFinite(const LaunchContext& context, const ScanNonFiniteArgs& args);

// Marks the rows that have a non-finite value.
struct CheckRowsArgs {
  DType dtype = DType::kBf16;     // kF32 too.
  const void* x = nullptr;        // [rows][width]
  int32_t code = 0;               // Which op made x: not 0.
  int32_t* faults = nullptr;      // [rows]: kFaultNonFinite; or null.
  int32_t* first_code = nullptr;  // [rows]: becomes `code` where it is 0; or null.
  int rows = 0;
  int width = 0;  // A multiple of 8.
};
cudaError_t CheckRows(const LaunchContext& context, const CheckRowsArgs& args);

}  // namespace fathom::kernels::cuda
