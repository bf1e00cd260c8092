#include "kernels/canon.h"
#include "kernels/non_finite.h"

namespace fathom::kernels {

bool HasNonFiniteRef(std::span<const float> values) {
  for (const float value : values) {
    if (!canon::IsFinite(value)) return true;
  }
  return false;
}

}  // namespace fathom::kernels
