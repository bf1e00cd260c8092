#include "kernels/cpu/dispatch.h"
#include "kernels/cpu/kernels.h"
#include "kernels/non_finite.h"

namespace fathom::kernels {

bool HasNonFiniteCpu(std::span<const float> values) {
  const CpuKernels* kernels = SelectedCpuKernels();
  if (kernels == nullptr) return HasNonFiniteRef(values);
  return kernels->has_non_finite(values.data(), static_cast<int64_t>(values.size()));
}

}  // namespace fathom::kernels
