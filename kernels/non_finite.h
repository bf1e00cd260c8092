// kernels/non_finite.h: says whether a row has a NaN or an infinite value, in one pass. The engine
// calls it before it samples from a row; a row with such a value is a row fault.
#pragma once

#include <span>

namespace fathom::kernels {

bool HasNonFiniteRef(std::span<const float> values);
bool HasNonFiniteCpu(std::span<const float> values);

}  // namespace fathom::kernels
